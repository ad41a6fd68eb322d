"""Convolution as a sum over the taps of the kernel: shifted copies of the lhs times one tap each.

No patches are built: what is alive at a time is one shifted copy, or nothing where the channels
of a group are single (depthwise) and the whole sum is one elementwise loop.
"""

import dataclasses
import functools

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array

from fedjax_med_kernels.convolution import phases, products
from fedjax_med_kernels.convolution.window import Window, padded, tap_slice


@dataclasses.dataclass(frozen=True)
class Shifted:
    """A sum over the taps; for depthwise convolutions, and where patches are too large."""

    name = "shifted"

    def forward(
        self, x: Array, w: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The convolution; arguments and result in the common layout (`window.py`)."""
        x = padded(x, window)
        total = None
        for tap in window.taps:
            term = _tap_product(tap_slice(x, window, tap), w[(slice(None), *tap)], precision)
            total = term if total is None else total + term
        assert total is not None  # a kernel has taps
        return total.astype(dtype)

    def input_gradient(
        self, g: Array, w: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The gradient by the lhs, from the cotangent `g` and the rhs."""
        sums = functools.partial(
            self.forward, precision=precision, dtype=products.accumulation_dtype(g, w)
        )
        return phases.input_gradient(sums, g, w, window).astype(dtype)

    def weight_gradient(
        self, x: Array, g: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The gradient by the rhs, from the lhs and the cotangent `g`."""
        x = padded(x, window)
        by_tap = [
            _tap_gradient(tap_slice(x, window, tap), g, precision).astype(dtype)
            for tap in window.taps
        ]
        stacked = jnp.stack(by_tap, axis=1)
        return stacked.reshape(stacked.shape[0], *window.kernel_size, *stacked.shape[2:])


def _tap_product(x: Array, w: Array, precision: lax.PrecisionLike) -> Array:
    """`[clients, batch, *size, groups, inputs]` times `[clients, groups, inputs, outputs]`."""
    clients, groups, inputs, outputs = w.shape
    if inputs == 1:  # no sum, so elementwise: the compiler makes one loop of all taps
        dtype = products.accumulation_dtype(x, w)
        w = w.reshape(clients, *(1,) * (x.ndim - 3), groups, outputs)
        return x.astype(dtype) * w.astype(dtype)
    y = products.by_weights(x.reshape(clients, -1, groups, inputs), w, precision)
    return y.reshape(*x.shape[:-1], outputs)


def _tap_gradient(x: Array, g: Array, precision: lax.PrecisionLike) -> Array:
    """`[clients, groups, inputs, outputs]`, the sum over batch and places of `x` times `g`."""
    if x.shape[-1] == 1:
        dtype = products.accumulation_dtype(x, g)
        product = x.astype(dtype) * g.astype(dtype)
        return product.sum(axis=tuple(range(1, x.ndim - 2)))[:, :, None]
    rows = lambda a: a.reshape(a.shape[0], -1, *a.shape[-2:])
    return products.over_rows(rows(x), rows(g), precision)
