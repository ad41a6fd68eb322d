"""Alarms from forecasts one week ahead: a week that is too high, or some that add up.

Every place has thresholds of its own, made from its own training weeks, so nothing leaves it but what
the training of the forecast sends.

- **A week too high** (`score_threshold`), as Farrington's method compares a count with an upper
  quantile of what was expected. The threshold is an order statistic of training scores: if the scores
  are exchangeable, a week without an outbreak is above it with a probability of at most `rate`, whatever
  their distribution and however bad the forecast (split conformal prediction).
- **Some weeks that add up** (`cusum`), which finds small rises later but more surely. Its threshold is
  found by resampling blocks of training scores, so that it alarms in a share `rate` of weeks.

References:
  Farrington et al., Journal of the Royal Statistical Society A 159, 1996.
  Page, "Continuous inspection schemes", Biometrika 41, 1954.
  Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Detection(NamedTuple):
    """What became of outbreaks.

    Attributes:
      found: share with an alarm while they lasted.
      delay: mean weeks from the first week to the alarm, 0 in the first week; of those found, NaN if
        none was.
    """

    found: float
    delay: float


def scores(truth: np.ndarray, low: np.ndarray, middle: np.ndarray, high: np.ndarray) -> np.ndarray:
    """`(truth - middle) / (high - low)`: how unusual weeks are, whatever the season.

    Args:
      truth: what came `[...]`.
      low: a lower quantile of the forecast.
      middle: its median.
      high: an upper quantile, at least `low`; where they are equal, the width is taken as 1e-6.
    """
    width = np.maximum(np.asarray(high, np.float64) - low, 1e-6)
    return (np.asarray(truth, np.float64) - middle) / width


def score_threshold(training: np.ndarray, rate: float) -> float:
    """The score above which a week is an alarm.

    The `ceil((n + 1) (1 - rate))`-th smallest of n training scores.

    Args:
      training: scores of weeks on which nothing was fitted that made them smaller `[n]`.
      rate: of false alarms per week, in (0, 1).

    Raises:
      ValueError: if `rate` is not, or so many weeks cannot tell such a rate.
    """
    training = np.asarray(training, np.float64)
    _check(training, rate)
    rank = int(np.ceil((len(training) + 1) * (1 - rate) - 1e-9))
    if rank > len(training):
        needed = int(np.ceil(1 / rate - 1e-9)) - 1
        raise ValueError(
            f"rate {rate:g} needs at least {needed} training weeks, got {len(training)}."
        )
    return float(np.sort(training)[rank - 1])


def cusum(score: np.ndarray, *, reference: float, threshold: float) -> np.ndarray:
    """Alarms, bool `[..., weeks]`, of `S <- max(0, S + score - reference)` above `threshold`.

    S begins at 0, and again after an alarm.

    Args:
      score: `[..., weeks]`, centred where there is no outbreak.
      reference: what a score has to exceed to add up; half the rise that is looked for.
      threshold: above 0.

    Raises:
      ValueError: if `threshold` is not above 0.
    """
    if not threshold > 0:
        raise ValueError(f"threshold must be above 0, got {threshold!r}.")
    score = np.asarray(score, np.float64)
    total, alarm = np.zeros(score.shape[:-1]), np.zeros(score.shape, bool)
    for week in range(score.shape[-1]):
        total = np.maximum(0.0, total + score[..., week] - reference)
        alarm[..., week] = total > threshold
        total = np.where(alarm[..., week], 0.0, total)
    return alarm


def cusum_threshold(
    training: np.ndarray,
    *,
    reference: float,
    rate: float,
    length: int = 4,
    num_series: int = 40,
    num_weeks: int = 104,
    seed: int = 0,
) -> float:
    """The smallest threshold with which `cusum` alarms in a share `rate` of weeks, or fewer.

    Found by bisection on series of blocks that are drawn from the training scores with replacement:
    within a block, neighbours stay neighbours. Each series begins at S = 0.

    Args:
      training: scores `[n]`, as for `score_threshold`.
      reference: as for `cusum`.
      rate: of false alarms per week, in (0, 1).
      length: weeks of a block.
      num_series: that are drawn.
      num_weeks: of each of them.
      seed: of the draws.

    Raises:
      ValueError: if `rate` or `length` does not fit.
    """
    training = np.asarray(training, np.float64)
    _check(training, rate)
    if not 1 <= length <= len(training):
        raise ValueError(f"length must be from 1 to {len(training)} weeks, got {length!r}.")
    generator = np.random.default_rng(seed)
    start = generator.integers(len(training), size=(num_series, -(-num_weeks // length)))
    rows = (start[..., None] + np.arange(length)).reshape(num_series, -1)[:, :num_weeks]
    series = training[rows % len(training)]
    low, high = 1e-6, 1e-6 + float(np.maximum(series - reference, 0).sum(axis=1).max())
    for _ in range(30):
        middle = (low + high) / 2
        if cusum(series, reference=reference, threshold=middle).mean() > rate:
            low = middle
        else:
            high = middle
        if high - low < 1e-3 * high:
            break
    return high


def false_alarm_rate(alarm: np.ndarray, outbreak: np.ndarray | None = None) -> float:
    """Alarms per week without an outbreak; NaN if there is none.

    Args:
      alarm: bool, any shape.
      outbreak: bool, the same shape; None if there is no outbreak at all.
    """
    quiet = np.ones(alarm.shape, bool) if outbreak is None else ~outbreak
    return float(alarm[quiet].mean()) if quiet.any() else float("nan")


def detection(alarm: np.ndarray) -> Detection:
    """How many outbreaks were found, and how late.

    Args:
      alarm: bool `[outbreaks, weeks]`, the weeks from the first of each outbreak to its last.

    Raises:
      ValueError: if there is no outbreak.
    """
    if alarm.ndim != 2 or not alarm.size:
        raise ValueError(f"alarm must be [outbreaks, weeks], got shape {list(alarm.shape)}.")
    found = alarm.any(axis=1)
    delay = float(alarm[found].argmax(axis=1).mean()) if found.any() else float("nan")
    return Detection(float(found.mean()), delay)


def _check(training: np.ndarray, rate: float) -> None:
    if not 0 < rate < 1:
        raise ValueError(f"rate must be between 0 and 1, got {rate!r}.")
    if training.ndim != 1 or not training.size or not np.isfinite(training).all():
        raise ValueError("training must be a list of finite scores, one for each week.")
