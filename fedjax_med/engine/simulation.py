"""The outer loop: send a chunk to the devices, prepare the next, read the one before."""

from __future__ import annotations

import logging
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_med.engine import checkpoint as checkpoints
from fedjax_med.engine.arguments import Arguments, concrete_algorithm
from fedjax_med.engine.callbacks import Evaluation, Progress
from fedjax_med.engine.chunk_source import ChunkSource, Drawn
from fedjax_med.engine.contracts import PyTree
from fedjax_med.engine.evaluator import Adapting, Evaluator
from fedjax_med.engine.lane_choice import memory_limit, program_memory
from fedjax_med.engine.phases import phase
from fedjax_med.engine.record import Record, configuration, from_checkpoint, to_checkpoint
from fedjax_med.engine.rewriting import Part, make_rewriting
from fedjax_med.engine.rounds import Compiled, compile_rounds
from fedjax_med.engine.run import Run, Timings
from fedjax_med.engine.schedule import Chunk
from fedjax_med.engine.states import States, fetch_states, initial_states, put_states

logger = logging.getLogger("fedjax_med")

# A chunk of rounds should last about this long: long enough to make dispatch negligible, short
# enough that a progress bar moves and Ctrl-C is obeyed.
_TARGET_CHUNK_S = 0.5
_FIRST_CHUNK_ROUNDS = 4


class _Pending(NamedTuple):
    """A chunk that was sent to the devices and whose metrics have not been read."""

    chunk: Chunk
    first_round: int
    shared: PyTree
    slots: PyTree


