"""Lane packing: queues of clients of about equal length, and how many of them to run.

A lane runs its clients back to back, so the cost of a round is `lanes x longest lane` and not
`clients x longest client`. Greedy longest-first packing (Graham, 1969, "Bounds on
multiprocessing timing anomalies") keeps the lanes within one client of each other.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

LANE_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
TARGET_USEFUL_FRACTION = 0.95


class Packing(NamedTuple):
    """Clients of one device and round, queued into lanes.

    Attributes:
      order: int64 `[clients]`, lane by lane, positions in the array of steps that was packed.
      lane_start: int32 `[lanes + 1]`, where each lane begins in `order`.
      trip_count: local steps of the longest lane.
    """

    order: np.ndarray
    lane_start: np.ndarray
    trip_count: int


def pack(num_steps: np.ndarray, num_lanes: int, client: np.ndarray | None = None) -> Packing:
    """Packs clients into lanes, longest first onto the shortest lane.

    Args:
      num_steps: int `[clients]`, local steps of each client.
      num_lanes: lanes to fill.
      client: int `[clients]`, breaks ties, so that the result does not depend on the order in
        which a cohort is listed. The position if None.
    """
    ties = np.arange(len(num_steps)) if client is None else client
    longest_first = np.lexsort((ties, -num_steps))
    queues: list[list[int]] = [[] for _ in range(num_lanes)]
    heap = [(0, lane) for lane in range(num_lanes)]
    for position, length in zip(
        longest_first.tolist(), num_steps[longest_first].tolist(), strict=True
    ):
        load, lane = heap[0]
        queues[lane].append(position)
        heapq.heapreplace(heap, (load + length, lane))
    lane_start = np.zeros(num_lanes + 1, np.int32)
    np.cumsum([len(queue) for queue in queues], out=lane_start[1:])
    order = np.fromiter(
        (position for queue in queues for position in queue), np.int64, len(num_steps)
    )
    return Packing(order, lane_start, max(load for load, _ in heap))


def useful_fraction(packings: Iterable[Sequence[Packing]], useful_steps: Iterable[int]) -> float:
    """Share of lane steps that train a client.

    Args:
      packings: for every round, the packing of each device; all devices wait for the slowest.
      useful_steps: for every round, the local steps of all its clients.
    """
    slots = sum(
        len(devices) * (len(devices[0].lane_start) - 1) * max(p.trip_count for p in devices)
        for devices in packings
    )
    return sum(useful_steps) / slots if slots else 1.0


def choose_lane_count(
    rounds: Sequence[Sequence[np.ndarray]],
    max_lanes: int,
    target: float = TARGET_USEFUL_FRACTION,
) -> int:
    """The largest lane count per device that keeps the share `target` of the useful fraction.

    Args:
      rounds: for a sample of rounds, for every device, the local steps of its clients.
      max_lanes: bound from memory and the kind of device.
      target: share of the useful fraction of a single lane that has to be kept. On one device
        a single lane is always useful; several devices wait for the fullest of them.
    """
    useful = [sum(int(steps.sum()) for steps in devices) for devices in rounds]
    best, single = 1, 1.0
    for num_lanes in LANE_COUNTS:
        if num_lanes > max_lanes:
            break
        packings = [[pack(steps, num_lanes) for steps in devices] for devices in rounds]
        fraction = useful_fraction(packings, useful)
        if num_lanes == 1:
            single = fraction
        if fraction >= target * single:
            best = num_lanes
    return best
