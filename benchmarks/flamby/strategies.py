"""FLamby's strategies, as few compiled programs as they need.

FedAvg, FedProx and the adaptive ones differ in numbers and in a rule of the server; with the rule
chosen by a hyperparameter, all of them are one program on the experiments axis. SCAFFOLD is the
library's with clients weighted by examples: with a server learning rate of 1, as here, FLamby's
correction, `c_k <- c_k + (server's new model - client's model) / (100 * rate)` subtracted from the
gradient, is the difference of the paper's control variates under option II.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_med import algorithms
from fedjax_med.algorithms.fed_adaptive import AdaptiveState
from fedjax_med.engine import FederatedAlgorithm, Task

Number = float | jax.Array

# Server rules. They begin at 0, have no bias correction, and these constants everywhere.
AVERAGE, ADAGRAD, ADAM, YOGI = range(4)
RULES = {
    "FedAvg": AVERAGE,
    "FedProx": AVERAGE,
    "FedAdagrad": ADAGRAD,
    "FedAdam": ADAM,
    "FedYogi": YOGI,
}
B1, B2, TAU = 0.9, 0.999, 1e-8


class Rates(NamedTuple):
    """The hyperparameters of a strategy.

    Attributes:
      client: learning rate of the clients' SGD.
      server: learning rate of the server, where it is adaptive.
      mu: of FedProx.
    """

    client: float
    server: float = 1.0
    mu: float = 0.0


def server_rule(rule: Number, learning_rate: Number) -> optax.GradientTransformation:
    """The average of the clients' models, or one of the adaptive rules: see `fed_adaptive`."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdaptiveState(zeros, zeros)

    def second_moment(v, g):
        d2 = g * g
        moved = jnp.where(rule == YOGI, d2 * jnp.sign(v - d2), v - d2)
        return jnp.where(rule == ADAGRAD, v + d2, v - (1 - B2) * moved)

    def update(updates, state, params=None):
        del params
        m = jax.tree.map(lambda m, g: B1 * m + (1 - B1) * g, state.momentum, updates)
        v = jax.tree.map(second_moment, state.second_moment, updates)
        step = jax.tree.map(
            lambda g, m, v: jnp.where(
                rule == AVERAGE, -g, -learning_rate * m / (jnp.sqrt(v) + TAU)
            ),
            updates,
            m,
            v,
        )
        return step, AdaptiveState(m, v)

    return optax.GradientTransformation(init, update)


def averaging(task: Task, rule: Number, client: Number, server: Number, mu: Number):
    """FedAvg, FedProx, FedAdagrad, FedAdam or FedYogi."""
    return algorithms.fed_prox(
        task.gradient, optax.sgd(client), mu=mu, server_optimizer=server_rule(rule, server)
    )


def scaffold(task: Task, rate: float, num_clients: int) -> FederatedAlgorithm:
    """SCAFFOLD with clients weighted by examples."""
    return algorithms.scaffold(
        task.gradient,
        learning_rate=rate,
        num_clients=num_clients,
        weighting=algorithms.by_examples,
    )
