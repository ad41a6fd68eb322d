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
      build: `(task, optimizer of the clients, learning rate of the clients or ridge, number of clients)
        -> algorithm`.
      is_personal: whether every hospital is judged by a model of its own. A hospital that was left
        out is judged by the shared one.
      exact: for methods without a learning rate, of linear models only.
      only_sgd: whether its clients take steps of their own kind, whatever the others do.
    """

    title: str
    build: Callable[[Task, optax.GradientTransformation, Chosen, int], FederatedAlgorithm]
    is_personal: bool = False
    exact: Exact | None = None
    only_sgd: bool = False


def _fed_avg(
    task: Task, optimizer: optax.GradientTransformation, learning_rate: Chosen, num_clients: int
) -> FederatedAlgorithm:
    del learning_rate, num_clients
    return algorithms.fed_avg(task.gradient, optimizer)


def _fed_prox(
    task: Task, optimizer: optax.GradientTransformation, learning_rate: Chosen, num_clients: int
) -> FederatedAlgorithm:
    del learning_rate, num_clients
    return algorithms.fed_prox(task.gradient, optimizer, mu=_MU)


def _scaffold(
    task: Task, optimizer: optax.GradientTransformation, learning_rate: Chosen, num_clients: int
) -> FederatedAlgorithm:
    del optimizer
    return algorithms.scaffold(
        task.gradient,
        learning_rate=learning_rate,
        num_clients=num_clients,
        weighting=algorithms.by_examples,
    )


def _fed_adam(
    task: Task, optimizer: optax.GradientTransformation, learning_rate: Chosen, num_clients: int
) -> FederatedAlgorithm:
    del learning_rate, num_clients
    return algorithms.fed_adam(task.gradient, optimizer, server_learning_rate=_SERVER_LEARNING_RATE)


def _ditto(
    task: Task, optimizer: optax.GradientTransformation, learning_rate: Chosen, num_clients: int
) -> FederatedAlgorithm:
    del learning_rate, num_clients
    return algorithms.ditto(task.gradient, optimizer, lam=_LAMBDA, weighting=algorithms.by_examples)


def _newton(
    task: Task, optimizer: optax.GradientTransformation, ridge: Chosen, num_clients: int
) -> FederatedAlgorithm:
    del optimizer, num_clients
    return algorithms.newton(task.loss, ridge=ridge)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "fedavg": Method("FedAvg", _fed_avg),
        "fedprox": Method("FedProx", _fed_prox),
        "scaffold": Method("SCAFFOLD", _scaffold, only_sgd=True),
        "fedadam": Method("FedAdam", _fed_adam),
        "ditto": Method("Ditto (personal)", _ditto, is_personal=True),
        "newton": Method("Newton (exact)", _newton, exact=Exact()),
    }
)
