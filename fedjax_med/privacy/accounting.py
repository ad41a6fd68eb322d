"""Epsilon of what was released, by `dp-accounting`; on the host only, never inside a round.

The accountant is imported at the first question (it takes a second), and answers are kept: a
privacy loss distribution is made once for a release, and composed for each number of rounds.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from fedjax_med.privacy.releases import Release

# Beyond it the sum would be nothing but noise; an epsilon that needs more cannot be reached.
MAX_NOISE_MULTIPLIER = 1e6
# Privacy losses are rounded up to multiples of these: the library's default, and ten times that
# for questions that are asked at every round (bounds are larger by 1e-5 in common settings).
FINE, COARSE = 1e-4, 1e-3
_LEAST_NOISE_MULTIPLIER = 0.05
_TOLERANCE = 1e-4  # relative, of a calibrated noise multiplier


class Epsilon(NamedTuple):
    """Upper bounds on epsilon at the delta of the plan; None where an accountant has none.

    Attributes:
      pld: by privacy loss distributions, discretised at 1e-4 and rounded upwards.
      rdp: by Renyi differential privacy over the accountant's orders.
    """

    pld: float | None
    rdp: float | None

    @property
    def value(self) -> float:
        """The number to report: PLD where there is one, which is the tighter."""
        found = self.rdp if self.pld is None else self.pld
        assert found is not None  # every release has at least one of the two
        return found


def library() -> Any:
    """The package `dp_accounting`.

    Raises:
      ImportError: if it is not installed, with the way out.
    """
    try:
        import dp_accounting
    except ImportError as error:
        raise ImportError(
            "Privacy accounting needs the package dp-accounting; install fedjax-med[privacy]."
        ) from error
    return dp_accounting


@contextlib.contextmanager
def _quiet():
    """Keeps the accountant from warning of each order of Renyi divergence that it leaves out."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@functools.lru_cache(maxsize=256)
def _loss_distribution(release: Release, noise_multiplier: float, interval: float) -> Any:
    return release.loss_distribution(library(), noise_multiplier, interval)


@functools.lru_cache(maxsize=256)
def _renyi(event: Any, relation: Any) -> Any:
    with _quiet():
        return library().rdp.RdpAccountant(neighboring_relation=relation).compose(event)


def renyi_epsilon(
    release: Release, noise_multiplier: float, rounds: int, delta: float
) -> float | None:
    """Epsilon by Renyi differential privacy alone; None where the accountant does not know it."""
    if noise_multiplier == 0:
        return math.inf
    dp = library()
    events = release.renyi_events(dp, noise_multiplier, rounds)
    if events is None:
        return None
    if not events:
        return 0.0
    relation = release.relation.of(dp)
    accountants = [_renyi(event, relation) for event, _ in events]
    counts = [count for _, count in events]
    total: Any = sum(a.rdp * count for a, count in zip(accountants, counts, strict=True))
    with _quiet():
        from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

        epsilon, _ = compute_epsilon(accountants[0].orders, total, delta)
    return float(epsilon)


@functools.lru_cache(maxsize=65536)
def epsilon_after(
    release: Release,
    noise_multiplier: float,
    rounds: int,
    delta: float,
    interval: float = FINE,
) -> Epsilon:
    """Epsilon of the first `rounds` rounds of releases.

    Args:
      release: what a round gives away.
      noise_multiplier: standard deviation of the noise over the clip bound; 0 gives infinity.
      rounds: 0 gives 0.
      delta: of (epsilon, delta).
      interval: of the discretisation of privacy losses; a larger one takes less time and gives a
        larger bound.
    """
    if rounds == 0:
        return Epsilon(0.0, 0.0)
    if noise_multiplier == 0:
        return Epsilon(math.inf, math.inf)
    distribution = _loss_distribution(release, noise_multiplier, interval)
    pld = None
    if distribution is not None:
        composed = distribution.self_compose(release.compositions(rounds))
        pld = float(composed.get_epsilon_for_delta(delta))
    return Epsilon(pld, renyi_epsilon(release, noise_multiplier, rounds, delta))


def affordable_rounds(
    release: Release, noise_multiplier: float, delta: float, budget: float, rounds: int
) -> int:
    """The largest number of rounds, at most `rounds`, whose epsilon is at most `budget`."""

    def fits(count: int) -> bool:
        return any(  # fine only where the coarse bound, which is larger, does not settle it
            epsilon_after(release, noise_multiplier, count, delta, interval).value <= budget
            for interval in (COARSE, FINE)
        )

    if fits(rounds):
        return rounds
    low, high = 0, rounds  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _root(gap: Callable[[float], float], low: float, high: float) -> float:
    from scipy import optimize

    found: Any = optimize.brentq(gap, low, high, xtol=_TOLERANCE * high / 4)
    return float(found)


@functools.lru_cache(maxsize=256)
def calibrate(release: Release, epsilon: float, delta: float, rounds: int) -> float:
    """The least noise multiplier with which `rounds` rounds stay within `epsilon`.

    At most 1e-4 of it is given away to the search, always to the safe side.

    Raises:
      ValueError: if no noise multiplier up to 1,000,000 does.
    """

    def gap(noise_multiplier: float) -> float:
        return epsilon_after(release, noise_multiplier, rounds, delta).value - epsilon

    def cheap_gap(noise_multiplier: float) -> float:
        rdp = renyi_epsilon(release, noise_multiplier, rounds, delta)
        if rdp is None:
            rdp = epsilon_after(release, noise_multiplier, rounds, delta, COARSE).value
        return rdp - epsilon

    # Renyi bounds take milliseconds, coarse loss distributions a tenth of fine ones: they find the
    # place.
    high = 0.125
    while cheap_gap(high) > 0:
        high *= 2
        if high > MAX_NOISE_MULTIPLIER:
            raise ValueError(
                f"epsilon {epsilon} cannot be reached in {rounds} rounds at delta {delta}, with "
                f"noise of up to {MAX_NOISE_MULTIPLIER:,.0f} clip bounds; allow a larger epsilon, "
                "fewer rounds or a lower sampling rate."
            )
    low = high / 2
    if cheap_gap(low) > 0:
        high = _root(cheap_gap, low, high)
    while gap(high) > 0:  # the root may lie a rounding beyond
        high *= 1 + _TOLERANCE / 2
    low = 0.9 * high
    while gap(low) <= 0 and low > _LEAST_NOISE_MULTIPLIER:
        high, low = low, 0.9 * low
    if gap(low) <= 0:
        return low
    found = _root(gap, low, high)
    while gap(found) > 0:
        found += _TOLERANCE * high / 2
    return found
