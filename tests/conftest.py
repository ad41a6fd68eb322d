import mmap
import os
from pathlib import Path

import jax
import jaxlib
import pytest
from hypothesis import settings

from tests.draws import THOROUGH

REPO = Path(__file__).resolve().parents[1]
DATA_VARIABLE = "FEDJAX_MED_DATA"

# Set before the first use of JAX in this process: afterwards devices are fixed.
if "JAX_NUM_CPU_DEVICES" not in os.environ and (
    "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", "")
):
    jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")

# The quick tests are mostly compilation of programs that then run for milliseconds, so they take
# XLA's plainest code, in half the time; with `make test-all` it compiles as it does for users.
PLAIN_CODE = {
    "xla_cpu_use_fusion_emitters": "false",
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": "true",
}


def known_flags():
    """Those of `PLAIN_CODE` that this jaxlib has: a flag it does not know ends the process."""
    known = set()
    for library in Path(jaxlib.__path__[0]).glob("libjax_common.*"):
        with library.open("rb") as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                known |= {name for name in PLAIN_CODE if content.find(name.encode()) >= 0}
    return known


# In the environment, for the processes that tests start; flags that are given go last and win.
if not THOROUGH and os.environ.get("JAX_PLATFORMS") == "cpu":
    flags = [f"--{name}={PLAIN_CODE[name]}" for name in sorted(known_flags())]
    given = os.environ.get("XLA_FLAGS", "").split()
    os.environ["XLA_FLAGS"] = " ".join(flags + [flag for flag in given if flag not in flags])

# Keep every compiled program, however small: the tests are mostly compilation. In the
# environment as well, for the processes that tests start.
jax.config.update(
    "jax_compilation_cache_dir",
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPO / ".cache" / "jax")),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# Derandomized, so a failure can be repeated; no deadline, since first calls compile.
settings.register_profile("fedjax_med", derandomize=True, deadline=None)
settings.load_profile("fedjax_med")


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Compiled programs of a module are of no use to the next one, and fill gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def shared_data_dir() -> Path:
    """Folder with local copies of the downloadable datasets."""
    named = os.environ.get(DATA_VARIABLE)
    folder = Path(named) if named else REPO.parent / "shared" / "data"
    if folder.is_dir():
        return folder
    message = f"no data in {folder}; set {DATA_VARIABLE} to the folder of the datasets."
    if named or os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
