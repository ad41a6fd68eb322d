"""The result of a run as plain JSON: what tables, figures and the report are made of."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedjax_med.data import FederatedDataset
from fedjax_med.engine import Evaluation, Run, Task
from fedjax_med.tasks.kinds import Kind

# The order of every table and figure, and the words they use.
METHODS = {
    "no_model": "no model",
    "local_only": "local only",
    "best_site": "best single site",
    "federated": "federated",
    "pooled": "pooled",
}
# Clients that are shown one by one; of more, the largest.
MAX_SHOWN = 12
_MAIN_METRICS = ("accuracy", "pinball", "mae", "c_index", "dice")


def main_metric(names: Sequence[str]) -> str:
    """Of a task's metrics the one that everything is compared by."""
    return next((name for name in _MAIN_METRICS if name in names), names[0])


def summarise(
    run: Run,
    dataset: FederatedDataset,
    task: Task,
    baselines: Mapping[str, Evaluation],
    *,
    kind: Kind,
    algorithm: str,
    started: str,
    rounds_before: int = 0,
    preprocessing: Mapping[str, Any] | None = None,
    privacy: Mapping[str, Any] | None = None,
    note: str = "",
) -> dict[str, Any]:
    """The result of a run and its baselines; undefined metrics are None.

    Args:
      run: of `simulate`, evaluated on the test examples; without experiments.
      dataset: the clients.
      task: what was learned.
      baselines: evaluations by the names of `METHODS`.
      kind: of the outcome.
      algorithm: its name.
      started: when the run began, ISO 8601.
      rounds_before: rounds that had been done when the run was resumed, whose times are not
        in `run.timings`.
      preprocessing: what was done to the columns and what left every hospital for it, JSON-able;
        None if nothing.
      privacy: what is protected and by which epsilon, JSON-able; None if nothing.
      note: what the reader has to know of the data.

    Raises:
      ValueError: if the run has no evaluation of the test examples.
    """
    tests = [e for e in run.evaluations if e.split == "test"]
    if not tests:
        raise ValueError("the run must have been evaluated on test examples; set evaluate_every.")
    higher = dict(zip(task.metric_names, task.higher_is_better, strict=True))
    final = {**baselines, "federated": tests[-1]}
    seconds = [s for rounds, s in run.seconds_per_round for _ in range(rounds)]
    return {
        "dataset": {
            "name": dataset.name,
            "licence": dataset.licence,
            "source": dataset.source,
            "citation": dataset.citation,
            "label_names": list(dataset.label_names),
            "outcome": outcome_of(_outcomes(dataset), kind, dataset.label_names),
        },
        "kind": kind,
        "algorithm": algorithm,
        "started": started,
        "rounds": run.rounds,
        "main_metric": main_metric(task.metric_names),
        "higher_is_better": higher,
        "clients": _clients(dataset, kind),
        "preprocessing": preprocessing,
        "privacy": privacy,
        "note": note,
        "final": {
            name: _final(final[name], dataset.client_names, higher)
            for name in METHODS
            if name in final
        },
        "curves": {
            "rounds": [e.round for e in tests],
            **{
                group: {
                    name: _plain(np.stack([getattr(e, group)[name] for e in tests]))
                    for name in task.metric_names
                }
                for group in ("pooled", "per_client")
            },
        },
        "excluded": [{"round": r + 1, "client": name} for r, name in run.excluded],
        "performance": {
            "rounds_before": rounds_before,
            "timings_s": dataclasses.asdict(run.timings),
            "seconds_per_round_median": statistics.median(seconds) if seconds else None,
            "useful_fraction": run.useful_fraction if seconds else None,
            "lanes": run.num_lanes,
            "placement": run.configuration["placement"],
            "memory_bytes": run.memory_bytes,
            "rewritten": run.rewritten,
        },
    }


def outcome_of(
    outcomes: Sequence[Mapping[str, Any]], kind: Kind, label_names: Sequence[str] = ()
) -> dict[str, int | float]:
    """What is told of outcomes beside the counts of classes: numbers by what they are.

    Args:
      outcomes: examples of some splits, without features.
      kind: of the outcome.
      label_names: of several labels.
    """
    if kind == "survival":
        return {"events": sum(int(np.sum(part["event"])) for part in outcomes)}
    if kind not in ("regression", "multilabel"):
        return {}
    y = np.concatenate([part["y"] for part in outcomes]).astype(np.float64)
    if kind == "regression":
        return {"mean outcome": float(y.mean()), "standard deviation": float(y.std())}
    named = len(label_names) == y.shape[1]
    names = label_names if named else [f"label {i}" for i in range(y.shape[1])]
    return {name: int(count) for name, count in zip(names, y.sum(axis=0), strict=True)}


