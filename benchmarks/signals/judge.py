"""From outputs to numbers: over all examples, over patients, of every patient."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.signals.cases import Case
from fedjax_med.evaluation import (
    Predictions,
    judge,
    over_hospitals,
    over_patients,
    paired_bootstrap,
    whole_hospitals,
)
from fedjax_med.studies.judging import over_seeds
from fedjax_med.studies.populations import Population

RESAMPLES = 300


def predictions(case: Case, output: np.ndarray, population: Population) -> Predictions:
    """Of one model, `[N, outputs]`; or of several side by side `[N, models, outputs]`."""
    test = population.test
    if output.ndim == 3:
        linked = np.stack([case.link(each) for each in np.moveaxis(output, 1, 0)], axis=1)
    else:
        linked = case.link(output)
    client = np.repeat(np.arange(test.num_clients), test.sizes)
    return Predictions(linked, test.examples["y"], client, population.judged.client_names)


def main_value(case: Case, output: np.ndarray, population: Population) -> float:
    """The main metric over all examples of one model."""
    judged = predictions(case, output, population)
    metric = next(iter(case.metrics.values()))
    ones = np.ones(judged.num_patients)
    return float(metric.compute(judged.outputs, judged.labels, ones))


def judged(case: Case, outputs: np.ndarray) -> dict[str, Any]:
    """Means over seeds of every metric, with intervals over patients, from `[seeds, N, outputs]`."""
    together = predictions(case, np.moveaxis(outputs, 0, 1), case.final)
    metrics = {name: over_seeds(metric) for name, metric in case.metrics.items()}
    found = judge(
        together,
        metrics,
        num_resamples=RESAMPLES,
        method="percentile",
        resampling=whole_hospitals,
    ).as_dict()
    main = next(iter(case.metrics))
    by_seed = [main_value(case, output, case.final) for output in outputs]
    return {
        "pooled": found["pooled"]["metrics"],
        "mean": found["mean"],
        "per_patient": {
            patient: own["metrics"][main]["value"] for patient, own in found["per_hospital"].items()
        },
        "worst": found["gaps"][main],
        "sd_over_seeds": float(np.std(by_seed)),
    }


def difference(case: Case, first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Of the main metric of two methods, first minus second, with intervals over patients."""
    metric = over_seeds(next(iter(case.metrics.values())))
    both = [predictions(case, np.moveaxis(o, 0, 1), case.final) for o in (first, second)]
    return {
        where: paired_bootstrap(
            statistic(metric), *both, num_resamples=RESAMPLES, resampling=whole_hospitals
        )._asdict()
        for where, statistic in (("pooled", over_patients), ("mean", over_hospitals))
    }
