"""How much a round sends to a client, and a client back."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fedjax_med.engine.contracts import (
    Aggregator,
    Client,
    ClientProgram,
    Cohort,
    CohortMetrics,
    CohortResult,
    FederatedAlgorithm,
    PyTree,
    Stacked,
    Variables,
)


class MessageBytes(NamedTuple):
    """Bytes between the server and one client in one round.

    Attributes:
      down: what the server sends.
      up: what the client sends, as its aggregator encodes it.
      passes: times that the clients are run.
    """

    down: int
    up: int
    passes: int


def message_bytes(algorithm: FederatedAlgorithm, variables: Variables) -> MessageBytes:
    """Traces a round without computing anything and adds up its messages.

    Counted are arrays as they are: what is sent and what `encode` makes of the update, for every
    pass over the clients. Of the past models that an asynchronous algorithm keeps, a client is sent
    one. Constants that an algorithm closes over (public data) are not counted.

    Args:
      algorithm: any.
      variables: a model, for its shapes and dtypes.
    """
    down = up = passes = 0

    def run_clients(
        program: ClientProgram,
        shared: PyTree,
        cohort: Cohort,
        aggregator: Aggregator,
        aggregator_state: PyTree = (),
        *,
        local_work=None,
    ) -> CohortResult:
        nonlocal down, up, passes
        del local_work
        client = _client(jax.tree.map(lambda x: x[0], cohort.states))
        # Steps keep the carry's shapes, so a client without steps sends what any other does.
        result = program.end(shared, program.begin(shared, client), client)
        weight = jnp.asarray(result.weight, jnp.result_type(float))
        message = aggregator.encode(result.update, weight, aggregator_state, client.key)
        passes += 1
        down += _nbytes(shared) // (algorithm.max_staleness + 1)
        up += _nbytes(message)
        if aggregator.reduction == "stack":
            vector, unravel = ravel_pytree(message[0])
            stacked = Stacked(vector[None], weight[None], lambda tree: tree)
            aggregate, state = aggregator.decode((stacked, message[1]), aggregator_state)
            aggregate = unravel(aggregate)
        else:
            aggregate, state = aggregator.decode(message, aggregator_state)
        per_client = {name: jnp.asarray(value)[None] for name, value in result.metrics.items()}
        one = jnp.int32(1)
        metrics = CohortMetrics(
            result.metrics, weight, one, 1 - one, per_client, jnp.zeros(1, bool)
        )
        states = jax.tree.map(lambda x: x[None], result.state)
        return CohortResult(aggregate, state, states, metrics)

    def one_round(variables: Variables) -> PyTree:
        states = jax.tree.map(lambda x: jnp.asarray(x)[None], algorithm.init_client(variables))
        zero = jnp.zeros(1, jnp.int32)
        cohort = Cohort(
            round_index=jnp.int32(0),
            seed=jnp.uint32(0),
            client=zero,
            client_id=zero,
            first_epoch=zero,
            first_step=zero,
            num_steps=zero,
            staleness=zero,
            lane_start=jnp.arange(2, dtype=jnp.int32),
            trip_count=jnp.int32(0),
            states=states,
        )
        return algorithm.run_round(algorithm.init(variables), cohort, run_clients).state

    jax.eval_shape(one_round, jax.tree.map(jnp.asarray, variables))
    return MessageBytes(down, up, passes)


def _client(state: PyTree) -> Client:
    one = jnp.int32(1)
    return Client(1 - one, one, one, jax.random.key(0), state, 1 - one)


def _nbytes(tree: PyTree) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
