"""How good forecasts are: errors, correlation, interval scores, coverage, and their intervals.

NumPy on the host, float64. Weeks are neighbours in time and errors of neighbours alike, so intervals come
from resampled **blocks** of weeks, of all places together.

References:
  Bracher, Ray, Gneiting and Reich, PLOS Computational Biology 17, 2021, for the interval scores.
    https://doi.org/10.1371/journal.pcbi.1008618
  Politis and Romano, "A circular block-resampling procedure for stationary data", 1992.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fedjax_med.evaluation.intervals import Estimate, check_level


def rmse(forecast: np.ndarray, truth: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Root mean squared error, in the unit of `truth`.

    Args:
      forecast: `[weeks, ...]`, all axes averaged over.
      truth: likewise.
      weight: `[..., weeks]`, how often each week counts; once if None.

    Returns:
      `[...]`, the axes of `weight` but the last.
    """
    error = np.square(np.asarray(forecast, np.float64) - truth).reshape(len(truth), -1).mean(axis=1)
    weight = np.ones(len(error)) if weight is None else weight
    return np.asarray(np.sqrt(weight @ error / weight.sum(axis=-1)))


def correlation(
    forecast: np.ndarray, truth: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """Pearson's correlation over weeks and places together; NaN where one does not vary.

    Args, Returns: as `rmse`.
    """
    a = np.asarray(forecast, np.float64).reshape(len(truth), -1)
    b = np.asarray(truth, np.float64).reshape(len(truth), -1)
    weight = np.ones(len(a)) if weight is None else weight
    # Centred first: sums of squares of counts would cancel.
    a, b = a - a.mean(), b - b.mean()
    total = weight.sum(axis=-1) * a.shape[1]
    mean_a, mean_b = (weight @ v.sum(axis=1) / total for v in (a, b))
    product = weight @ (a * b).sum(axis=1) / total - mean_a * mean_b
    var_a, var_b = (
        weight @ (v * v).sum(axis=1) / total - m * m for v, m in ((a, mean_a), (b, mean_b))
    )
    varies = (var_a > 1e-12 * np.square(a).max(initial=0)) & (
        var_b > 1e-12 * np.square(b).max(initial=0)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(varies, product / np.sqrt(var_a * var_b), np.nan)


def uncrossed(quantiles: np.ndarray) -> np.ndarray:
    """Quantiles `[..., levels]` in rising order, which never makes them worse.

    References:
      Chernozhukov, Fernandez-Val and Galichon, Econometrica 78, 2010.
    """
    return np.sort(np.asarray(quantiles, np.float64), axis=-1)


def interval_score(
    low: np.ndarray, high: np.ndarray, truth: np.ndarray, *, level: float
) -> np.ndarray:
    """Width of a central interval, and `2 / (1 - level)` for each unit that `truth` lies outside.

    Args:
      low: lower end `[...]`.
      high: upper end.
      truth: what came.
      level: what the interval is said to hold, such as 0.95.

    References:
      Gneiting and Raftery, JASA 102, 2007, equation 43.
    """
    check_level(level)
    outside = np.maximum(low - truth, 0) + np.maximum(truth - high, 0)
    return np.asarray(high - low + 2 / (1 - level) * outside)


def weighted_interval_score(
    quantiles: np.ndarray, truth: np.ndarray, levels: Sequence[float]
) -> np.ndarray:
    """The mean over the intervals of a forecast, in the unit of `truth`; lower is better.

        (|truth - median| / 2 + sum_k alpha_k / 2 * interval_score_k) / (K + 1 / 2)

    for K central intervals that hold `1 - alpha_k` (Bracher et al., equation 1). With the median
    alone it is the absolute error.

    Args:
      quantiles: `[..., levels]`, rising.
      truth: `[...]`.
      levels: rising and symmetric about one half, which is one of them.

    Raises:
      ValueError: if `levels` are not, or are not as many as the quantiles.
    """
    tau = np.asarray(levels, np.float64)
    if (
        len(tau) % 2 == 0
        or not np.allclose(tau + tau[::-1], 1)
        or not (np.diff(tau) > 0).all()
        or not 0 < tau[0] < 1
    ):
        raise ValueError(f"levels must rise symmetrically about 0.5, got {tuple(levels)!r}.")
    quantiles = np.asarray(quantiles, np.float64)
    if quantiles.shape[-1] != len(tau):
        raise ValueError(
            f"quantiles must have {len(tau)} levels, got shape {list(quantiles.shape)}."
        )
    half = len(tau) // 2
    score = np.abs(truth - quantiles[..., half]) / 2
    for k in range(half):
        alpha = 2 * float(tau[k])
        low, high = quantiles[..., k], quantiles[..., -1 - k]
        score = score + alpha / 2 * interval_score(low, high, truth, level=1 - alpha)
    return np.asarray(score / (half + 0.5))


def coverage(low: np.ndarray, high: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1.0 where an interval holds `truth`, else 0.0; the mean of it is the coverage."""
    return ((low <= truth) & (truth <= high)).astype(np.float64)


def draw_blocks(num_weeks: int, num_resamples: int, *, length: int, seed: int) -> np.ndarray:
    """How often each week is drawn, float64 `[resamples, weeks]`.

    Blocks of `length` weeks begin anywhere, and go on at the first week after the last, so that all
    weeks are drawn alike often; the last block is cut where the weeks are as many as there were.

    Raises:
      ValueError: if `length` is not between 1 and `num_weeks`.
    """
    if not 1 <= length <= num_weeks:
        raise ValueError(f"length must be from 1 to {num_weeks} weeks, got {length!r}.")
    generator = np.random.default_rng(seed)
    num_blocks = -(-num_weeks // length)
    start = generator.integers(num_weeks, size=(num_resamples, num_blocks))
    drawn = (start[..., None] + np.arange(length)).reshape(num_resamples, -1)[:, :num_weeks]
    drawn = drawn % num_weeks + num_weeks * np.arange(num_resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=num_weeks * num_resamples)
    return counts.reshape(num_resamples, num_weeks).astype(np.float64)


def block_interval(
    statistic: Callable[[np.ndarray], np.ndarray],
    num_weeks: int,
    *,
    length: int,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A statistic with the interval of percentiles over resampled blocks of weeks.

    A block should be longer than errors stay alike. Intervals of few blocks are too short: below
    ten, read them as a lower bound of the uncertainty.

    Args:
      statistic: from weights `[..., weeks]` to values `[...]`.
      num_weeks: weeks.
      length: weeks of a block.
      num_resamples: resamples.
      level: of confidence.
      seed: of the resamples; the same for two statistics that are to be compared.

    Raises:
      ValueError: if `length` or `level` does not fit.
    """
    check_level(level)
    value = float(statistic(np.ones(num_weeks)))
    drawn = statistic(draw_blocks(num_weeks, num_resamples, length=length, seed=seed))
    defined = drawn[~np.isnan(drawn)]
    num_undefined = num_resamples - len(defined)
    if np.isnan(value) or len(defined) < num_resamples / 2:
        return Estimate(value, float("nan"), float("nan"), num_undefined)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), num_undefined)
