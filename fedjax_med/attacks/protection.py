"""A protection to be audited, and trainings with it and without."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import optax

from fedjax_med import algorithms
from fedjax_med.attacks.canaries import Train, Unit
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import Aggregator, Experiments, FederatedAlgorithm, Run, Task, simulate
from fedjax_med.engine.cohorts import CohortSampler, Everyone
from fedjax_med.engine.contracts import GradientFn
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.privacy import ClientLevel, RecordLevel, private


@dataclasses.dataclass(frozen=True)
class Protection:
    """Differential privacy of a training, whatever the sizes of its hospitals.

    Attributes:
      settings: with a noise multiplier; a budget is not kept to, as audits do not end early.
    """

    settings: ClientLevel | RecordLevel

    def __post_init__(self) -> None:
        """Checks that the noise does not depend on the sizes of hospitals."""
        if self.settings.noise_multiplier is None:
            raise ValueError("settings must have a noise_multiplier; see `calibrated`.")
        object.__setattr__(self, "settings", dataclasses.replace(self.settings, epsilon=None))

    @property
    def unit(self) -> str:
        """What is protected, in a word."""
        return "record" if isinstance(self.settings, RecordLevel) else self.settings.unit

    @property
    def canary(self) -> Unit:
        """What a canary takes the place of."""
        return "record" if isinstance(self.settings, RecordLevel) else "client"

    def plan(self, sizes: np.ndarray, rounds: int) -> Any:
        """The privacy plan for hospitals with so many training records.

        Raises:
          ValueError: if there is no accounting for it.
        """
        return _plan(self.settings, sizes, rounds)


def calibrated(
    settings: ClientLevel | RecordLevel, epsilon: float, sizes: np.ndarray, rounds: int
) -> Protection:
    """The protection with the least noise that stays within epsilon.

    Raises:
      ValueError: if it cannot be reached.
    """
    wanted = dataclasses.replace(settings, epsilon=epsilon, noise_multiplier=None)
    if isinstance(settings, RecordLevel):
        sizes = sizes[[int(np.argmin(sizes))]]  # of which the largest share is sampled
    noise = float(_plan(wanted, sizes, rounds).noise_multiplier)
    return Protection(dataclasses.replace(settings, noise_multiplier=noise))


def _plan(settings: ClientLevel | RecordLevel, sizes: np.ndarray, rounds: int) -> Any:
    if isinstance(settings, RecordLevel):
        return settings.plan(sizes=[int(n) for n in sizes], rounds=rounds)
    return settings.plan(population=len(sizes), rounds=rounds)


class Training(NamedTuple):
    """How the audited models are trained.

    Attributes:
      rounds: federated rounds.
      local_work: of hospitals without protection, and at hospital level.
      sampler: of the cohorts without protection.
      build: `(task) -> algorithm` without protection.
      build_private: `(task, gradient, aggregator) -> algorithm`, of what a privacy plan makes.
    """

    rounds: int
    local_work: LocalWork
    sampler: CohortSampler
    build: Callable[[Task], FederatedAlgorithm]
    build_private: Callable[[Task, GradientFn, Aggregator], FederatedAlgorithm]

    def unprotected(self, rounds: int | None = None) -> Train:
        """Trainings as they are without protection."""

        def train(task: Task, dataset: FederatedDataset, experiments: Experiments) -> Run:
            return simulate(
                self.build(task),
                dataset,
                task=task,
                rounds=rounds or self.rounds,
                local_work=self.local_work,
                cohort=_for_members(self.sampler, experiments),
                experiments=experiments,
            )

        return train

    def protected(self, protection: Protection, rounds: int | None = None) -> Train:
        """Trainings under the protection; each population gets the plan of its own sizes.

        Populations of one call must have the same sizes. A hospital that is looked at alone takes part in
        every round, and gets all of the noise.
        """

        def train(task: Task, dataset: FederatedDataset, experiments: Experiments) -> Run:
            members = experiments.members
            sizes = dataset.train.sizes
            sizes = sizes if members is None else sizes[members[0]]
            settings = protection.settings
            if isinstance(settings, ClientLevel):
                sampling = _for_members(settings.sampling, experiments)
                settings = dataclasses.replace(settings, sampling=sampling)
            plan = _plan(settings, sizes, rounds or self.rounds)
            algorithm = private(
                lambda gradient, aggregator: self.build_private(task, gradient, aggregator),
                plan,
                task=task,
            )
            return simulate(
                # Epsilon is told once for the plan, not after every round of every experiment.
                algorithm._replace(privacy=None),
                dataset,
                task=task,
                rounds=rounds or self.rounds,
                local_work=plan.local_work or self.local_work,
                cohort=plan.sampler or _for_members(self.sampler, experiments),
                experiments=experiments,
            )

        return train


def fed_avg_training(
    optimizer: optax.GradientTransformation,
    *,
    rounds: int,
    local_work: LocalWork,
    sampler: CohortSampler | None = None,
) -> Training:
    """FedAvg, in which all hospitals count alike where they are protected."""
    return Training(
        rounds,
        local_work,
        sampler or Everyone(),
        lambda task: algorithms.fed_avg(task.gradient, optimizer),
        lambda task, gradient, aggregator: algorithms.fed_avg(
            gradient, optimizer, aggregator=aggregator, weighting=algorithms.equal
        ),
    )


def _for_members(sampler: CohortSampler, experiments: Experiments) -> CohortSampler:
    """The sampler, or everybody where a single hospital is looked at."""
    members = experiments.members
    alone = members is not None and all(len(each) == 1 for each in members)
    return Everyone() if alone else sampler
