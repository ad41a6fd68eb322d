"""Alarms by forecasts one week ahead, thresholds from the validation seasons, added outbreaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fedjax_med.data import ClientArrays
from fedjax_med.datasets.weekly import LogScale
from fedjax_med.evaluation.forecasting import uncrossed
from fedjax_med.studies import forecast_training as training
from fedjax_med.studies.methods import METHODS
from fedjax_med.studies.training import Learner, alone, federated, outputs_of, own_outputs
from fedjax_med.surveillance import (
    cusum,
    cusum_threshold,
    detection,
    false_alarm_rate,
    score_threshold,
    scores,
)
from fedjax_med.tasks.forecasting import LEVELS

RATE = 0.02  # about one false alarm of a place in a year
REFERENCE = 0.25  # of CUSUM, in widths of the 80 % interval
EXTRA = (1.5, 2.0, 3.0)  # patients of an added outbreak, times those that came
WEEKS = 6  # that it lasts
_LOW, _MIDDLE, _HIGH = (LEVELS.index(level) for level in (0.1, 0.5, 0.9))

Forecast = Callable[[np.ndarray], np.ndarray]


def of_outbreaks(
    to_tune: training.Setup, data: training.Setup, learn: Learner, rate: float
) -> dict[str, Any]:
    """Alarms per week in the test seasons, and which added outbreaks are found.

    Models are those of the seasons before the validation seasons, so that scores of these are not
    smaller than those of the test seasons because the model was fitted to them.
    """
    population = to_tune.population
    shared = federated(learn, METHODS["fedavg"], [population], seeds=(0,), chosen=(rate,)).first
    own = alone(learn, [population], seeds=(0,), chosen=(rate,)).models[0]
    many = jax.tree.map(lambda leaf: leaf[None], shared)

    def federated_forecast(x: np.ndarray) -> np.ndarray:
        flat = ClientArrays({"x": x.reshape(-1, x.shape[-1])}, np.array([x.shape[0] * x.shape[1]]))
        return outputs_of(learn.model, many, flat)[0].reshape(*x.shape[:2], -1)

    def local_forecast(x: np.ndarray) -> np.ndarray:
        flat = ClientArrays({"x": x.reshape(-1, x.shape[-1])}, np.full(len(x), x.shape[1]))
        return own_outputs(learn.model, own, flat)[0].reshape(*x.shape[:2], -1)

    return {
        "federated": _judged(to_tune, data, federated_forecast),
        "local": _judged(to_tune, data, local_forecast),
    }


def _judged(to_tune: training.Setup, data: training.Setup, forecast: Forecast) -> dict[str, Any]:
    logs, scale = np.log1p(data.series.counts), to_tune.scale
    begin, end = to_tune.parts["test"][0], data.parts["test"]
    calibration, test = np.arange(begin, end[0]), np.arange(*end)
    past = _scores(to_tune, forecast, logs, calibration)  # [places, weeks]
    present = _scores(to_tune, forecast, logs, test)
    high = np.array([score_threshold(row, RATE) for row in past])[:, None]
    center = np.median(past, axis=1)[:, None]
    thresholds = [cusum_threshold(row, reference=REFERENCE, rate=RATE) for row in past - center]

    def add_up(score: np.ndarray) -> np.ndarray:
        return np.stack(
            [
                cusum(row, reference=REFERENCE, threshold=limit)
                for row, limit in zip(score, thresholds, strict=True)
            ]
        )

    season = data.series.week[test]
    summer = (season >= 20) & (season < 40)
    weekly, adding = present > high, add_up(present - center)
    result: dict[str, Any] = {
        "rate": RATE,
        "alarms_per_week": {
            name: {
                "all": false_alarm_rate(alarm),
                "summer": false_alarm_rate(alarm[:, summer]),
                "per_place": alarm.mean(axis=1).tolist(),
            }
            for name, alarm in (("score", weekly), ("cusum", adding))
        },
        "added": {},
    }
    first = test[summer][::WEEKS][:80]
    for extra in EXTRA:
        found = {"score": [], "cusum": []}
        for start in first:
            rows = np.arange(start, min(start + WEEKS, end[1]))
            changed = logs.copy()
            changed[rows] = np.log1p(np.expm1(logs[rows]) * extra)
            score = _scores(to_tune, forecast, changed, rows)
            found["score"].append(score > high)
            found["cusum"].append(add_up(score - center))
        result["added"][str(extra)] = {
            name: detection(np.concatenate(alarms))._asdict() for name, alarms in found.items()
        }
    result["scale"] = LogScale(*(field.tolist() for field in scale))._asdict()
    return result


def _scores(
    setup: training.Setup, forecast: Forecast, logs: np.ndarray, weeks: np.ndarray
) -> np.ndarray:
    """Scores `[places, weeks]` of weeks, each forecast from the week before."""
    scaled = ((logs - setup.scale.mean) / setup.scale.deviation).T  # [places, rows]
    origin = weeks - 1
    window = scaled[:, origin[:, None] + np.arange(1 - training.WINDOW, 1)]
    angle = 2 * np.pi * ((setup.series.week[origin] - 40) % 52) / 52
    season = np.broadcast_to(
        np.stack([np.sin(angle), np.cos(angle)], 1), (len(scaled), len(weeks), 2)
    )
    made = forecast(np.concatenate([window, season], axis=2).astype(np.float32))
    quantiles = uncrossed(made[..., : len(LEVELS)])  # the first horizon is one week
    return scores(
        scaled[:, weeks], quantiles[..., _LOW], quantiles[..., _MIDDLE], quantiles[..., _HIGH]
    )
