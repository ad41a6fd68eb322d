"""Trains methods on populations, and judges what they say of the official test images."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.imaging.methods import Method
from benchmarks.imaging.setting import LEARNING_RATE, Population, Schedule, joined, network

METRICS = ("auroc", "accuracy")
_RESAMPLES = 1000
Record = dict[str, Any]


class Said(NamedTuple):
    """What the models of a division said, one row for each seed.

    Attributes:
      probability: of label 1 `[seeds, N]`, of the official test images in their order.
      hospital: which hospital each belongs to `[seeds, N]`.
      labels: `[N]`.
    """

    probability: np.ndarray
    hospital: np.ndarray
    labels: np.ndarray


def in_official_order(parts: Sequence[Population], outputs: Sequence[np.ndarray]) -> Said:
    """Probabilities of the test images of one division's populations, put in their official order."""
    probability, hospital, labels = [], [], np.array([])
    for part, output in zip(parts, outputs, strict=True):
        test = part.dataset.test
        order = np.argsort(test.examples["row"])
        owner = np.repeat(np.arange(test.num_clients), test.sizes)
        probability.append(np.asarray(output, np.float64)[order])
        hospital.append(owner[order])
        labels = test.examples["y"][order]
    return Said(np.stack(probability), np.stack(hospital), labels)


def train(
    method: Method, parts: Sequence[Population], schedule: Schedule, *, pooled: bool = False
) -> tuple[dict[str, list[np.ndarray]], float, float]:
    """Trains all populations in one compiled call.

    Returns:
      For each way to judge, the probabilities of the test images of each population; seconds of the
      training with its compilation; and the loss of the last round.
    """
    import optax

    from fedjax_med import algorithms, tasks
    from fedjax_med.engine import Experiments, epochs, simulate
    from fedjax_med.evaluation import predict_experiments

    dataset = joined(parts)
    model = network(dataset.name, method.norm, schedule.augmented)
    task = tasks.binary_classification(model, dataset.train.examples)
    if pooled:
        steps = -(-int(dataset.train.sizes[0]) // schedule.batch_size) * schedule.pooled_epochs
        rate = optax.cosine_decay_schedule(LEARNING_RATE, steps)
        algorithm = algorithms.fed_avg(task.gradient, optax.adam(rate))
        rounds, work = 1, epochs(schedule.pooled_epochs, batch_size=schedule.batch_size)
    else:
        algorithm = method.build(task)
        rounds = schedule.rounds
        work = epochs(schedule.local_epochs, batch_size=schedule.batch_size)
    clients = parts[0].dataset.num_clients
    members = tuple(clients * i + np.arange(clients) for i in range(len(parts)))
    start = time.perf_counter()
    run = simulate(
        algorithm,
        dataset,
        task=task,
        rounds=rounds,
        local_work=work,
        experiments=Experiments(tuple(p.seed for p in parts), {}, members),
        # Experiments wait for the longest lane of any of them; with a single one nobody waits.
        lanes=1,
    )
    seconds = time.perf_counter() - start
    judged = {"": algorithm if method.personal else None}
    if method.judged_as and not pooled:
        title, judge = method.judged_as
        judged[title] = judge(task, algorithm)
    first = np.cumsum([0, *(p.dataset.test.num_examples for p in parts)])
    said = {}
    for title, by in judged.items():
        every = predict_experiments(run, dataset, model, algorithm=by, local_work=work)
        said[title] = [own.outputs[first[i] : first[i + 1]] for i, own in enumerate(every)]
    loss = float(
        np.mean(
            run.history["train_loss"][..., -1, :] if pooled else run.history["train_loss"][:, -1]
        )
    )
    return said, seconds, loss


def trivial(parts: Sequence[Population]) -> list[np.ndarray]:
    """For each test image, the share of label 1 among the training images of its hospital."""
    out = []
    for part in parts:
        train, test = part.dataset.train, part.dataset.test
        shares = [train.client(i)["y"].mean() for i in range(train.num_clients)]
        out.append(np.repeat(shares, test.sizes))
    return out


def estimates(said: Said, against: Said | None = None) -> Record:
    """Means over seeds with bootstrap intervals over test images, per hospital, and differences."""
    from fedjax_med.evaluation import (
        Predictions,
        binary_metrics,
        bootstrap,
        over_patients,
        paired_bootstrap,
    )
    from fedjax_med.studies.judging import over_seeds

    def predictions(of: Said) -> Predictions:
        everyone = np.zeros(len(of.labels), np.int64)
        return Predictions(of.probability.T, of.labels, everyone, ("all",))

    own = predictions(said)
    record: Record = {"seeds": len(said.probability)}
    for name in METRICS:
        metric = binary_metrics()[name]
        statistic = over_patients(over_seeds(metric))
        found = bootstrap(statistic, own, num_resamples=_RESAMPLES, method="percentile")
        of_hospitals = np.array(list(_by_hospital(said, metric)))
        with np.errstate(invalid="ignore"):
            record[name] = {
                "mean": found.value,
                "low": found.low,
                "high": found.high,
                "by_seed": [
                    float(metric.compute(p, said.labels, np.ones(len(p)))) for p in said.probability
                ],
                "hospitals_mean": _or_none(np.nanmean(of_hospitals)),
                "hospitals_sd": _or_none(np.nanmean(np.nanstd(of_hospitals, axis=1))),
                "hospitals_worst": _or_none(np.nanmean(np.nanmin(of_hospitals, axis=1))),
                "hospitals_judged": float(np.isfinite(of_hospitals).sum(axis=1).mean()),
            }
        if against is not None:
            change = paired_bootstrap(
                statistic, own, predictions(against), num_resamples=_RESAMPLES
            )
            record[name] |= {
                "minus": change.difference,
                "minus_low": change.low,
                "minus_high": change.high,
            }
    return record


def _by_hospital(said: Said, metric: Any) -> Iterator[list[float]]:
    """For each seed the metric of every hospital; NaN where it is not defined."""
    number = int(said.hospital.max()) + 1
    for probability, hospital in zip(said.probability, said.hospital, strict=True):
        values = []
        for index in range(number):
            rows = hospital == index
            weight = np.ones(int(rows.sum()))
            of = (
                metric.compute(probability[rows], said.labels[rows], weight)
                if rows.any()
                else np.nan
            )
            values.append(float(of))
        yield values


def _or_none(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
