"""Watches the losses of a followed stream: of every client at home, and of all of them together.

Every client watches its own losses, example by example. What it tells the server after each period is
the sum of its losses, measured in its own deviations from its own mean of the reference periods, and
their number; so the server watches one number per period in which patients who differ from each other
count alike. Both by Page and Hinkley's test; thresholds are such that as long as losses are distributed
as in the reference periods there is an alarm in a share `rate` of periods. A model that has just begun to
learn has other losses than later (larger in the mean, of a smaller spread), so reference periods should
come after a warm-up.

Losses are cut two deviations above the mean: single bad examples are no drift, and a few hundred reference
losses say little of the tail. With 210 of them per client, the losses of a logistic regression and a rate of
0.02, 0.035 alarms per period were measured (without the cut 0.05), and a rise by one deviation was found after
10 examples (14).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax

from fedjax_med.streams.arrivals import Stream
from fedjax_med.streams.drift import page_hinkley, page_hinkley_threshold

# Of the deviation of the losses: smaller rises do not count.
_DELTA = 0.25
_CUT = 2.0
# Of the server's numbers, which have a deviation of 1 without drift.
_SERVER_DELTA = 0.5
_FEWEST = 16  # examples that say something of a client's losses
_SERVER = -1


class Alarm(NamedTuple):
    """A drift that was reported.

    Attributes:
      client: number of the client, -1 for the server.
      period: in which it was reported.
      example: how many of the client's examples of that period had come, 0 for the server.
    """

    client: int
    period: int
    example: int


class Watched(NamedTuple):
    """Losses and alarms of a stream.

    Attributes:
      loss: mean `[periods, clients]`, NaN where nothing was judged.
      pooled: mean over all examples `[periods]`, likewise.
      alarms: in their order; by client and by the server.
      unwatched: clients with too few examples in the reference periods.
      reference: first and last reference period.
      rate: of false alarms per period that thresholds are for.
    """

    loss: np.ndarray
    pooled: np.ndarray
    alarms: tuple[Alarm, ...]
    unwatched: tuple[int, ...]
    reference: tuple[int, int]
    rate: float


def cross_entropy(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Loss [nats] `[N]` of every example, from logits `[N, classes]` and classes `[N]`."""
    logs = log_softmax(np.asarray(outputs, np.float64), axis=1)
    return -logs[np.arange(len(logs)), np.asarray(labels, np.int64)]


def watch(
    losses: np.ndarray,
    period: np.ndarray,
    client: np.ndarray,
    stream: Stream,
    *,
    reference: tuple[int, int],
    rate: float = 0.02,
) -> Watched:
    """Watches losses `[N]` for a rise after the reference periods.

    Args:
      losses: of the judged examples, in the order of `Followed`.
      period: of each, from 1 on.
      client: of each.
      stream: where they came from.
      reference: first and last period whose losses are taken to be without drift. What comes before
        is left out.
      rate: of false alarms per period, of every client and of the server.

    Raises:
      ValueError: if a number does not fit.
    """
    losses = np.asarray(losses, np.float64)
    first, last = reference
    if not 1 <= first <= last < stream.num_periods - 1:
        raise ValueError(
            f"reference must be periods from 1 to {stream.num_periods - 2}, the first before the last, "
            f"got {reference!r}."
        )
    if not 0 < rate < 1:
        raise ValueError(f"rate must be between 0 and 1, got {rate!r}.")
    shape = (stream.num_periods, stream.dataset.num_clients)
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (period, client), losses)
    np.add.at(counts, (period, client), 1)
    alarms, unwatched = [], []
    told, weight = np.zeros(stream.num_periods), np.zeros(stream.num_periods)
    for c in range(shape[1]):
        own = (client == c) & (period >= first)
        known = losses[own & (period <= last)]
        deviation = known.std() if len(known) >= _FEWEST else 0.0
        if not deviation > 0:
            unwatched.append(c)
            continue
        scaled = np.minimum((losses - known.mean()) / deviation, _CUT)
        known = scaled[own & (period <= last)]
        scaled = (scaled - known.mean()) / known.std()
        told += np.bincount(period[own], scaled[own], minlength=len(told))
        weight += np.bincount(period[own], minlength=len(weight))
        alarms += _at_home(scaled[own], period[own], c, last, rate)
    alarms += _at_the_server(told, weight, last, rate)
    with np.errstate(invalid="ignore"):
        loss = sums / counts
        pooled = sums.sum(axis=1) / counts.sum(axis=1)
    return Watched(
        loss,
        pooled,
        tuple(sorted(alarms, key=lambda a: (a.period, a.client))),
        tuple(unwatched),
        reference,
        rate,
    )


def _at_home(scaled: np.ndarray, period: np.ndarray, c: int, last: int, rate: float) -> list[Alarm]:
    """Alarms of a client; the running mean begins with the reference periods."""
    per_example = rate / np.unique(period, return_counts=True)[1].mean()
    threshold = page_hinkley_threshold(
        scaled[period <= last], delta=_DELTA, rate=min(per_example, 0.5)
    )
    first = np.searchsorted(period, period)  # a client's examples are in the order of periods
    raised = page_hinkley(scaled, delta=_DELTA, threshold=threshold) & (period > last)
    return [
        Alarm(c, int(period[i]), int(i - first[i] + 1)) for i in np.flatnonzero(raised).tolist()
    ]


def _at_the_server(told: np.ndarray, weight: np.ndarray, last: int, rate: float) -> list[Alarm]:
    """Alarms of the server, from sums and numbers of all clients by period."""
    judged = np.flatnonzero(weight)
    series = told[judged] / np.sqrt(weight[judged])
    # Sums of many losses are normal, and in deviations of 1 as long as nothing drifts.
    normal = np.random.default_rng(0).standard_normal(4000)
    threshold = page_hinkley_threshold(
        normal, delta=_SERVER_DELTA, rate=rate, length=1, num_examples=200
    )
    raised = page_hinkley(series, delta=_SERVER_DELTA, threshold=threshold)
    return [Alarm(_SERVER, int(p), 0) for p in judged[raised].tolist() if p > last]


def table(watched: Watched, stream: Stream, names: Sequence[str] | None = None) -> str:
    """A Markdown table of periods: arrivals, loss, and who reported a drift.

    Args:
      watched: the losses.
      stream: the arrivals.
      names: of the clients; those of the dataset if None.
    """
    names = stream.dataset.client_names if names is None else names
    lines = [
        "| period | arrivals | clients | mean loss | worst client | drift reported by |",
        "| ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for period, arrivals in enumerate(stream.arrivals):
        own = watched.loss[period]
        known = ~np.isnan(own)
        worst = int(np.nanargmax(own)) if known.any() else None
        told = [
            "server" if a.client == _SERVER else names[a.client]
            for a in watched.alarms
            if a.period == period
        ]
        cells = [
            str(period),
            f"{arrivals.sum():,}",
            str(int((arrivals > 0).sum())),
            "" if worst is None else f"{watched.pooled[period]:.3f}",
            "" if worst is None else f"{names[worst]} ({own[worst]:.3f})",
            ", ".join(dict.fromkeys(told)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
