"""Pooling one axis at a time, by comparing or adding shifted copies.

A window is a product of intervals, so its maximum is the maximum down the column of the maxima of
its rows. From the last axis to the first, the first largest element of a window is found row by
row, as the library does. Two 3 x 3 windows need 4 comparisons instead of 8.

Gradients are what this is for. The library's is a scatter, which under `vmap` or inside `scan`
takes a CPU 10 to 30 times longer. Here the place of the largest element is remembered, and the
tangent picks from the operand cut into blocks of one stride: its transpose writes selected
cotangents side by side. The transpose of a strided slice would interleave them with zeros and add,
which for overlapping windows is slower than the scatter.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fedjax_med_kernels.pooling.geometry import Axis, fill_value

LONGEST_UNROLLED = 8  # elements of a tile that are compared one by one; longer ones are reduced
LONGEST_OVERLAPPING = 64  # elements along one axis; all are unrolled, and the program grows


def unsupported(dtype, axes: tuple[Axis, ...]) -> str | None:
    """Why windows cannot be pooled one axis at a time, None if they can."""
    if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        return f"it takes real numbers, not {jnp.dtype(dtype).name}"
    if any(axis.outputs == 0 for axis in axes):
        return "the result is empty"
    if any(axis.window > LONGEST_OVERLAPPING and not axis.is_tiling for axis in axes):
        return f"windows that overlap have more than {LONGEST_OVERLAPPING} elements along an axis"
    return None


def pool_extremum(x: jax.Array, axes: tuple[Axis, ...], largest: bool) -> jax.Array:
    """The largest (or smallest) elements of the windows; fill elements are infinite."""
    for dimension, axis in reversed(list(enumerate(axes))):
        if not axis.is_identity:
            if jnp.issubdtype(x.dtype, jnp.floating):
                x, _ = _extremum_and_place(x, dimension, axis, largest)
            else:
                x = _extremum_of_integers(x, dimension, axis, largest)
    return x


def pool_sum(x: jax.Array, axes: tuple[Axis, ...]) -> jax.Array:
    """The sums of the windows; fill elements are 0, and 16-bit floats are added in float32."""
    dtype = x.dtype
    if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4:
        x = x.astype(jnp.float32)
    for dimension, axis in reversed(list(enumerate(axes))):
        if not axis.is_identity:
            x = _sum(x, dimension, axis)
    return x.astype(dtype)


def _sum(x: jax.Array, dimension: int, axis: Axis) -> jax.Array:
    blocks, stride = _blocks(x, dimension, axis, 0)
    if axis.is_tiling:
        return blocks.sum(axis=dimension + 1, dtype=x.dtype)
    parts = (_part(blocks, dimension, axis, stride, j) for j in range(axis.window))
    return functools.reduce(jnp.add, parts)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _extremum_and_place(
    x: jax.Array, dimension: int, axis: Axis, largest: bool
) -> tuple[jax.Array, jax.Array]:
    """The first largest elements and which of their windows they are; NaN is larger than all."""
    identity = fill_value(x.dtype, largest)
    if _is_long_tile(axis):
        blocks, _ = _blocks(x, dimension, axis, identity)
        best = (jnp.max if largest else jnp.min)(blocks, axis=dimension + 1)
        here = (blocks == jnp.expand_dims(best, dimension + 1)) | jnp.isnan(blocks)
        element = lax.broadcasted_iota(jnp.int32, blocks.shape, dimension + 1)
        return best, jnp.where(here, element, axis.window).min(axis=dimension + 1)
    best, *others = _strided(x, dimension, axis, identity)
    # One byte per window, which is all that the backward pass reads.
    place = jnp.zeros(best.shape, jnp.int8 if axis.window < 128 else jnp.int32)
    for j, other in enumerate(others, start=1):
        keep = ((best >= other) if largest else (best <= other)) | jnp.isnan(best)
        best = jnp.where(keep, best, other)
        place = jnp.where(keep, place, place.dtype.type(j))
    return best, place


@_extremum_and_place.defjvp
def _extremum_and_place_jvp(dimension, axis, largest, primals, tangents):
    (x,), (tangent,) = primals, tangents
    # The function itself gives the values, so that a second derivative finds this rule again.
    best, place = _extremum_and_place(x, dimension, axis, largest)
    blocks, stride = _blocks(tangent, dimension, axis, 0)
    if _is_long_tile(axis):
        element = lax.broadcasted_iota(place.dtype, blocks.shape, dimension + 1)
        here = jnp.expand_dims(place, dimension + 1) == element
        picked = jnp.where(here, blocks, 0).sum(axis=dimension + 1, dtype=blocks.dtype)
    else:
        parts = (_part(blocks, dimension, axis, stride, j) for j in range(axis.window))
        picked = functools.reduce(
            jnp.add, (jnp.where(place == j, part, 0) for j, part in enumerate(parts))
        )
    return (best, place), (picked, np.zeros(place.shape, jax.dtypes.float0))


def _extremum_of_integers(x: jax.Array, dimension: int, axis: Axis, largest: bool) -> jax.Array:
    identity = fill_value(x.dtype, largest)
    if _is_long_tile(axis):
        blocks, _ = _blocks(x, dimension, axis, identity)
        return (jnp.max if largest else jnp.min)(blocks, axis=dimension + 1)
    return functools.reduce(lax.max if largest else lax.min, _strided(x, dimension, axis, identity))


def _is_long_tile(axis: Axis) -> bool:
    return axis.is_tiling and axis.window > LONGEST_UNROLLED


def _pad(x: jax.Array, dimension: int, axis: Axis, high: int, fill) -> jax.Array:
    config = [(0, 0, 0)] * x.ndim
    config[dimension] = (axis.low, high, axis.gap - 1)
    return lax.pad(x, jnp.array(fill, x.dtype), config)


def _strided(x: jax.Array, dimension: int, axis: Axis, fill) -> list[jax.Array]:
    """For every element of a window, its values in all windows."""
    padded = _pad(x, dimension, axis, axis.high, fill)
    last = (axis.outputs - 1) * axis.stride
    starts = (j * axis.spacing for j in range(axis.window))
    return [
        lax.slice_in_dim(padded, start, start + last + 1, axis.stride, dimension)
        for start in starts
    ]


def _blocks(x: jax.Array, dimension: int, axis: Axis, fill) -> tuple[jax.Array, int]:
    """Splits an axis into `[blocks, stride]`, filled up or cut off to end with the last window."""
    stride = axis.window if axis.is_tiling else axis.stride
    furthest = (axis.window - 1) * axis.spacing // stride
    blocks = axis.outputs + furthest
    padded = _pad(x, dimension, axis, blocks * stride - axis.low - axis.dilated, fill)
    shape = (*x.shape[:dimension], blocks, stride, *x.shape[dimension + 1 :])
    return padded.reshape(shape), stride


def _part(blocks: jax.Array, dimension: int, axis: Axis, stride: int, element: int) -> jax.Array:
    """As one entry of `_strided`, cut from the blocks."""
    first, within = divmod(element * axis.spacing, stride)
    shifted = lax.slice_in_dim(blocks, first, first + axis.outputs, axis=dimension)
    return lax.index_in_dim(shifted, within, dimension + 1, keepdims=False)
