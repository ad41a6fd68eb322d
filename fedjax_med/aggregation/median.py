"""Coordinate-wise median: a stacked reduction."""

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import Aggregator, PyTree, Stacked
from fedjax_med_kernels import order_statistics


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
        median = order_statistics.coordinate_median(stacked.values, present)
        return jnp.where(jnp.any(present), median, 0), state

    return Aggregator(lambda update: (), encode, decode, "stack")
