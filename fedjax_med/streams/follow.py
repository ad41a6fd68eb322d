"""Keeps models current while data arrive: every period is predicted first, then trained on.

All examples lie on the device from the beginning; a period changes which of them clients know of, two
numbers per client. Sizes change, shapes do not, so **one compiled program follows the whole stream**, and
states of clients and server go on from period to period, of any algorithm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.data._tree import map_leaves
from fedjax_med.engine import Batch, Task, Variables
from fedjax_med.engine.arguments import AlgorithmLike, Arguments, concrete_algorithm
from fedjax_med.engine.cohorts import everyone
from fedjax_med.engine.contracts import PyTree
from fedjax_med.engine.experiments import Experiments, grid
from fedjax_med.engine.lane_choice import choose_lanes
from fedjax_med.engine.layout import Resident, gather, spread
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.engine.placement import one_device
from fedjax_med.engine.rewriting import make_rewriting
from fedjax_med.engine.rounds import AlgorithmBuilder, compile_rounds
from fedjax_med.engine.schedule import Scheduler, build_chunk
from fedjax_med.engine.states import States, fetch_states, initial_states, put_states
from fedjax_med.models import Model
from fedjax_med.streams.arrivals import Stream
from fedjax_med_kernels.client_batched import client_batched


@dataclasses.dataclass(frozen=True, eq=False)
class Followed:
    """What became of a stream. Examples are those of all periods but the first, in order of arrival.

    Attributes:
      outputs: `[experiments, N, ...]`, of the model that each client had when an example came.
      labels: `examples["y"]` `[N, ...]`.
      period: int64 `[N]`, from 1 on: nobody was judged in period 0.
      client: int64 `[N]`.
      variables: final shared models `[experiments, ...]`.
      client_states: final states of the clients `[experiments, clients, ...]`.
      history: `{name: [experiments, periods, rounds]}`, as of `simulate`; NaN for rounds of a period in
        which nobody trained.
      num_traces: how often the training program was traced.
    """

    outputs: np.ndarray
    labels: np.ndarray
    period: np.ndarray
    client: np.ndarray
    variables: Variables
    client_states: PyTree
    history: dict[str, np.ndarray]
    num_traces: int


class _Known:
    """A cohort of everybody who has examples to train on."""

    uses_seed = False

    def __init__(self) -> None:
        self.clients = np.zeros(0, np.int64)

    def draw(self, num_clients: int, round_index: int, seed: int) -> np.ndarray:
        del num_clients, round_index, seed
        return self.clients

    def max_size(self, num_clients: int) -> int:
        return num_clients


def follow(
    algorithm: AlgorithmLike,
    stream: Stream,
    *,
    task: Task,
    model: Model,
    rounds: int,
    local_work: LocalWork,
    window: int | None = None,
    until: int | None = None,
    experiments: Experiments | None = None,
    lanes: int | None = None,
) -> Followed:
    """Trains on a stream, `rounds` federated rounds after each period, on one device.

    When examples arrive, each client predicts them by the model that it has (test, then train); then
    those with examples in the window train.

    Args:
      algorithm: without an adaptation before judging; or a function of hyperparameters, as `simulate`.
      stream: the arrivals.
      task: initial model and loss.
      model: of the task.
      rounds: after every period.
      local_work: of a client in a round.
      window: periods, the present one included, whose examples are trained on; all so far if None.
      until: last period that is trained on, so that the model stays as it is; None never stops.
      experiments: seeds and hyperparameters; one of seed 0 if None. Without `members`.
      lanes: as of `simulate`.

    Raises:
      ValueError: names the argument that does not fit.
    """
    if window is not None and window < 1:
        raise ValueError(f"window must be at least 1 period, or None, got {window!r}.")
    if until is not None and not 0 <= until < stream.num_periods:
        raise ValueError(
            f"until must be a period from 0 to {stream.num_periods - 1}, got {until!r}."
        )
    if not stream.arrivals[1:].any():
        raise ValueError("stream must have examples after its first period, to be judged on.")
    experiments = experiments or grid(seed=[0])
    if experiments.members is not None:
        raise ValueError("experiments must be about all clients of the stream, got members.")
    a = _arguments(algorithm, stream, task, rounds, local_work, experiments, lanes)
    first, build = concrete_algorithm(a)
    if first.adaptation is not None:
        raise ValueError(
            "algorithm must not adapt before it is judged, got one with an adaptation; its clients "
            "train after every period as it is."
        )
    train, hyper = stream.dataset.train, a.traced_hyperparameters()
    layout = spread(train.sizes, 1)
    rewriting = make_rewriting(True, a.placement.devices[0].platform)
    program = compile_rounds(build, local_work, a.placement, experiments=True, rewriting=rewriting)
    predict = _predictor(build, model, layout.row)
    resident = gather(train, layout)
    data = a.placement.put(resident.data, "per_device")
    placed_hyper = a.placement.put(hyper, "replicated")
    known = _Known()
    scheduler = Scheduler(train.sizes, layout, known, local_work, a.seeds[0])
    states = put_states(initial_states(a, build), a.placement, layout, True)
    capacity = int(stream.arrivals[1:].max())
    outputs, history = [], []
    for period in range(stream.num_periods):
        rows = stream.rows(period)
        if period and len(rows):
            padded = _padded(train.examples, train.offsets, stream, period, capacity)
            made = np.asarray(predict(states.server, states.clients, placed_hyper, padded))
            outputs.append(_unpadded(made, stream.arrivals[period]))
        begin = stream.ends[0 if window is None else max(0, period + 1 - window)]
        sizes = stream.ends[period + 1] - begin
        known.clients = np.flatnonzero(sizes)
        if not len(known.clients) or (until is not None and period > until):
            history.append(None)  # nobody trains
            continue
        scheduler.sizes = sizes
        if lanes is None:
            lanes = choose_lanes(
                scheduler, a.placement, states.server.variables, 0, len(experiments), rounds
            )
        chunk = build_chunk(
            [[scheduler.draw(period * rounds + r) for r in range(rounds)]],
            a.seeds,
            period * rounds,
            table_row=resident.table_row,
            num_lanes=lanes,
            num_slots=train.num_clients,
            max_rounds=rounds,
            experiments=True,
        )
        server, clients, shared, _ = program(
            states.server,
            states.clients,
            data._replace(
                **a.placement.put(_known(resident, train.offsets, begin, sizes), "per_device")
            ),
            a.placement.put(chunk.cohorts, "per_device"),
            a.placement.put(np.int32(rounds), "replicated"),
            placed_hyper,
        )
        states = States(server, clients)
        history.append(a.placement.fetch(shared, "replicated"))
    final = fetch_states(states, a.placement, layout, True)
    judged = np.concatenate([stream.rows(p) for p in range(1, stream.num_periods)])
    period, client = _whose(stream)
    return Followed(
        outputs=np.concatenate(outputs, axis=1),
        labels=np.asarray(train.examples["y"])[judged],
        period=period,
        client=client,
        variables=final.server.variables,
        client_states=final.clients,
        history=_joined(history),
        num_traces=program.num_traces,
    )


def _arguments(
    algorithm: AlgorithmLike,
    stream: Stream,
    task: Task,
    rounds: int,
    local_work: LocalWork,
    experiments: Experiments,
    lanes: int | None,
) -> Arguments:
    """The arguments of `simulate` that are the same here, checked as there."""
    return Arguments(
        algorithm=algorithm,
        dataset=stream.dataset,
        task=task,
        rounds=rounds,
        local_work=local_work,
        sampler=everyone(),
        placement=one_device(),
        lanes=lanes,
        seed=0,
        variables=None,
        hyperparameters={},
        experiments=experiments,
        evaluate_every=0,
        evaluate_on=(),
        callbacks=(),
        checkpoint=None,
        rounds_per_call=rounds,
        stream=False,
        description={},
    )


def _predictor(build: AlgorithmBuilder, model: Model, row: np.ndarray) -> Callable[..., jax.Array]:
    """Outputs `[clients, experiments, capacity, ...]` of examples `[clients, capacity, ...]`."""

    @jax.jit
    def predict(server: PyTree, clients: PyTree, hyper: Mapping[str, Any], examples: PyTree):
        def of_client(at: tuple[jax.Array, PyTree]) -> jax.Array:
            place, own = at
            size = jax.tree.leaves(own)[0].shape[0]
            batch = Batch(own, jnp.ones(size, bool), jnp.float32(size), jax.random.key(0))

            def of_experiment(server: PyTree, state: PyTree, hyper: Mapping[str, Any]):
                variables = build(hyper).personal(server, state)
                return client_batched(lambda v: model.apply(v, batch, False)[0])(variables)

            mine = jax.tree.map(lambda x: x[0, :, place], clients)
            return jax.vmap(of_experiment)(server, mine, hyper)

        return jax.lax.map(of_client, (jnp.asarray(row, jnp.int32), examples))

    return predict


def _known(
    resident: Resident, offsets: np.ndarray, begin: np.ndarray, sizes: np.ndarray
) -> dict[str, np.ndarray]:
    """First row and number of the examples that clients train on, for the table of clients."""
    offset, size = resident.data.offset.copy(), resident.data.size.copy()
    has_row = resident.table_row >= 0
    at = resident.table_row[has_row]
    offset[0, at] = (offsets[:-1] + begin)[has_row]
    size[0, at] = np.maximum(sizes, 1)[has_row]
    return {"offset": offset, "size": size}


def _padded(
    examples: PyTree, offsets: np.ndarray, stream: Stream, period: int, capacity: int
) -> PyTree:
    """A period's examples `[clients, capacity, ...]`; the last of a client, or any, again as padding."""
    begin, end = offsets[:-1] + stream.ends[period], offsets[:-1] + stream.ends[period + 1]
    last = np.maximum(end - 1, offsets[:-1])
    rows = np.minimum(begin[:, None] + np.arange(capacity), last[:, None])
    return map_leaves(lambda leaf: leaf[rows], examples)


def _unpadded(made: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Outputs `[experiments, N, ...]` without padding, client after client."""
    return np.concatenate(
        [own[:, :size] for own, size in zip(made, sizes.tolist(), strict=True)], axis=1
    )


def _whose(stream: Stream) -> tuple[np.ndarray, np.ndarray]:
    """Period and client of every judged example."""
    arrivals = stream.arrivals[1:]
    clients = np.tile(np.arange(arrivals.shape[1]), len(arrivals))
    periods = np.repeat(np.arange(1, stream.num_periods), arrivals.shape[1])
    return np.repeat(periods, arrivals.ravel()), np.repeat(clients, arrivals.ravel())


def _joined(history: list[Any]) -> dict[str, np.ndarray]:
    """Metrics `[experiments, periods, rounds]`."""
    flat = [None if h is None else {**h.mean, "num_excluded": h.num_excluded} for h in history]
    like = next(h for h in flat if h is not None)
    return {
        name: np.stack(
            [
                np.full(values.shape, np.nan) if h is None else np.asarray(h[name], np.float64)
                for h in flat
            ],
            axis=1,
        )
        for name, values in like.items()
    }
