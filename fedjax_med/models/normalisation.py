"""Batch normalisation that counts no padding and no minibatch twice.

References:
  Ioffe and Szegedy, "Batch Normalization", ICML 2015, algorithm 1. https://arxiv.org/abs/1502.03167
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import Batch


class BatchNorm(nn.Module):
    """Normalises each channel by mean and variance of a minibatch, in training, or by running ones.

        y = scale * (x - mean) / sqrt(variance + epsilon) + bias

    Mean and variance are over the real examples of the whole minibatch, also where devices share
    it: padded rows have no part in them, unlike in `flax.linen.BatchNorm` without a mask. Variances
    are divided by the number of values, running ones as well. The collection "batch_stats" has
    `mean` and `var`, as Flax calls them.

    Attributes:
      momentum: share of the running statistics that stays at each local step.
      epsilon: added to variances.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, batch: Batch | None = None) -> jax.Array:
        """`x` normalised, `[batch, ..., channels]`; `batch` is needed in training only."""
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels, x.dtype)
        bias = self.param("bias", nn.initializers.zeros, channels, x.dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, x.dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, x.dtype)
        wide = (1,) * (x.ndim - 1) + channels
        if not train:
            mean, var = running_mean.value, running_var.value
        else:
            if batch is None:
                raise ValueError("batch must be given to BatchNorm in training, got None.")
            mean, var = _moments(x, batch)
            m = self.momentum
            running_mean.value = m * running_mean.value + (1 - m) * mean
            running_var.value = m * running_var.value + (1 - m) * var
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return (x - mean.reshape(wide)) * factor.reshape(wide) + bias.reshape(wide)


def _moments(x: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of each channel over the real examples of the whole minibatch."""
    axes = tuple(range(x.ndim - 1))
    wide = (1,) * (x.ndim - 1) + x.shape[-1:]
    real = batch.mask.reshape(-1, *(1,) * (x.ndim - 1))
    positions = x.size // (x.shape[0] * x.shape[-1])
    count = batch.count.astype(x.dtype) * positions
    # Two passes: the difference of two large sums would lose the digits of a small variance.
    total = jnp.where(real, x, 0).sum(axes)
    mean = batch.sum_over_splits(total) / count
    squares = jnp.square(jnp.where(real, x - mean.reshape(wide), 0)).sum(axes)
    return mean, batch.sum_over_splits(squares) / count
