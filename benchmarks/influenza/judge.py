"""From forecasts to numbers: errors by horizon, intervals over blocks of weeks, every place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fedjax_med.datasets.weekly import HORIZONS
from fedjax_med.evaluation.forecasting import (
    block_interval,
    correlation,
    coverage,
    rmse,
    weighted_interval_score,
)
from fedjax_med.studies import forecast_training as training
from fedjax_med.tasks.forecasting import LEVELS

BLOCK = 13  # weeks, a quarter of a year
_MEDIAN = LEVELS.index(0.5)

Statistic = Callable[[np.ndarray], np.ndarray]


def judged(data: training.Setup, quantiles: np.ndarray) -> dict[str, Any]:
    """Every metric of one method, by horizon.

    Args:
      data: what was forecast.
      quantiles: of `log(1 + counts)`, `[seeds, origins, places, horizons, levels]`.
    """
    truth = data.truth("test")
    counts = np.expm1(truth)
    result: dict[str, Any] = {"horizons": {}}
    for h, horizon in enumerate(HORIZONS):
        own = quantiles[:, :, :, h]
        center = np.expm1(own[..., _MEDIAN])
        score = weighted_interval_score(own, truth[None, :, :, h], LEVELS)
        inside = coverage(own[..., 0], own[..., -1], truth[None, :, :, h])
        result["horizons"][str(horizon)] = {
            "rmse": _interval(_over_seeds(rmse, center, counts[:, :, h])),
            "correlation": _interval(_over_seeds(correlation, center, counts[:, :, h])),
            "wis": _interval(mean_over_weeks(score)),
            "coverage95": _interval(mean_over_weeks(inside)),
            "wis_of_places": score.mean(axis=(0, 1)).tolist(),
            "wis_sd_over_seeds": float(score.mean(axis=(1, 2)).std()),
        }
    result["wis"] = _interval(mean_over_weeks(wis(data, quantiles)))
    return result


def wis(data: training.Setup, quantiles: np.ndarray) -> np.ndarray:
    """Weighted interval score of logarithms, mean over horizons `[seeds, origins, places]`."""
    return weighted_interval_score(quantiles, data.truth("test")[None], LEVELS).mean(axis=-1)


def difference(data: training.Setup, first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Of the score of two methods, first minus second, with an interval of the same weeks."""
    by_week = [wis(data, each).mean(axis=0) for each in (first, second)]  # [origins, places]
    found = _interval(mean_over_weeks((by_week[0] - by_week[1])[None]))
    better = (by_week[0].mean(axis=0) < by_week[1].mean(axis=0)).sum()
    return {**found, "better_at_places": int(better)}


def mean_over_weeks(values: np.ndarray) -> Statistic:
    """Of `[seeds, weeks, places]`, for weights of the weeks; its number of weeks is kept."""
    by_week = values.mean(axis=(0, 2))

    def statistic(weight: np.ndarray) -> np.ndarray:
        return np.asarray(weight @ by_week / weight.sum(axis=-1))

    statistic.num_weeks = len(by_week)
    return statistic


def _over_seeds(metric, forecasts: np.ndarray, truth: np.ndarray) -> Statistic:
    def statistic(weight: np.ndarray) -> np.ndarray:
        return np.mean([metric(forecast, truth, weight) for forecast in forecasts], axis=0)

    statistic.num_weeks = len(truth)
    return statistic


def _interval(statistic: Any) -> dict[str, float]:
    found = block_interval(statistic, statistic.num_weeks, length=BLOCK)
    return {"value": found.value, "low": found.low, "high": found.high}
