"""The pooling functions: arguments of `lax.reduce_window`, and which implementation runs."""

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from fedjax_med_kernels.pooling import library, separable
from fedjax_med_kernels.pooling.geometry import Axis, axes_of

Padding = str | Sequence[Sequence[int]]
IMPLEMENTATIONS = {"library": library, "separable": separable}


def choose(reduction: Literal["extremum", "sum"], dtype, axes: tuple[Axis, ...]) -> tuple[str, str]:
    """Which implementation runs by default, and why.

    Times of one step with the gradient inside `scan`, four clients vmapped, library / separable,
    on two CPU cores (ratios of medians in one process; GPUs have not been measured):

    | case                                          | extremum | sum |
    | --------------------------------------------- | -------- | --- |
    | 2 x 2 of `[10, 28, 28, 64]`                   | 15       | 1.7 |
    | the same, channels first                      | 5        | 2   |
    | 3 x 3, stride 2, SAME, of `[10, 32, 32, 64]`  | 6 to 13  | 0.8 |
    | 3 x 3, stride 1, SAME, of `[4, 16, 16, 64]`   | 16       | 2.7 |
    | 2 x 2 x 2 of `[1, 16, 16, 16, 32]`            | 9        | 2.3 |
    | 2 of `[16, 1000, 32]`                         | 10       | 0.6 |
    | 3, stride 2, SAME, of `[16, 1000, 32]`        | 8        | 0.4 |

    Args:
      reduction: "extremum" for the maximum and the minimum.
      dtype: of the operand.
      axes: the windows, see `geometry.axes_of`.

    Returns:
      `(name, reason)`.
    """
    reason = separable.unsupported(dtype, axes)
    if reason is not None:
        return "library", reason
    if reduction == "extremum":
        return "separable", "its gradient is a select, the library's a scatter"
    if all(axis.is_tiling or axis.stride == 1 for axis in axes):
        return "separable", "its gradient is a broadcast, or copies that lie side by side"
    return "library", "windows overlap at a stride, and a sum's gradient is no scatter"


def max_pool(
    operand: Shaped[Array, "..."],
    window_dimensions: Sequence[int],
    window_strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
    base_dilation: Sequence[int] | None = None,
    window_dilation: Sequence[int] | None = None,
    *,
    implementation: str | None = None,
) -> Shaped[Array, "..."]:
    """Largest element of each window; the arguments are those of `lax.reduce_window`.

        y[i] = max_{0 <= j < window} x[i * stride + j * window_dilation - before]

    for multi-indices `i` and `j`; what lies outside of `x` or between its dilated elements is
    minus infinity (of integers the smallest). A NaN in a window gives NaN. The gradient goes to
    the first largest element in row-major order, as in the library; derivatives of every order
    exist, forwards and in reverse.

    Args:
      operand: `x`, of any rank and in any order of dimensions.
      window_dimensions: window along every dimension, 1 for those that are not pooled.
      window_strides: distances of windows, 1 by default.
      padding: "VALID", "SAME", "SAME_LOWER" or `(before, after)` for every dimension; negative
        numbers cut off.
      base_dilation: distances the elements of `x` are pulled to, 1 by default.
      window_dilation: distances of the elements of a window, 1 by default.
      implementation: "separable" (one axis after the other, by comparisons), "library"
        (`lax.reduce_window`), or None for what `choose` says.

    Returns:
      The results, dtype as the operand's; empty where a window is larger than the padded operand.

    Raises:
      ValueError: if an argument does not fit the operand's rank or an entry is too small.
      NotImplementedError: if the implementation is unknown or cannot do it.
    """
    axes = axes_of(
        operand.shape, window_dimensions, window_strides, padding, base_dilation, window_dilation
    )
    module = _implementation("extremum", operand, axes, implementation)
    return module.pool_extremum(operand, axes, largest=True)


def min_pool(
    operand: Shaped[Array, "..."],
    window_dimensions: Sequence[int],
    window_strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
    base_dilation: Sequence[int] | None = None,
    window_dilation: Sequence[int] | None = None,
    *,
    implementation: str | None = None,
) -> Shaped[Array, "..."]:
    """Smallest element of each window; see `max_pool`, with plus infinity outside."""
    axes = axes_of(
        operand.shape, window_dimensions, window_strides, padding, base_dilation, window_dilation
    )
    module = _implementation("extremum", operand, axes, implementation)
    return module.pool_extremum(operand, axes, largest=False)


def sum_pool(
    operand: Shaped[Array, "..."],
    window_dimensions: Sequence[int],
    window_strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
    base_dilation: Sequence[int] | None = None,
    window_dilation: Sequence[int] | None = None,
    *,
    implementation: str | None = None,
) -> Shaped[Array, "..."]:
    """Sum of each window; see `max_pool`, with 0 outside.

    "separable" adds 16-bit floats in float32 and rounds once; the library rounds every sum.
    """
    axes = axes_of(
        operand.shape, window_dimensions, window_strides, padding, base_dilation, window_dilation
    )
    module = _implementation("sum", operand, axes, implementation)
    return module.pool_sum(operand, axes)


def avg_pool(
    operand: Shaped[Array, "..."],
    window_dimensions: Sequence[int],
    window_strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
    base_dilation: Sequence[int] | None = None,
    window_dilation: Sequence[int] | None = None,
    *,
    count_include_pad: bool = True,
    implementation: str | None = None,
) -> Float[Array, "..."]:
    """Mean of each window, as `flax.linen.avg_pool` over all dimensions; see `max_pool`.

    Args:
      operand: see `max_pool`.
      window_dimensions: see `max_pool`.
      window_strides: see `max_pool`.
      padding: see `max_pool`.
      base_dilation: see `max_pool`.
      window_dilation: see `max_pool`.
      count_include_pad: whether zeros of the padding (and of dilation) count; if not, a window
        with no element of the operand is NaN.
      implementation: see `max_pool`.

    Returns:
      The means, rounded once; of integers in the default float dtype, else in the operand's.

    Raises:
      ValueError: see `max_pool`.
      NotImplementedError: see `max_pool`.
    """
    axes = axes_of(
        operand.shape, window_dimensions, window_strides, padding, base_dilation, window_dilation
    )
    is_inexact = jnp.issubdtype(operand.dtype, jnp.inexact)
    dtype = operand.dtype if is_inexact else jnp.result_type(float)
    # Counts above 256 are no bfloat16, and the sum would be rounded before it is divided.
    operand = operand.astype(jnp.promote_types(dtype, jnp.float32))
    total = _implementation("sum", operand, axes, implementation).pool_sum(operand, axes)
    if count_include_pad:
        return (total / np.prod([axis.window for axis in axes])).astype(dtype)
    for dimension, axis in enumerate(axes):
        counts = axis.counts().astype(total.dtype)
        shape = [1] * len(axes)
        shape[dimension] = axis.outputs
        total = total / counts.reshape(shape)
    return total.astype(dtype)


def _implementation(reduction, operand, axes: tuple[Axis, ...], name: str | None):
    if name is None:
        name, _ = choose(reduction, operand.dtype, axes)
    if name not in IMPLEMENTATIONS:
        raise NotImplementedError(
            f"implementation must be one of {sorted(IMPLEMENTATIONS)} or None, got {name!r}."
        )
    if name == "separable" and (reason := separable.unsupported(operand.dtype, axes)) is not None:
        raise NotImplementedError(
            f"implementation='separable' cannot pool this: {reason}; use 'library'."
        )
    return IMPLEMENTATIONS[name]
