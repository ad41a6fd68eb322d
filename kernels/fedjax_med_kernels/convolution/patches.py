"""Convolution as patches and one large matrix product per client.

A patch is what the window covers at one place. With all patches of a client as the rows of one
matrix, the convolution is a matrix product, its gradient by the rhs a product of the same matrix,
and its gradient by the lhs a product of the size of that matrix, folded back onto the image.
A kernel of one tap needs no patches: what remains is the matrix product.
"""

import dataclasses
import functools
import operator

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array

from fedjax_med_kernels.convolution import products
from fedjax_med_kernels.convolution.rebuilding import after
from fedjax_med_kernels.convolution.window import Window, padded, place_tap, tap_slice, unpadded


@dataclasses.dataclass(frozen=True)
class Patches:
    """Patches and a matrix product; the default wherever the patches fit.

    Attributes:
      keep: what happens to the patches between the forward and the backward pass. False: they
        are built again, so that one buffer of patches is alive at a time, whatever the depth of
        the network. True: the compiler may keep them, which saves building them again and holds
        the patches of all layers at once.
    """

    keep: bool = False

    name = "patches"

    def forward(
        self, x: Array, w: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The convolution; arguments and result in the common layout (`window.py`)."""
        patches = build_patches(x, window)
        y = products.by_weights(_rows(patches), _patch_weights(w), precision, dtype)
        return y.reshape(*patches.shape[:-1], -1)

    def input_gradient(
        self, g: Array, w: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The gradient by the lhs, from the cotangent `g` and the rhs."""
        weights = _patch_weights(w).swapaxes(2, 3)
        # In the dtype of the sums until all taps are added up.
        gradient = products.by_weights(_rows(g), weights, precision)
        return fold_patches(gradient.reshape(*g.shape[:-1], -1), window).astype(dtype)

    def weight_gradient(
        self, x: Array, g: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The gradient by the rhs, from the lhs and the cotangent `g`."""
        patches = build_patches(x if self.keep else after(g, x), window)
        gradient = products.over_rows(_rows(patches), _rows(g), precision, dtype)
        clients, groups, terms, outputs = gradient.shape
        taps = len(window.taps)
        by_tap = gradient.reshape(clients, groups, taps, terms // taps, outputs).swapaxes(1, 2)
        return by_tap.reshape(clients, *window.kernel_size, groups, terms // taps, outputs)


def build_patches(x: Array, window: Window) -> Array:
    """All patches.

    Args:
      x: lhs, `[clients, batch, *input size, groups, inputs]`.
      window: spatial geometry.

    Returns:
      `[clients, batch, *output size, groups, taps * inputs]`.
    """
    x = padded(x, window)
    return jnp.concatenate([tap_slice(x, window, tap) for tap in window.taps], axis=-1)


def fold_patches(patches: Array, window: Window) -> Array:
    """The transpose of `build_patches`: adds every element up over the patches it is part of."""
    by_tap = jnp.split(patches, len(window.taps), axis=-1)
    placed = (place_tap(p, window, tap) for p, tap in zip(by_tap, window.taps, strict=True))
    return unpadded(functools.reduce(operator.add, placed), window)


def _rows(x: Array) -> Array:
    # [positions, patch] as one large matrix: a batch of small products leaves cores idle.
    return x.reshape(x.shape[0], -1, *x.shape[-2:])


def _patch_weights(w: Array) -> Array:
    """The rhs as `[clients, groups, taps * inputs, outputs]`."""
    clients, *_, groups, inputs, outputs = w.shape
    by_tap = w.reshape(clients, -1, groups, inputs, outputs)
    return by_tap.swapaxes(1, 2).reshape(clients, groups, -1, outputs)
