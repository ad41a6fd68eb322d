"""The public convolution, with the arguments of the library's."""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Shaped

from fedjax_med_kernels.convolution.library import Library
from fedjax_med_kernels.convolution.primitives import convolution_p, input_gradient_p
from fedjax_med_kernels.convolution.selection import Implementation
from fedjax_med_kernels.convolution.window import Problem, Window, dilated, explicit_padding

DimensionNumbers = tuple[str, str, str] | lax.ConvDimensionNumbers | None


def conv_general_dilated(
    lhs: Shaped[Array, "..."],
    rhs: Shaped[Array, "..."],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: DimensionNumbers = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    *,
    implementation: Implementation | None = None,
) -> Shaped[Array, "..."]:
    """Convolution that stays fast when every client has weights of its own.

    What `jax.lax.conv_general_dilated` computes, for the same arguments; without groups, with one
    spatial dimension and channels last,

        y[n, i, o] = sum_{t, c} lhs'[n, i * stride + t * rhs_dilation, c] * rhs[t, c, o]

    where `lhs'` is the dilated and padded `lhs`. Under `jax.vmap` over clients, with an `rhs` for
    each, it becomes batched matrix products instead of a grouped convolution. It can be
    differentiated any number of times, in both modes.

    Products are added up in float32, or in float64 for float64 operands. A convolution with
    `lhs_dilation` and stride 1 (a transposed convolution) is computed as the gradient of a strided
    one, which multiplies no zeros.

    Args:
      lhs: images of any number of spatial dimensions, `[batch, channels, *size]` in the order of
        `dimension_numbers`.
      rhs: kernels, `[outputs, channels / groups, *kernel size]` in that order.
      window_strides: step of the window in each spatial dimension.
      padding: "SAME", "SAME_LOWER", "VALID", or zeros `(low, high)` around each spatial dimension;
        negative numbers cut elements off.
      lhs_dilation: distance of the elements of `lhs` between which zeros are put; None is 1.
      rhs_dilation: distance of the taps; None is 1.
      dimension_numbers: as in the library: three strings, `lax.ConvDimensionNumbers`, or None for
        channels first.
      feature_group_count: into how many groups the channels are split.
      batch_group_count: more than 1 is computed by the library only.
      precision: of the matrix products, as in the library.
      preferred_element_type: dtype of the result; None for that of the operands.
      implementation: `Patches()`, `Shifted()`, `PallasGpu()` or `Library()`; None for what
        `choose` says of the device and the number of clients the program is compiled for, and for
        the library where `batch_group_count` or a dtype that is not floating demands it.

    Returns:
      `[batch, outputs, *output size]` in the order of `dimension_numbers`.

    Raises:
      ValueError: if sizes do not fit.
      TypeError: if dtypes or `dimension_numbers` do not fit.
      NotImplementedError: if `implementation` cannot compute what is asked for.
    """
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    supported = batch_group_count == 1 and jnp.issubdtype(lhs.dtype, jnp.floating)
    if isinstance(implementation, Library) or (implementation is None and not supported):
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            numbers,
            feature_group_count,
            batch_group_count,
            precision,
            preferred_element_type,
        )
    if not supported:
        what = f"batch_group_count={batch_group_count}"
        if batch_group_count == 1:
            what = f"dtype {lhs.dtype} of lhs"
        raise NotImplementedError(f"{implementation} does not compute {what}; use Library().")
    dtype = _result_dtype(lhs, rhs, preferred_element_type)
    window = _window(lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, numbers)
    _check_channels(lhs, rhs, numbers, feature_group_count)
    lhs, rhs = _varying_alike(lhs, rhs)

    w = rhs.transpose(*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0])
    x = lhs.transpose(numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1])
    x = x.reshape(1, *x.shape[:-1], feature_group_count, w.shape[-2])
    w = w.reshape(1, *w.shape[:-1], feature_group_count, w.shape[-1] // feature_group_count)
    w = jnp.moveaxis(w, -2, -3)
    params = {
        "implementation": implementation,
        "precision": _hashable(precision),
        "dtype": dtype,
    }
    if _is_transposed(window):
        w = lax.rev(w, tuple(range(1, 1 + len(window.strides)))).swapaxes(-1, -2)
        y = input_gradient_p.bind(x, w, window=_as_gradient(window), **params)
    else:
        y = convolution_p.bind(x, w, window=window, **params)
    y = y.reshape(*y.shape[1:-2], y.shape[-2] * y.shape[-1])
    order = (0, len(numbers.out_spec) - 1, *range(1, len(numbers.out_spec) - 1))
    return y.transpose([order[i] for i in np.argsort(numbers.out_spec)])


def convolution_problem(
    lhs: Any,
    rhs: Any,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: DimensionNumbers = None,
    feature_group_count: int = 1,
    *,
    clients: int = 1,
) -> Problem:
    """What `choose` is asked about a convolution of these arguments, mapped over `clients`.

    Args:
      lhs: array or `jax.ShapeDtypeStruct` of one client.
      rhs: array or `jax.ShapeDtypeStruct` of one client.
      window_strides: as of `conv_general_dilated`, like all that follow.
      padding: see there.
      lhs_dilation: see there.
      rhs_dilation: see there.
      dimension_numbers: see there.
      feature_group_count: see there.
      clients: how many clients are mapped over, each with an `rhs` of its own.
    """
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    window = _window(lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, numbers)
    _check_channels(lhs, rhs, numbers, feature_group_count)
    inputs = rhs.shape[numbers.rhs_spec[1]]
    outputs = rhs.shape[numbers.rhs_spec[0]] // feature_group_count
    if _is_transposed(window):
        window, inputs, outputs = _as_gradient(window), outputs, inputs
    batch = lhs.shape[numbers.lhs_spec[0]]
    dtype = np.dtype(lhs.dtype)
    return Problem(clients, batch, feature_group_count, inputs, outputs, window, dtype)


def _window(
    lhs: Any,
    rhs: Any,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None,
    rhs_dilation: Sequence[int] | None,
    numbers: lax.ConvDimensionNumbers,
) -> Window:
    input_size = tuple(lhs.shape[i] for i in numbers.lhs_spec[2:])
    kernel_size = tuple(rhs.shape[i] for i in numbers.rhs_spec[2:])
    dims = len(input_size)
    strides = _positive("window_strides", window_strides, dims)
    spread = _positive("lhs_dilation", lhs_dilation, dims)
    taps = _positive("rhs_dilation", rhs_dilation, dims)
    if isinstance(padding, str) and any(d != 1 for d in spread):
        raise ValueError(
            f"padding must be explicit together with lhs_dilation={spread}, got {padding!r}."
        )
    if 0 in kernel_size:
        raise ValueError(f"rhs must have at least one tap, got kernel size {kernel_size}.")
    pads = explicit_padding(padding, input_size, kernel_size, strides, taps)
    window = Window(input_size, kernel_size, strides, pads, spread, taps)
    if 0 in window.output_size and 0 not in input_size:
        covered = tuple(dilated(k, d) for k, d in zip(kernel_size, taps, strict=True))
        raise ValueError(
            f"rhs covers {covered}, which is larger than the padded lhs {window.padded_size}; "
            "use more padding or a larger lhs."
        )
    return window


def _positive(name: str, values: Sequence[int] | None, dims: int) -> tuple[int, ...]:
    if values is None:
        return (1,) * dims
    values = tuple(operator.index(v) for v in values)
    if len(values) != dims or any(v < 1 for v in values):
        raise ValueError(
            f"{name} must be one positive integer for each of the {dims} spatial dimensions, "
            f"got {values}."
        )
    return values


def _check_channels(lhs: Any, rhs: Any, numbers: lax.ConvDimensionNumbers, groups: int) -> None:
    channels = lhs.shape[numbers.lhs_spec[1]]
    outputs, inputs = (rhs.shape[i] for i in numbers.rhs_spec[:2])
    if groups < 1 or channels % groups or outputs % groups:
        raise ValueError(
            "feature_group_count must divide the channels of lhs and the outputs of rhs, got "
            f"{groups} for {channels} channels and {outputs} outputs."
        )
    if channels // groups != inputs:
        raise ValueError(
            f"rhs must take {channels // groups} channels ({channels} of lhs in {groups} groups), "
            f"got {inputs}."
        )


def _result_dtype(lhs: Array, rhs: Array, preferred: DTypeLike | None) -> np.dtype:
    if lhs.dtype != rhs.dtype:
        raise TypeError(f"rhs must have the dtype of lhs, {lhs.dtype}, got {rhs.dtype}.")
    if preferred is None:
        return lhs.dtype
    dtype = jnp.dtype(preferred)
    if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize < lhs.dtype.itemsize:
        raise TypeError(
            "preferred_element_type must be a floating dtype no narrower than "
            f"{lhs.dtype}, got {dtype}."
        )
    return dtype


def _is_transposed(window: Window) -> bool:
    return any(d > 1 for d in window.lhs_dilation) and all(s == 1 for s in window.strides)


def _as_gradient(window: Window) -> Window:
    """The strided convolution whose gradient by the lhs is this one with its kernel reversed."""
    padding = []
    for m, n, k, d, s, (low, _) in zip(
        window.input_size,
        window.output_size,
        window.kernel_size,
        window.rhs_dilation,
        window.lhs_dilation,
        window.padding,
        strict=True,
    ):
        covered = dilated(k, d)
        before = covered - 1 - low
        # The window of the strided convolution has to end where the padded lhs does.
        padding.append((before, (m - 1) * s + covered - n - before))
    ones = (1,) * len(padding)
    return Window(
        window.output_size,
        window.kernel_size,
        window.lhs_dilation,
        tuple(padding),
        ones,
        window.rhs_dilation,
    )


def _varying_alike(lhs: Array, rhs: Array) -> tuple[Array, Array]:
    """Inside `shard_map`, lets operands vary along the same mesh axes, as the library does."""
    axes = [jax.typeof(a).manual_axis_type.varying for a in (lhs, rhs)]
    missing = [tuple(sorted((axes[0] | axes[1]) - own)) for own in axes]
    lhs, rhs = (
        lax.pcast(a, names, to="varying") if names else a
        for a, names in zip((lhs, rhs), missing, strict=True)
    )
    return lhs, rhs


def _hashable(precision: lax.PrecisionLike) -> Any:
    if precision is None:  # a default set by a context manager must not be lost until lowering
        return jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    return tuple(precision) if isinstance(precision, list) else precision
