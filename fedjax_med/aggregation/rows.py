"""Means by row, over the clients that have the row: embeddings of entities that few hospitals know."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import Aggregator, PyTree


class _Rows(NamedTuple):
    """Sums over clients: of weighted updates, and `[rows, 1, ...]` of the weights of holders."""

    total: jax.Array
    weight: jax.Array


def mean_over_holders() -> Aggregator:
    """The mean of each row of an update over the clients that changed it, by their weights.

        sum_c holds[c, i] weight[c] update[c, i] / sum_c holds[c, i] weight[c]

    A client holds a row where its update is not exactly 0: it trained the row. So a client that lacks
    an entity does not hold its embedding back, as it would in a mean over all clients; with equal
    weights this is the server of FedE. Rows that nobody changed stay. Rows run along the first axis
    of every array; scalars are one row. What clients send about a row is whether they have it, which
    the sums over clients show in numbers only.

    References:
      Chen et al., "FedE: Embedding Knowledge Graphs in Federated Setting", IJCKG 2021, equation 3.
      https://arxiv.org/abs/2010.12882
    """

    def encode(update: PyTree, weight: jax.Array, state: PyTree, key: jax.Array) -> PyTree:
        del state, key

        def message(u: jax.Array) -> _Rows:
            others = tuple(range(1, u.ndim))
            share = jnp.any(u != 0, axis=others, keepdims=True) * weight.astype(u.dtype)
            return _Rows(share * u, share)

        return jax.tree.map(message, update)

    def decode(reduced: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        def mean(rows: _Rows) -> jax.Array:
            return rows.total / jnp.where(rows.weight > 0, rows.weight, 1)

        return jax.tree.map(mean, reduced, is_leaf=lambda x: isinstance(x, _Rows)), state

    return Aggregator(lambda update: (), encode, decode, "sum")
