"""Streams: rhythms of 47 patients as they arrive, and simulated ones with a drift of known time."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import optax

from benchmarks.signals import judge
from benchmarks.signals.cases import DataDir
from fedjax_med import algorithms, datasets
from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.engine import Task, epochs, grid
from fedjax_med.evaluation import class_metrics, class_probabilities, multiclass_metrics
from fedjax_med.models import Model, linear, signals
from fedjax_med.streams import Followed, Stream, cross_entropy, follow, in_periods, watch
from fedjax_med.tasks import multiclass_classification

PERIODS = 15  # of about two minutes
ROUNDS = 1  # after each of them
RATE = 0.3
REFERENCE = (4, 7)
ALARM_RATE = 0.02  # of false alarms per period, of every patient and of the server


class Policy(NamedTuple):
    """How models are kept current.

    Attributes:
      title: in tables.
      window: periods that are trained on, None for all so far.
      until: last period that is trained on, None for no last one.
      alone: whether every client trains by itself.
      pooled: whether all examples are at one client.
    """

    title: str
    window: int | None = None
    until: int | None = None
    alone: bool = False
    pooled: bool = False


POLICIES = {
    "all": Policy("FedAvg, all data so far"),
    "window": Policy("FedAvg, last three periods", window=3),
    "frozen": Policy("FedAvg, never trained again", until=2),
    "local": Policy("local only, all data so far", alone=True),
    "pooled": Policy("pooled, all data so far", pooled=True),
}


def _followed(
    policy: Policy,
    stream: Stream,
    task: Task,
    model: Model,
    *,
    seeds: int,
    rate: float,
    rounds: int,
) -> Followed:
    algorithm = algorithms.local_only if policy.alone else algorithms.fed_avg
    return follow(
        algorithm(task.gradient, optax.sgd(rate)),
        stream.pooled() if policy.pooled else stream,
        task=task,
        model=model,
        rounds=rounds,
        local_work=epochs(1, batch_size=32),
        window=policy.window,
        until=policy.until,
        experiments=grid(seed=range(seeds)),
    )


def rhythms(data_dir: DataDir, seeds: int) -> list[dict[str, Any]]:
    """A line for every policy: the class of the next beats, predicted before they are trained on."""
    dataset = datasets.mitbih_rr(data_dir=data_dir, minutes=None)
    stream = in_periods(dataset, PERIODS)
    model = signals.gru(len(dataset.label_names))
    task = multiclass_classification(model, dataset.train.examples)
    general = multiclass_metrics()
    metrics = {name: general[name] for name in ("f1", "balanced_accuracy", "accuracy")}
    metrics |= class_metrics(dataset.label_names, ("S", "V"))
    lines, made = [], {}
    for name, policy in POLICIES.items():
        start = time.perf_counter()
        followed = _followed(policy, stream, task, model, seeds=seeds, rate=RATE, rounds=ROUNDS)
        seconds = time.perf_counter() - start
        print(f"stream: {policy.title}, {seconds:.0f} s", file=sys.stderr, flush=True)
        # Pooled arrivals are those of the clients in their order, period after period.
        whose = followed if not policy.pooled else made["all"]
        made[name] = followed
        judging = judge.Judging(
            class_probabilities, metrics, whose.labels, whose.client, dataset.client_names
        )
        by_period = []
        for period in range(1, PERIODS):
            now = whose.period == period
            own = judging._replace(labels=whose.labels[now], client=whose.client[now])
            by_period.append(
                float(np.mean([judge.main_value(own, o[now]) for o in followed.outputs]))
            )
        losses = cross_entropy(followed.outputs[0], whose.labels)
        watched = watch(
            losses, whose.period, whose.client, stream, reference=REFERENCE, rate=ALARM_RATE
        )
        lines.append(
            {
                "case": "stream",
                "method": name,
                "title": policy.title,
                **judge.judged(judging, followed.outputs),
                "minus_frozen": None,
                "by_period": by_period,
                "arrivals": stream.arrivals.sum(axis=1).tolist(),
                "loss_by_period": [None, *watched.pooled[1:].tolist()],
                "alarms": [
                    {
                        "by": "server" if a.client < 0 else dataset.client_names[a.client],
                        "period": a.period,
                    }
                    for a in watched.alarms
                ],
                "watched": dataset.num_clients - len(watched.unwatched),
                "seconds": round(seconds, 1),
                "num_traces": followed.num_traces,
            }
        )
    judging = judge.Judging(
        class_probabilities, metrics, made["all"].labels, made["all"].client, dataset.client_names
    )
    for line in lines:
        if line["method"] != "frozen":
            line["minus_frozen"] = judge.difference(
                judging, made[line["method"]].outputs, made["frozen"].outputs
            )
    return lines


CLIENTS, CHANGE, LENGTH, EACH, STREAMS = 12, 20, 30, 30, 10
SETTLED = (6, 12)  # reference periods
DRIFTING = 4


def simulated(seed: int, drifts: int) -> Stream:
    """Twelve clients with eight features, of which `drifts` turn a coefficient at period 20."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(CLIENTS, LENGTH, EACH, 8)).astype(np.float32)
    before = rng.normal(size=8)
    after = before.copy()
    after[np.argsort(np.abs(before))[-2]] *= -1  # the second largest
    has_changed = (np.arange(CLIENTS)[:, None] < drifts) & (np.arange(LENGTH)[None] >= CHANGE)
    weight = np.where(has_changed[..., None], after, before)
    logit = (x * weight[:, :, None]).sum(axis=-1)
    y = (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(np.int32)
    sizes = np.full(CLIENTS, LENGTH * EACH)
    arrays = ClientArrays({"x": x.reshape(-1, 8), "y": y.reshape(-1)}, sizes)
    names = tuple(f"Clinic {i + 1}" for i in range(CLIENTS))
    dataset = FederatedDataset("simulated", names, arrays, label_names=("no", "yes"))
    return Stream(dataset, np.arange(LENGTH + 1)[:, None] * np.full(CLIENTS, EACH))


def known_drift(drifts: int = DRIFTING) -> list[dict[str, Any]]:
    """A line for every policy: accuracy before and after, who found the drift and how late."""
    model = linear(2)
    task = multiclass_classification(model, simulated(0, drifts).dataset.train.examples)
    lines = []
    chosen: Mapping[str, Policy] = {
        name: policy._replace(until=5) if name == "frozen" else policy
        for name, policy in POLICIES.items()
        if name != "pooled"
    }
    for name, policy in chosen.items():
        right: dict[str, list[float]] = {"before": [], "after": []}
        false = {"clients": [], "server": []}
        delays: dict[str, list[float]] = {"clients": [], "server": []}
        for seed in range(STREAMS):
            stream = simulated(seed, drifts)
            followed = _followed(policy, stream, task, model, seeds=1, rate=0.3, rounds=2)
            hit = followed.outputs[0].argmax(axis=1) == followed.labels
            drifted = followed.client < drifts
            settled = (followed.period > SETTLED[1]) & (followed.period < CHANGE)
            right["before"].append(hit[settled & drifted].mean())
            right["after"].append(hit[(followed.period > CHANGE) & drifted].mean())
            losses = cross_entropy(followed.outputs[0], followed.labels)
            watched = watch(
                losses,
                followed.period,
                followed.client,
                stream,
                reference=SETTLED,
                rate=ALARM_RATE,
            )
            quiet = CHANGE - SETTLED[1] - 1
            early = [a for a in watched.alarms if a.period < CHANGE]
            false["clients"].append(sum(a.client >= 0 for a in early) / (quiet * CLIENTS))
            false["server"].append(sum(a.client < 0 for a in early) / quiet)
            for who in range(-1, drifts):
                found = [a.period for a in watched.alarms if a.client == who and a.period >= CHANGE]
                delay = found[0] - CHANGE if found else np.inf
                delays["server" if who < 0 else "clients"].append(delay)
        lines.append(
            {
                "case": "known-drift",
                "method": name,
                "title": policy.title,
                "drifting": drifts,
                "accuracy": {
                    when: {"mean": float(np.mean(v)), "sd": float(np.std(v))}
                    for when, v in right.items()
                },
                "false_alarms_per_period": {who: float(np.mean(v)) for who, v in false.items()},
                "found": {who: float(np.isfinite(v).mean()) for who, v in delays.items()},
                "median_delay": {
                    who: None if not np.isfinite(np.median(v)) else float(np.median(v))
                    for who, v in delays.items()
                },
            }
        )
    return lines


def settings() -> dict[str, Any]:
    """What the streams were made with."""
    return {
        "periods": PERIODS,
        "rounds": ROUNDS,
        "rate": RATE,
        "reference": REFERENCE,
        "alarm_rate": ALARM_RATE,
        "simulated": {
            "clients": CLIENTS,
            "change": CHANGE,
            "reference": SETTLED,
            "periods": LENGTH,
            "examples_each": EACH,
            "streams": STREAMS,
        },
    }
