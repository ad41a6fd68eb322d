"""What is to be protected, and how: one configuration, of which everything else is derived.

A configuration names the unit, the clip bound, the noise (or the epsilon it is calibrated to) and
the sampling. `plan` checks that together they have a known accounting, and makes the sampler, the
aggregator or gradient, and the ledger from the same numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np

from fedjax_med.engine.cohorts import CohortSampler, Everyone
from fedjax_med.privacy import client_plan, local_plan, record_plan
from fedjax_med.privacy.clipping import QuantileClipping
from fedjax_med.privacy.ledger import check_delta, check_positive, noise_multiplier_for
from fedjax_med.privacy.releases import PoissonRelease, Relation, Release
from fedjax_med.privacy.sampling import CyclicPoisson, Passes, release_of

Unit = Literal["hospital", "patient"]


@dataclasses.dataclass(frozen=True)
class Tree:
    """Noise of a binary tree over the rounds of a pass (DP-FTRL); needs `Passes` sampling."""


@dataclasses.dataclass(frozen=True)
class Banded:
    """Noise correlated over `bands` rounds; needs `CyclicPoisson` with at least that period."""

    bands: int

    def __post_init__(self) -> None:
        """Checks the arguments."""
        if self.bands < 1:
            raise ValueError(f"bands must be at least 1, got {self.bands}.")


@dataclasses.dataclass(frozen=True)
class SimulatedCohort:
    """Noise as it would be in a federation too large to simulate.

    A small cohort is simulated and noised as if `cohort` of `population` clients had been drawn by
    Poisson sampling; epsilon is that of the large federation. The run itself is *not* private with
    that epsilon, and its statement says so.
    """

    cohort: int
    population: int

    def __post_init__(self) -> None:
        """Checks the arguments."""
        if not 0 < self.cohort <= self.population:
            raise ValueError(
                f"cohort must be above 0 and at most the population {self.population}, got "
                f"{self.cohort!r}."
            )


@dataclasses.dataclass(frozen=True)
class ClientLevel:
    """Central differential privacy of whole clients: hospitals, or patients that are clients.

    Every update is clipped to an L2 norm of `clip_norm`; all clients count alike; Gaussian noise of
    `noise_multiplier * clip_norm` is added once to their sum, which is divided by the *expected*
    size of the cohort. Neither the numbers of examples nor the size of the cohort that came play a
    part, since both would make the sensitivity depend on the data.

    Attributes:
      clip_norm: bound on the norm of an update, at first if `clipping` moves it; may be traced.
      delta: of (epsilon, delta), below one over the population.
      noise_multiplier: standard deviation of the noise over the clip bound; may be traced. 0 is no
        noise, and an infinite epsilon.
      epsilon: the budget: no round is run that would exceed it. Without `noise_multiplier`, the
        noise is calibrated so that the planned rounds use it up.
      sampling: who takes part; see `sampling.release_of` for those that are known.
      unit: what a client is, in words.
      relation: which neighbours, None for the sampler's first; see `sampling.release_of`.
      clipping: None for a fixed bound.
      correlation: None for independent noise.
      simulated_cohort: None for what really happens.

    References:
      McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018,
      algorithm 1 (estimator f~_f). https://arxiv.org/abs/1710.06963
    """

    clip_norm: float | jax.Array
    delta: float
    noise_multiplier: float | jax.Array | None = None
    epsilon: float | None = None
    sampling: CohortSampler = Everyone()  # noqa: RUF009 (frozen, so it can be shared)
    unit: Unit = "hospital"
    relation: Relation | None = None
    clipping: QuantileClipping | None = None
    correlation: Tree | Banded | None = None
    simulated_cohort: SimulatedCohort | None = None

    def plan(self, *, population: int, rounds: int) -> client_plan.ClientPlan:
        """Everything that follows for so many clients and rounds.

        Raises:
          ValueError: one sentence on what is out of range, cannot be reached, or has no known
            accounting.
        """
        check_positive("clip_norm", self.clip_norm)
        release, accounted = self._release(population), population
        if self.simulated_cohort is not None:
            accounted = self.simulated_cohort.population
        check_delta(self.delta, accounted, self.unit)
        noise = noise_multiplier_for(
            (release,),
            noise_multiplier=self.noise_multiplier,
            epsilon=self.epsilon,
            delta=self.delta,
            rounds=rounds,
        )
        return client_plan.ClientPlan(self, population, rounds, release, noise)

    def _release(self, population: int) -> Release:
        release = release_of(self.sampling, population, self.relation)
        correlation, sampling = self.correlation, self.sampling
        if isinstance(correlation, Tree) != isinstance(sampling, Passes):
            raise ValueError(
                "Tree noise is accounted for Passes sampling, and Passes sampling for Tree noise; "
                f"got {type(correlation).__name__} noise with {type(sampling).__name__} sampling."
            )
        if isinstance(correlation, Banded) and not (
            isinstance(sampling, CyclicPoisson) and correlation.bands <= sampling.period
        ):
            raise ValueError(
                f"Banded noise over {correlation.bands} rounds is accounted for CyclicPoisson "
                f"sampling with a period of at least as many, got {sampling!r}."
            )
        for other, name in (
            (self.clipping, "a clip bound that moves"),
            (self.simulated_cohort, "a simulated cohort"),
        ):
            if correlation is not None and other is not None:
                raise ValueError(
                    f"The accounting of {type(correlation).__name__} noise with {name} is not known."
                )
        if self.simulated_cohort is None:
            return release
        large = self.simulated_cohort
        return PoissonRelease(large.cohort / large.population)


@dataclasses.dataclass(frozen=True)
class LocalLevel:
    """Local differential privacy: every client noises its own update, nobody has to be trusted.

    An update is clipped to `clip_norm` and gets Gaussian noise of `noise_multiplier * clip_norm`
    before it is sent. Any two updates are neighbours, at a distance of up to two clip bounds, and
    sampling hides nothing from a server that draws the cohorts: every client is accounted as if it
    took part in every round.

    Attributes:
      clip_norm: bound on the norm of an update; may be traced.
      delta: of (epsilon, delta), below one over the population.
      noise_multiplier: standard deviation of a client's noise over the clip bound; may be traced.
      epsilon: the budget, see `ClientLevel`.
      sampling: any sampler.
      unit: what a client is, in words.
    """

    clip_norm: float | jax.Array
    delta: float
    noise_multiplier: float | jax.Array | None = None
    epsilon: float | None = None
    sampling: CohortSampler = Everyone()  # noqa: RUF009 (frozen, so it can be shared)
    unit: Unit = "hospital"

    def plan(self, *, population: int, rounds: int) -> local_plan.LocalPlan:
        """Everything that follows for so many clients and rounds; raises like `ClientLevel.plan`."""
        check_positive("clip_norm", self.clip_norm)
        check_delta(self.delta, population, self.unit)
        release = PoissonRelease(1.0, Relation.REPLACE)
        noise = noise_multiplier_for(
            (release,),
            noise_multiplier=self.noise_multiplier,
            epsilon=self.epsilon,
            delta=self.delta,
            rounds=rounds,
        )
        return local_plan.LocalPlan(self, population, rounds, release, noise)


@dataclasses.dataclass(frozen=True)
class RecordLevel:
    """DP-SGD inside each hospital: every record is protected, also from the server.

    A local step draws each of a hospital's n records independently with probability
    `min(1, batch_size / n)`, clips each one's gradient to `clip_norm`, adds up, adds noise of
    `noise_multiplier * clip_norm`, and divides by the expected size. Of more than `largest_batch`
    records a random subset is kept, which the accounting knows. Each hospital has its own epsilon,
    since it has its own n; that of the run is the largest. Hospitals are accounted as if they took
    part in every round.

    Attributes:
      clip_norm: bound on the norm of a record's gradient; may be traced.
      delta: of (epsilon, delta), below one over the records of the largest hospital.
      batch_size: expected records of a step.
      steps: local steps of a round.
      noise_multiplier: standard deviation of the noise over the clip bound; may be traced.
      epsilon: the budget of every hospital, see `ClientLevel`.
      largest_batch: six standard deviations above `batch_size` if None.
      microbatch_size: records whose gradients are held at the same time.

    References:
      Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, algorithm 1.
      https://arxiv.org/abs/1607.00133
    """

    clip_norm: float | jax.Array
    delta: float
    batch_size: int
    steps: int
    noise_multiplier: float | jax.Array | None = None
    epsilon: float | None = None
    largest_batch: int | None = None
    microbatch_size: int = 16

    @property
    def most(self) -> int:
        """`largest_batch` with its default filled in."""
        if self.largest_batch is not None:
            return self.largest_batch
        return self.batch_size + int(6 * self.batch_size**0.5) + 1

    def plan(self, *, sizes: Sequence[int] | np.ndarray, rounds: int) -> record_plan.RecordPlan:
        """Everything that follows for hospitals with so many training records.

        Args:
          sizes: training records of each hospital, `dataset.train.sizes`.
          rounds: federated rounds.

        Raises:
          ValueError: one sentence on what is out of range or cannot be reached.
        """
        check_positive("clip_norm", self.clip_norm)
        check_positive("batch_size", self.batch_size)
        check_positive("steps", self.steps)
        check_positive("microbatch_size", self.microbatch_size)
        if self.most < self.batch_size:
            raise ValueError(
                f"largest_batch must be at least batch_size {self.batch_size}, got {self.most}."
            )
        sizes = tuple(int(n) for n in sizes)
        check_delta(self.delta, max(sizes), "record")
        releases = tuple(record_plan.release_of_hospital(self, n) for n in sizes)
        noise = noise_multiplier_for(
            releases,
            noise_multiplier=self.noise_multiplier,
            epsilon=self.epsilon,
            delta=self.delta,
            rounds=rounds * self.steps,
        )
        return record_plan.RecordPlan(self, sizes, rounds, releases, noise)
