"""Small things that clients send besides their update, and the server wants the means of."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import Aggregator, PyTree


class ExtrasState(NamedTuple):
    """State of an aggregator `with_extras`.

    Attributes:
      aggregator: state of the aggregator of the updates.
      extras: weighted means of this round's extras; 0 if nobody took part.
    """

    aggregator: PyTree
    extras: PyTree


def with_extras(aggregator: Aggregator) -> Aggregator:
    """`aggregator` for pairs `(update, extras)` of which it sees the update.

    Extras (control variates, norms, losses) are averaged by the clients' weights in the same
    reduction over devices, and found in the new `ExtrasState`; the aggregate is that of the updates
    alone. So a robust rule or a clip applies to the model and leaves the rest as it is.
    """
    stacked = aggregator.reduction == "stack"

    def init(pair: tuple[PyTree, PyTree]) -> ExtrasState:
        update, extras = pair
        return ExtrasState(aggregator.init(update), jax.tree.map(jnp.zeros_like, extras))

    def encode(
        pair: tuple[PyTree, PyTree], weight: jax.Array, state: ExtrasState, key: jax.Array
    ) -> PyTree:
        update, extras = pair
        message = aggregator.encode(update, weight, state.aggregator, key)
        weighted = jax.tree.map(lambda x: weight.astype(x.dtype) * x, extras)
        if stacked:
            return message[0], (message[1], weighted, weight)
        return message, weighted, weight

    def decode(reduced: PyTree, state: ExtrasState) -> tuple[PyTree, ExtrasState]:
        if stacked:
            values, (message, total, weight) = reduced
            message = (values, message)
        else:
            message, total, weight = reduced
        aggregate, inner = aggregator.decode(message, state.aggregator)
        divisor = jnp.where(weight > 0, weight, 1)
        extras = jax.tree.map(lambda x: x / divisor.astype(x.dtype), total)
        return aggregate, ExtrasState(inner, extras)

    return aggregator._replace(init=init, encode=encode, decode=decode)
