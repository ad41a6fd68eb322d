"""`simulate`: the outer loop around compiled chunks of rounds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.engine import checkpoint as checkpoints
from fedjax_med.engine import cohorts as cohort_samplers
from fedjax_med.engine.callbacks import Callback, Evaluation, Progress
from fedjax_med.engine.contracts import FederatedAlgorithm, PyTree, Variables
from fedjax_med.engine.evaluator import Evaluator
from fedjax_med.engine.experiments import Experiments
from fedjax_med.engine.lane_choice import choose_lanes, memory_limit, program_memory
from fedjax_med.engine.layout import from_rows, gather, spread, to_rows
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.engine.placement import Placement, one_device
from fedjax_med.engine.rounds import compile_rounds
from fedjax_med.engine.schedule import Chunk, Draw, Scheduler, build_chunk
from fedjax_med.engine.task import Task

logger = logging.getLogger("fedjax_med")

# A chunk of rounds should last about this long: long enough to make dispatch negligible, short
# enough that a progress bar moves and Ctrl-C is obeyed.
_TARGET_CHUNK_S = 0.5
# Data of a streamed chunk: two of them are on the device, the running and the next one.
_STREAM_BYTES = 256 * 2**20
_SAMPLED_ROUNDS = 8


@dataclasses.dataclass
class Timings:
    """Where the wall-clock time went, in seconds.

    Attributes:
      compile_s: tracing and compiling, training and evaluation.
      run_s: rounds.
      evaluate_s: evaluations.
      checkpoint_s: writing checkpoints.
      total_s: the whole call.
    """

    compile_s: float = 0.0
    run_s: float = 0.0
    evaluate_s: float = 0.0
    checkpoint_s: float = 0.0
    total_s: float = 0.0


@dataclasses.dataclass
class Run:
    """The result of `simulate`. With experiments, arrays have a leading `[experiments]` axis.

    Attributes:
      variables: the final model, host arrays.
      state: the final server state, host arrays.
      client_states: persistent client states `[clients, ...]`, host arrays.
      history: `{name: array [rounds]}`: weighted means over the cohorts, and `num_clients`,
        `num_excluded`, `weight`.
      excluded: `(round, client name)` of clients left out because their update was not finite.
      evaluations: all evaluations, in order.
      rounds: rounds that were done.
      useful_fraction: share of lane steps that trained a client, over all rounds run here.
      num_lanes: lanes per device.
      num_traces: how often the training program was traced (1 unless data shapes changed).
      seconds_per_round: for every chunk `(rounds, seconds per round)`.
      timings: where the time went.
      memory_bytes: `{"arguments": ..., "temporaries": ...}` of the compiled chunk, per device.
      configuration: JSON-able description of the run.
    """

    variables: Variables
    state: PyTree
    client_states: PyTree
    history: dict[str, np.ndarray]
    excluded: list[tuple[int, str]]
    evaluations: list[Evaluation]
    rounds: int
    useful_fraction: float
    num_lanes: int
    num_traces: int
    seconds_per_round: list[tuple[int, float]]
    timings: Timings
    memory_bytes: dict[str, int]
    configuration: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class CheckpointPolicy:
    """Where and how often to write checkpoints.

    Attributes:
      folder: gets a folder per checkpoint.
      every: rounds between checkpoints; the last round always has one.
      resume: go on from the newest checkpoint in `folder` if there is one.
      keep: newest checkpoints that stay.
    """

    folder: Path
    every: int = 100
    resume: bool = False
    keep: int = 2


class _Model(NamedTuple):
    """Server state and client states on the devices."""

    state: PyTree
    client_states: PyTree


AlgorithmLike = FederatedAlgorithm | Callable[..., FederatedAlgorithm]


def simulate(
    algorithm: AlgorithmLike,
    dataset: FederatedDataset,
    *,
    task: Task,
    rounds: int,
    local_work: LocalWork,
    cohort: cohort_samplers.CohortSampler | None = None,
    placement: Placement | None = None,
    lanes: int | None = None,
    seed: int = 0,
    variables: Variables | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    experiments: Experiments | None = None,
    evaluate_every: int = 0,
    evaluate_on: Sequence[str] = ("test",),
    callbacks: Sequence[Callback] = (),
    checkpoint: CheckpointPolicy | None = None,
    rounds_per_call: int = 64,
    stream: bool = False,
    conditional: bool | None = None,
) -> Run:
    """Trains `algorithm` on the clients of `dataset`, many rounds per compiled call.

    Args:
      algorithm: a `FederatedAlgorithm`, or a function of hyperparameters that returns one; its
        arguments are then traced, so other values compile nothing new.
      dataset: the clients.
      task: initial model, loss and metrics.
      rounds: federated rounds.
      local_work: `epochs(...)` or `steps(...)`.
      cohort: who takes part; everyone if None.
      placement: where clients run; the first device if None.
      lanes: lanes per device; chosen from useful fraction, memory and device kind if None.
      seed: root of all randomness; ignored with `experiments`, which bring their own.
      variables: initial model; `task.init(seed)` if None.
      hyperparameters: values for a function `algorithm`.
      experiments: many trainings in one call; see `grid`.
      evaluate_every: rounds between evaluations; the last round is always evaluated unless 0.
      evaluate_on: splits of the data to evaluate on.
      callbacks: called at chunk boundaries.
      checkpoint: where to write checkpoints and whether to resume.
      rounds_per_call: most rounds of one compiled call.
      stream: gather the data of each chunk's cohorts from host memory (or disk, if it is
        memory-mapped) while the previous chunk runs, instead of keeping it all on the device.
      conditional: see `LaneExecutor`; chosen by device kind if None.

    Raises:
      ValueError: names the argument that does not fit.
      CheckpointError: on resume, if the checkpoint is of another run.
    """
    start = time.perf_counter()
    simulation = _Simulation(
        algorithm=algorithm,
        dataset=dataset,
        task=task,
        rounds=rounds,
        local_work=local_work,
        sampler=cohort or cohort_samplers.everyone(),
        placement=placement or one_device(),
        lanes=lanes,
        seed=seed,
        variables=variables,
        hyperparameters=dict(hyperparameters or {}),
        experiments=experiments,
        evaluate_every=evaluate_every,
        evaluate_on=tuple(evaluate_on),
        callbacks=tuple(callbacks),
        checkpoint=checkpoint,
        rounds_per_call=rounds_per_call,
        stream=stream,
        conditional=conditional,
    )
    try:
        run = simulation.run()
    finally:
        for callback in callbacks:
            callback.close()
    run.timings.total_s = time.perf_counter() - start
    return run


class _Pending(NamedTuple):
    """A chunk that was sent to the devices and whose metrics have not been read."""

    chunk: Chunk
    first_round: int
    shared: PyTree
    slots: PyTree


class _Drawn(NamedTuple):
    """The cohorts of a chunk and the client data they read, on the devices."""

    draws: list[list[list[Draw]]]  # [experiment][round][device]
    table_row: np.ndarray
    data: PyTree


class _Simulation:
    """One call of `simulate`: what was asked for, bound to data and devices."""

    def __init__(self, **arguments: Any):
        self.a = a = _Arguments(**arguments)
        _check_arguments(a)
        experiments = a.experiments
        self.mapped = experiments is not None
        self.seeds = experiments.seeds if experiments else (a.seed,)
        values = experiments.hyperparameters if experiments else a.hyperparameters
        self.hyper = {name: _as_array(value) for name, value in values.items()}
        self.build = _builder(a.algorithm, self.hyper)
        self.timings = Timings()
        self.train: ClientArrays = a.dataset.train
        self.layout = spread(self.train.sizes, a.placement.num_devices)
        self.schedulers = [
            Scheduler(self.train.sizes, self.layout, a.sampler, a.local_work, seed)
            for seed in self.seeds
        ]
        self.num_slots = max(s.max_slots for s in self.schedulers)
        self.example_bytes = sum(
            leaf.nbytes // max(len(leaf), 1) for leaf in jax.tree.leaves(self.train.examples)
        )
        self.max_rounds = a.rounds_per_call
        self.stream_rows = self.stream_clients = 1
        if a.stream:
            self.size_stream()
        else:
            resident = gather(self.train, self.layout)
            self.resident_row = resident.table_row
            self.resident_data = a.placement.put(resident.data, "per_device")
        self.history: list[tuple[int, dict[str, np.ndarray]]] = []
        self.evaluations: list[Evaluation] = []
        self.excluded: list[tuple[int, str]] = []
        self.chunk_seconds: list[tuple[int, float]] = []
        self.steps_useful = self.slots_total = 0.0

    # -- preparation -----------------------------------------------------------------------

    def initial(self) -> tuple[PyTree, PyTree]:
        """Server state and client states `[clients, ...]` before the first round, on the host."""
        a = self.a
        per_experiment = []
        for index, seed in enumerate(self.seeds):
            variables = a.task.init(seed) if a.variables is None else a.variables
            variables = jax.tree.map(jnp.asarray, variables)
            chosen = {n: v[index] if self.mapped else v for n, v in self.hyper.items()}
            algorithm = self.build(chosen)
            state = algorithm.init(variables)
            one_client = algorithm.init_client(variables)
            clients = jax.tree.map(
                lambda x: np.broadcast_to(np.asarray(x), (self.train.num_clients, *x.shape)),
                one_client,
            )
            per_experiment.append(jax.tree.map(np.asarray, (state, clients)))
        if not self.mapped:
            return per_experiment[0]
        return jax.tree.map(lambda *x: np.stack(x), *per_experiment)

    def put(self, state: PyTree, client_states: PyTree) -> _Model:
        """Moves host states to the devices."""
        place = self.a.placement.put
        if self.mapped:  # [experiments, clients, ...] -> [devices, experiments, rows, ...]
            count = len(self.seeds)
            each = [
                to_rows(jax.tree.map(lambda x, e=e: x[e], client_states), self.layout)
                for e in range(count)
            ]
            rows = jax.tree.map(lambda *x: np.stack(x, axis=1), *each)
        else:
            rows = to_rows(client_states, self.layout)
        return _Model(place(state, "replicated"), place(rows, "per_device"))

    def fetch(self, model: _Model) -> tuple[PyTree, PyTree]:
        """The inverse of `put`; waits for the devices."""
        place = self.a.placement
        state = place.fetch(model.state, "replicated")
        rows = place.fetch(model.client_states, "per_device")
        if not self.mapped:
            return state, from_rows(rows, self.layout)
        each = [
            from_rows(jax.tree.map(lambda x, e=e: x[:, e], rows), self.layout)
            for e in range(len(self.seeds))
        ]
        return state, jax.tree.map(lambda *x: np.stack(x), *each)

    def configuration(self, num_lanes: int) -> dict[str, Any]:
        """What a checkpoint must agree on to be resumed."""
        a = self.a
        return {
            "data": a.dataset.fingerprint(),
            "local_work": repr(a.local_work),
            "cohort": _short(repr(a.sampler)),
            "placement": a.placement.describe(),
            "lanes": num_lanes,
            "seeds": list(self.seeds),
            "hyperparameters": {n: np.asarray(v).tolist() for n, v in self.hyper.items()},
        }

    def size_stream(self) -> None:
        """Chooses rounds per chunk and array sizes, so that chunks of data fit their budget."""
        draws = self.schedulers[0].preview(range(_SAMPLED_ROUNDS))
        clients = max(len(d.client) for devices in draws for d in devices)
        rows = max(int(self.train.sizes[d.client].sum()) for devices in draws for d in devices)
        affordable = _STREAM_BYTES // max(1, rows * self.example_bytes * len(self.seeds))
        self.max_rounds = int(np.clip(affordable, 1, self.a.rounds_per_call))
        # A tenth to spare, because cohorts differ; a chunk never needs more than everything.
        most = 1.1 * self.max_rounds * len(self.seeds)
        everything = max(int(self.train.sizes[m].sum()) for m in self.layout.members)
        self.stream_rows = min(everything, int(rows * most))
        self.stream_clients = min(self.layout.rows_per_device, int(clients * most))

    # -- the loop --------------------------------------------------------------------------

    def run(self) -> Run:
        a = self.a
        state, client_states = self.initial()
        saved = self.saved_checkpoint()
        num_lanes = a.lanes or self.choose_lanes(saved, state)
        configuration = self.configuration(num_lanes)
        done = 0
        if saved is not None:
            state, client_states = self.restore(saved, configuration, state, client_states)
            done = saved.round
        evaluators = self.evaluators() if a.evaluate_every else []
        program = compile_rounds(
            self.build,
            a.local_work,
            a.placement,
            experiments=self.mapped,
            conditional=_default_conditional(a),
        )
        model = self.put(state, client_states)
        hyper = a.placement.put(self.hyper, "replicated")
        memory: dict[str, int] = {}
        size = min(4, self.max_rounds)
        pending: _Pending | None = None
        stop = False
        clock = time.perf_counter()
        while done < a.rounds and not stop:
            count = self.next_length(done, size)
            drawn = self.draw(done, count)
            while True:
                chunk = self.pack(drawn, done, num_lanes)
                arguments = (
                    *model,
                    drawn.data,
                    a.placement.put(chunk.cohorts, "per_device"),
                    a.placement.put(np.int32(count), "replicated"),
                    hyper,
                )
                if memory:
                    break
                executable = program.executable(*arguments)
                memory = program_memory(executable)
                clock = time.perf_counter()
                if a.lanes or num_lanes == 1 or _fits(memory, a.placement):
                    logger.info("%s; %d lanes per device", a.placement.describe(), num_lanes)
                    break
                num_lanes, memory = num_lanes // 2, {}
                configuration["lanes"] = num_lanes
            new_state, new_clients, shared, slots = program(*arguments)
            model = _Model(new_state, new_clients)
            jax.tree.map(lambda x: x.copy_to_host_async(), (shared, slots.excluded))
            if pending is not None:
                clock, stop = self.finish(pending, model, [], clock)
            pending = _Pending(chunk, done, shared, slots)
            done += count
            if self.boundary(done) or stop:
                clock, stop_now = self.finish(pending, model, evaluators, clock)
                pending, stop = None, stop or stop_now
                last = stop or done == a.rounds
                clock = self.checkpoint(model, done, configuration, last, clock)
            if self.chunk_seconds:
                per_round = self.chunk_seconds[-1][1]
                size = int(np.clip(_TARGET_CHUNK_S / max(per_round, 1e-9), 1, self.max_rounds))
        state, client_states = self.fetch(model)
        self.timings.compile_s += program.compile_s + sum(e.compile_s for e in evaluators)
        self.timings.evaluate_s -= sum(e.compile_s for e in evaluators)
        return Run(
            variables=state.variables,
            state=state,
            client_states=client_states,
            history=self.joined_history(),
            excluded=self.excluded,
            evaluations=self.evaluations,
            rounds=done,
            useful_fraction=self.steps_useful / self.slots_total if self.slots_total else 1.0,
            num_lanes=num_lanes,
            num_traces=program.num_traces,
            seconds_per_round=self.chunk_seconds,
            timings=self.timings,
            memory_bytes=memory,
            configuration=configuration,
        )

    def choose_lanes(self, saved: checkpoints.Checkpoint | None, state: PyTree) -> int:
        """The lane count of the checkpoint, so that a resumed run goes on bit for bit."""
        if saved is not None:
            return saved.description["configuration"]["lanes"]
        return choose_lanes(
            self.schedulers[0],
            self.a.placement,
            state.variables,
            self.a.local_work.batch_size * self.example_bytes,
            len(self.seeds),
        )

    def next_length(self, done: int, size: int) -> int:
        """Rounds of the next chunk: `size`, or up to the next boundary."""
        count = 1
        limit = min(size, self.a.rounds - done)
        while count < limit and not self.boundary(done + count):
            count += 1
        return count

    def boundary(self, done: int) -> bool:
        """Whether the run stops after `done` rounds."""
        a = self.a
        return (
            done == a.rounds
            or (a.evaluate_every > 0 and done % a.evaluate_every == 0)
            or (a.checkpoint is not None and done % a.checkpoint.every == 0)
            or any(callback.stops_at(done) for callback in a.callbacks)
        )

    def draw(self, first_round: int, count: int) -> _Drawn:
        """Draws the cohorts of a chunk; with streaming, gathers their data as well."""
        a = self.a
        draws = [
            [scheduler.draw(first_round + r) for r in range(count)] for scheduler in self.schedulers
        ]
        largest = max(len(d.client) for rounds in draws for devices in rounds for d in devices)
        self.num_slots = max(self.num_slots, largest)
        if not a.stream:
            return _Drawn(draws, self.resident_row, self.resident_data)
        needed = tuple(
            np.unique(np.concatenate([devices[d].client for r in draws for devices in r]))
            for d in range(a.placement.num_devices)
        )
        # Never less than before: chunks of different cohorts share one shape, so only a much
        # larger one compiles the program again.
        self.stream_rows = max(self.stream_rows, *(int(self.train.sizes[m].sum()) for m in needed))
        self.stream_clients = max(self.stream_clients, *(len(m) for m in needed))
        resident = gather(
            self.train,
            self.layout,
            needed,
            min_rows=self.stream_rows,
            min_clients=self.stream_clients,
        )
        return _Drawn(draws, resident.table_row, a.placement.put(resident.data, "per_device"))

    def pack(self, drawn: _Drawn, first_round: int, num_lanes: int) -> Chunk:
        """Lays a chunk's cohorts out in lanes."""
        return build_chunk(
            drawn.draws,
            self.seeds,
            first_round,
            table_row=drawn.table_row,
            num_lanes=num_lanes,
            num_slots=self.num_slots,
            max_rounds=self.max_rounds,
            experiments=self.mapped,
        )

    def finish(
        self, pending: _Pending, model: _Model, evaluators: Sequence[Evaluator], clock: float
    ) -> tuple[float, bool]:
        """Waits for a chunk, reads its metrics, evaluates and tells the callbacks."""
        a = self.a
        count = pending.chunk.num_rounds
        shared = a.placement.fetch(pending.shared, "replicated")
        now = time.perf_counter()
        self.timings.run_s += now - clock
        self.chunk_seconds.append((count, (now - clock) / count))
        clock = now
        steps, fraction = pending.chunk.num_steps, pending.chunk.useful_fraction
        self.steps_useful += steps
        self.slots_total += steps / fraction if fraction else 0
        metrics = {
            name: value[..., :count]
            for name, value in (
                *shared.mean.items(),
                ("weight", shared.weight),
                ("num_clients", shared.num_clients),
                ("num_excluded", shared.num_excluded),
            )
        }
        self.history.append((pending.first_round, metrics))
        excluded: list[tuple[int, str]] = []
        if metrics["num_excluded"].any():
            flags = a.placement.fetch(pending.slots.excluded, "per_device")
            for index in zip(*np.nonzero(flags), strict=True):
                if index[-2] < count:
                    client = int(pending.chunk.client_ids[index])
                    round_index = pending.first_round + int(index[-2])
                    excluded.append((round_index, a.dataset.client_names[client]))
            excluded.sort()
            self.excluded += excluded
        done = pending.first_round + count
        evaluations = []
        if evaluators and (done == a.rounds or done % a.evaluate_every == 0):
            for evaluator in evaluators:
                evaluations.append(evaluator(model.state.variables, model.client_states, done))
            now = time.perf_counter()
            self.timings.evaluate_s += now - clock
            clock = now
            self.evaluations += evaluations
        progress = Progress(
            round=done,
            num_rounds=a.rounds,
            first_round=pending.first_round,
            metrics=metrics,
            excluded=excluded,
            evaluations=evaluations,
            past_evaluations=self.evaluations,
            seconds_per_round=self.chunk_seconds[-1][1],
            useful_fraction=fraction,
            variables=lambda: a.placement.fetch(model.state.variables, "replicated"),
        )
        stop = False
        for callback in a.callbacks:
            stop = bool(callback(progress)) or stop
        return clock, stop

    def evaluators(self) -> list[Evaluator]:
        """One per split to evaluate on."""
        a = self.a
        chosen = []
        for split in a.evaluate_on:
            arrays = getattr(a.dataset, split, None)
            if arrays is None or arrays.num_examples == 0:
                raise ValueError(
                    f"evaluate_on names the split {split!r}, but {a.dataset.name} has no such "
                    "examples."
                )
            evaluator = Evaluator(
                split, arrays, a.task, self.build, self.hyper, a.placement, self.layout, self.mapped
            )
            chosen.append(evaluator)
        return chosen

    def joined_history(self) -> dict[str, np.ndarray]:
        """The metrics of all rounds."""
        if not self.history:
            return {}
        names = self.history[0][1]
        return {
            name: np.concatenate([metrics[name] for _, metrics in self.history], axis=-1)
            for name in names
        }

    # -- checkpoints -----------------------------------------------------------------------

    def saved_checkpoint(self) -> checkpoints.Checkpoint | None:
        """The checkpoint to resume from, if that was asked for and there is one."""
        policy = self.a.checkpoint
        if policy is None or not policy.resume or checkpoints.latest_round(policy.folder) is None:
            return None
        return checkpoints.load(policy.folder)

    def checkpoint(
        self, model: _Model, done: int, configuration: dict, last: bool, clock: float
    ) -> float:
        """Writes a checkpoint if one is due."""
        policy = self.a.checkpoint
        if policy is None or not (last or done % policy.every == 0):
            return clock
        state, client_states = self.fetch(model)
        arrays = {
            **checkpoints.flatten("state", state),
            **checkpoints.flatten("clients", client_states),
            **checkpoints.flatten("history", self.joined_history()),
            "participations": np.stack([s.participations for s in self.schedulers]),
        }
        for number, e in enumerate(self.evaluations):
            arrays |= checkpoints.flatten(f"evaluation{number}.pooled", e.pooled)
            arrays |= checkpoints.flatten(f"evaluation{number}.per_client", e.per_client)
        description = {
            "configuration": configuration,
            "excluded": self.excluded,
            "evaluations": [
                {"split": e.split, "round": e.round, "names": list(e.pooled)}
                for e in self.evaluations
            ],
            "history": list(self.joined_history()),
        }
        checkpoints.save(
            policy.folder, checkpoints.Checkpoint(done, arrays, description), policy.keep
        )
        now = time.perf_counter()
        self.timings.checkpoint_s += now - clock
        return now

    def restore(
        self,
        saved: checkpoints.Checkpoint,
        configuration: dict[str, Any],
        state: PyTree,
        client_states: PyTree,
    ) -> tuple[PyTree, PyTree]:
        """Takes over a checkpoint after checking that it is of this run."""
        before = saved.description["configuration"]
        for name, value in json.loads(json.dumps(configuration)).items():
            if before.get(name) != value:
                raise checkpoints.CheckpointError(
                    f"The checkpoint in {self.a.checkpoint.folder} is of another run: {name} was "
                    f"{_short(str(before.get(name)))}, now it is {_short(str(value))}."
                )
        if saved.round > self.a.rounds:
            raise checkpoints.CheckpointError(
                f"The checkpoint in {self.a.checkpoint.folder} has {saved.round} rounds, but only "
                f"{self.a.rounds} were asked for."
            )
        arrays = saved.arrays
        for scheduler, row in zip(self.schedulers, arrays["participations"], strict=True):
            scheduler.participations[:] = row
        history = {n: arrays[f"history['{n}']"] for n in saved.description["history"]}
        if history:
            self.history = [(0, history)]
        self.excluded = [(r, name) for r, name in saved.description["excluded"]]
        for number, e in enumerate(saved.description["evaluations"]):
            groups = [
                {n: arrays[f"evaluation{number}.{group}['{n}']"] for n in e["names"]}
                for group in ("pooled", "per_client")
            ]
            self.evaluations.append(Evaluation(e["split"], e["round"], *groups))
        return (
            checkpoints.unflatten("state", arrays, state),
            checkpoints.unflatten("clients", arrays, client_states),
        )


