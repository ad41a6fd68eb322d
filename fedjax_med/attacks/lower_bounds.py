"""Lower bounds on epsilon, from the scores of canaries that were included and of others that were not.

A claim of differential privacy is an upper bound that rests on a proof and on its implementation. Here
is the other side: if an attack tells included canaries from others better than the claim allows, the
claim is false, with the confidence given. A bound below the claim proves nothing.

Every estimator tries the same few numbers of guesses, fixed in advance as shares of all canaries, and
pays for having tried them all (Bonferroni).

References:
  Clopper and Pearson, Biometrika 1934; Jagielski et al., NeurIPS 2020, https://arxiv.org/abs/2006.07709
  Steinke, Nasr and Jagielski, NeurIPS 2023, https://arxiv.org/abs/2305.08846
  Mahloujifar, Melis and Chaudhuri, 2024, https://arxiv.org/abs/2410.22235
  Nasr et al., USENIX Security 2023, https://arxiv.org/abs/2302.07956
  Dong, Roth and Su, JRSS B 2022, https://arxiv.org/abs/1905.02383
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, stats
from scipy.special import log_ndtr, ndtr, ndtri

# Shares of the canaries that are guessed to be included, those with the highest scores.
_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_MOST_EPSILON = 100.0  # beyond, no claim means anything


class Guesses(NamedTuple):
    """What becomes of guessing that the canaries with the highest scores were included.

    Attributes:
      num_included: canaries that were.
      num_excluded: canaries that were not.
      correct: int `[numbers of guesses]`, those guessed that were included.
      wrong: int `[numbers of guesses]`, those guessed that were not.
    """

    num_included: int
    num_excluded: int
    correct: np.ndarray
    wrong: np.ndarray


def guess(included: Any, excluded: Any) -> Guesses:
    """Guesses from the scores of canaries, higher where a canary seems to have been included.

    Args:
      included: float `[canaries]`, scores of those that were.
      excluded: float `[canaries]`, scores of those that were not.

    Raises:
      ValueError: if there are fewer than 10 of either, or a score is not finite.
    """
    included, excluded = np.asarray(included, np.float64), np.asarray(excluded, np.float64)
    for name, scores in (("included", included), ("excluded", excluded)):
        if scores.ndim != 1 or len(scores) < 10:
            raise ValueError(
                f"{name} must be the scores of at least 10 canaries, got shape {scores.shape}."
            )
        if not np.isfinite(scores).all():
            raise ValueError(f"{name} must be finite, got {scores[~np.isfinite(scores)][0]}.")
    scores = np.concatenate([included, excluded])
    total = len(scores)
    # Ties are broken against the attack: those that were not included are guessed first.
    order = np.lexsort((np.arange(total) < len(included), -scores))
    right = np.cumsum(order < len(included))
    numbers = np.unique(np.maximum(1, np.round(np.array(_SHARES) * total).astype(int)))
    correct = right[numbers - 1]
    return Guesses(len(included), len(excluded), correct, numbers - correct)


def clopper_pearson(count: Any, total: Any, significance: float) -> np.ndarray:
    """Upper bounds on the probabilities of events that were seen `count` times of `total`.

    Each is too low with a probability of at most `significance`.
    """
    count, total = np.asarray(count), np.asarray(total)
    with np.errstate(invalid="ignore"):
        bound = stats.beta.ppf(1 - significance, count + 1, np.maximum(total - count, 0))
    return np.where(count < total, bound, 1.0)


def epsilon_of_gdp(mu: float, delta: float) -> float:
    """The epsilon at `delta` of `mu`-Gaussian differential privacy, 0 where it has none.

    Dong, Roth and Su, corollary 2.13: delta = Phi(-eps / mu + mu / 2) - e^eps Phi(-eps / mu - mu / 2).
    """
    if mu <= 0:
        return 0.0

    def excess(epsilon: float) -> float:
        high = log_ndtr(-epsilon / mu + mu / 2)
        low = epsilon + log_ndtr(-epsilon / mu - mu / 2)
        with np.errstate(divide="ignore"):  # far out both are equal in float64: delta is 0 there
            return float(np.maximum(high + np.log(-np.expm1(low - high)), -1e4) - np.log(delta))

    return _root(excess, 0.0, mu**2 + 20 * mu) if excess(0.0) > 0 else 0.0


def rates_bound(guesses: Guesses, delta: float, significance: float = 0.05) -> float:
    """The bound of single error rates: epsilon >= log((1 - delta - miss) / false alarm).

    Both rates are replaced by their Clopper-Pearson bounds. Assumes nothing of the mechanism.
    """
    false_alarm, miss = _error_rates(guesses, significance)
    with np.errstate(divide="ignore", invalid="ignore"):
        epsilon = np.log(np.maximum(1 - delta - miss, 0)) - np.log(false_alarm)
    return float(max(0.0, np.nanmax(epsilon)))


def gdp_bound(guesses: Guesses, delta: float, significance: float = 0.05) -> float:
    """The bound of a mechanism whose trade-off of errors is that of a Gaussian one.

    Adding Gaussian noise is, and many rounds of it are nearly, whatever the sampling (Nasr et al.,
    2023). The closest of the bounds: it shows noise that is too small by half.
    """
    false_alarm, miss = _error_rates(guesses, significance)
    useful = np.maximum(false_alarm, miss) < 1 - delta
    if not useful.any():
        return 0.0
    mu = stats.norm.isf(false_alarm[useful]) - stats.norm.ppf(miss[useful])
    return epsilon_of_gdp(float(mu.max()), delta)


def one_run_bound(guesses: Guesses, delta: float, significance: float = 0.05) -> float:
    """The bound from many canaries of one training, each included with probability one half.

    Steinke et al. (2023), theorem 5.2, with no guesses of exclusion. Assumes nothing of the mechanism
    and holds although the canaries share a training.
    """
    total = guesses.num_included + guesses.num_excluded
    each = significance / len(guesses.correct)

    def refuted(epsilon: float, right: int, wrong: int) -> float:
        return each - _one_run_p_value(total, right + wrong, right, epsilon, delta)

    return _largest_refuted(refuted, guesses)


def f_dp_bound(guesses: Guesses, delta: float, significance: float = 0.05) -> float:
    """The bound from many canaries of one training for a mechanism as private as a Gaussian one.

    Mahloujifar et al. (2024), algorithm 3 with the trade-off curve of a Gaussian mechanism.
    """
    total = guesses.num_included + guesses.num_excluded
    each = significance / len(guesses.correct)

    def refuted(mu: float, right: int, wrong: int) -> float:
        return _f_dp_excess(total, right + wrong, right, mu, each)

    return min(_MOST_EPSILON, epsilon_of_gdp(_largest_refuted(refuted, guesses), delta))


def _error_rates(guesses: Guesses, significance: float) -> tuple[np.ndarray, np.ndarray]:
    """Upper bounds on the rates of false alarms and misses, all valid together."""
    each = significance / (2 * len(guesses.correct))
    false_alarm = clopper_pearson(guesses.wrong, guesses.num_excluded, each)
    missed = guesses.num_included - guesses.correct
    return false_alarm, clopper_pearson(missed, guesses.num_included, each)


def _largest_refuted(refuted: Any, guesses: Guesses) -> float:
    """The largest parameter that some number of guesses refutes: above 0 there, and falling."""
    best = 0.0
    for right, wrong in zip(guesses.correct.tolist(), guesses.wrong.tolist(), strict=True):
        # Cheap first: most numbers of guesses refute less than one before them.
        if right <= wrong or refuted(best, right, wrong) <= 0:
            continue
        high = best + 1
        while refuted(high, right, wrong) > 0 and high < _MOST_EPSILON:
            high *= 2
        if high >= _MOST_EPSILON:
            return _MOST_EPSILON
        best = _root(lambda x, r=right, w=wrong: refuted(x, r, w), best, high)
    return best


def _one_run_p_value(
    total: int, num_guesses: int, num_correct: int, epsilon: float, delta: float
) -> float:
    """Probability of that many correct guesses or more under (epsilon, delta), at most."""
    accuracy = 1 / (1 + np.exp(-epsilon))
    tail = stats.binom.sf(num_correct - 1, num_guesses, accuracy)
    below = stats.binom.pmf(np.arange(num_correct - 1, -1, -1), num_guesses, accuracy)
    shift = np.max(np.cumsum(below) / np.arange(1, num_correct + 1), initial=0.0)
    return float(min(1.0, tail + 2 * total * delta * shift))


def _f_dp_excess(
    total: int, num_guesses: int, num_correct: int, mu: float, significance: float
) -> float:
    """Above 0 where that many correct guesses refute mu-Gaussian differential privacy."""
    right = significance * num_correct / total
    wrong = significance * (num_guesses - num_correct) / total
    for i in range(num_correct - 1, -1, -1):
        # Not through `stats.norm`, whose checks of arguments would take most of the time.
        more = max(wrong, float(ndtr(ndtri(right) - mu)))
        if more == wrong:
            break  # nothing changes from here on
        right = min(1.0, right + i / (num_guesses - i) * (more - wrong))
        wrong = more
    return right + wrong - num_guesses / total


def _root(fn: Callable[[float], float], low: float, high: float) -> float:
    found: Any = optimize.brentq(fn, low, high, xtol=1e-6)
    return float(found)
