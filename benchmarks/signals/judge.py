"""From outputs to numbers: over all examples, over patients, of every patient.

Intervals are over patients: whole patients are drawn again with all of their examples, since beats of one
heart say little of another. Where metrics see classes only, equal rows of a patient are counted once with
their number, which changes no value and makes a resample a matter of some hundred rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_med.evaluation import Metric, gap

RESAMPLES = 2000


class Judging(NamedTuple):
    """Those who are judged, and how.

    Attributes:
      link: from outputs `[N, outputs]` to what metrics take.
      metrics: the main one first.
      labels: `[N]`.
      client: whose each example is `[N]`.
      names: of the patients.
    """

    link: Callable[[np.ndarray], Any]
    metrics: Mapping[str, Metric]
    labels: np.ndarray
    client: np.ndarray
    names: Sequence[str]

    @property
    def main(self) -> Metric:
        """The metric that choices are made by."""
        return next(iter(self.metrics.values()))


class Rows(NamedTuple):
    """Predictions of one model, equal ones of a patient together.

    Attributes:
      outputs: what metrics take `[rows, ...]`.
      labels: `[rows]`.
      client: `[rows]`.
      count: how many examples a row is `[rows]`.
    """

    outputs: np.ndarray
    labels: np.ndarray
    client: np.ndarray
    count: np.ndarray


def rows_of(judging: Judging, output: np.ndarray) -> Rows:
    """Predictions from outputs `[N, outputs]`."""
    linked, labels, client = judging.link(output), judging.labels, judging.client
    if linked.ndim == 1:
        return Rows(linked, labels, client, np.ones(len(client)))
    classes = linked.shape[1]
    called = linked.argmax(axis=1)
    called = np.where(np.isfinite(linked).all(axis=1), called, classes)  # a model that diverged
    code = (client * classes + labels) * (classes + 1) + called
    unique, count = np.unique(code, return_counts=True)
    rest, called = np.divmod(unique, classes + 1)
    owner, label = np.divmod(rest, classes)
    outputs = np.concatenate([np.eye(classes), np.full((1, classes), np.nan)])[called]
    return Rows(outputs, label, owner, count.astype(np.float64))


def _of_patients(metric: Metric, rows: Rows, patients: int) -> np.ndarray:
    """The metric of every patient `[patients]`."""
    weight = (rows.client == np.arange(patients)[:, None]) * rows.count
    return np.asarray(metric.compute(rows.outputs, rows.labels, weight))


def main_value(judging: Judging, output: np.ndarray) -> float:
    """The main metric over all examples of one model."""
    rows = rows_of(judging, output)
    return float(judging.main.compute(rows.outputs, rows.labels, rows.count))


def _draws(patients: int) -> np.ndarray:
    """How often each patient counts: once, then as drawn `[1 + resamples, patients]`."""
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(patients, np.full(patients, 1 / patients), RESAMPLES)
    return np.concatenate([np.ones((1, patients)), drawn])


def _over_seeds(
    metric: Metric, seeds: Sequence[Rows], patients: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the draws over all examples, and over patients; and of every patient. Means over seeds."""
    draws = _draws(patients)
    pooled = [
        metric.compute(rows.outputs, rows.labels, draws[:, rows.client] * rows.count)
        for rows in seeds
    ]
    own = np.mean([_of_patients(metric, rows, patients) for rows in seeds], axis=0)
    defined = ~np.isnan(own)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = draws @ np.where(defined, own, 0.0) / (draws @ defined)
    return np.mean(pooled, axis=0), mean, own


def _estimate(values: np.ndarray) -> dict[str, float | None]:
    """Value of those who were judged, and 95 % of the draws; None where not defined."""
    drawn = values[1:][~np.isnan(values[1:])]
    if np.isnan(values[0]) or len(drawn) < RESAMPLES / 2:
        return {"value": _plain(values[0]), "low": None, "high": None}
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def judged(judging: Judging, outputs: np.ndarray) -> dict[str, Any]:
    """Means over seeds of every metric, with intervals over patients, from `[seeds, N, outputs]`."""
    seeds, names = [rows_of(judging, output) for output in outputs], judging.names
    found = {n: _over_seeds(m, seeds, len(names)) for n, m in judging.metrics.items()}
    own = dict(zip(names, found[next(iter(judging.metrics))][2].tolist(), strict=True))
    worst = gap(own, judging.main.ideal)
    by_seed = [main_value(judging, output) for output in outputs]
    return {
        "pooled": {name: _estimate(values) for name, (values, _, _) in found.items()},
        "mean": {name: _estimate(values) for name, (_, values, _) in found.items()},
        "per_patient": {name: _plain(value) for name, value in own.items()},
        "worst": {"patient": worst.worst_name, "value": worst.worst, "deviation": worst.deviation},
        "sd_over_seeds": float(np.std(by_seed)),
    }


def difference(judging: Judging, first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Of the main metric of two methods, first minus second, on the same draws."""
    both = [
        _over_seeds(judging.main, [rows_of(judging, o) for o in outputs], len(judging.names))
        for outputs in (first, second)
    ]
    return {
        where: _estimate(both[0][place] - both[1][place])
        for place, where in enumerate(("pooled", "mean"))
    }


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
