"""Small models for tables, as pure functions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import PyTree
from fedjax_med.models.adapters import Model, from_function
from fedjax_med.models.resnet import grey_values


def linear(num_outputs: int = 1) -> Model:
    """Linear model with bias, starting at 0 (the loss is convex, so the start does not matter)."""

    def init(key: jax.Array, x: jax.Array) -> PyTree:
        del key
        shape = (x.shape[-1], num_outputs)
        return {"kernel": jnp.zeros(shape, x.dtype), "bias": jnp.zeros(shape[1:], x.dtype)}

    return from_function(init, _affine)


def linear_in_pixels(num_outputs: int = 1) -> Model:
    """`linear` in all numbers of images `[N, ...]`; those of 8 bits are scaled, see `grey_values`."""

    def rows(x: jax.Array) -> jax.Array:
        return grey_values(x).reshape(x.shape[0], -1)

    def init(key: jax.Array, x: jax.Array) -> PyTree:
        return linear(num_outputs).init(key, rows(x)).params

    return from_function(init, lambda params, x: _affine(params, rows(x)))


def mlp(hidden: Sequence[int], num_outputs: int = 1) -> Model:
    """Fully connected ReLU network; Glorot-uniform kernels, zero biases."""

    def init(key: jax.Array, x: jax.Array) -> PyTree:
        sizes = (x.shape[-1], *hidden, num_outputs)
        keys = jax.random.split(key, len(sizes) - 1)
        glorot = jax.nn.initializers.glorot_uniform()
        return [
            {"kernel": glorot(k, (a, b), x.dtype), "bias": jnp.zeros((b,), x.dtype)}
            for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
        ]

    return from_function(init, relu_network)


def relu_network(layers: PyTree, x: jax.Array) -> jax.Array:
    """Outputs `[batch, outputs]` of the parameters of an `mlp`."""
    *inner, last = layers
    for layer in inner:
        x = jax.nn.relu(_affine(layer, x))
    return _affine(last, x)


def _affine(layer: PyTree, x: jax.Array) -> jax.Array:
    return x @ layer["kernel"] + layer["bias"][None]
