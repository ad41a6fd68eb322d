"""FedSGD: clients send gradients, the server takes the step.

References:
  McMahan et al., AISTATS 2017, section 2. https://arxiv.org/abs/1602.05629
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_med.aggregation import weighted_mean
from fedjax_med.algorithms.fed_opt import with_server_optimizer
from fedjax_med.algorithms.local_training import (
    Weighting,
    by_examples,
    loss_and_count,
    nothing_seen,
)
from fedjax_med.engine.contracts import (
    Aggregator,
    Batch,
    Client,
    ClientProgram,
    ClientResult,
    FederatedAlgorithm,
    GradientFn,
    PyTree,
    Variables,
)


class _Accumulated(NamedTuple):
    grads: PyTree  # sum of per-example gradients
    state: PyTree
    seen: jax.Array  # [2], sum of losses and number of examples


def fed_sgd(
    gradient_fn: GradientFn,
    server_optimizer: optax.GradientTransformation,
    *,
    aggregator: Aggregator | None = None,
    weighting: Weighting = by_examples,
) -> FederatedAlgorithm:
    """Builds FedSGD: the aggregate of the clients' mean gradients at the server's parameters.

    The gradient is accumulated over the minibatches of the local work without moving the
    parameters, so `epochs(1, ...)` gives each client's exact full gradient whatever the batch
    size, and `steps(1, ...)` one minibatch of it.
    """

    def begin(shared: Variables, client: Client) -> _Accumulated:
        del client
        grads = jax.tree.map(jnp.zeros_like, shared.params)
        return _Accumulated(grads, shared.state, nothing_seen())

    def step(shared: Variables, carry: _Accumulated, batch: Batch) -> _Accumulated:
        result = gradient_fn(Variables(shared.params, carry.state), batch)
        return _Accumulated(
            grads=jax.tree.map(
                lambda total, g: total + g * batch.count.astype(g.dtype),
                carry.grads,
                result.grads,
            ),
            state=result.state,
            seen=carry.seen + loss_and_count(result.loss, batch),
        )

    def end(shared: Variables, carry: _Accumulated, client: Client) -> ClientResult:
        grads = jax.tree.map(lambda g: g / carry.seen[1].astype(g.dtype), carry.grads)
        state = jax.tree.map(jnp.subtract, shared.state, carry.state)
        return ClientResult(
            update=Variables(grads, state),
            weight=weighting(client),
            metrics={"train_loss": carry.seen[0] / carry.seen[1]},
        )

    program = ClientProgram(begin, step, end)
    return with_server_optimizer(program, server_optimizer, aggregator or weighted_mean())
