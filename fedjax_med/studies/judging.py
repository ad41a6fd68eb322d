"""From outputs of models to values of metrics, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_med.data import FederatedDataset
from fedjax_med.evaluation import Metric, Predictions, concatenate
from fedjax_med.studies.populations import Population


class Judge(NamedTuple):
    """How outputs become predictions, and what they are judged by.

    Attributes:
      link: from outputs `[N, ...]` to what metrics take.
      labels: from examples to what metrics take.
      metrics: by name, the main one first.
    """

    link: Callable[[np.ndarray], Any]
    labels: Callable[[Any], Any]
    metrics: Mapping[str, Metric]

    @property
    def main(self) -> str:
        """The metric that choices are made by."""
        return next(iter(self.metrics))


class Values(NamedTuple):
    """A metric of a method on populations; NaN where it is not defined.

    Attributes:
      pooled: `[populations, seeds]`, all patients together.
      per_hospital: `[populations, seeds, hospitals]`.
    """

    pooled: np.ndarray
    per_hospital: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Over the hospitals where the metric is defined, each counted once `[populations, seeds]`."""
        return mean_of_defined(self.per_hospital)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without NaN; NaN if there is nothing else."""
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / defined.sum(axis=-1))


def predictions(judge: Judge, output: np.ndarray, population: Population) -> Predictions:
    """Outputs `[N, ...]` of one model for those who are judged, as predictions."""
    return _predictions(judge, population.fitted.restore(output), population.raw_judged, "test")


def predictions_for_training(
    judge: Judge, output: np.ndarray, population: Population
) -> Predictions:
    """The same for those who were trained on."""
    return _predictions(judge, population.fitted.restore(output), population.raw, "train")


def _predictions(
    judge: Judge, output: np.ndarray, dataset: FederatedDataset, split: str
) -> Predictions:
    arrays = dataset.splits()[split]
    return Predictions(
        judge.link(output),
        judge.labels(arrays.examples),
        np.repeat(np.arange(arrays.num_clients), arrays.sizes),
        dataset.client_names,
    )


def by_hospital(metric: Metric, judged: Predictions) -> np.ndarray:
    """The metric of every hospital `[hospitals]`."""
    return np.array(
        [
            _value(metric, judged.take(judged.client == number))
            for number in range(len(judged.client_names))
        ]
    )


def values(
    judge: Judge, outputs: Sequence[np.ndarray], populations: Sequence[Population]
) -> dict[str, Values]:
    """Every metric of outputs `[seeds, N, ...]` on populations of the same hospitals."""
    judged = [
        [predictions(judge, output, population) for output in of_population]
        for of_population, population in zip(outputs, populations, strict=True)
    ]
    return {
        name: Values(
            np.array([[_value(metric, p) for p in of_seeds] for of_seeds in judged]),
            np.array([[by_hospital(metric, p) for p in of_seeds] for of_seeds in judged]),
        )
        for name, metric in judge.metrics.items()
    }


def seeds_together(
    judge: Judge,
    outputs: Sequence[np.ndarray],
    populations: Sequence[Population],
    groups: Sequence[Mapping[str, np.ndarray]] | None = None,
) -> Predictions:
    """Predictions of all seeds side by side, for metrics `over_seeds`; several populations joined."""
    parts = []
    for number, (of_population, population) in enumerate(zip(outputs, populations, strict=True)):
        of_seeds = [predictions(judge, output, population) for output in of_population]
        fields = [_fields(p.outputs) for p in of_seeds]
        stacked = [np.stack(field, axis=1) for field in zip(*fields, strict=True)]
        first = of_seeds[0]
        parts.append(
            Predictions(
                _like(first.outputs, stacked),
                first.labels,
                first.client,
                first.client_names,
                dict(groups[number]) if groups else {},
            )
        )
    return parts[0] if len(parts) == 1 else concatenate(parts)


def over_seeds(metric: Metric) -> Metric:
    """The mean of a metric over seeds, for outputs `[N, seeds, ...]`."""

    def prepare(outputs: Any, labels: Any) -> Callable[[np.ndarray], np.ndarray]:
        fields = _fields(outputs)
        of_seeds = [
            metric.of(_like(outputs, [field[:, seed] for field in fields]), labels)
            for seed in range(fields[0].shape[1])
        ]
        return lambda weight: np.asarray(np.mean([of(weight) for of in of_seeds], axis=0))

    def compute(outputs: Any, labels: Any, weight: np.ndarray) -> np.ndarray:
        return prepare(outputs, labels)(weight)

    return metric._replace(compute=compute, prepare=prepare)


def _value(metric: Metric, judged: Predictions) -> float:
    if not judged.num_patients:
        return float("nan")
    return float(metric.compute(judged.outputs, judged.labels, np.ones(judged.num_patients)))


def _fields(outputs: Any) -> list[np.ndarray]:
    """The arrays of an array or a NamedTuple of arrays, those that are None left out."""
    parts = outputs if isinstance(outputs, tuple) else (outputs,)
    return [np.asarray(part) for part in parts if part is not None]


def _like(outputs: Any, fields: Sequence[np.ndarray]) -> Any:
    """The inverse of `_fields`, for other arrays."""
    if not isinstance(outputs, tuple):
        return fields[0]
    left = iter(fields)
    kind: Any = type(outputs)
    return kind(*(None if part is None else next(left) for part in outputs))