@dataclasses.dataclass(frozen=True)
class _Arguments:
    """The arguments of `simulate`."""

    algorithm: AlgorithmLike
    dataset: FederatedDataset
    task: Task
    rounds: int
    local_work: LocalWork
    sampler: cohort_samplers.CohortSampler
    placement: Placement
    lanes: int | None
    seed: int
    variables: Variables | None
    hyperparameters: dict[str, Any]
    experiments: Experiments | None
    evaluate_every: int
    evaluate_on: tuple[str, ...]
    callbacks: tuple[Callback, ...]
    checkpoint: CheckpointPolicy | None
    rounds_per_call: int
    stream: bool
    conditional: bool | None


def _check_arguments(a: _Arguments) -> None:
    for name, value, least in (
        ("rounds", a.rounds, 1),
        ("rounds_per_call", a.rounds_per_call, 1),
        ("evaluate_every", a.evaluate_every, 0),
        ("lanes", 1 if a.lanes is None else a.lanes, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")
    if a.local_work.batch_size % a.placement.num_splits:
        raise ValueError(
            f"batch_size {a.local_work.batch_size} cannot be split over "
            f"{a.placement.num_splits} devices evenly."
        )
    if a.experiments is not None and a.hyperparameters:
        raise ValueError("Give hyperparameters inside `experiments`, or without it, not both.")
    named = a.hyperparameters or (a.experiments.hyperparameters if a.experiments else {})
    if named and isinstance(a.algorithm, FederatedAlgorithm):
        raise ValueError(
            f"The hyperparameters {', '.join(named)} need an algorithm given as a function of "
            "them, got one that is already built."
        )
    smallest = int(np.argmin(a.dataset.train.sizes))
    if a.dataset.train.sizes[smallest] == 0:
        raise ValueError(
            f"Client {a.dataset.client_names[smallest]!r} has no training examples; "
            "every client needs at least 1."
        )
    for seed in a.experiments.seeds if a.experiments else (a.seed,):
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed must be from 0 to 2**32 - 1, got {seed}.")


def _builder(algorithm: AlgorithmLike, hyper: Mapping[str, Any]):
    """A function of traced hyperparameters; checks every concrete value once."""
    if isinstance(algorithm, FederatedAlgorithm):
        return lambda hyperparameters: algorithm
    shapes = {np.shape(v) for v in hyper.values()}
    count = next((s[0] for s in shapes if s), 1)
    for index in range(count):
        algorithm(**{n: (v[index] if np.ndim(v) else v).item() for n, v in hyper.items()})
    return lambda hyperparameters: algorithm(**hyperparameters)


def _as_array(value: Any) -> np.ndarray:
    """A hyperparameter in the default precision of JAX, not weakly typed."""
    array = np.asarray(value)
    return array.astype(jnp.result_type(float if array.dtype.kind == "f" else array.dtype))


def _fits(memory: Mapping[str, int], placement: Placement) -> bool:
    needed = memory.get("arguments", 0) + memory.get("temporaries", 0)
    return needed <= memory_limit(placement)


def _default_conditional(a: _Arguments) -> bool:
    if a.conditional is not None:
        return a.conditional
    return a.placement.devices[0].platform == "cpu"


def _short(text: str) -> str:
    """Long descriptions (listed cohorts, traces) by their hash."""
    if len(text) <= 200:
        return text
    return f"{text[:60]}... sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"
