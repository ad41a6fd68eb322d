"""Coordinate-wise median: a stacked reduction."""

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import Aggregator, PyTree, Stacked


def coordinate_median() -> Aggregator:
    """The median of every coordinate over the clients with positive weight.

    Weights play no other part. For an even number of clients the two middle values are
    averaged; of an empty cohort the aggregate is 0. Holds `[slots, dim]`, each device a slice of
    the parameters.

    References:
      Yin et al., ICML 2018, option I. https://arxiv.org/abs/1803.01498
    """

    def encode(update: PyTree, weight: jax.Array, state: PyTree, key: jax.Array) -> PyTree:
        del weight, state, key
        return update, ()

    def decode(reduced: tuple[Stacked, PyTree], state: PyTree) -> tuple[jax.Array, PyTree]:
        stacked, _ = reduced
        present = stacked.weight > 0
        count = jnp.sum(present, dtype=jnp.int32)
        # Absent clients sort behind everybody and are never reached.
        ordered = jnp.sort(jnp.where(present[:, None], stacked.values, jnp.inf), axis=0)
        low = ordered[jnp.maximum(count - 1, 0) // 2]
        high = ordered[jnp.minimum(count // 2, ordered.shape[0] - 1)]
        return jnp.where(count > 0, (low + high) / 2, 0).astype(stacked.values.dtype), state

    return Aggregator(lambda update: (), encode, decode, "stack")
