"""Pooling by `lax.reduce_window`."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fedjax_med_kernels.pooling.geometry import Axis, fill_value


def pool_extremum(x: jax.Array, axes: tuple[Axis, ...], largest: bool) -> jax.Array:
    """The largest (or smallest) elements of the windows; fill elements are infinite."""
    identity = fill_value(x.dtype, largest)
    return _reduce(x, identity, lax.max if largest else lax.min, axes)


def pool_sum(x: jax.Array, axes: tuple[Axis, ...]) -> jax.Array:
    """The sums of the windows; fill elements are 0."""
    return _reduce(x, np.zeros((), x.dtype), lax.add, axes)


def _reduce(x, identity, computation, axes: tuple[Axis, ...]) -> jax.Array:
    outputs = tuple(axis.outputs for axis in axes)
    if 0 in outputs:
        return jnp.zeros(outputs, x.dtype)
    return lax.reduce_window(
        x,
        identity,  # a NumPy scalar: only of a known identity does the library know the gradient
        computation,
        window_dimensions=tuple(axis.window for axis in axes),
        window_strides=tuple(axis.stride for axis in axes),
        padding=tuple((axis.low, axis.high) for axis in axes),
        base_dilation=tuple(axis.gap for axis in axes),
        window_dilation=tuple(axis.spacing for axis in axes),
    )
