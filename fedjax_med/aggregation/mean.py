"""Streamed means: the sum over clients is all that is ever held."""

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import Aggregator, PyTree


def _mean(share) -> Aggregator:
    def encode(update: PyTree, weight: jax.Array, state: PyTree, key: jax.Array) -> PyTree:
        del state, key
        w = share(weight)
        return jax.tree.map(lambda u: w.astype(u.dtype) * u, update), w

    def decode(reduced: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        total, weight = reduced
        # An empty cohort moves nothing: 0 / 1 instead of 0 / 0.
        divisor = jnp.where(weight > 0, weight, 1)
        return jax.tree.map(lambda t: t / divisor.astype(t.dtype), total), state

    return Aggregator(lambda update: (), encode, decode, "sum")


def weighted_mean() -> Aggregator:
    """The mean of the clients' updates by their weights.

        sum_c weight[c] * update[c] / sum_c weight[c]

    Clients of weight 0 (padding, or excluded because not finite) contribute nothing. If all
    weights are 0 the aggregate is 0. Shapes and dtypes of the updates are kept.

    References:
      McMahan et al., AISTATS 2017, algorithm 1. https://arxiv.org/abs/1602.05629
    """
    return _mean(lambda weight: weight)


def mean() -> Aggregator:
    """The plain mean of the updates of all clients with positive weight.

    Otherwise like `weighted_mean`.
    """
    return _mean(lambda weight: (weight > 0).astype(weight.dtype))
