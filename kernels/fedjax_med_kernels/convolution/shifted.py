"""Convolution as a sum over the taps of the kernel: shifted copies of the lhs times one tap each.

No patches are built: what is alive at a time is one shifted copy, or nothing where the channels
of a group are single (depthwise) and the whole sum is one elementwise loop.
"""

import dataclasses
import functools
import math
import operator

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array

from fedjax_med_kernels.convolution import phases, products
from fedjax_med_kernels.convolution.window import Window, dilated, padded, tap_slice


@dataclasses.dataclass(frozen=True)
class Shifted:
    """A sum over the taps; for depthwise convolutions, and where patches are too large."""

    name = "shifted"

    def forward(
        self, x: Array, w: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The convolution; arguments and result in the common layout (`window.py`)."""
        x = padded(x, window)
        if w.shape[-2] == 1:
            return _elementwise_sum(x, w, window).astype(dtype)
        by_tap = _by_tap(w)

        def add_tap(tap, total):
            shifted = _moving_slice(x, window, tap)
            rows = shifted.reshape(shifted.shape[0], -1, *shifted.shape[-2:])
            return total + products.by_weights(rows, by_tap[tap], precision)

        # A loop, since otherwise the compiler may make all shifted copies at once.
        places = x.shape[1] * math.prod(window.output_size)
        sums = products.accumulation_dtype(x, w)
        total = jnp.zeros((x.shape[0], places, w.shape[-3], w.shape[-1]), sums)
        total = lax.fori_loop(0, len(window.taps), add_tap, total)
        shape = (*x.shape[:2], *window.output_size, w.shape[-3], w.shape[-1])
        return total.reshape(shape).astype(dtype)

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
        if x.shape[-1] == 1:
            by_tap = _elementwise_gradients(x, g, window)
        else:
            rows = g.reshape(g.shape[0], -1, *g.shape[-2:])

            def of_tap(tap):
                shifted = _moving_slice(x, window, tap)
                shifted = shifted.reshape(*rows.shape[:-1], -1)
                return products.over_rows(shifted, rows, precision)

            by_tap = lax.map(of_tap, jnp.arange(len(window.taps))).swapaxes(0, 1)
        shape = (x.shape[0], *window.kernel_size, *by_tap.shape[2:])
        return by_tap.reshape(shape).astype(dtype)


def _by_tap(w: Array) -> Array:
    """The rhs as `[taps, clients, groups, inputs, outputs]`."""
    return w.reshape(w.shape[0], -1, *w.shape[-3:]).swapaxes(0, 1)


def _moving_slice(x: Array, window: Window, tap: Array) -> Array:
    """`tap_slice` for the number of a tap that only the device knows."""
    index = jnp.array(window.taps, jnp.int32).reshape(len(window.taps), len(window.strides))
    start = [index[tap, i] * d for i, d in enumerate(window.rhs_dilation)]
    zero = jnp.zeros((), jnp.int32)
    covered = [dilated(m, s) for m, s in zip(window.output_size, window.strides, strict=True)]
    shape = (*x.shape[:2], *covered, *x.shape[-2:])
    shifted = lax.dynamic_slice(x, (zero, zero, *start, zero, zero), shape)
    return lax.slice(shifted, (0,) * x.ndim, shape, (1, 1, *window.strides, 1, 1))


def _elementwise_sum(x: Array, w: Array, window: Window) -> Array:
    """The convolution of single channels; no sum but that over taps, so one fused loop."""
    sums = products.accumulation_dtype(x, w)
    terms = []
    for tap in window.taps:
        weights = w[(slice(None), *tap)].reshape(
            w.shape[0], *(1,) * (x.ndim - 3), w.shape[-3], w.shape[-1]
        )
        terms.append(tap_slice(x, window, tap).astype(sums) * weights.astype(sums))
    return functools.reduce(operator.add, terms)


def _elementwise_gradients(x: Array, g: Array, window: Window) -> Array:
    """`[clients, taps, groups, 1, outputs]`, the gradients of `_elementwise_sum` by the rhs."""
    sums = products.accumulation_dtype(x, g)
    g = g.astype(sums)
    over = tuple(range(1, x.ndim - 2))
    products_by_tap = (tap_slice(x, window, tap).astype(sums) * g for tap in window.taps)
    return jnp.stack([p.sum(axis=over) for p in products_by_tap], axis=1)[:, :, :, None]
