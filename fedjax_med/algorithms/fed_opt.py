"""FedOpt: local training on the clients, any optimizer on the server.

References:
  Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 1.
  https://arxiv.org/abs/2003.00295
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_med.aggregation import weighted_mean
from fedjax_med.algorithms.local_training import Weighting, by_examples, local_training
from fedjax_med.engine.contracts import (
    Aggregator,
    ClientProgram,
    Cohort,
    FederatedAlgorithm,
    GradientFn,
    PyTree,
    RoundResult,
    RunClients,
    Variables,
)


class ServerState(NamedTuple):
    """All that passes from one round to the next; only arrays.

    Attributes:
      variables: the global model.
      opt_state: state of the server optimizer.
      aggregator_state: state of the aggregator.
    """

    variables: Variables
    opt_state: optax.OptState
    aggregator_state: PyTree


@jax.named_scope("server_step")
def server_step(
    variables: Variables,
    opt_state: optax.OptState,
    pseudo_gradient: Variables,
    server_optimizer: optax.GradientTransformation,
) -> tuple[Variables, optax.OptState]:
    """Applies an aggregate of updates: the optimizer to parameters, plain averages to state."""
    params, state = variables
    updates, opt_state = server_optimizer.update(pseudo_gradient.params, opt_state, params)
    state = jax.tree.map(
        lambda s, change: (s - change).astype(s.dtype), state, pseudo_gradient.state
    )
    return Variables(optax.apply_updates(params, updates), state), opt_state


def with_server_optimizer(
    program: ClientProgram,
    server_optimizer: optax.GradientTransformation,
    aggregator: Aggregator,
) -> FederatedAlgorithm:
    """The algorithm that runs `program` on the clients and one server step per round."""

    def init(variables: Variables) -> ServerState:
        # Copies, because the engine donates the state and the caller keeps its variables.
        variables = jax.tree.map(lambda x: jnp.array(x, copy=True), variables)
        return ServerState(
            variables, server_optimizer.init(variables.params), aggregator.init(variables)
        )

    def run_round(state: ServerState, cohort: Cohort, run_clients: RunClients) -> RoundResult:
        result = run_clients(program, state.variables, cohort, aggregator, state.aggregator_state)
        variables, opt_state = server_step(
            state.variables, state.opt_state, result.aggregate, server_optimizer
        )
        state = ServerState(variables, opt_state, result.aggregator_state)
        return RoundResult(state, result.client_states, result.metrics)

    return FederatedAlgorithm(init, run_round)


def fed_opt(
    gradient_fn: GradientFn,
    client_optimizer: optax.GradientTransformation,
    server_optimizer: optax.GradientTransformation,
    *,
    aggregator: Aggregator | None = None,
    weighting: Weighting = by_examples,
) -> FederatedAlgorithm:
    """Builds FedOpt; `server_optimizer=optax.sgd(1.0)` makes it FedAvg.

    The aggregate of the client updates (server minus client) is the gradient that the server
    optimizer takes. Model state that is not trained (batch statistics) is averaged.

    Args:
      gradient_fn: from `engine.gradient(loss)`.
      client_optimizer: any optax optimizer, its state new every round.
      server_optimizer: any optax optimizer.
      aggregator: `weighted_mean()` if None.
      weighting: `by_examples` or `equal`, or a function of the client.
    """
    program = local_training(gradient_fn, client_optimizer, weighting)
    return with_server_optimizer(program, server_optimizer, aggregator or weighted_mean())