def _outcomes(dataset: FederatedDataset, client: int | None = None) -> list[dict[str, Any]]:
    """The examples of a client, or of everybody, without features."""
    return [
        {key: leaf for key, leaf in examples.items() if key in ("y", "event")}
        for arrays in dataset.splits().values()
        for examples in [arrays.examples if client is None else arrays.client(client)]
    ]


def _clients(dataset: FederatedDataset, kind: Kind) -> list[dict[str, Any]]:
    """`FederatedDataset.summary`, and what else there is to tell of outcomes."""
    clients = dataset.summary()
    if kind in ("regression", "multilabel", "survival"):
        for number, client in enumerate(clients):
            client["outcome"] = outcome_of(_outcomes(dataset, number), kind, dataset.label_names)
    return clients


def shown_clients(result: Mapping[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """The clients to show one by one, in their order, and how many are left out."""
    clients = result["clients"]
    if len(clients) <= MAX_SHOWN:
        return clients, 0
    largest = sorted(range(len(clients)), key=lambda i: -clients[i]["train"])[:MAX_SHOWN]
    return [clients[i] for i in sorted(largest)], len(clients) - MAX_SHOWN


def value_of(
    result: Mapping[str, Any], method: str, metric: str, client: str | None
) -> float | None:
    """A final metric of one client, or of all patients where `client` is None."""
    final = result["final"][method]
    return (final["pooled"] if client is None else final["per_client"][client]).get(metric)


def best_methods(result: Mapping[str, Any], metric: str, client: str | None) -> set[str]:
    """The methods with the best value, to three digits; none if there is nothing to compare."""
    values = {name: value_of(result, name, metric, client) for name in result["final"]}
    return best_of(values, result["higher_is_better"][metric])


def best_of(values: Mapping[str, float | None], higher_is_better: bool) -> set[str]:
    """The names of the best values, to three digits; none if there is nothing to compare."""
    rounded = {name: round(value, 3) for name, value in values.items() if value is not None}
    if len(rounded) < 2:
        return set()
    best = (max if higher_is_better else min)(rounded.values())
    return {name for name, value in rounded.items() if value == best}


def mean_and_worst(
    values: np.ndarray, names: tuple[str, ...], higher_is_better: bool
) -> tuple[float | None, dict[str, Any]]:
    """The mean over clients, each counted once, and the worst; without those that have no value.

    Args:
      values: `[clients]`, NaN where a metric is not defined.
      names: of the clients.
      higher_is_better: which end is the worst.

    Returns:
      The mean, and `{"client": name, "value": value}`, of ties the first; infinities are None, and
      so is everything if nobody has a value.
    """
    defined = np.flatnonzero(~np.isnan(values))
    if not defined.size:
        return None, {"client": None, "value": None}
    badness = -values[defined] if higher_is_better else values[defined]
    worst = int(defined[np.argmax(badness)])
    return _plain(values[defined].mean()), {"client": names[worst], "value": _plain(values[worst])}


def _final(
    evaluation: Evaluation, names: tuple[str, ...], higher_is_better: Mapping[str, bool]
) -> dict[str, Any]:
    over_clients = {
        name: mean_and_worst(values, names, higher_is_better[name])
        for name, values in evaluation.per_client.items()
        if name in higher_is_better
    }
    return {
        "pooled": {name: _plain(value) for name, value in evaluation.pooled.items()},
        "mean": {name: mean for name, (mean, _) in over_clients.items()},
        "worst": {name: worst for name, (_, worst) in over_clients.items()},
        "per_client": {
            client: {name: _plain(values[i]) for name, values in evaluation.per_client.items()}
            for i, client in enumerate(names)
        },
    }


def _plain(value: Any) -> Any:
    """Arrays as lists, with None for NaN and infinity, which JSON does not have."""
    array = np.asarray(value, np.float64)
    if array.ndim:
        return [_plain(v) for v in array]
    number = float(array)
    return number if math.isfinite(number) else None
