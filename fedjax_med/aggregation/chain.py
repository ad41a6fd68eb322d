"""Client transforms (clip, quantise, mask) in front of an aggregator."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from fedjax_med.engine.contracts import Aggregator, PyTree


class ClientTransform(NamedTuple):
    """A change of one client's update before it is aggregated.

    Attributes:
      init: `(update_like) -> state`, kept by the server.
      apply: `(update, weight, state, key) -> (update, weight, statistic)`; the statistics
        (a pytree of arrays, `()` if none) are summed over the clients.
      update_state: `(sum_of_statistics, state) -> state`, once per round.
    """

    init: Callable[[PyTree], PyTree]
    apply: Callable[[PyTree, jax.Array, PyTree, jax.Array], tuple[PyTree, jax.Array, PyTree]]
    update_state: Callable[[PyTree, PyTree], PyTree] = lambda statistics, state: state


def chain(*transforms: ClientTransform, then: Aggregator) -> Aggregator:
    """Applies `transforms` to every client's update, left to right, then aggregates.

    The reduction is that of `then`. A transform of an excluded client sees a zero update of
    weight 0.
    """

    def init(update_like: PyTree) -> PyTree:
        return (*(t.init(update_like) for t in transforms), then.init(update_like))

    def encode(update: PyTree, weight: jax.Array, state: PyTree, key: jax.Array) -> PyTree:
        statistics = []
        for number, (transform, s) in enumerate(zip(transforms, state[:-1], strict=True)):
            own_key = jax.random.fold_in(key, number)
            update, weight, statistic = transform.apply(update, weight, s, own_key)
            statistics.append(statistic)
        message = then.encode(update, weight, state[-1], key)
        if then.reduction == "stack":
            stacked, summed = message
            return stacked, (summed, tuple(statistics))
        return message, tuple(statistics)

    def decode(reduced: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        if then.reduction == "stack":
            stacked, (summed, statistics) = reduced
            inner = (stacked, summed)
        else:
            inner, statistics = reduced
        aggregate, last = then.decode(inner, state[-1])
        states = (
            t.update_state(statistic, s)
            for t, statistic, s in zip(transforms, statistics, state[:-1], strict=True)
        )
        return aggregate, (*states, last)

    return then._replace(init=init, encode=encode, decode=decode)
