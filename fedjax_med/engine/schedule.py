"""Host side of a chunk of rounds: sample cohorts, pack lanes, lay out the schedule arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fedjax_med.engine.cohorts import CohortSampler, StaleCohorts
from fedjax_med.engine.contracts import Cohort
from fedjax_med.engine.lanes import Packing, pack, useful_fraction
from fedjax_med.engine.layout import Layout
from fedjax_med.engine.local_work import LocalWork

_INT32_MAX = np.iinfo(np.int32).max


class Draw(NamedTuple):
    """One device's clients of one round and where each stands in its data; all `[cohort]`."""

    client: np.ndarray
    number: np.ndarray  # of the client among those of its experiment
    first_epoch: np.ndarray
    first_step: np.ndarray
    num_steps: np.ndarray
    staleness: np.ndarray


class Chunk(NamedTuple):
    """Schedule of some rounds.

    Attributes:
      cohorts: `Cohort` of host arrays `[devices, (experiments,) rounds, ...]`, no states.
      client_ids: int64 `[devices, (experiments,) rounds, slots]`, -1 in empty slots.
      num_rounds: rounds that are filled; the arrays may hold more.
      useful_fraction: share of lane steps that train a client.
      num_steps: local steps of all clients.
    """

    cohorts: Cohort
    client_ids: np.ndarray
    num_rounds: int
    useful_fraction: float
    num_steps: int


class Scheduler:
    """Draws the cohorts of one training run, round after round.

    Holds how often each client has taken part, which is where it stands in its data: the
    only thing about schedules that a checkpoint has to keep.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        layout: Layout,
        sampler: CohortSampler,
        local_work: LocalWork,
        seed: int,
        members: np.ndarray | None = None,
    ):
        """Binds a sampler and local work to a population: `members`, or everybody if None."""
        self.sizes = np.asarray(sizes, np.int64)
        self.layout = layout
        self.sampler = sampler
        # Asked once: looking at a protocol's members took longer than a round of a small model.
        self._stale = sampler if isinstance(sampler, StaleCohorts) else None
        self.local_work = local_work
        self.seed = seed
        self.participations = np.zeros(len(self.sizes), np.int64)
        largest = max(len(clients) for clients in layout.members)
        self.members = np.arange(len(self.sizes)) if members is None else members
        self.max_slots = max(1, min(sampler.max_size(len(self.members)), largest))

    def preview(self, rounds: Iterable[int]) -> list[list[Draw]]:
        """The cohorts of some rounds as if they came next; nobody moves on in their data."""
        before = self.participations.copy()
        draws = [self.draw(round_index) for round_index in rounds]
        self.participations[:] = before
        return draws

    def draw(self, round_index: int) -> list[Draw]:
        """The cohort of a round, by device; moves its clients on in their data."""
        population = len(self.members)
        drawn = np.asarray(self.sampler.draw(population, round_index, self.seed), np.int64)
        order = np.argsort(drawn)
        number = drawn[order]
        cohort = self.members[number]
        staleness = np.zeros_like(cohort)
        if self._stale is not None:
            staleness = np.asarray(self._stale.staleness(round_index), np.int64)[order]
        sizes, before = self.sizes[cohort], self.participations[cohort]
        first_epoch, first_step = self.local_work.cursor(sizes, before)
        if len(cohort) and first_epoch.max() > _INT32_MAX:
            raise ValueError(f"A client went through more than {_INT32_MAX} epochs.")
        num_steps = self.local_work.num_steps(sizes)
        columns = (cohort, number, first_epoch, first_step, num_steps, staleness)
        self.participations[cohort] += 1
        if len(self.layout.members) == 1:
            return [Draw(*columns)]
        device = self.layout.device[cohort]
        return [
            Draw(*(column[device == d] for column in columns))
            for d in range(len(self.layout.members))
        ]


def build_chunk(
    draws: Sequence[Sequence[Sequence[Draw]]],
    seeds: Sequence[int],
    first_round: int,
    *,
    table_row: np.ndarray,
    num_lanes: int,
    num_slots: int,
    max_rounds: int,
    experiments: bool,
) -> Chunk:
    """Packs the drawn cohorts into the arrays of a compiled chunk.

    Args:
      draws: `[experiment][round][device]`; a single experiment's serve all seeds.
      seeds: one per experiment.
      first_round: index of the first of these rounds.
      table_row: row of each client in its device's client table.
      num_lanes: lanes of each device.
      num_slots: slots of each device and round; no cohort may be larger.
      max_rounds: rounds the arrays have room for.
      experiments: keep the experiments axis (otherwise there is one experiment).
    """
    num_devices = len(draws[0][0])
    num_rounds = len(draws[0])
    shape = (num_devices, len(draws), max_rounds)
    slots = {
        name: np.zeros((*shape, num_slots), np.int32)
        for name in ("client", "client_id", "first_epoch", "first_step", "staleness")
    }
    slots["num_steps"] = np.ones((*shape, num_slots), np.int32)
    client_ids = np.full((*shape, num_slots), -1, np.int64)
    lane_start = np.zeros((*shape, num_lanes + 1), np.int32)
    trip_count = np.zeros(shape, np.int32)
    packings: list[list[Packing]] = []
    useful: list[int] = []
    packed_before: dict[tuple[bytes, bytes], Packing] = {}  # everyone, every round: packed once
    for e, rounds in enumerate(draws):
        for r, devices in enumerate(rounds):
            packed = []
            for d, draw in enumerate(devices):
                content = (draw.num_steps.tobytes(), draw.client.tobytes())
                if content not in packed_before:
                    packed_before[content] = pack(draw.num_steps, num_lanes, draw.client)
                packing = packed_before[content]
                at = (d, e, r, slice(0, len(draw.client)))
                order = packing.order
                slots["client"][at] = table_row[draw.client[order]]
                slots["client_id"][at] = draw.number[order]
                slots["first_epoch"][at] = draw.first_epoch[order]
                slots["first_step"][at] = draw.first_step[order]
                slots["num_steps"][at] = draw.num_steps[order]
                slots["staleness"][at] = draw.staleness[order]
                client_ids[at] = draw.client[order]
                lane_start[d, e, r] = packing.lane_start
                trip_count[d, e, r] = packing.trip_count
                packed.append(packing)
            packings.append(packed)
            useful.append(sum(int(draw.num_steps.sum()) for draw in devices))
    shape = (num_devices, len(seeds), max_rounds)
    cohorts = Cohort(
        round_index=np.arange(first_round, first_round + max_rounds, dtype=np.int32),
        seed=np.asarray(seeds, np.uint32)[None, :, None],
        lane_start=lane_start,
        trip_count=trip_count,
        **slots,
    )
    cohorts = Cohort(
        *(
            np.broadcast_to(x, shape + x.shape[3:]) if isinstance(x, np.ndarray) else x
            for x in cohorts
        )
    )
    client_ids = np.broadcast_to(client_ids, shape + client_ids.shape[3:])
    if not experiments:
        cohorts = Cohort(*(x[:, 0] if isinstance(x, np.ndarray) else x for x in cohorts))
        client_ids = client_ids[:, 0]
    return Chunk(cohorts, client_ids, num_rounds, useful_fraction(packings, useful), sum(useful))
