"""Judges the predictions of a method: per hospital, pooled, by subgroup, with intervals and gaps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fedjax_med.evaluation._weighted import mean_of_defined
from fedjax_med.evaluation.intervals import (
    Estimate,
    Method,
    Resampling,
    acceleration,
    check_level,
    interval,
    leaving_out,
    mean_as_drawn,
    mean_over_parts,
    resamples,
    times_drawn,
    within_hospitals,
)
from fedjax_med.evaluation.metrics import Metric
from fedjax_med.evaluation.predictions import Predictions


class Gap(NamedTuple):
    """How unequal hospitals (or subgroups) are in a metric, among those where it is defined.

    Attributes:
      spread: largest minus smallest value; NaN with fewer than two.
      deviation: standard deviation over hospitals, each counted once, with divisor their number.
      worst: value furthest from the ideal.
      worst_name: whose it is, of equal ones the first; None if nobody has a value.
      num_defined: hospitals with a value.
    """

    spread: float
    deviation: float
    worst: float
    worst_name: str | None
    num_defined: int


class Judged(NamedTuple):
    """The metrics of some of the patients.

    Attributes:
      patients: how many.
      metrics: estimate by name of the metric.
    """

    patients: int
    metrics: dict[str, Estimate]


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Everything said of the predictions of one method.

    Attributes:
      pooled: all patients together.
      per_hospital: by name; hospitals without patients have metrics that are not defined.
      mean: mean over hospitals, each counted once, of those where the metric is defined.
      gaps: between hospitals, by metric.
      subgroups: for each attribute and each of its groups, all hospitals together.
      subgroup_gaps: for each attribute, between its groups, by metric.
      description: how intervals were made, in words.
    """

    pooled: Judged
    per_hospital: dict[str, Judged]
    mean: dict[str, Estimate]
    gaps: dict[str, Gap]
    subgroups: dict[str, dict[str, Judged]]
    subgroup_gaps: dict[str, dict[str, Gap]]
    description: str

    def as_dict(self) -> dict[str, Any]:
        """The same as dicts, lists, texts and numbers for JSON; None where not defined."""
        return _plain({f.name: getattr(self, f.name) for f in dataclasses.fields(self)})


def judge(
    predictions: Predictions,
    metrics: Mapping[str, Metric],
    *,
    level: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
    method: Method = "bca",
    resampling: Resampling = within_hospitals,
) -> Judgement:
    """Computes metrics and bootstrap intervals of everybody, each hospital and each subgroup.

    Nothing here raises because a metric is not defined; `fedjax_med.evaluation.metrics` has the
    table of when it is not. Intervals are those of `bootstrap`, from the same resamples everywhere.

    Args:
      predictions: of one method.
      metrics: by name, as `binary_metrics()`.
      level: of confidence.
      num_resamples: resamples; 0 leaves intervals out.
      seed: of the resamples.
      method: "bca" or "percentile", see `bootstrap`.
      resampling: `within_hospitals` or `whole_hospitals`; with the second, a hospital alone has no
        interval.

    Raises:
      ValueError: names the argument that does not fit.
    """
    check_level(level)
    regions = {key: _sorted(predictions, rows) for key, rows in _regions(predictions).items()}
    parts = {key: predictions.take(rows) for key, rows in regions.items()}
    of_part = {
        (key, name): metric.of(part.outputs, part.labels)
        for key, part in parts.items()
        for name, metric in metrics.items()
    }
    values = {key: compute(np.ones(len(regions[key[0]]))) for key, compute in of_part.items()}
    draws: dict[Any, list[np.ndarray]] = {key: [] for key in values}
    drawn: list[np.ndarray] = []  # how often each hospital was, [some, hospitals]
    hospitals = predictions.client_names
    varying = [name for name, metric in metrics.items() if metric.has_interval]
    if num_resamples:
        for weight in resamples(
            predictions.client, num_resamples, seed=seed, resampling=resampling
        ):
            drawn.append(
                np.stack([times_drawn(weight[:, regions["hospital", h]]) for h in hospitals], -1)
            )
            for key, rows in regions.items():
                own = weight.take(rows, axis=-1)
                for name in varying:
                    draws[key, name].append(of_part[key, name](own))
    accelerations: dict[Any, float] = {}
    if method == "bca" and num_resamples:
        for key, rows in regions.items():
            compute = {name: of_part[key, name] for name in varying}
            for name, value in _accelerations(compute, predictions, rows, resampling).items():
                accelerations[key, name] = value
        of_hospitals = {
            name: partial(
                mean_over_parts,
                [
                    (regions["hospital", h], of_part[("hospital", h), name])
                    for h in hospitals
                    if len(regions["hospital", h])
                ],
            )
            for name in varying
        }
        everyone = np.arange(predictions.num_patients)
        for name, value in _accelerations(of_hospitals, predictions, everyone, resampling).items():
            accelerations["mean", name] = value

    def estimate(value: np.ndarray, seen: Sequence[np.ndarray], key: Any) -> Estimate:
        if not seen:
            return Estimate(float(value), math.nan, math.nan)
        return interval(
            float(value),
            np.concatenate(seen),
            level=level,
            method=method,
            acceleration=accelerations.get(key, 0.0),
        )

    def judged(key: tuple[str, ...]) -> Judged:
        return Judged(
            parts[key].num_patients,
            {name: estimate(values[key, name], draws[key, name], (key, name)) for name in metrics},
        )

    mean = {}
    for name in metrics:
        keys = [(("hospital", h), name) for h in hospitals]
        own = np.array([values[key] for key in keys])
        defined = ~np.isnan(own)
        blocks = [np.stack(block, -1) for block in zip(*(draws[k] for k in keys), strict=True)]
        mean[name] = estimate(
            mean_of_defined(own),
            [mean_as_drawn(b, d, defined) for b, d in zip(blocks, drawn, strict=False)],
            ("mean", name),
        )
    per_hospital = {h: judged(("hospital", h)) for h in hospitals}
    by_group = {
        attribute: {k[2]: judged(k) for k in regions if k[:2] == ("group", attribute)}
        for attribute in predictions.groups
    }
    return Judgement(
        pooled=judged(("pooled",)),
        per_hospital=per_hospital,
        mean=mean,
        gaps=_gaps(per_hospital, metrics),
        subgroups=by_group,
        subgroup_gaps={a: _gaps(groups, metrics) for a, groups in by_group.items()},
        description=_describe(level, num_resamples, method, resampling),
    )


