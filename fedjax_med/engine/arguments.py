"""The arguments of `simulate`, and what is wrong with them if anything is."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from fedjax_med.data import FederatedDataset
from fedjax_med.engine.callbacks import Callback
from fedjax_med.engine.cohorts import CohortSampler, StaleCohorts
from fedjax_med.engine.contracts import FederatedAlgorithm, Variables
from fedjax_med.engine.experiments import Experiments
from fedjax_med.engine.guarantee import Spending, check_conditions
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.engine.placement import Placement
from fedjax_med.engine.rounds import AlgorithmBuilder
from fedjax_med.engine.run import CheckpointPolicy
from fedjax_med.engine.task import Task
from fedjax_med_kernels.client_batched import Choice

logger = logging.getLogger("fedjax_med")

AlgorithmLike = FederatedAlgorithm | Callable[..., FederatedAlgorithm]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The arguments of `simulate`, with its defaults filled in."""

    algorithm: AlgorithmLike
    dataset: FederatedDataset
    task: Task
    rounds: int
    local_work: LocalWork
    sampler: CohortSampler
    placement: Placement
    lanes: int | None
    seed: int
    variables: Variables | None
    hyperparameters: dict[str, Any]
    experiments: Experiments | None
    evaluate_every: int
    evaluate_on: tuple[str, ...]
    callbacks: tuple[Callback, ...]
    checkpoint: CheckpointPolicy | None
    rounds_per_call: int
    stream: bool
    description: dict[str, Any]
    rewrite: bool | Choice = True
    state: Any = None
    spending: Spending | None = None

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _check(self)

    @property
    def mapped(self) -> bool:
        """Whether there is an experiments axis."""
        return self.experiments is not None

    @property
    def seeds(self) -> tuple[int, ...]:
        """One seed per experiment."""
        return self.experiments.seeds if self.experiments else (self.seed,)

    @property
    def members(self) -> tuple[np.ndarray, ...] | None:
        """The clients of each experiment, None for everybody in all of them."""
        return self.experiments.members if self.experiments else None

    def populations(self) -> list[tuple[int, np.ndarray | None]]:
        """Seed and clients of each experiment; of one where they all have the same cohorts."""
        if self.members is not None:
            return list(zip(self.seeds, self.members, strict=True))
        same = not getattr(self.sampler, "uses_seed", True)
        return [(seed, None) for seed in (self.seeds[:1] if same else self.seeds)]

    def traced_hyperparameters(self) -> dict[str, np.ndarray]:
        """Hyperparameters as arrays in JAX's default precision, `[experiments]` if mapped."""
        values = self.experiments.hyperparameters if self.experiments else self.hyperparameters
        return {name: _as_array(value) for name, value in values.items()}

    def evaluates_at(self, done: int) -> bool:
        """Whether the model is evaluated after `done` rounds."""
        every = self.evaluate_every
        return every > 0 and (done == self.rounds or done % every == 0)

    def saves_at(self, done: int) -> bool:
        """Whether a checkpoint is written after `done` rounds."""
        if self.checkpoint is None:
            return False
        return done == self.rounds or done % self.checkpoint.every == 0

    def stops_at(self, done: int) -> bool:
        """Whether the run pauses after `done` rounds, for anything at all."""
        return (
            done == self.rounds
            or self.evaluates_at(done)
            or self.saves_at(done)
            or any(callback.stops_at(done) for callback in self.callbacks)
        )


