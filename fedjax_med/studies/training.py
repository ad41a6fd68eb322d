"""Trains a method, or a baseline, on all populations of a study; what its models say of the judged.

Everything returned is the raw outputs of models on the host: for each population an array
`[experiments, patients, ...]`, patients in the order of its test examples, experiments in that of
`grid(seed=..., chosen=...)`, where `chosen` are learning rates or ridges.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_med.algorithms import local_only
from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.engine import (
    Batch,
    Experiments,
    FederatedAlgorithm,
    Task,
    Variables,
    grid,
    simulate,
)
from fedjax_med.engine.contracts import PyTree
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.models import Model
from fedjax_med.studies.methods import Method
from fedjax_med.studies.populations import Population, pooled, union
from fedjax_med_kernels.client_batched import client_batched

Outputs = list[np.ndarray]

_SMALLEST_PIECE, _LARGEST_PIECE = 16, 4096
# Numbers of the examples of a piece: activations of images and signals are some dozens times as many.
_MOST_NUMBERS = 2**18


class Learner(NamedTuple):
    """What is trained, and for how long.

    Attributes:
      model: of the task.
      task: what is learned.
      rounds: federated rounds.
      local_work: of a hospital in a round.
      optimizer: of the hospitals, by learning rate.
    """

    model: Model
    task: Task
    rounds: int
    local_work: LocalWork
    optimizer: Callable[[Any], optax.GradientTransformation] = optax.sgd


class Trained(NamedTuple):
    """What became of a method.

    Attributes:
      outputs: of its models for those who are judged.
      first: the shared model of the first population and experiment.
    """

    outputs: Outputs
    first: Variables


def federated(
    learner: Learner,
    method: Method,
    populations: Sequence[Population],
    *,
    seeds: Iterable[int],
    chosen: Iterable[float],
) -> Trained:
    """Trains a method on every population, with every seed and learning rate or ridge, in one call.

    Raises:
      ValueError: if populations differ in their number of hospitals, which methods are built for.
    """
    sizes = {population.train.num_clients for population in populations}
    if len(sizes) > 1:
        raise ValueError(
            f"populations must have one number of hospitals, got {', '.join(map(str, sorted(sizes)))}."
        )
    num_clients = sizes.pop()
    whole = union(populations)
    experiments = grid(seed=seeds, chosen=chosen)
    times = len(experiments)

    def build(chosen: float | jax.Array) -> FederatedAlgorithm:
        return method.build(learner.task, learner.optimizer(chosen), chosen, num_clients)

    run = simulate(
        build,
        whole.dataset,
        task=learner.task,
        rounds=learner.rounds,
        local_work=learner.local_work,
        experiments=experiments.for_each([m.tolist() for m in whole.members]),
    )
    outputs = []
    for number, (population, members) in enumerate(zip(populations, whole.members, strict=True)):
        mine = slice(number * times, (number + 1) * times)
        if method.is_personal and not population.is_left_out:
            personal = build(0.0).personal
            state = jax.tree.map(lambda x, mine=mine: jnp.asarray(x[mine]), run.state)
            clients = jax.tree.map(
                lambda x, mine=mine, m=members: jnp.asarray(x[mine][:, m]), run.client_states
            )
            models = jax.vmap(jax.vmap(personal, (None, 0)))(state, clients)
            outputs.append(own_outputs(learner.model, models, population.test))
        else:
            models = jax.tree.map(lambda x, mine=mine: x[mine], run.variables)
            outputs.append(outputs_of(learner.model, models, population.test))
    return Trained(outputs, jax.tree.map(lambda x: x[0], run.variables))


class Alone(NamedTuple):
    """Hospitals that trained alone.

    Attributes:
      own: outputs of every hospital's own model for its own patients.
      models: for each population the models `[experiments, hospitals, ...]`.
    """

    own: Outputs
    models: list[Variables]


def alone(
    learner: Learner,
    populations: Sequence[Population],
    *,
    seeds: Iterable[int],
    chosen: Iterable[float],
) -> Alone:
    """Every hospital of every population trains on its own patients."""
    whole = union(populations)
    models = _trained_alone(learner, whole.dataset, grid(seed=seeds, chosen=chosen))
    by_population = [jax.tree.map(lambda x, m=m: x[:, m], models) for m in whole.members]
    own = [
        own_outputs(learner.model, models, population.test)
        for models, population in zip(by_population, populations, strict=True)
        if not population.is_left_out
    ]
    return Alone(own, by_population)


def all_pooled(
    learner: Learner,
    populations: Sequence[Population],
    *,
    seeds: Iterable[int],
    chosen: Iterable[float],
) -> Outputs:
    """One model trained on the patients of all hospitals together, as if they could be shared."""
    experiments = grid(seed=seeds, chosen=chosen)
    models = _trained_alone(learner, pooled(populations), experiments)
    return [
        outputs_of(learner.model, jax.tree.map(lambda x, n=n: x[:, n], models), population.test)
        for n, population in enumerate(populations)
    ]


def _trained_alone(
    learner: Learner, dataset: FederatedDataset, experiments: Experiments
) -> Variables:
    """Models `[experiments, clients, ...]`."""

    def build(chosen: float | jax.Array) -> FederatedAlgorithm:
        return local_only(learner.task.gradient, learner.optimizer(chosen))

    run = simulate(
        build,
        dataset,
        task=learner.task,
        rounds=learner.rounds,
        local_work=learner.local_work,
        experiments=experiments,
    )
    return run.client_states.variables


def outputs_of(model: Model, models: Variables, arrays: ClientArrays) -> np.ndarray:
    """Outputs `[models, N, ...]` of every model for every example."""
    return _apply(_applied(model), models, arrays.examples, 0, arrays.num_examples)


def own_outputs(model: Model, models: Variables, arrays: ClientArrays) -> np.ndarray:
    """Outputs `[experiments, N, ...]` for every example by the model of its client.

    Args:
      model: the model.
      models: `[experiments, clients, ...]`.
      arrays: examples of the clients.
    """
    apply = _applied(model)
    outputs = [
        _apply(
            apply,
            jax.tree.map(lambda x, c=c: x[:, c], models),
            arrays.examples,
            int(arrays.offsets[c]),
            int(arrays.offsets[c + 1]),
        )
        for c in np.flatnonzero(arrays.sizes)
    ]
    return np.concatenate(outputs, axis=1)


@functools.lru_cache(maxsize=8)
def _applied(model: Model) -> Callable[[Variables, PyTree], jax.Array]:
    @jax.jit
    def apply(models: Variables, examples: PyTree) -> jax.Array:
        size = jax.tree.leaves(examples)[0].shape[0]
        mask = jnp.ones(size, bool)  # padding is cut off on the host
        batch = Batch(examples, mask, jnp.float32(size), jax.random.key(0))
        # Every model has weights of its own, as clients have in training.
        outputs = client_batched(lambda variables: model.apply(variables, batch, False)[0])
        return jax.vmap(outputs)(models)

    return apply


def _apply(
    apply: Callable[[Variables, PyTree], jax.Array],
    models: Variables,
    examples: PyTree,
    start: int,
    stop: int,
) -> np.ndarray:
    """Rows `start` to `stop`, in pieces of a few sizes only: each compiles the model once."""
    outputs = []
    numbers = sum(x[0].size for x in jax.tree.leaves(examples))
    largest = max(_SMALLEST_PIECE, min(_LARGEST_PIECE, _MOST_NUMBERS // numbers))
    while start < stop:
        piece = _SMALLEST_PIECE
        while piece < min(stop - start, largest):
            piece *= 2
        rows = np.minimum(np.arange(start, start + piece), stop - 1)
        taken = jax.tree.map(lambda x, rows=rows: x[rows], examples)
        outputs.append(np.asarray(apply(models, taken))[:, : stop - start])
        start += piece
    return np.concatenate(outputs, axis=1)