def gap(values: Mapping[str, float], ideal: float) -> Gap:
    """How unequal the values of hospitals or subgroups are; NaN among them is left out."""
    defined = {name: float(v) for name, v in values.items() if not math.isnan(v)}
    if not defined:
        return Gap(math.nan, math.nan, math.nan, None, 0)
    worst = max(defined, key=lambda name: abs(defined[name] - ideal))
    numbers = np.array(list(defined.values()))
    several = len(numbers) > 1
    return Gap(
        float(np.ptp(numbers)) if several else math.nan,
        float(numbers.std()) if several else math.nan,
        defined[worst],
        worst,
        len(numbers),
    )


def _gaps(parts: Mapping[str, Judged], metrics: Mapping[str, Metric]) -> dict[str, Gap]:
    return {
        name: gap({key: part.metrics[name].value for key, part in parts.items()}, metric.ideal)
        for name, metric in metrics.items()
    }


def _regions(predictions: Predictions) -> dict[tuple[str, ...], np.ndarray]:
    """Who is judged together: `("pooled",)`, `("hospital", name)`, `("group", attribute, name)`."""
    regions: dict[tuple[str, ...], np.ndarray] = {("pooled",): np.arange(predictions.num_patients)}
    for i, name in enumerate(predictions.client_names):
        regions["hospital", name] = np.flatnonzero(predictions.client == i)
    for attribute, group in predictions.groups.items():
        for name in np.unique(group):
            regions["group", attribute, str(name)] = np.flatnonzero(group == name)
    return regions


def _sorted(predictions: Predictions, rows: np.ndarray) -> np.ndarray:
    """`rows` by label and falling output, where both are numbers: metrics then sort nothing."""
    outputs, labels = predictions.outputs, predictions.labels
    if isinstance(outputs, tuple) or isinstance(labels, tuple):
        return rows
    outputs, labels = np.asarray(outputs), np.asarray(labels)
    if outputs.ndim != 1 or labels.ndim != 1:
        return rows
    return rows[np.lexsort((-outputs[rows].astype(np.float64), labels[rows]))]


def _accelerations(
    metrics: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    predictions: Predictions,
    rows: np.ndarray,
    resampling: Resampling,
) -> dict[str, float]:
    """`jackknife_acceleration` of several metrics of the patients `rows`."""
    order = np.argsort(rows)
    unit, stratum = resampling.units(predictions.client[rows[order]])
    own = np.empty_like(unit)
    own[order] = unit  # units are numbered in the order of the patients, not of their outputs
    without: dict[str, list[np.ndarray]] = {name: [np.zeros(0)] for name in metrics}
    for weight in leaving_out(own, len(stratum)):
        for name, compute in metrics.items():
            without[name].append(np.atleast_1d(compute(weight)))
    return {name: acceleration(np.concatenate(w), stratum) for name, w in without.items()}


def _describe(level: float, num_resamples: int, method: Method, resampling: Resampling) -> str:
    if not num_resamples:
        return "no intervals"
    kind = {"percentile": "percentile", "bca": "bias-corrected and accelerated (BCa)"}[method]
    return (
        f"{100 * level:g} % {kind} bootstrap intervals, {num_resamples} resamples {resampling.name}"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
