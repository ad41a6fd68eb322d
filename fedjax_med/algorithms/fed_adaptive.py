"""FedAdagrad, FedAdam and FedYogi: FedOpt with the paper's adaptive server optimizers.

References:
  Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2.
  https://arxiv.org/abs/2003.00295
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_med.algorithms.fed_opt import fed_opt
from fedjax_med.algorithms.local_training import Weighting, by_examples
from fedjax_med.engine.contracts import Aggregator, FederatedAlgorithm, GradientFn, PyTree
from fedjax_med.engine.hyperparameters import require

Number = float | jax.Array


class AdaptiveState(NamedTuple):
    """First and second moment of the pseudo-gradient, each a pytree like the parameters."""

    momentum: PyTree
    second_moment: PyTree


def _adaptive(
    second_moment: Callable[[jax.Array, jax.Array], jax.Array],
    learning_rate: Number,
    b1: Number,
    tau: Number,
    initial: Number,
) -> optax.GradientTransformation:
    """Algorithm 2 of the paper, lines 9 to 13, for one rule of the second moment."""
    require("server_learning_rate", learning_rate, "positive", lambda v: v > 0)
    require("b1", b1, "at least 0 and below 1", lambda v: 0 <= v < 1)
    require("tau", tau, "positive", lambda v: v > 0)

    def init(params: PyTree) -> AdaptiveState:
        return AdaptiveState(
            jax.tree.map(jnp.zeros_like, params),
            jax.tree.map(lambda p: jnp.zeros_like(p) + initial, params),
        )

    def update(updates: PyTree, state: PyTree, params: PyTree = None):
        del params
        grads = updates  # the name optax gives its argument
        # The pseudo-gradient is minus the paper's Delta_t; only the sign of m changes.
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.momentum, grads)
        v = jax.tree.map(lambda v, g: second_moment(v, g * g), state.second_moment, grads)
        step = jax.tree.map(lambda m, v: -learning_rate * m / (jnp.sqrt(v) + tau), m, v)
        return step, AdaptiveState(m, v)

    return optax.GradientTransformation(init, update)


def _check_b2(b2: Number) -> None:
    require("b2", b2, "at least 0 and below 1", lambda v: 0 <= v < 1)


def fed_adagrad(
    gradient_fn: GradientFn,
    client_optimizer: optax.GradientTransformation,
    *,
    server_learning_rate: Number,
    b1: Number = 0.0,
    tau: Number = 1e-3,
    initial_second_moment: Number = 0.0,
    aggregator: Aggregator | None = None,
    weighting: Weighting = by_examples,
) -> FederatedAlgorithm:
    """Builds FedAdagrad: `v <- v + d^2`.

    The paper starts v at `tau^2` or more and takes b1 = 0; `initial_second_moment` is 0 here, as
    in most published code.
    """
    server = _adaptive(lambda v, d2: v + d2, server_learning_rate, b1, tau, initial_second_moment)
    return fed_opt(
        gradient_fn, client_optimizer, server, aggregator=aggregator, weighting=weighting
    )


def fed_adam(
    gradient_fn: GradientFn,
    client_optimizer: optax.GradientTransformation,
    *,
    server_learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.99,
    tau: Number = 1e-3,
    initial_second_moment: Number = 0.0,
    aggregator: Aggregator | None = None,
    weighting: Weighting = by_examples,
) -> FederatedAlgorithm:
    """Builds FedAdam: `v <- b2 v + (1 - b2) d^2`, without bias correction.

    For Adam with bias correction use `fed_opt(..., server_optimizer=optax.adam(...))`.
    """
    _check_b2(b2)
    server = _adaptive(
        lambda v, d2: b2 * v + (1 - b2) * d2,
        server_learning_rate,
        b1,
        tau,
        initial_second_moment,
    )
    return fed_opt(
        gradient_fn, client_optimizer, server, aggregator=aggregator, weighting=weighting
    )


def fed_yogi(
    gradient_fn: GradientFn,
    client_optimizer: optax.GradientTransformation,
    *,
    server_learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.99,
    tau: Number = 1e-3,
    initial_second_moment: Number = 0.0,
    aggregator: Aggregator | None = None,
    weighting: Weighting = by_examples,
) -> FederatedAlgorithm:
    """Builds FedYogi: `v <- v - (1 - b2) d^2 sign(v - d^2)`."""
    _check_b2(b2)
    server = _adaptive(
        lambda v, d2: v - (1 - b2) * d2 * jnp.sign(v - d2),
        server_learning_rate,
        b1,
        tau,
        initial_second_moment,
    )
    return fed_opt(
        gradient_fn, client_optimizer, server, aggregator=aggregator, weighting=weighting
    )
