"""Federated evaluation: the current model on every client's examples, through `run_clients`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fedjax_med.data import ClientArrays
from fedjax_med.engine.callbacks import Evaluation
from fedjax_med.engine.cohorts import Listed
from fedjax_med.engine.contracts import PyTree
from fedjax_med.engine.lanes import choose_lane_count
from fedjax_med.engine.layout import Layout, gather
from fedjax_med.engine.local_work import Epochs, LocalWork
from fedjax_med.engine.placement import Placement
from fedjax_med.engine.rewriting import Rewriting
from fedjax_med.engine.rounds import AlgorithmBuilder, Pass, compile_evaluation
from fedjax_med.engine.schedule import Scheduler, build_chunk
from fedjax_med.engine.task import Task

_BATCH_SIZE = 128
_MAX_LANES = 8


class Adapting(NamedTuple):
    """The training examples that clients adapt to before they are judged, and how long."""

    arrays: ClientArrays
    local_work: LocalWork


def pass_over_everybody(
    arrays: ClientArrays, work: LocalWork, layout: Layout, *, min_rows: int = 1
) -> tuple[Pass, np.ndarray]:
    """All clients that have examples as one cohort, and their numbers `[devices, slots]`.

    Example arrays have at least `min_rows` rows, so that those of several datasets share a shape.
    """
    present = np.flatnonzero(arrays.sizes)
    scheduler = Scheduler(arrays.sizes, layout, Listed((tuple(present.tolist()),)), work, 0)
    resident = gather(arrays, layout, min_rows=min_rows)
    draws = [[scheduler.draw(0)]]
    chunk = build_chunk(
        draws,
        (0,),
        0,
        table_row=resident.table_row,
        num_lanes=choose_lane_count([[d.num_steps for d in draws[0][0]]], _MAX_LANES),
        num_slots=scheduler.max_slots,
        max_rounds=1,
        experiments=False,
    )
    # A single round: its axis goes, as inside a round.
    cohort = type(chunk.cohorts)(
        *(x[:, 0] if isinstance(x, np.ndarray) else x for x in chunk.cohorts)
    )
    return Pass(resident.data, cohort), chunk.client_ids[:, 0]


class Evaluator:
    """Judges models on one split of the data; compiled once, data kept on the devices."""

    def __init__(
        self,
        split: str,
        arrays: ClientArrays,
        task: Task,
        build: AlgorithmBuilder,
        hyper: Mapping[str, Any],
        placement: Placement,
        layout: Layout,
        experiments: bool,
        adapting: Adapting | None = None,
        rewriting: Rewriting | None = None,
    ):
        """Places the data and lays out one pass over everybody."""
        self.split = split
        self.placement = placement
        self.num_clients = arrays.num_clients
        largest = int(arrays.sizes.max())
        batch_size = min(_BATCH_SIZE, -(-largest // placement.num_splits) * placement.num_splits)
        work = Epochs(1, batch_size, shuffle=False)
        judged, self.client_ids = pass_over_everybody(arrays, work, layout)
        adapted_to = ()
        if adapting is not None:
            adapted_to, _ = pass_over_everybody(adapting.arrays, adapting.local_work, layout)
        self._program = compile_evaluation(
            build,
            task.metrics,
            task.metric_names,
            work,
            placement,
            experiments=experiments,
            adaptation_work=None if adapting is None else adapting.local_work,
            clients_per_device=layout.rows_per_device,
            rewriting=rewriting,
        )
        self._fixed = (
            placement.put(judged, "per_device"),
            placement.put(dict(hyper), "replicated"),
            placement.put(adapted_to, "per_device"),
        )

    @property
    def compile_s(self) -> float:
        """Seconds spent compiling."""
        return self._program.compile_s

    @property
    def num_traces(self) -> int:
        """Times the program was traced."""
        return self._program.num_traces

    def __call__(self, state: PyTree, client_states: PyTree, round_index: int) -> Evaluation:
        """Evaluates server and client states that are on the devices; waits for the result."""
        sums, slots = self._program(state, client_states, *self._fixed)
        sums = self.placement.fetch(sums, "replicated")
        slots = self.placement.fetch(slots.per_client, "per_device")
        with np.errstate(divide="ignore", invalid="ignore"):
            pooled = {name: np.asarray(top / bottom) for name, (top, bottom) in sums.items()}
        return Evaluation(
            self.split,
            round_index,
            pooled,
            {name: self._by_client(values) for name, values in slots.items()},
        )

    def _by_client(self, values: np.ndarray) -> np.ndarray:
        """`[devices, (experiments,) slots]` as `[(experiments,) clients]`."""
        filled = self.client_ids >= 0
        by_slot = np.moveaxis(values, 0, -2)[..., filled]  # [(experiments,) filled slots]
        out = np.full((*by_slot.shape[:-1], self.num_clients), np.nan, values.dtype)
        out[..., self.client_ids[filled]] = by_slot
        return out
