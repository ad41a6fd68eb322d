"""Models that classify signals `[batch, time, channels]`: residual network, convolution in time, GRU.

**Each takes the mean over time from every channel of every example first**, so that a wandering baseline,
or one patient's slower heart, changes nothing. Nothing normalises over a minibatch: padded rows, and
hospitals with few examples, do no harm.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from fedjax_med.models.adapters import Model, from_linen


def residual_network(
    num_outputs: int, *, widths: Sequence[int] = (8, 16, 32), kernel: int = 7
) -> Model:
    """A residual network in one dimension, with group normalisation.

    A convolution with stride 2, then for each of the `widths` a block of two convolutions with stride 2
    in the first; the mean over time goes through a linear layer.

    Args:
      num_outputs: classes, or 1.
      widths: channels of the blocks, multiples of 4.
      kernel: samples that the first convolution sees; those of the blocks see 5.

    Raises:
      ValueError: if a number is too small, or a width no multiple of 4; when traced, if the input is no
        signal.

    References:
      He et al., CVPR 2016, for signals as in Hannun et al., Nature Medicine 25, 2019, but smaller.
      https://doi.org/10.1038/s41591-018-0268-3
    """
    _check(num_outputs=num_outputs, kernel=kernel)
    widths = tuple(widths)
    if not widths or any(width < 1 or width % _GROUPS for width in widths):
        raise ValueError(f"widths must be multiples of {_GROUPS}, at least one, got {widths!r}.")
    return from_linen(_ResidualNetwork(num_outputs, widths, kernel))


def temporal_convolution(num_outputs: int, *, channels: int = 16, depth: int = 4) -> Model:
    """Causal convolutions of 3 values with dilations 1, 2, 4, ...; the last time is classified.

    It sees the last `2**(depth + 1) - 1` values.

    Args:
      num_outputs: classes, or 1.
      channels: of every layer.
      depth: layers.

    Raises:
      ValueError: if a number is too small; when traced, if the input is no signal.

    References:
      Bai, Kolter and Koltun, 2018. https://arxiv.org/abs/1803.01271
    """
    _check(num_outputs=num_outputs, channels=channels, depth=depth)
    return from_linen(_TemporalConvolution(num_outputs, channels, depth))


def gru(num_outputs: int, *, hidden: int = 16) -> Model:
    """A gated recurrent unit from the first value to the last; its last state is classified.

    Args:
      num_outputs: classes, or 1.
      hidden: units of the state.

    Raises:
      ValueError: if a number is too small; when traced, if the input is no signal.

    References:
      Cho et al., EMNLP 2014. https://arxiv.org/abs/1406.1078
    """
    _check(num_outputs=num_outputs, hidden=hidden)
    return from_linen(_Gru(num_outputs, hidden))


_GROUPS = 4


class _Block(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.Conv(self.width, (5,), (2,), use_bias=False)(x)
        y = nn.relu(nn.GroupNorm(num_groups=_GROUPS)(y))
        y = nn.Conv(self.width, (5,), use_bias=False)(y)
        y = nn.GroupNorm(num_groups=_GROUPS)(y)
        return nn.relu(y + nn.Conv(self.width, (1,), (2,), use_bias=False)(x))


class _ResidualNetwork(nn.Module):
    num_outputs: int
    widths: tuple[int, ...]
    kernel: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(self.widths[0], (self.kernel,), (2,))(_centred(x)))
        for width in self.widths:
            x = _Block(width)(x)
        return nn.Dense(self.num_outputs)(x.mean(axis=1))


class _TemporalConvolution(nn.Module):
    num_outputs: int
    channels: int
    depth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.Conv(self.channels, (1,))(_centred(x))
        for layer in range(self.depth):
            dilation = 2**layer
            # Padded in front only, so that no output sees a later value.
            padding = [(2 * dilation, 0)]
            conv = nn.Conv(self.channels, (3,), kernel_dilation=(dilation,), padding=padding)
            y = y + nn.relu(conv(y))
        return nn.Dense(self.num_outputs)(y[:, -1])


class _Gru(nn.Module):
    num_outputs: int
    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        states = nn.RNN(nn.GRUCell(self.hidden))(_centred(x))
        return nn.Dense(self.num_outputs)(jnp.asarray(states)[:, -1])


def _centred(x: jax.Array) -> jax.Array:
    if x.ndim != 3:
        raise ValueError(f"x must be a signal [batch, time, channels], got shape {list(x.shape)}.")
    return x - x.mean(axis=1, keepdims=True)


def _check(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}.")
