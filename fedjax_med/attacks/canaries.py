"""Audits of a training by canaries: records or hospitals whose gradient is a known direction.

A canary's loss is linear in the parameters, so its gradient is the same direction at every step, long
enough to be clipped to exactly the bound. Nothing of the training is changed for it: the canary goes
through local training, clipping, sampling, noise and aggregation like anybody else, inside the compiled
rounds. The training is repeated many times with it and without it, all in one call, and the score of a
training is how far its model went along the canary's direction.

References:
  Jagielski et al., NeurIPS 2020, https://arxiv.org/abs/2006.07709 (audits by repeated training)
  Nasr et al., USENIX Security 2023, https://arxiv.org/abs/2302.07956 (canaries of known gradient)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.attacks.lower_bounds import gdp_bound, guess, rates_bound
from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.engine import Experiments, Run, Task, Variables
from fedjax_med.engine.contracts import Batch, PyTree

Unit = Literal["record", "client"]

CANARY = "canary"
"""Leaf of the examples: 0 of patients, 1 of canaries, -1 of what stands in for one that is absent."""


Train = Callable[[Task, FederatedDataset, Experiments], Run]
"""Trains a task on the members of each experiment: `simulate` with everything else settled. Attacks read
`variables` `[experiments, ...]` of the run."""


class CanaryScores(NamedTuple):
    """How far models went along the canary's direction, in units of the parameters.

    Attributes:
      included: float `[runs]`, of trainings with the canary.
      excluded: float `[runs]`, of trainings without it.
    """

    included: np.ndarray
    excluded: np.ndarray


class Audit(NamedTuple):
    """Lower bounds on epsilon, and the claim that they are held against.

    Attributes:
      claimed: epsilon of the claim, None where nothing is claimed.
      delta: of (epsilon, delta).
      gdp: the bound for Gaussian mechanisms, see `gdp_bound`.
      rates: the bound that assumes nothing, see `rates_bound`.
      confidence: probability that a bound is not above the true epsilon.
      scores: what they come from.
    """

    claimed: float | None
    delta: float
    gdp: float
    rates: float
    confidence: float
    scores: CanaryScores

    @property
    def is_refuted(self) -> bool:
        """Whether the training leaks more than is claimed."""
        return self.claimed is not None and max(self.gdp, self.rates) > self.claimed


def audit(
    scores: CanaryScores, *, delta: float, claimed: float | None = None, confidence: float = 0.95
) -> Audit:
    """Holds a claim of (claimed, delta)-differential privacy against the scores of canaries.

    Raises:
      ValueError: if there are fewer than 10 scores of a kind, or one is not finite.
    """
    guesses = guess(*scores)
    significance = 1 - confidence
    gdp = gdp_bound(guesses, delta, significance)
    return Audit(claimed, delta, gdp, rates_bound(guesses, delta, significance), confidence, scores)


def canary_scores(
    train: Train,
    task: Task,
    dataset: FederatedDataset,
    *,
    unit: Unit,
    num_runs: int = 200,
    seed: int = 0,
    magnitude: float = 1000.0,
) -> CanaryScores:
    """Trains `num_runs` times with a canary and as often without, all with different seeds.

    The canary takes the place of a record of the smallest hospital, of which the largest share is
    sampled, or of that whole hospital; without it, its place is taken by something whose gradient is 0.
    So sizes, sampling and weights are those of the training that is audited. Records are protected from
    the server as well, which sees each hospital's updates; so of records only that hospital trains.

    Args:
      train: what is audited.
      task: what is learned.
      dataset: whose training examples are used; examples are dicts.
      unit: what is protected: a record, or a client.
      num_runs: trainings with and without the canary, each.
      seed: of the first training and of the direction.
      magnitude: norm of the canary's gradient, well above any bound it may be clipped to.

    Raises:
      ValueError: if a score is not finite, since the model diverged.
    """
    audited, members = _with_canary(dataset, unit)
    initial = task.init(seed)
    direction = random_direction(initial.params, seed)
    seeds = tuple(range(seed, seed + 2 * num_runs))
    which = tuple(members[0] for _ in range(num_runs)) + tuple(members[1] for _ in range(num_runs))
    # Where training begins is no secret, and the same for all, so that scores differ by noise alone.
    audited_task = canary_task(task, direction, magnitude)._replace(init=lambda seed: initial)
    run = train(audited_task, audited, Experiments(seeds, {}, members=which))
    scores = _progress(initial.params, run.variables.params, direction)
    if not np.isfinite(scores).all():
        raise ValueError("The audited training diverges with the canary; lower its magnitude.")
    return CanaryScores(scores[:num_runs], scores[num_runs:])


def random_direction(params: PyTree, seed: int) -> PyTree:
    """A direction of norm 1 like the parameters, all of its entries equal but for the sign.

    Optimizers that normalise each entry, such as Adam, follow it too.
    """
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    size = sum(leaf.size for leaf in leaves)
    signs = [rng.choice([-1.0, 1.0], leaf.shape) / np.sqrt(size) for leaf in leaves]
    return jax.tree.unflatten(
        structure, [s.astype(leaf.dtype) for s, leaf in zip(signs, leaves, strict=True)]
    )


def canary_task(task: Task, direction: PyTree, magnitude: float) -> Task:
    """The task with examples that have a leaf `CANARY`, for training only.

    The loss of a canary is `magnitude * <direction, params>`; that of an absent one is 0.
    """

    def loss(variables: Variables, batch: Batch) -> tuple[jax.Array, PyTree]:
        examples = dict(batch.examples)
        kind = examples.pop(CANARY)
        losses, state = task.loss(variables, dataclasses.replace(batch, examples=examples))
        along = magnitude * _dot(direction, variables.params)
        canary = jnp.where(kind > 0, along, jnp.zeros_like(along)).astype(losses.dtype)
        return jnp.where(kind == 0, losses, canary), state

    return task._replace(loss=loss)


def _with_canary(
    dataset: FederatedDataset, unit: Unit
) -> tuple[FederatedDataset, tuple[np.ndarray, np.ndarray]]:
    """All clients, the smallest of them twice; the members with the canary, and those without."""
    train = dataset.train
    smallest = int(np.argmin(np.where(train.sizes > 0, train.sizes, np.iinfo(np.int64).max)))
    others = np.delete(np.arange(dataset.num_clients), smallest)
    order = np.concatenate([others, [smallest, smallest]])
    taken = train.take(order)
    size = int(train.sizes[smallest])
    kind = np.zeros(taken.num_examples, np.int32)
    for place, value in ((len(kind) - 2 * size, 1), (len(kind) - size, -1)):
        kind[place : place + (size if unit == "client" else 1)] = value
    names = [dataset.client_names[i] for i in others] + ["with canary", "without canary"]
    audited = dataset.replace(
        client_names=tuple(names),
        train=ClientArrays({**taken.examples, CANARY: kind}, taken.sizes),
        validation=None,
        test=None,
    )
    if unit == "record":
        return audited, (np.array([len(others)]), np.array([len(others) + 1]))
    # In the place that the hospital has in the dataset.
    common = np.arange(len(others))
    included = np.insert(common, smallest, len(others))
    excluded = np.insert(common, smallest, len(others) + 1)
    return audited, (included, excluded)


def _progress(initial: PyTree, params: PyTree, direction: PyTree) -> np.ndarray:
    """How far each model of `params` `[runs, ...]` went along the direction."""

    @jax.jit
    def measure(initial: PyTree, params: PyTree) -> jax.Array:
        change = jax.tree.map(lambda start, end: start[None] - end, initial, params)
        return jax.vmap(lambda each: _dot(direction, each))(change)

    return np.asarray(measure(initial, params), np.float64)


def _dot(a: PyTree, b: PyTree) -> Any:
    products = jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)
    return sum(jax.tree.leaves(products))
