"""`Survey`: one pass of a client program over everybody, outside of any training.

For what hospitals say of their rows before anything is trained: counts, means, histograms. It is
the same `run_clients` as training, so whatever aggregates client updates (a sum, a clip with noise)
aggregates such summaries, and what only a hospital keeps is its client state.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.engine.contracts import Aggregator, Client, ClientProgram, PyTree
from fedjax_med.engine.evaluator import pass_over_everybody
from fedjax_med.engine.lane_executor import LaneExecutor
from fedjax_med.engine.layout import from_rows, spread, to_rows
from fedjax_med.engine.local_work import Epochs, LocalWork
from fedjax_med.engine.placement import Placement, one_device
from fedjax_med.engine.rounds import Compiled, Pass, split_metrics, sum_of_updates

_BATCH_SIZE = 1024


class Surveyed(NamedTuple):
    """What a survey found, as host arrays.

    Attributes:
      aggregate: what the aggregator made of the clients' updates; their sum by default.
      per_client: the clients' states after the pass, `[clients, ...]`; as given where a client has
        no examples.
    """

    aggregate: PyTree
    per_client: PyTree


class Survey:
    """Client data on the devices, for any number of passes over it.

    Everything is computed with 64 bits, whatever the setting of JAX. A program is compiled once for
    examples, `shared` and states of the same shapes, in all surveys of a process, so programs should
    be functions of a module and not closures.
    """

    def __init__(
        self,
        arrays: ClientArrays,
        client_names: Sequence[str],
        *,
        batch_size: int = _BATCH_SIZE,
        placement: Placement | None = None,
    ):
        """Places the examples.

        Args:
          arrays: the examples of all clients.
          client_names: for error messages.
          batch_size: examples that a client looks at in one step, at most.
          placement: where clients run; the first device if None.

        Raises:
          ValueError: if nobody has examples, or `batch_size` is below 1.
        """
        if arrays.num_examples == 0:
            raise ValueError("arrays must have examples for a survey, got none.")
        self.client_names = tuple(client_names)
        self._placement = placement or one_device()
        splits = self._placement.num_splits
        # Powers of two, so that surveys of nearly the same size share a compilation.
        largest = -(-_power_of_two(int(arrays.sizes.max())) // splits) * splits
        self._work = Epochs(1, min(batch_size, largest), shuffle=False)
        self._layout = spread(arrays.sizes, self._placement.num_devices)
        with jax.enable_x64(True):
            judged, self._client_ids = pass_over_everybody(
                arrays, self._work, self._layout, min_rows=_power_of_two(arrays.num_examples)
            )
            self._judged = self._placement.put(judged, "per_device")

    def __call__(
        self,
        program: ClientProgram,
        shared: PyTree,
        *,
        aggregator: Aggregator | None = None,
        states: PyTree = (),
    ) -> Surveyed:
        """Runs `program` once over the examples of everybody who has some, in their stored order.

        Args:
          program: what a client does; its update is what leaves it.
          shared: what all clients are sent.
          aggregator: of the updates; their sum if None.
          states: `[clients, ...]`, what each client has of its own before.

        Raises:
          ValueError: if the result of a client is not finite.
        """
        with jax.enable_x64(True):
            shared = jax.tree.map(np.asarray, shared)
            states = jax.tree.map(np.asarray, states)
            compiled = _compiled(program, aggregator or _SUM, self._work, self._placement)
            aggregate, rows, excluded = compiled(
                self._placement.put(shared, "replicated"),
                self._placement.put(to_rows(states, self._layout), "per_device"),
                self._judged,
            )
            aggregate = self._placement.fetch(aggregate, "replicated")
            rows = self._placement.fetch(rows, "per_device")
            excluded = self._placement.fetch(excluded, "per_device")
        if excluded.any():
            first = self.client_names[int(self._client_ids[excluded].min())]
            raise ValueError(
                f"what client {first!r} found is not finite ({int(excluded.sum())} such clients); "
                "examples may hold finite numbers, and NaN where a value is missing."
            )
        return Surveyed(aggregate, from_rows(rows, self._layout))


def survey(
    program: ClientProgram,
    shared: PyTree,
    dataset: FederatedDataset,
    *,
    split: str = "train",
    aggregator: Aggregator | None = None,
    states: PyTree = (),
    batch_size: int = _BATCH_SIZE,
    placement: Placement | None = None,
) -> Surveyed:
    """A single pass over one split of a dataset; see `Survey` for more than one, and for the terms.

    Raises:
      ValueError: if there are no such examples, or the result of a client is not finite.
    """
    arrays = dataset.splits().get(split)
    if arrays is None or arrays.num_examples == 0:
        raise ValueError(f"split must have examples, but {dataset.name} has no {split!r}.")
    passes = Survey(arrays, dataset.client_names, batch_size=batch_size, placement=placement)
    return passes(program, shared, aggregator=aggregator, states=states)


def _power_of_two(count: int) -> int:
    """The smallest that is not below `count`."""
    return 1 << (count - 1).bit_length()


_SUM = sum_of_updates()  # one object, so that programs are found again


@functools.lru_cache(maxsize=64)
def _compiled(
    program: ClientProgram, aggregator: Aggregator, work: LocalWork, placement: Placement
) -> Compiled:
    """The pass as a program of what is shared, the clients' states and the examples."""
    axes = placement.axes(experiments=False)

    def survey_everybody(shared: PyTree, states: PyTree, judged: Pass):
        run_clients = LaneExecutor(judged.data, work, axes)
        cohort = judged.cohort._replace(states=states)
        one = jnp.int32(1)
        state = jax.tree.map(lambda x: x[0], states)
        client = Client(1 - one, one, one, jax.random.key(0), state, 1 - one)
        like = jax.eval_shape(lambda: program.end(shared, program.begin(shared, client), client))
        result = run_clients(program, shared, cohort, aggregator, aggregator.init(like.update))
        return result.aggregate, result.client_states, split_metrics(result.metrics)[1].excluded

    return Compiled(
        survey_everybody,
        placement,
        inputs=("replicated", "per_device", "per_device"),
        outputs=("replicated", "per_device", "per_device"),
    )
