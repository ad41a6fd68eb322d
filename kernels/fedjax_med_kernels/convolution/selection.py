"""Which implementation runs: a table of rules per device, read from `selection.json`.

The first rule whose platform, device kind and conditions all hold decides. Conditions are

| condition | holds if |
| --- | --- |
| `depthwise` | every feature group has a single input channel, and there are several groups |
| `pointwise` | the kernel has a single tap |
| `three_taps` | `Winograd()` can compute it: kernels of three taps, stride 1, no dilation |
| `min_dims` | at least that many spatial dimensions |
| `min_channels` | at least that many input channels, and that many outputs, per group |
| `min_itemsize` | at least that many bytes per element |
| `max_clients` | at most that many clients have weights of their own, after all `vmap`s |
| `min_patch_bytes` | the patches of all clients together have at least that size |
| `min_inputs` | at least that many channels of the lhs per group |

and a rule says what it was `measured` on, or null if nobody has: then it is a reasoned choice.
Bounds are rounded, and lie between measured cases or beyond them.
"""

import functools
import json
from collections.abc import Callable
from importlib import resources
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array

from fedjax_med_kernels.convolution.library import Library
from fedjax_med_kernels.convolution.pallas_gpu import PallasGpu
from fedjax_med_kernels.convolution.patches import Patches
from fedjax_med_kernels.convolution.shifted import Shifted
from fedjax_med_kernels.convolution.window import Problem, Window
from fedjax_med_kernels.convolution.winograd import Winograd, supports


@runtime_checkable
class Implementation(Protocol):
    """What every implementation is: a hashable object that computes three functions.

    Arguments and results have the layout of `window.py`; `dtype` is that of the result.
    """

    @property
    def name(self) -> str:
        """As in `selection.json`, in results of benchmarks and in traces of a profiler."""
        ...

    def forward(
        self, x: Array, w: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The convolution of lhs and rhs."""
        ...

    def input_gradient(
        self, g: Array, w: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The gradient by the lhs, from the cotangent `g` and the rhs."""
        ...

    def weight_gradient(
        self, x: Array, g: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The gradient by the rhs, from the lhs and the cotangent `g`."""
        ...


class Choice(NamedTuple):
    """An implementation and why it was chosen.

    Attributes:
      implementation: with its options.
      reason: one sentence.
      measured: device and versions of the measurement behind it, or None.
    """

    implementation: Implementation
    reason: str
    measured: dict[str, Any] | None

    @property
    def name(self) -> str:
        """Of the implementation."""
        return self.implementation.name


_IMPLEMENTATIONS = {
    "patches": Patches(),
    "patches, kept": Patches(keep=True),
    "shifted": Shifted(),
    "winograd": Winograd(),
    "pallas_gpu": PallasGpu(),
    "library": Library(),
}

_CONDITIONS: dict[str, Callable[[Problem, Any], bool]] = {
    "depthwise": lambda problem, value: problem.depthwise == value,
    "pointwise": lambda problem, value: problem.pointwise == value,
    "three_taps": lambda problem, value: supports(problem.window) == value,
    "min_dims": lambda problem, value: len(problem.window.strides) >= value,
    "min_channels": lambda problem, value: min(problem.inputs, problem.outputs) >= value,
    "min_itemsize": lambda problem, value: problem.dtype.itemsize >= value,
    "max_clients": lambda problem, value: problem.clients <= value,
    "min_patch_bytes": lambda problem, value: problem.patch_bytes >= value,
    "min_inputs": lambda problem, value: problem.inputs >= value,
}


def choose(problem: Problem, platform: str, device_kind: str | None = None) -> Choice:
    """The implementation that runs where none is named.

    Args:
      problem: shapes of the convolution, with all clients that are mapped over it; see
        `convolution_problem`.
      platform: "cpu", "cuda", "rocm" or "tpu".
      device_kind: as in `jax.Device.device_kind`; None matches rules for any device only.

    Raises:
      ValueError: if no rule is for `platform`.
    """
    for rule in _rules():
        of_device = rule["platform"] == platform and rule["device_kind"] in (None, device_kind)
        conditions = rule["when"].items()
        if of_device and all(_CONDITIONS[name](problem, value) for name, value in conditions):
            return Choice(_IMPLEMENTATIONS[rule["use"]], rule["reason"], rule["measured"])
    known = sorted({rule["platform"] for rule in _rules()})
    raise ValueError(f"platform must be one of {known}, got {platform!r}.")


def device_kind(platform: str) -> str | None:
    """The kind of this process's devices of a platform; None if it has none, as in a cross-lowering."""
    try:
        return jax.local_devices(backend=platform)[0].device_kind
    except RuntimeError:
        return None


@functools.cache
def _rules() -> list[dict[str, Any]]:
    text = (
        resources.files("fedjax_med_kernels.convolution")
        .joinpath("selection.json")
        .read_text("utf-8")
    )
    return json.loads(text)["rules"]
