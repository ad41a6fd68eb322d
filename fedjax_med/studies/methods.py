"""The methods that a study compares, each with one number to be chosen: most often a learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import optax

from fedjax_med import algorithms
from fedjax_med.engine import FederatedAlgorithm, Task

Chosen = float | jax.Array

# FedAdam's own optimizer takes steps of about its learning rate, whatever the clients send.
_SERVER_LEARNING_RATE = 0.03
_MU = 0.1  # of FedProx, the middle of the range its authors tried
_LAMBDA = 0.1  # of Ditto, likewise


class Exact(NamedTuple):
    """How a method is trained that needs all patients of a hospital for each of its few steps.

    Attributes:
      rounds: of it.
      ridges: penalties, of which one is chosen instead of a learning rate.
    """

    rounds: int = 10
    ridges: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0)


class Method(NamedTuple):
    """A method of the comparison.

    Attributes:
      title: its name in tables.
      build: `(task, learning rate of the clients or ridge, number of clients) -> algorithm`.
      is_personal: whether every hospital is judged by a model of its own. A hospital that was left
        out is judged by the shared one.
      exact: for methods without a learning rate, of linear models only.
    """

    title: str
    build: Callable[[Task, Chosen, int], FederatedAlgorithm]
    is_personal: bool = False
    exact: Exact | None = None


def _fed_avg(task: Task, learning_rate: Chosen, num_clients: int) -> FederatedAlgorithm:
    del num_clients
    return algorithms.fed_avg(task.gradient, optax.sgd(learning_rate))


def _fed_prox(task: Task, learning_rate: Chosen, num_clients: int) -> FederatedAlgorithm:
    del num_clients
    return algorithms.fed_prox(task.gradient, optax.sgd(learning_rate), mu=_MU)


def _scaffold(task: Task, learning_rate: Chosen, num_clients: int) -> FederatedAlgorithm:
    return algorithms.scaffold(
        task.gradient,
        learning_rate=learning_rate,
        num_clients=num_clients,
        weighting=algorithms.by_examples,
    )


def _fed_adam(task: Task, learning_rate: Chosen, num_clients: int) -> FederatedAlgorithm:
    del num_clients
    return algorithms.fed_adam(
        task.gradient, optax.sgd(learning_rate), server_learning_rate=_SERVER_LEARNING_RATE
    )


def _ditto(task: Task, learning_rate: Chosen, num_clients: int) -> FederatedAlgorithm:
    del num_clients
    return algorithms.ditto(
        task.gradient, optax.sgd(learning_rate), lam=_LAMBDA, weighting=algorithms.by_examples
    )


def _newton(task: Task, ridge: Chosen, num_clients: int) -> FederatedAlgorithm:
    del num_clients
    return algorithms.newton(task.loss, ridge=ridge)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "fedavg": Method("FedAvg", _fed_avg),
        "fedprox": Method("FedProx", _fed_prox),
        "scaffold": Method("SCAFFOLD", _scaffold),
        "fedadam": Method("FedAdam", _fed_adam),
        "ditto": Method("Ditto (personal)", _ditto, is_personal=True),
        "newton": Method("Newton (exact)", _newton, exact=Exact()),
    }
)