def _check(a: Arguments) -> None:
    for name, value, least in (
        ("rounds", a.rounds, 1),
        ("rounds_per_call", a.rounds_per_call, 1),
        ("evaluate_every", a.evaluate_every, 0),
        ("lanes", 1 if a.lanes is None else a.lanes, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")
    if a.local_work.batch_size % a.placement.num_splits:
        raise ValueError(
            f"batch_size {a.local_work.batch_size} cannot be split over "
            f"{a.placement.num_splits} devices evenly."
        )
    if a.experiments is not None and a.hyperparameters:
        raise ValueError("Give hyperparameters inside `experiments`, or without it, not both.")
    named = a.hyperparameters or (a.experiments.hyperparameters if a.experiments else {})
    if named and isinstance(a.algorithm, FederatedAlgorithm):
        raise ValueError(
            f"The hyperparameters {', '.join(named)} need an algorithm given as a function of "
            "them, got one that is already built."
        )
    smallest = int(np.argmin(a.dataset.train.sizes))
    if a.dataset.train.sizes[smallest] == 0:
        raise ValueError(
            f"Client {a.dataset.client_names[smallest]!r} has no training examples; "
            "every client needs at least 1."
        )
    if a.state is not None and a.variables is not None:
        raise ValueError("Give variables or a state (which holds variables), not both.")
    if a.state is not None and not hasattr(a.state, "variables"):
        raise ValueError(
            "state must be a server state of this algorithm, such as `run.state`, got "
            f"{type(a.state).__name__}."
        )
    splits = a.dataset.splits()
    for split in a.evaluate_on if a.evaluate_every else ():
        if split not in splits or splits[split].num_examples == 0:
            raise ValueError(
                f"evaluate_on names the split {split!r}, but {a.dataset.name} has no such "
                f"examples; it has {', '.join(splits)}."
            )
    if a.checkpoint is not None and a.checkpoint.every < 1:
        raise ValueError(f"checkpoint.every must be at least 1, got {a.checkpoint.every}.")
    for members in a.members or ():
        if not 0 <= members.min() <= members.max() < a.dataset.num_clients:
            raise ValueError(
                f"members must be clients 0 to {a.dataset.num_clients - 1} of {a.dataset.name}, "
                f"got {members.min()} to {members.max()}."
            )
    for seed in a.seeds:
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed must be from 0 to 2**32 - 1, got {seed}.")


def _built(a: Arguments) -> list[FederatedAlgorithm]:
    """The algorithm with the concrete hyperparameters of every experiment; one if none differ."""
    build, hyper = a.algorithm, a.traced_hyperparameters()
    if isinstance(build, FederatedAlgorithm):
        return [build]
    return [
        build(**{n: (v[index] if a.mapped else v).item() for n, v in hyper.items()})
        for index in range(len(a.seeds))
    ]


def under_guarantee(a: Arguments, *, free_sampler: bool) -> Arguments:
    """The arguments of a run that keeps to what its algorithm promises about privacy.

    Args:
      a: the arguments as given.
      free_sampler: whether the sampler is a default, which the guarantee may replace.

    Raises:
      ValueError: if the run does not meet the conditions, or no round is within the budget.
    """
    promised = [algorithm.privacy for algorithm in _built(a)]
    guarantees = [g for g in promised if g is not None]
    if not guarantees:
        return a
    first = guarantees[0]
    if free_sampler and first.sampler is not None:
        a = dataclasses.replace(a, sampler=first.sampler)
    guarantees = guarantees * (len(a.seeds) if len(guarantees) == 1 else 1)
    everybody = [None] * len(a.seeds) if a.members is None else a.members
    rounds = a.rounds
    for guarantee, members in zip(guarantees, everybody, strict=True):
        sizes = a.dataset.train.sizes
        check_conditions(
            guarantee,
            sampler=a.sampler,
            local_work=a.local_work,
            sizes=sizes if members is None else sizes[members],
            begins_anew=a.state is None,
        )
        rounds = min(rounds, guarantee.limit(a.rounds))
    if rounds < a.rounds:
        logger.warning(
            "The run ends after %d of %d rounds: the next would exceed its privacy budget.",
            rounds,
            a.rounds,
        )
    return dataclasses.replace(a, rounds=rounds, spending=Spending(guarantees, a.mapped))


def concrete_algorithm(a: Arguments) -> tuple[FederatedAlgorithm, AlgorithmBuilder]:
    """The algorithm of the first experiment, and a function of traced hyperparameters.

    Builds the algorithm with every concrete value once, so that bad ones are refused.

    Raises:
      ValueError: if the algorithm was built for another number of clients, or keeps too few of
        the models that an asynchronous schedule needs.
    """
    build = a.algorithm
    first = _built(a)[0]
    for _, members in a.populations():
        population = a.dataset.num_clients if members is None else len(members)
        if first.num_clients not in (None, population):
            whose = a.dataset.name if members is None else "an experiment"
            raise ValueError(
                f"The algorithm was built for num_clients={first.num_clients}, but {whose} has "
                f"{population} clients."
            )
    stale = a.sampler.max_staleness if isinstance(a.sampler, StaleCohorts) else 0
    if stale > first.max_staleness:
        raise ValueError(
            f"In this schedule clients begin with models up to {stale} rounds old, but the "
            f"algorithm keeps max_staleness={first.max_staleness}; use `fed_buff` or `fed_async` "
            "with at least that."
        )
    if isinstance(build, FederatedAlgorithm):
        return first, lambda hyperparameters: build
    return first, lambda hyperparameters: build(**hyperparameters)


def _as_array(value: Any) -> np.ndarray:
    """A hyperparameter in the default precision of JAX, not weakly typed."""
    array = np.asarray(value)
    return array.astype(jnp.result_type(float if array.dtype.kind == "f" else array.dtype))
