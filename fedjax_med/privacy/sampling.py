"""Cohort samplers whose accounting is known, beside those of `engine.cohorts`.

Which release follows from which sampler is decided here and nowhere else (`release_of`); a sampler
that is not listed is refused.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fedjax_med.engine import cohorts
from fedjax_med.engine.cohorts import CohortSampler
from fedjax_med.privacy.releases import (
    FixedSizeRelease,
    PoissonRelease,
    Relation,
    Release,
    TreeRelease,
    TruncatedRelease,
)

_SUBSETS = 0x73756273  # keeps these draws apart from other host randomness of the seed


def _rng(seed: int, index: int) -> np.random.Generator:
    return np.random.default_rng([_SUBSETS, seed, index])


def _check_rate(rate: float) -> None:
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be above 0 and at most 1, got {rate!r}.")


@dataclasses.dataclass(frozen=True)
class TruncatedPoisson:
    """Every client independently with probability `rate`; of more than `largest`, a random subset.

    For fixed shapes: no round is larger than `largest`.
    """

    rate: float
    largest: int

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _check_rate(self.rate)
        if self.largest < 1:
            raise ValueError(f"largest must be at least 1, got {self.largest}.")

    def draw(self, num_clients: int, round_index: int, seed: int) -> np.ndarray:
        """At most `largest` distinct clients; may be none."""
        rng = _rng(seed, round_index)
        size = min(rng.binomial(num_clients, self.rate), self.largest)
        return rng.choice(num_clients, size, replace=False, shuffle=False)

    def max_size(self, num_clients: int) -> int:
        """`largest`, or everybody."""
        return min(num_clients, self.largest)


@dataclasses.dataclass(frozen=True)
class CyclicPoisson:
    """Poisson sampling from one of `period` groups after the other.

    Client i is in group `i % period`, whoever else there is, and may take part in rounds r with
    `r % period` its group: never twice within `period` rounds, which is what noise that is
    correlated over so many rounds needs.

    Attributes:
      rate: probability of each client of the group whose turn it is.
      period: groups.
    """

    rate: float
    period: int

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _check_rate(self.rate)
        if self.period < 1:
            raise ValueError(f"period must be at least 1, got {self.period}.")

    def draw(self, num_clients: int, round_index: int, seed: int) -> np.ndarray:
        """Distinct clients of the group of the round; may be none."""
        group = np.arange(round_index % self.period, num_clients, self.period)
        return group[_rng(seed, round_index).random(len(group)) < self.rate]

    def max_size(self, num_clients: int) -> int:
        """The largest group, or what `Poisson` says of it."""
        return cohorts.poisson(self.rate).max_size(-(-num_clients // self.period))


@dataclasses.dataclass(frozen=True)
class Passes:
    """Pass after pass over all clients in random order, `size` of them a round.

    Nobody takes part twice in a pass; clients that do not fill a round at its end are left out.
    """

    size: int

    def __post_init__(self) -> None:
        """Checks the arguments."""
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}.")

    def rounds_per_pass(self, num_clients: int) -> int:
        """Rounds of one pass."""
        return num_clients // self.max_size(num_clients)

    def draw(self, num_clients: int, round_index: int, seed: int) -> np.ndarray:
        """`size` distinct clients."""
        number, place = divmod(round_index, self.rounds_per_pass(num_clients))
        order = _rng(seed, number).permutation(num_clients)
        return order[place * self.size : (place + 1) * self.size]

    def max_size(self, num_clients: int) -> int:
        """`size`."""
        if self.size > num_clients:
            raise ValueError(
                f"A pass of {self.size} clients a round needs as many, got {num_clients}."
            )
        return self.size


def _refused(sampler: CohortSampler, relation: Relation, allowed: str) -> ValueError:
    return ValueError(
        f"The accounting of {type(sampler).__name__} sampling with {relation.name} neighbours is "
        f"not known; allowed is {allowed}."
    )


def release_of(
    sampler: CohortSampler, population: int, relation: Relation | None = None
) -> Release:
    """What a round of clients drawn by `sampler` gives away, under the relation asked for.

    | sampler | relations, the default first |
    | --- | --- |
    | `Everyone`, `Poisson`, `CyclicPoisson` | ADD_OR_REMOVE, ZERO_OUT, REPLACE |
    | `TruncatedPoisson` | ZERO_OUT |
    | `Uniform` | REPLACE |
    | `Passes` | ZERO_OUT |

    Raises:
      ValueError: for another sampler or relation.
    """
    match sampler:
        case cohorts.Everyone():
            return PoissonRelease(1.0, relation or Relation.ADD_OR_REMOVE)
        case cohorts.Poisson(rate):
            return PoissonRelease(float(rate), relation or Relation.ADD_OR_REMOVE)
        case CyclicPoisson(rate, period):
            return PoissonRelease(float(rate), relation or Relation.ADD_OR_REMOVE, period)
        case TruncatedPoisson(rate, largest):
            release = TruncatedRelease(population, float(rate), min(largest, population))
        case cohorts.Uniform(size):
            release = FixedSizeRelease(population, sampler.max_size(population))
            if size == population:  # nobody is left out, so nothing is amplified
                release = PoissonRelease(1.0, Relation.REPLACE)
        case Passes():
            release = TreeRelease(sampler.rounds_per_pass(population))
        case _:
            raise ValueError(
                f"The accounting of {type(sampler).__name__} sampling is not known; allowed are "
                "Everyone, Poisson, TruncatedPoisson, CyclicPoisson, Uniform and Passes."
            )
    if relation not in (None, release.relation):
        raise _refused(sampler, relation, release.relation.name)
    return release


def expected_size(sampler: CohortSampler, population: int) -> float:
    """Clients of a round, on average over the sampler's randomness (public; never what came).

    Of `TruncatedPoisson`, before truncation.
    """
    match sampler:
        case cohorts.Poisson(rate) | TruncatedPoisson(rate, _):
            return rate * population
        case CyclicPoisson(rate, period):
            return rate * population / period
        case _:
            return float(sampler.max_size(population))
