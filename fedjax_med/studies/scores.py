"""The result of a study from values of metrics, where patients are no rows of a table.

Graphs, matrices of responses, series and genotypes are trained and judged each in its own way
(`designs.py`). What they have in common begins here: every method has values of metrics for each
hospital and each repetition, and a result as of `summarise` is made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from fedjax_med.data import FederatedDataset
from fedjax_med.evaluation import Comparison, Estimate, gap
from fedjax_med.evaluation.forecasting import draw_blocks
from fedjax_med.studies.judging import mean_of_defined
from fedjax_med.studies.summary import LEVEL, plain, sentences

# Of values by repetition, or of differences of two methods: their mean with its interval.
Interval = Callable[[np.ndarray], Comparison]


class Metric(NamedTuple):
    """What values of a metric may be.

    Attributes:
      ideal: its value at best.
      low: its least value, which no interval passes.
      high: its largest value.
    """

    ideal: float
    low: float = 0.0
    high: float = 1.0


class Row(NamedTuple):
    """A method or a baseline; NaN where a value is not defined.

    Attributes:
      title: its name in tables.
      is_baseline: whether it is no federated method.
      pooled: by metric `[repetitions]`, all examples together.
      per_hospital: by metric `[repetitions, hospitals]`.
      explained: what it is, for baselines.
      deviation: by metric the standard deviation over seeds, where repetitions are no seeds.
    """

    title: str
    is_baseline: bool
    pooled: Mapping[str, np.ndarray]
    per_hospital: Mapping[str, np.ndarray]
    explained: str = ""
    deviation: Mapping[str, float] | None = None


def over_seeds(values: np.ndarray) -> Comparison:
    """Student's t over trainings with different seeds; of no other variation."""
    values = np.asarray(values, np.float64)
    mean, nan = float(values.mean()), float("nan")
    if len(values) < 2 or not np.isfinite(values).all() or np.ptp(values) == 0:
        return Comparison(mean, nan, nan, nan)
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(values) - 1)) * error
    p_value = 2 * float(stats.t.sf(abs(mean) / error, len(values) - 1))
    return Comparison(mean, mean - half, mean + half, p_value)


def over_weeks(block: int, num_resamples: int, seed: int) -> Interval:
    """Percentiles over resampled blocks of so many weeks, which are the repetitions here."""

    def interval(values: np.ndarray) -> Comparison:
        mean, nan = float(values.mean()), float("nan")
        if not num_resamples or np.ptp(values) == 0:
            return Comparison(mean, nan, nan, nan)
        length = min(block, len(values))
        drawn = draw_blocks(len(values), num_resamples, length=length, seed=seed)
        means = drawn @ values / drawn.sum(axis=-1)
        low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        # One is added so that it is never 0.
        other = min((means <= 0).sum(), (means >= 0).sum())
        p_value = min(1.0, 2 * (other + 1) / (num_resamples + 1))
        return Comparison(mean, float(low), float(high), float(p_value))

    return interval


def result_of(
    dataset: FederatedDataset,
    kind: str,
    rows: Mapping[str, Row],
    *,
    metrics: Mapping[str, Metric],
    interval: Interval,
    chosen: str,
    chosen_on: str,
    against: Mapping[str, str],
    settings: Mapping[str, Any],
    about: Mapping[str, str],
    numbers: Mapping[str, float] | None = None,
    left_out: Mapping[str, Any] | None = None,
    seconds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """A result of the form that `summarise` gives.

    Args:
      dataset: whose examples are counted.
      kind: of the outcome.
      rows: by name, baselines first.
      metrics: by name, the main one first; a row may lack the others.
      interval: over repetitions.
      chosen: the method that is compared with the others.
      chosen_on: what it was the best on, in words.
      against: names of rows and what they are called in sentences, hospitals alone first.
      settings: of the study, JSON-able.
      about: of the design: what `examples` are called, how they were `divided`, `how` intervals were
        made; may name the `numbers`. The result adds what is `compared`.
      numbers: what was chosen for each method, such as its learning rate.
      left_out: for each method `per_hospital`, `mean` and `pooled` of hospitals that were left out.
      seconds: where the time went.
    """
    main = next(iter(metrics))
    others = [name for name in rows if name != chosen]
    # Where all hospitals have as many examples, both means are the same and said once.
    is_same = np.allclose(rows[chosen].pooled[main], _means(rows[chosen], main))
    result = plain(
        {
            "dataset": {
                "name": dataset.name,
                "licence": dataset.licence,
                "source": dataset.source,
                "citation": dataset.citation,
                "clients": dataset.summary(),
            },
            "kind": kind,
            "main_metric": main,
            "ideal": {name: metric.ideal for name, metric in metrics.items()},
            "settings": dict(settings),
            "numbers": dict(numbers or {}),
            "chosen": chosen,
            "methods": {
                name: {
                    "title": row.title,
                    "is_baseline": row.is_baseline,
                    "explained": row.explained,
                    "metrics": _described(dataset.client_names, row, metrics, interval),
                }
                for name, row in rows.items()
            },
            "comparisons": {
                name: interval(_means(rows[chosen], main) - _means(rows[name], main))
                for name in others
            },
            "comparisons_pooled": {
                name: interval(rows[chosen].pooled[main] - rows[name].pooled[main])
                for name in others
                if not is_same
            },
            "details": {},
            "left_out": dict(left_out or {}),
            "coefficients": None,
            "seconds": dict(seconds or {}),
        }
    )
    result["about"] = {**about, "compared": " ".join(against)}
    result["sentences"] = sentences(result, against, chosen_on=chosen_on)
    return result


def estimate(values: np.ndarray, metric: Metric, interval: Interval) -> Estimate:
    """Mean and interval of values by repetition, within the values that there are."""
    found = interval(np.asarray(values, np.float64))
    low, high = np.maximum(found.low, metric.low), np.minimum(found.high, metric.high)
    return Estimate(found.difference, float(low), float(high))


def _described(
    hospitals: Sequence[str], row: Row, metrics: Mapping[str, Metric], interval: Interval
) -> dict[str, Any]:
    described = {}
    for name, metric in metrics.items():
        if name not in row.pooled:
            nothing = Estimate(float("nan"), float("nan"), float("nan"))
            described[name] = {
                "mean": nothing,
                "pooled": nothing,
                "over_seeds": None,
                "worst": {"hospital": None, "value": None},
                "per_hospital": dict.fromkeys(hospitals),
            }
            continue
        own = mean_of_defined(row.per_hospital[name].T)
        worst = gap(dict(zip(hospitals, own.tolist(), strict=True)), metric.ideal)
        deviation = (
            row.deviation.get(name) if row.deviation is not None else _means(row, name).std()
        )
        described[name] = {
            "mean": estimate(_means(row, name), metric, interval),
            "pooled": estimate(row.pooled[name], metric, interval),
            "over_seeds": deviation,
            "worst": {"hospital": worst.worst_name, "value": worst.worst},
            "per_hospital": dict(zip(hospitals, own.tolist(), strict=True)),
        }
    return described


def _means(row: Row, metric: str) -> np.ndarray:
    """Over hospitals, each counted once `[repetitions]`."""
    return mean_of_defined(row.per_hospital[metric])
