"""What a run spends: epsilon by round, the round at which a budget ends, noise for a budget."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from fedjax_med.privacy import accounting
from fedjax_med.privacy.accounting import Epsilon
from fedjax_med.privacy.releases import Release


def check_positive(name: str, value: Any, *, zero: bool = False) -> None:
    """Raises ValueError unless a number is positive (or 0, if `zero`) and finite; tracers pass."""
    if isinstance(value, Tracer):
        return
    number = float(value)
    if not (0 <= number if zero else 0 < number) or not number < math.inf:
        raise ValueError(
            f"{name} must be {'0 or more' if zero else 'positive'} and finite, got {number!r}."
        )


def check_delta(delta: float, population: int, unit: str) -> None:
    """Raises ValueError unless delta is positive and below one over the population.

    With a larger one, publishing somebody at random would count as private.
    """
    if not 0 < delta < 1 / population:
        raise ValueError(
            f"delta must be positive and below 1/{population}, one over the number of {unit}s, "
            f"got {delta!r}."
        )


def noise_multiplier_for(
    releases: tuple[Release, ...],
    *,
    noise_multiplier: float | jax.Array | None,
    epsilon: float | None,
    delta: float,
    rounds: int,
) -> float | jax.Array:
    """The noise multiplier that was given, or the least that keeps all releases within epsilon.

    Raises:
      ValueError: if neither is given, either is out of range, or epsilon cannot be reached.
    """
    if epsilon is not None:
        check_positive("epsilon", epsilon)
    if noise_multiplier is not None:
        check_positive("noise_multiplier", noise_multiplier, zero=True)
        return noise_multiplier
    if epsilon is None:
        raise ValueError("Give noise_multiplier, or epsilon to calibrate it to; both were None.")
    # The most amplified last: where the noise of another is enough already, nothing is searched.
    budget, needed = float(epsilon), 0.0
    for release in sorted(set(releases), key=lambda r: getattr(r, "rate", 1.0), reverse=True):
        if needed:
            coarse = accounting.epsilon_after(release, needed, rounds, delta, accounting.COARSE)
            if coarse.value <= budget:
                continue
        needed = max(needed, accounting.calibrate(release, budget, float(delta), rounds))
    return needed


def _few_digits(rounds: int) -> int:
    """`rounds` rounded up to a number of four binary digits, so exact up to 16."""
    unit = 1 << max(0, rounds.bit_length() - 4)
    return -(-rounds // unit) * unit


@dataclasses.dataclass(frozen=True)
class Ledger:
    """Epsilon of a run, from the same numbers that its noise is made of.

    Attributes:
      releases: what a round gives away of each group that is protected apart from the others (each
        hospital's records); a single one for clients. The run's epsilon is the largest.
      noise_multiplier: standard deviation of the noise over the clip bound.
      delta: of (epsilon, delta).
      budget: the largest epsilon, None without a bound.
      per_round: noisy sums of a round.
    """

    releases: tuple[Release, ...]
    noise_multiplier: float
    delta: float
    budget: float | None = None
    per_round: int = 1

    def each_after(self, rounds: int) -> list[Epsilon]:
        """Epsilon of each group after so many rounds."""
        count = rounds * self.per_round
        return [
            accounting.epsilon_after(release, self.noise_multiplier, count, self.delta)
            for release in self.releases
        ]

    def after(self, rounds: int) -> Epsilon:
        """The largest epsilon of a group."""
        each = self.each_after(rounds)
        columns = zip(*each, strict=True)
        return Epsilon(*(None if None in column else max(column) for column in columns))

    def event(self, rounds: int) -> Any:
        """The accountant's event of the group that spends most, after so many rounds."""
        each = self.each_after(rounds)
        worst = max(range(len(each)), key=lambda i: each[i].value)
        return self.releases[worst].event(
            accounting.library(), self.noise_multiplier, rounds * self.per_round
        )

    def affordable(self, rounds: int) -> int:
        """The largest number of rounds, at most `rounds`, within the budget."""
        if self.budget is None:
            return rounds
        return (
            min(
                accounting.affordable_rounds(
                    release, self.noise_multiplier, self.delta, self.budget, rounds * self.per_round
                )
                for release in set(self.releases)
            )
            // self.per_round
        )

    def spent(self, first_round: int, count: int, last: int) -> dict[str, np.ndarray]:
        """Epsilon after each of `count` rounds, as metrics.

        Both hold after their round. `epsilon` is `after(last).value` in the last round; before, it
        comes from coarser loss distributions, from round 17 on of up to an eighth more rounds, but
        is never above `epsilon_rdp` or what the last round ends at: fine ones of every round would
        take longer than many a run. `epsilon_rdp` is NaN where it is not known.

        Args:
          first_round: rounds done before.
          count: rounds.
          last: rounds of the whole run.
        """
        rounds = range(first_round + 1, first_round + count + 1)
        rdp = np.array([self._renyi_after(r) for r in rounds])
        bound = [self._bound_after(min(_few_digits(r), max(r, last))) for r in rounds]
        at_last = self.after(max(last, first_round + count)).value
        return {"epsilon": np.fmin(np.minimum(bound, at_last), rdp), "epsilon_rdp": rdp}

    def _bound_after(self, rounds: int) -> float:
        count, noise = rounds * self.per_round, self.noise_multiplier
        return max(
            accounting.epsilon_after(r, noise, count, self.delta, accounting.COARSE).value
            for r in set(self.releases)
        )

    def _renyi_after(self, rounds: int) -> float:
        values = [
            accounting.renyi_epsilon(
                release, self.noise_multiplier, rounds * self.per_round, self.delta
            )
            for release in set(self.releases)
        ]
        return math.nan if None in values else max(v for v in values if v is not None)
