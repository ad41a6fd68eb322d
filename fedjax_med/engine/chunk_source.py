"""The host's half of a run: cohorts, lanes and client data of the next chunk of rounds."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from fedjax_med.engine.arguments import Arguments
from fedjax_med.engine.contracts import PyTree
from fedjax_med.engine.lane_choice import choose_lanes
from fedjax_med.engine.layout import gather, spread
from fedjax_med.engine.schedule import Chunk, Draw, Scheduler, build_chunk

# Data of a streamed chunk: two of them are on the device, the running and the next one.
STREAM_BYTES = 256 * 2**20
_SAMPLED_ROUNDS = 8


class Drawn(NamedTuple):
    """The cohorts of a chunk and the client data they read, on the devices."""

    draws: list[list[list[Draw]]]  # [scheduler][round][device]
    table_row: np.ndarray
    data: PyTree


class ChunkSource:
    """Draws and packs the rounds of one run, in order.

    Attributes:
      layout: which device holds which client.
      schedulers: one per experiment, or a single one where all have the same cohorts.
      max_rounds: rounds that a chunk has room for.
    """

    def __init__(self, a: Arguments):
        """Binds the run's sampler to its population and places the data (unless streamed)."""
        self._a = a
        self._train = a.dataset.train
        self.layout = spread(self._train.sizes, a.placement.num_devices)
        self.schedulers = [
            Scheduler(self._train.sizes, self.layout, a.sampler, a.local_work, seed, members)
            for seed, members in a.populations()
        ]
        self._num_slots = max(scheduler.max_slots for scheduler in self.schedulers)
        self._example_bytes = sum(
            leaf.nbytes // max(len(leaf), 1) for leaf in jax.tree.leaves(self._train.examples)
        )
        self.max_rounds = a.rounds_per_call
        if a.stream:
            self._size_stream()
        else:
            resident = gather(self._train, self.layout)
            self._table_row = resident.table_row
            self._data = a.placement.put(resident.data, "per_device")

    def choose_lanes(self, variables: PyTree) -> int:
        """Lanes per device for a model."""
        a = self._a
        minibatch_bytes = a.local_work.batch_size * self._example_bytes
        return choose_lanes(
            self.schedulers[0], a.placement, variables, minibatch_bytes, len(a.seeds), a.rounds
        )

    def _size_stream(self) -> None:
        """Chooses rounds per chunk and array sizes, so that chunks of data fit their budget."""
        a = self._a
        draws = self.schedulers[0].preview(range(min(_SAMPLED_ROUNDS, a.rounds)))
        clients = max(len(d.client) for devices in draws for d in devices)
        rows = max(self._rows(d.client) for devices in draws for d in devices)
        experiments = len(self.schedulers)
        affordable = STREAM_BYTES // max(1, rows * self._example_bytes * experiments)
        self.max_rounds = int(np.clip(affordable, 1, a.rounds_per_call))
        # A tenth to spare, because cohorts differ; a chunk never needs more than everything.
        most = 1.1 * self.max_rounds * experiments
        everything = max(self._rows(members) for members in self.layout.members)
        self._stream_rows = min(everything, int(rows * most))
        self._stream_clients = min(self.layout.rows_per_device, int(clients * most))

    def _rows(self, clients: np.ndarray) -> int:
        return int(self._train.sizes[clients].sum())

    def draw(self, first_round: int, count: int) -> Drawn:
        """Draws the cohorts of a chunk; with streaming, gathers their data as well."""
        a = self._a
        draws = [
            [scheduler.draw(first_round + r) for r in range(count)] for scheduler in self.schedulers
        ]
        largest = max(len(d.client) for rounds in draws for devices in rounds for d in devices)
        self._num_slots = max(self._num_slots, largest)
        if not a.stream:
            return Drawn(draws, self._table_row, self._data)
        needed = tuple(
            np.unique(np.concatenate([devices[d].client for r in draws for devices in r]))
            for d in range(a.placement.num_devices)
        )
        # Never less than before: chunks of different cohorts share one shape, so only a much
        # larger one compiles the program again.
        self._stream_rows = max(self._stream_rows, *(self._rows(m) for m in needed))
        self._stream_clients = max(self._stream_clients, *(len(m) for m in needed))
        resident = gather(
            self._train,
            self.layout,
            needed,
            min_rows=self._stream_rows,
            min_clients=self._stream_clients,
        )
        return Drawn(draws, resident.table_row, a.placement.put(resident.data, "per_device"))

    def pack(self, drawn: Drawn, first_round: int, num_lanes: int) -> Chunk:
        """Lays a chunk's cohorts out in lanes."""
        return build_chunk(
            drawn.draws,
            self._a.seeds,
            first_round,
            table_row=drawn.table_row,
            num_lanes=num_lanes,
            num_slots=self._num_slots,
            max_rounds=self.max_rounds,
            experiments=self._a.mapped,
        )