class Simulation:
    """One run: its arguments, bound to compiled programs, data and devices.

    Attributes:
      program: what runs a chunk of rounds.
    """

    def __init__(self, a: Arguments):
        """Prepares everything that does not depend on the lane count."""
        self._a = a
        self._hyper = a.traced_hyperparameters()
        self._placed_hyper = a.placement.put(self._hyper, "replicated")
        algorithm, self._build = concrete_algorithm(a)
        self._adapting = None
        if algorithm.adaptation is not None:
            local_work = algorithm.adaptation.local_work or a.local_work
            self._adapting = Adapting(a.dataset.train, local_work)
        self._rewriting = make_rewriting(a.rewrite, a.placement.devices[0].platform)
        self._source = ChunkSource(a)
        self.program = compile_rounds(
            self._build,
            a.local_work,
            a.placement,
            experiments=a.mapped,
            rewriting=self._rewriting,
            max_clients=max(s.sampler.max_size(len(s.members)) for s in self._source.schedulers),
        )
        self._record = Record()
        self._timings = Timings()
        self._chunk_seconds: list[tuple[int, float]] = []
        self._useful_steps = self._all_steps = 0.0
        self._clock = time.perf_counter()

    def run(self) -> Run:
        """Runs all rounds, or those that are left."""
        a, source = self._a, self._source
        states = initial_states(a, self._build)
        saved = self._saved_checkpoint()
        num_lanes = a.lanes or (
            source.choose_lanes(states.server.variables)
            if saved is None
            # A resumed run goes on bit for bit, so with the same lanes.
            else saved.description["configuration"]["lanes"]
        )
        described = configuration(a, num_lanes)
        done = 0
        if saved is not None:
            states, self._record = from_checkpoint(saved, a, states, source.schedulers, described)
            done = saved.round
        evaluators = self._evaluators() if a.evaluate_every else []
        program = self.program
        states = put_states(states, a.placement, source.layout, a.mapped)
        size = min(_FIRST_CHUNK_ROUNDS, source.max_rounds)
        memory: dict[str, int] = {}
        pending: _Pending | None = None
        stop = saved is not None and self._tell_resumed(done, states)
        while done < a.rounds and not stop:
            count = self._next_length(done, size)
            with phase("draw cohorts"):
                drawn = source.draw(done, count)
            if not memory:
                num_lanes, memory = self._fit_lanes(program, states, drawn, done, num_lanes)
                described["lanes"] = num_lanes
            with phase("pack lanes"):
                chunk = source.pack(drawn, done, num_lanes)
            with phase("transfer schedule"):
                inputs = self._inputs(states, drawn, chunk)
            with phase("dispatch"):
                server, clients, shared, slots = program(*inputs)
            del inputs  # they were donated
            states = States(server, clients)
            jax.tree.map(lambda x: x.copy_to_host_async(), (shared, slots.excluded))
            if pending is not None:
                stop = self._finish(pending, states, [])
            pending = _Pending(chunk, done, shared, slots)
            done += count
            if stop or a.stops_at(done):
                stop = self._finish(pending, states, evaluators) or stop
                pending = None
                if a.saves_at(done) or (stop and a.checkpoint is not None):
                    self._save(done, states, described)
                self._lap()  # the devices stood still, so this is no round's time either
            if self._chunk_seconds:
                per_round = max(self._chunk_seconds[-1][1], 1e-9)
                size = int(np.clip(_TARGET_CHUNK_S / per_round, 1, source.max_rounds))
        return self._result(done, states, program, evaluators, num_lanes, memory, described)

    def _inputs(self, states: States, drawn: Drawn, chunk: Chunk) -> tuple:
        """The arguments of the compiled program, on the devices."""
        put = self._a.placement.put
        return (
            *states,
            drawn.data,
            put(chunk.cohorts, "per_device"),
            put(np.int32(chunk.num_rounds), "replicated"),
            self._placed_hyper,
        )

    def _fit_lanes(
        self, program: Compiled, states: States, drawn: Drawn, first_round: int, num_lanes: int
    ) -> tuple[int, dict[str, int]]:
        """Compiles the program; halves the lanes until it fits the device, if that is ours to do.

        Returns:
          The lanes per device and the memory of the program.
        """
        a = self._a
        while True:
            chunk = self._source.pack(drawn, first_round, num_lanes)
            if self._rewriting is not None:
                self._rewriting.notes.start("training")
            executable = program.executable(*self._inputs(states, drawn, chunk))
            memory = program_memory(executable)
            needed = memory.get("arguments", 0) + memory.get("temporaries", 0)
            if a.lanes or num_lanes == 1 or needed <= memory_limit(a.placement):
                logger.info("%s; %d lanes per device", a.placement.describe(), num_lanes)
                self._log_rewritten("training")
                self._lap()  # what went into compiling is no round's time
                return num_lanes, memory
            num_lanes //= 2

    def _result(
        self,
        done: int,
        states: States,
        program: Compiled,
        evaluators: list[Evaluator],
        num_lanes: int,
        memory: dict[str, int],
        described: dict[str, Any],
    ) -> Run:
        a, record = self._a, self._record
        final = fetch_states(states, a.placement, self._source.layout, a.mapped)
        evaluator_compile_s = sum(e.compile_s for e in evaluators)
        self._timings.compile_s = program.compile_s + evaluator_compile_s
        self._timings.evaluate_s -= evaluator_compile_s
        return Run(
            variables=final.server.variables,
            state=final.server,
            client_states=final.clients,
            history=record.history(),
            excluded=record.excluded,
            evaluations=record.evaluations,
            rounds=done,
            useful_fraction=self._useful_steps / self._all_steps if self._all_steps else 1.0,
            local_steps=int(self._useful_steps),
            num_lanes=num_lanes,
            num_traces=program.num_traces,
            seconds_per_round=self._chunk_seconds,
            timings=self._timings,
            memory_bytes=memory,
            configuration=described,
            rewritten={} if self._rewriting is None else {**self._rewriting.notes.described()},
        )

    def _log_rewritten(self, part: Part) -> None:
        """Says which operations of the model are computed by which kernel."""
        if self._rewriting is not None:
            logger.info("%s: %s", part, self._rewriting.notes.described()[part])

    def _next_length(self, done: int, size: int) -> int:
        """Rounds of the next chunk: `size`, or up to where the run pauses."""
        limit = min(size, self._a.rounds - done)
        count = 1
        while count < limit and not self._a.stops_at(done + count):
            count += 1
        return count

    def _lap(self) -> float:
        """Seconds since the last call."""
        before, self._clock = self._clock, time.perf_counter()
        return self._clock - before

    def _finish(self, pending: _Pending, states: States, evaluators: list[Evaluator]) -> bool:
        """Waits for a chunk, reads its metrics, evaluates and tells the callbacks."""
        a, chunk = self._a, pending.chunk
        with phase("wait for the devices"):
            shared = a.placement.fetch(pending.shared, "replicated")
        seconds = self._lap()
        self._timings.run_s += seconds
        self._chunk_seconds.append((chunk.num_rounds, seconds / chunk.num_rounds))
        self._useful_steps += chunk.num_steps
        if chunk.num_steps:
            self._all_steps += chunk.num_steps / chunk.useful_fraction
        values = {**shared.mean, **shared._asdict()}
        del values["mean"]
        metrics = {name: value[..., : chunk.num_rounds] for name, value in values.items()}
        if a.spending is not None:
            metrics |= a.spending.metrics(pending.first_round, chunk.num_rounds, a.rounds)
        self._record.chunks.append(metrics)
        excluded = self._excluded(pending) if metrics["num_excluded"].any() else []
        self._record.excluded += excluded
        done = pending.first_round + chunk.num_rounds
        evaluations: list[Evaluation] = []
        if evaluators and a.evaluates_at(done):
            is_first = not any(e.num_traces for e in evaluators)
            with phase("evaluate"):
                evaluations = [e(states.server, states.clients, done) for e in evaluators]
            if is_first:
                self._log_rewritten("evaluation")
            self._timings.evaluate_s += self._lap()
        self._record.evaluations += evaluations
        progress = Progress(
            round=done,
            num_rounds=a.rounds,
            first_round=pending.first_round,
            metrics=metrics,
            excluded=excluded,
            evaluations=evaluations,
            past_evaluations=self._record.evaluations,
            seconds_per_round=seconds / chunk.num_rounds,
            useful_fraction=chunk.useful_fraction,
            variables=lambda: a.placement.fetch(states.server.variables, "replicated"),
        )
        return self._tell(progress)

    def _tell_resumed(self, done: int, states: States) -> bool:
        """Tells the callbacks what is known already; a run that had stopped early stays so."""
        history = self._record.history()
        return self._tell(
            Progress(
                round=done,
                num_rounds=self._a.rounds,
                first_round=done,
                metrics={name: values[..., :0] for name, values in history.items()},
                excluded=[],
                evaluations=[],
                past_evaluations=self._record.evaluations,
                seconds_per_round=0.0,
                useful_fraction=1.0,
                variables=lambda: self._a.placement.fetch(states.server.variables, "replicated"),
            )
        )

    def _tell(self, progress: Progress) -> bool:
        """Calls all callbacks; whether one of them ends the run."""
        with phase("callbacks"):
            return any([bool(callback(progress)) for callback in self._a.callbacks])

    def _excluded(self, pending: _Pending) -> list[tuple[int, str]]:
        """Round and name of the clients of a chunk whose update was not finite."""
        flags = self._a.placement.fetch(pending.slots.excluded, "per_device")
        flags = flags[..., : pending.chunk.num_rounds, :]
        ids = pending.chunk.client_ids[..., : pending.chunk.num_rounds, :]
        rounds = np.nonzero(flags)[-2] + pending.first_round
        names = self._a.dataset.client_names
        return sorted((int(r), names[client]) for r, client in zip(rounds, ids[flags], strict=True))

    def _evaluators(self) -> list[Evaluator]:
        """One per split to evaluate on."""
        a = self._a
        return [
            Evaluator(
                split,
                a.dataset.splits()[split],
                a.task,
                self._build,
                self._hyper,
                a.placement,
                self._source.layout,
                a.mapped,
                self._adapting,
                self._rewriting,
            )
            for split in a.evaluate_on
        ]

    def _saved_checkpoint(self) -> checkpoints.Checkpoint | None:
        """The checkpoint to resume from, if that was asked for and there is one."""
        policy = self._a.checkpoint
        if policy is None or not policy.resume or checkpoints.latest_round(policy.folder) is None:
            return None
        return checkpoints.load(policy.folder)

    def _save(self, done: int, states: States, described: dict[str, Any]) -> None:
        a = self._a
        assert a.checkpoint is not None  # for the type checker; only called with a policy
        with phase("checkpoint"):
            host = fetch_states(states, a.placement, self._source.layout, a.mapped)
            saved = to_checkpoint(done, host, self._record, self._source.schedulers, described)
            checkpoints.save(a.checkpoint.folder, saved, a.checkpoint.keep)
        self._timings.checkpoint_s += self._lap()
