"""The operations that are replaced, by what, and what is said about each of them."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn, Literal, Primitive
from jax.extend.core import primitives as p

from fedjax_med_kernels import convolution, pooling
from fedjax_med_kernels.client_batched.jaxprs import scope_of, type_of
from fedjax_med_kernels.pooling.geometry import axes_of

# A gradient by the kernel inside the function is a convolution whose kernel is a whole image. Its
# taps would be written out one by one, so such windows are left to the library.
MAX_TAPS = 512

KEEP = object()  # what a `Choice` returns to leave an operation as it was


class Operation(NamedTuple):
    """A convolution or pooling in the function, as a `Choice` sees it.

    Attributes:
      name: "convolution", "max-pooling", "min-pooling" or "sum-pooling".
      operands: shape and dtype of every operand, of one client.
      params: parameters of the equation, named as the arguments of the `jax.lax` function.
      scope: where it is, such as "ResNet/Conv_0".
    """

    name: str
    operands: tuple[Any, ...]
    params: Mapping[str, Any]
    scope: str


class Record(NamedTuple):
    """What became of one equation of the function.

    Attributes:
      operation: as `Operation.name`, or the name of the primitive.
      shapes: operands and result, such as "float32[8,9,9,3] float32[3,3,3,4] -> ...".
      implementation: what runs instead; "library" where that is also the best choice; None if the
        equation was left as it was.
      reason: why that implementation, or why not.
      scope: where it is, such as "ResNet/Conv_0".
    """

    operation: str
    shapes: str
    implementation: str | None
    reason: str
    scope: str


# Returns what to pass as `implementation=` to the kernel, None for its own choice, or `KEEP`.
Choice = Callable[[Operation], Any]


class Setting(NamedTuple):
    """Where the rewritten function will run.

    Attributes:
      choice: overrides the measured tables, see `Choice`.
      num_clients: how many clients it is going to be mapped over.
      platform: as in `jax.Device.platform`.
    """

    choice: Choice | None
    num_clients: int
    platform: str


class Plan(NamedTuple):
    """What is going to happen to an equation.

    Attributes:
      record: for the report.
      replacement: `(*operands) -> result`, or None to leave the equation as it was.
    """

    record: Record
    replacement: Callable[..., jax.Array] | None


class _Kernel(NamedTuple):
    """A kernel that computes an equation: `call(*operands, implementation=...)`."""

    name: str
    call: Callable[..., jax.Array]
    # What runs if no implementation is named: `(setting) -> (name, reason)`.
    default: Callable[[Setting], tuple[str, str]]


def plan(eqn: JaxprEqn, setting: Setting) -> Plan:
    """Decides about one equation of `TARGETS`, from shapes and parameters alone."""
    kernel = TARGETS[eqn.primitive](eqn)
    if isinstance(kernel, str):
        return left(eqn, kernel)
    operands = tuple(map(type_of, eqn.invars))
    scope, chosen = scope_of(eqn), None
    if setting.choice is not None:
        chosen = setting.choice(Operation(kernel.name, operands, eqn.params, scope))
        if chosen is KEEP:
            return left(eqn, "chosen", kernel.name)
    call = functools.partial(kernel.call, implementation=chosen)
    out = type_of(eqn.outvars[0])
    try:
        if chosen is None:
            name, reason = kernel.default(setting)
        else:
            name, reason = getattr(chosen, "name", str(chosen)), "chosen"
        got = jax.eval_shape(call, *operands)
    except (NotImplementedError, TypeError, ValueError) as error:
        return left(eqn, str(error), kernel.name)
    if (got.shape, got.dtype) != (out.shape, out.dtype):
        return left(eqn, f"{name} gives {got.dtype}{list(got.shape)}", kernel.name)
    record = Record(kernel.name, _shapes(eqn), name, reason, scope)
    # The library's pooling is what the equation is already.
    same = name == "library" and eqn.primitive is not p.conv_general_dilated_p
    return Plan(record, None if same else call)


def left(eqn: JaxprEqn, reason: str, name: str | None = None) -> Plan:
    """An equation of `TARGETS` stays as it was."""
    name = name or _NAMES[eqn.primitive]
    return Plan(Record(name, _shapes(eqn), None, reason, scope_of(eqn)), None)


def summarise(records: Iterable[Record] | Counter[Record]) -> str:
    """One line: "2 convolutions by patches, 1 max-pooling by separable; 0 left as they were"."""
    counted = Counter(records)
    done: Counter[tuple[str, str]] = Counter()
    for record, count in counted.items():
        if record.implementation is not None:
            done[record.operation, record.implementation] += count
    parts = [
        f"{count} {operation}{'s' if count > 1 else ''} by {name}"
        for (operation, name), count in done.items()
    ]
    if not counted:
        return "no convolution or pooling"
    rest = counted.total() - done.total()
    was = "it was" if rest == 1 else "they were"
    return f"{', '.join(parts) or 'nothing rewritten'}; {rest} left as {was}"


def _shapes(eqn: JaxprEqn) -> str:
    def text(variables):
        types = map(type_of, variables)
        return " ".join(f"{t.dtype}[{','.join(map(str, t.shape))}]" for t in types)

    return f"{text(eqn.invars)} -> {text(eqn.outvars)}"


def _convolution(eqn: JaxprEqn) -> _Kernel | str:
    lhs, rhs = map(type_of, eqn.invars)
    params = eqn.params
    if type_of(eqn.outvars[0]).weak_type:
        return "its result is weakly typed"
    if params["batch_group_count"] != 1:
        return f"batch_group_count is {params['batch_group_count']}"
    if not jax.numpy.issubdtype(lhs.dtype, np.floating):
        return f"operands are {lhs.dtype}"
    numbers = params["dimension_numbers"]
    taps = math.prod(rhs.shape[axis] for axis in numbers.rhs_spec[2:])
    if taps > MAX_TAPS:
        return f"{taps} taps are more than {MAX_TAPS}"
    geometry = {
        name: params[name]
        for name in (
            "window_strides",
            "padding",
            "lhs_dilation",
            "rhs_dilation",
            "dimension_numbers",
            "feature_group_count",
        )
    }

    def default(setting: Setting) -> tuple[str, str]:
        problem = convolution.convolution_problem(lhs, rhs, **geometry, clients=setting.num_clients)
        chosen = convolution.choose(problem, *_device(setting.platform))
        return chosen.name, chosen.reason

    call = functools.partial(
        convolution.conv_general_dilated,
        **geometry,
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )
    return _Kernel("convolution", call, default)


def _device(platform: str) -> tuple[str, str | None]:
    """The platform as programs are compiled for it, and the kind of its devices, None if none."""
    try:
        device = jax.local_devices(backend=platform)[0]
    except RuntimeError:
        return platform, None
    if device.platform == "gpu":
        version = device.client.platform_version.lower()
        return "rocm" if "rocm" in version else "cuda", device.device_kind
    return device.platform, device.device_kind


_POOLS = {"max": pooling.max_pool, "min": pooling.min_pool, "sum": pooling.sum_pool}


def _pooling(reduction: str, eqn: JaxprEqn) -> _Kernel | str:
    x = type_of(eqn.invars[0])
    if type_of(eqn.outvars[0]).weak_type:
        return "its result is weakly typed"
    geometry = {
        name: eqn.params[name]
        for name in (
            "window_dimensions",
            "window_strides",
            "padding",
            "base_dilation",
            "window_dilation",
        )
    }

    def default(setting: Setting) -> tuple[str, str]:
        del setting
        kind = "sum" if reduction == "sum" else "extremum"
        return pooling.choose(kind, x.dtype, axes_of(x.shape, *geometry.values()))

    call = functools.partial(_POOLS[reduction], **geometry)
    return _Kernel(f"{reduction}-pooling", call, default)


def _generic_pooling(eqn: JaxprEqn) -> _Kernel | str:
    """`lax.reduce_window` of a function that JAX did not recognise with its initial value."""
    body, operands = eqn.params["jaxpr"], eqn.invars
    if len(operands) != 2 or len(body.eqns) != 1 or eqn.params["consts"]:
        return "its reduction is not a maximum, a minimum or a sum"
    inner = body.eqns[0]
    reductions = {p.max_p: "max", p.min_p: "min", p.add_p: "sum"}
    plain = set(map(id, inner.invars)) == set(map(id, body.invars))
    if inner.primitive not in reductions or not plain or body.outvars != inner.outvars:
        return "its reduction is not a maximum, a minimum or a sum"
    reduction, initial = reductions[inner.primitive], operands[1]
    kernel = _pooling(reduction, eqn)
    if isinstance(kernel, str):
        return kernel
    if reduction == "sum":
        # Any other initial value is added once for every element of the padding, too.
        if not (isinstance(initial, Literal) and initial.val == 0):
            return "its initial value is not known to be 0"
        return kernel._replace(call=lambda x, start, **options: kernel.call(x, **options))
    bound = lax.max if reduction == "max" else lax.min

    def call(x: jax.Array, start: jax.Array, **options: Any) -> jax.Array:
        y = kernel.call(x, **options)
        return bound(y, lax.broadcast(start, y.shape))

    return kernel._replace(call=call)


# What equations of a primitive are replaced by, or why one is not.
TARGETS: dict[Primitive, Callable[[JaxprEqn], _Kernel | str]] = {
    p.conv_general_dilated_p: _convolution,
    p.reduce_window_max_p: functools.partial(_pooling, "max"),
    p.reduce_window_min_p: functools.partial(_pooling, "min"),
    p.reduce_window_sum_p: functools.partial(_pooling, "sum"),
    p.reduce_window_p: _generic_pooling,
}
_NAMES = {
    p.conv_general_dilated_p: "convolution",
    p.reduce_window_max_p: "max-pooling",
    p.reduce_window_min_p: "min-pooling",
    p.reduce_window_sum_p: "sum-pooling",
    p.reduce_window_p: "pooling",
}
