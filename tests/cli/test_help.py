import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import fedjax_med
from fedjax_med.cli.options import ProfileOptions, RunOptions

REPO = Path(__file__).resolve().parents[2]

HEAVY = ("jax", "optax", "flax", "matplotlib", "sklearn", "orbax", "tensorboardX")


def test_help_and_lists_import_nothing_heavy():
    script = f"""
import sys
from fedjax_med.cli import main
for tokens in (["--help"], ["run", "--help"], ["profile", "--help"], ["data", "--help"], ["data", "list"], ["--version"]):
    assert main(tokens) == 0, tokens
print("heavy:", [name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=REPO, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_help_names_every_command_and_group(command):
    status, out, _ = command("--help")
    assert status == 0
    assert "run" in out and "data" in out
    status, out, _ = command("run", "--help")
    assert status == 0
    for title in ("Federated training", "Training inside a hospital", "Where it runs"):
        assert title in out


@pytest.mark.parametrize("options", [RunOptions, ProfileOptions])
def test_every_option_says_what_it_does_and_its_default(options):
    hints = get_type_hints(options, include_extras=True)
    for field in dataclasses.fields(options):
        parameter = hints[field.name].__metadata__[0]
        assert parameter.help.endswith("."), field.name
        switched_off = field.default is False
        has_default = "Default:" in parameter.help or "Instead of" in parameter.help
        assert switched_off or has_default, field.name


def test_version(command):
    assert command("--version") == (0, f"fedjax-med {fedjax_med.__version__}\n", "")


def test_data_list_names_size_access_and_licence(command):
    status, out, _ = command("data", "list")
    assert status == 0
    for words in ("breast-cancer", "569 examples", "heart-disease", "CC BY 4.0", "synthetic"):
        assert words in " ".join(out.split())


def test_data_check_tells_sizes_and_labels(command):
    status, out, _ = command("data", "check", "breast-cancer")
    assert status == 0
    assert "Hospital E" in out and "malignant" in out
    assert "is sound: 5 clients, 569 examples" in out
