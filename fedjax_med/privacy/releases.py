"""What a round gives away, as accountants see it: who was sampled how, under which relation.

A release knows no clip bound: noise is counted in multiples of it. Where two neighbours can differ
by more than one clip bound (one contribution replaced by another: by two), it is here that the
noise is divided by that.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any, Protocol, runtime_checkable


class Relation(enum.Enum):
    """Which data sets count as neighbours; the value says it in words."""

    ADD_OR_REMOVE = "one {unit} added or removed"
    ZERO_OUT = "what one {unit} contributes replaced by nothing"
    REPLACE = "one {unit} replaced by another"

    def of(self, dp: Any) -> Any:
        """The same of the library."""
        relations = dp.NeighboringRelation
        return {
            Relation.ADD_OR_REMOVE: relations.ADD_OR_REMOVE_ONE,
            Relation.ZERO_OUT: relations.REPLACE_SPECIAL,
            Relation.REPLACE: relations.REPLACE_ONE,
        }[self]


@runtime_checkable
class Release(Protocol):
    """The noisy sums of a run of rounds. A frozen dataclass: it is the key of what was computed."""

    @property
    def relation(self) -> Relation:
        """Which data sets count as neighbours."""
        ...

    def event(self, dp: Any, noise_multiplier: float, rounds: int) -> Any:
        """The `DpEvent` of the first `rounds` rounds."""
        ...

    def compositions(self, rounds: int) -> int:
        """How often the loss distribution is composed with itself in `rounds` rounds."""
        ...

    def loss_distribution(self, dp: Any, noise_multiplier: float, interval: float) -> Any:
        """Privacy loss distribution of one composition, rounded up to multiples of `interval`."""
        ...

    def renyi_events(self, dp: Any, noise_multiplier: float, rounds: int) -> list | None:
        """`(event, count)` pairs that the Renyi accountant composes, None if it knows none."""
        ...


@dataclasses.dataclass(frozen=True)
class PoissonRelease:
    """A sum over a Poisson sample, plus Gaussian noise.

    Attributes:
      rate: probability of each contribution; 1 is everybody.
      relation: any of the three.
      every: rounds between two that the same client may take part in. The noise may then be
        correlated over that many rounds, and they count as one (Choquette-Choo et al., 2023,
        theorem 4, https://arxiv.org/abs/2306.08153).
    """

    rate: float
    relation: Relation = Relation.ADD_OR_REMOVE
    every: int = 1

    def _event(self, dp: Any, noise_multiplier: float) -> Any:
        gaussian = dp.GaussianDpEvent(noise_multiplier)
        return gaussian if self.rate == 1 else dp.PoissonSampledDpEvent(self.rate, gaussian)

    def compositions(self, rounds: int) -> int:
        """One in each group of `every` rounds."""
        return -(-rounds // self.every)

    def event(self, dp: Any, noise_multiplier: float, rounds: int) -> Any:
        """The `DpEvent` of the first `rounds` rounds."""
        return dp.SelfComposedDpEvent(self._event(dp, noise_multiplier), self.compositions(rounds))

    def loss_distribution(self, dp: Any, noise_multiplier: float, interval: float) -> Any:
        """Of the sampled Gaussian; for REPLACE the library doubles the sensitivity itself."""
        from dp_accounting.pld import privacy_loss_distribution as pld

        return pld.from_gaussian_mechanism(
            noise_multiplier,
            value_discretization_interval=interval,
            sampling_prob=self.rate,
            neighboring_relation=self.relation.of(dp),
        )

    def renyi_events(self, dp: Any, noise_multiplier: float, rounds: int) -> list | None:
        """Under REPLACE the library knows the unsampled Gaussian only, by its sensitivity."""
        if self.relation is Relation.REPLACE:
            if self.rate < 1:
                return None
            noise_multiplier = noise_multiplier / 2
        return [(self._event(dp, noise_multiplier), self.compositions(rounds))]


@dataclasses.dataclass(frozen=True)
class TruncatedRelease:
    """A sum over a Poisson sample of which at most `largest` are kept, plus Gaussian noise.

    References:
      https://arxiv.org/abs/2508.15089

    Attributes:
      population: contributions there are.
      rate: probability of each.
      largest: most that are kept, a random subset.
    """

    population: int
    rate: float
    largest: int

    @property
    def relation(self) -> Relation:
        """The population is public, since the analysis depends on it."""
        return Relation.ZERO_OUT

    def _event(self, dp: Any, noise_multiplier: float) -> Any:
        return dp.TruncatedSubsampledGaussianDpEvent(
            self.population, self.rate, self.largest, noise_multiplier
        )

    def compositions(self, rounds: int) -> int:
        """One a round."""
        return rounds

    def event(self, dp: Any, noise_multiplier: float, rounds: int) -> Any:
        """The `DpEvent` of the first `rounds` rounds."""
        return dp.SelfComposedDpEvent(self._event(dp, noise_multiplier), rounds)

    def loss_distribution(self, dp: Any, noise_multiplier: float, interval: float) -> Any:
        """Of the truncated sample."""
        from dp_accounting.pld import privacy_loss_distribution as pld

        return pld.from_truncated_subsampled_gaussian_mechanism(
            self.population,
            self.rate,
            self.largest,
            noise_multiplier,
            value_discretization_interval=interval,
            neighboring_relation=self.relation.of(dp),
        )

    def renyi_events(self, dp: Any, noise_multiplier: float, rounds: int) -> list | None:
        """Not known."""
        return None


@dataclasses.dataclass(frozen=True)
class FixedSizeRelease:
    """A sum over a sample of fixed size without replacement, plus Gaussian noise.

    References:
      Wang, Balle and Kasiviswanathan, AISTATS 2019, theorem 27. https://arxiv.org/abs/1808.00087

    Attributes:
      population: contributions there are, which is public.
      size: of the sample.
    """

    population: int
    size: int

    @property
    def relation(self) -> Relation:
        """The theorem's: the size would give away one added or removed."""
        return Relation.REPLACE

    def _event(self, dp: Any, noise_multiplier: float) -> Any:
        # One contribution replaced by another moves the sum by up to two clip bounds, and the
        # accountant takes the noise in units of that.
        return dp.SampledWithoutReplacementDpEvent(
            self.population, self.size, dp.GaussianDpEvent(noise_multiplier / 2)
        )

    def compositions(self, rounds: int) -> int:
        """One a round."""
        return rounds

    def event(self, dp: Any, noise_multiplier: float, rounds: int) -> Any:
        """The `DpEvent` of the first `rounds` rounds."""
        return dp.SelfComposedDpEvent(self._event(dp, noise_multiplier), rounds)

    def loss_distribution(self, dp: Any, noise_multiplier: float, interval: float) -> Any:
        """Not known."""
        return None

    def renyi_events(self, dp: Any, noise_multiplier: float, rounds: int) -> list | None:
        """One a round."""
        return [(self._event(dp, noise_multiplier), rounds)]


@dataclasses.dataclass(frozen=True)
class TreeRelease:
    """Prefix sums with the noise of a binary tree, begun anew at every pass over the clients.

    References:
      Kairouz et al., ICML 2021, appendix D. https://arxiv.org/abs/2103.00039

    Attributes:
      rounds_per_pass: rounds in which every client takes part at most once.
    """

    rounds_per_pass: int

    @property
    def relation(self) -> Relation:
        """The paper's."""
        return Relation.ZERO_OUT

    def _trees(self, rounds: int) -> list[tuple[int, int]]:
        """(rounds in a tree, trees of that many)."""
        whole, rest = divmod(rounds, self.rounds_per_pass)
        trees = [(self.rounds_per_pass, whole), (rest, 1)]
        return [(steps, count) for steps, count in trees if steps and count]

    def compositions(self, rounds: int) -> int:
        """Trees begun."""
        return math.ceil(rounds / self.rounds_per_pass)

    def event(self, dp: Any, noise_multiplier: float, rounds: int) -> Any:
        """The `DpEvent` of the first `rounds` rounds."""
        pairs = self.renyi_events(dp, noise_multiplier, rounds)
        return dp.ComposedDpEvent([dp.SelfComposedDpEvent(e, count) for e, count in pairs])

    def loss_distribution(self, dp: Any, noise_multiplier: float, interval: float) -> Any:
        """The library knows none."""
        return None

    def renyi_events(self, dp: Any, noise_multiplier: float, rounds: int) -> list:
        """A tree for every pass, the last one perhaps not full."""
        return [
            (dp.SingleEpochTreeAggregationDpEvent(noise_multiplier, steps), count)
            for steps, count in self._trees(rounds)
        ]
