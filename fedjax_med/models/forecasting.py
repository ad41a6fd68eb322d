"""Models that forecast from a window of past values: autoregression, convolution in time, GRU.

Inputs are `[batch, window + others]`: the values of the window, the present one last, and whatever else
is known of the present, such as the season. Every output is the present value plus what the network
says, of a window whose present value is subtracted: **untrained, each forecasts that nothing changes**,
and what was learned at one level is valid at another. Outputs have the scale of the values, which should
therefore be standardised (`datasets.weekly.LogScale`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from fedjax_med.engine.contracts import PyTree
from fedjax_med.models.adapters import Model, from_function, from_linen


def autoregression(window: int, num_outputs: int) -> Model:
    """Linear in the window and the other inputs; begins as "nothing changes" exactly.

    Args:
      window: past values, at least 1.
      num_outputs: horizons, or horizons times quantiles.

    Raises:
      ValueError: if a number is too small; when traced, if inputs are narrower than the window.
    """
    _check(window, num_outputs)

    def init(key: jax.Array, x: jax.Array) -> PyTree:
        del key
        changes, others, _ = _anchored(x, window)
        width = changes.shape[1] + others.shape[1]
        return {
            "kernel": jnp.zeros((width, num_outputs), x.dtype),
            "bias": jnp.zeros(num_outputs, x.dtype),
        }

    def apply(params: PyTree, x: jax.Array) -> jax.Array:
        changes, others, present = _anchored(x, window)
        inputs = jnp.concatenate([changes, others], axis=1)
        return present + inputs @ params["kernel"] + params["bias"][None]

    return from_function(init, apply)


def temporal_convolution(
    window: int, num_outputs: int, *, channels: int = 16, depth: int = 3
) -> Model:
    """Causal convolutions of 3 values with dilations 1, 2, 4, ... and residual connections.

    The last of `depth` layers sees `2**(depth + 1) - 1` values; its output at the present, with
    the other inputs, goes through a linear layer that begins at 0.

    Args:
      window: past values, at least 1.
      num_outputs: horizons, or horizons times quantiles.
      channels: of every layer.
      depth: layers.

    Raises:
      ValueError: if a number is too small.

    References:
      Bai, Kolter and Koltun, 2018. https://arxiv.org/abs/1803.01271
    """
    _check(window, num_outputs, channels=channels, depth=depth)
    return from_linen(_TemporalConvolution(window, num_outputs, channels, depth))


def gru(window: int, num_outputs: int, *, hidden: int = 16) -> Model:
    """A gated recurrent unit over the window; its last state, with the other inputs, as above.

    Args:
      window: past values, at least 1.
      num_outputs: horizons, or horizons times quantiles.
      hidden: units of the state.

    Raises:
      ValueError: if a number is too small.

    References:
      Cho et al., EMNLP 2014. https://arxiv.org/abs/1406.1078
    """
    _check(window, num_outputs, hidden=hidden)
    return from_linen(_Gru(window, num_outputs, hidden))


class _TemporalConvolution(nn.Module):
    window: int
    num_outputs: int
    channels: int
    depth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        changes, others, present = _anchored(x, self.window)
        y = nn.Conv(self.channels, (1,))(changes[..., None])
        for layer in range(self.depth):
            dilation = 2**layer
            # Padded in front only, so that no output sees a later value.
            conv = nn.Conv(
                self.channels, (3,), kernel_dilation=(dilation,), padding=[(2 * dilation, 0)]
            )
            y = y + nn.relu(conv(y))
        return _head(y[:, -1], others, present, self.num_outputs)


class _Gru(nn.Module):
    window: int
    num_outputs: int
    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        changes, others, present = _anchored(x, self.window)
        states = jnp.asarray(nn.RNN(nn.GRUCell(self.hidden))(changes[..., None]))
        return _head(states[:, -1], others, present, self.num_outputs)


def _head(y: jax.Array, others: jax.Array, present: jax.Array, num_outputs: int) -> jax.Array:
    inputs = jnp.concatenate([y, others], axis=1)
    return present + nn.Dense(num_outputs, kernel_init=nn.initializers.zeros)(inputs)


def _anchored(x: jax.Array, window: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Window without its present value, other inputs with it `[batch, ...]`, present `[batch, 1]`."""
    if x.ndim != 2 or x.shape[1] < window:
        raise ValueError(f"x must be [batch, {window} or more], got shape {list(x.shape)}.")
    present = x[:, window - 1 : window]
    return x[:, :window] - present, jnp.concatenate([present, x[:, window:]], axis=1), present


def _check(window: int, num_outputs: int, **sizes: int) -> None:
    for name, value in {"window": window, "num_outputs": num_outputs, **sizes}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}.")
