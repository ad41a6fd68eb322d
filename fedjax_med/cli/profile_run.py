"""A few rounds under the profiler, and what one of their local steps costs."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fedjax_med.cli.training import Pieces
from fedjax_med.engine import FederatedAlgorithm, Progress, Run
from fedjax_med.engine.arguments import Arguments
from fedjax_med.engine.contracts import ClientProgram
from fedjax_med.engine.simulation import Simulation

# The rounds are run three times over: to compile and warm up, for the clock, for the profiler.
STAGES = 3


class StepCost(NamedTuple):
    """One local step of one client, as the compiler counts it; None where it does not say.

    Attributes:
      flops: floating-point operations.
      bytes: read and written by its operations, many of them from and to caches.
      has_loops: whether the step contains loops, whose body the compiler counts once.
    """

    flops: float | None
    bytes: float | None
    has_loops: bool


class Profiled(NamedTuple):
    """What was measured.

    Attributes:
      run: of all rounds.
      step: cost of a local step, of the first pass over the cohort in a round.
      passes: how often a round runs over its cohort.
      program_text: the compiled chunk of rounds.
    """

    run: Run
    step: StepCost
    passes: int
    program_text: str


class _Profiler:
    """A callback that pauses the run between the stages and traces the last one."""

    def __init__(self, rounds: int, folder: Path):
        self._rounds, self._folder, self._running = rounds, folder, False

    def stops_at(self, round_index: int) -> bool:
        return round_index % self._rounds == 0

    def __call__(self, progress: Progress) -> None:
        if progress.round == (STAGES - 1) * self._rounds:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # calls of Python functions would drown the rest
            jax.profiler.start_trace(
                str(self._folder), create_perfetto_trace=True, profiler_options=options
            )
            self._running = True
        elif progress.round == STAGES * self._rounds:
            self.close()

    def close(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()


class _StepShapes(NamedTuple):
    """A client program and the shapes its `step` is called with, for one client.

    Leaves and structures of (shared, carry, batch) apart: a `Batch` holds arrays only.
    """

    program: ClientProgram
    leaves: list[list[jax.ShapeDtypeStruct]]
    structures: list[Any]


def _recording(algorithm: FederatedAlgorithm, seen: list[_StepShapes]) -> FederatedAlgorithm:
    """The same algorithm; while it is traced, `seen` gets the program of every pass of a round."""

    def run_clients(run: Any, program: ClientProgram, *args: Any, **options: Any) -> Any:
        number = len(seen)
        seen.append(_StepShapes(program, [], []))

        def step(*arguments: Any) -> Any:
            # Under the vmap over lanes these are the shapes of one client.
            flat = [jax.tree.flatten(argument) for argument in arguments]
            leaves = [[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in xs] for xs, _ in flat]
            seen[number] = _StepShapes(program, leaves, [structure for _, structure in flat])
            return program.step(*arguments)

        return run(program._replace(step=step), *args, **options)

    def run_round(state: Any, cohort: Any, run: Any) -> Any:
        seen.clear()  # a round is traced more than once
        return algorithm.run_round(state, cohort, partial(run_clients, run))

    return algorithm._replace(run_round=run_round)


def _step_cost(shapes: _StepShapes, num_lanes: int) -> StepCost:
    """Compiles one step of all lanes, as it runs, and divides by them."""
    splits = 1

    def step(*leaves: list[jax.Array]) -> Any:
        nonlocal splits
        shared, carry, batch = map(jax.tree.unflatten, shapes.structures, leaves)
        splits = batch.num_splits
        # This device's part of a split minibatch, without the reduction over the others.
        alone = dataclasses.replace(batch, split_axis=None, num_splits=1)
        return shapes.program.step(shared, carry, alone)

    shared, *per_lane = shapes.leaves
    carry, batch = (
        [jax.ShapeDtypeStruct((num_lanes, *x.shape), x.dtype) for x in leaves]
        for leaves in per_lane
    )
    all_lanes = jax.jit(jax.vmap(step, in_axes=(None, 0, 0)))
    compiled = all_lanes.lower(shared, carry, batch).compile()
    counted = compiled.cost_analysis() or {}

    def per_step(name: str) -> float | None:
        value = counted.get(name)
        return None if value is None or value <= 0 else float(value) * splits / num_lanes

    return StepCost(
        per_step("flops"), per_step("bytes accessed"), " while(" in (compiled.as_text() or "")
    )


def profile_rounds(
    pieces: Pieces, *, rounds: int, lanes: int | None, rewrite: bool, seed: int, folder: Path
) -> Profiled:
    """Runs `rounds` rounds three times over and writes the trace of the last ones to `folder`.

    Args:
      pieces: the training.
      rounds: per stage; every stage ends with an evaluation on the test examples.
      lanes: lanes per device, None to have them chosen.
      rewrite: as of `simulate`.
      seed: root of all randomness.
      folder: of the trace.
    """
    seen: list[_StepShapes] = []
    profiler = _Profiler(rounds, folder)
    simulation = Simulation(
        Arguments(
            algorithm=_recording(pieces.algorithm, seen),
            dataset=pieces.dataset,
            task=pieces.task,
            rounds=STAGES * rounds,
            local_work=pieces.local_work,
            sampler=pieces.sampler,
            placement=pieces.placement,
            lanes=lanes,
            seed=seed,
            variables=None,
            hyperparameters={},
            experiments=None,
            evaluate_every=rounds,
            evaluate_on=("test",),
            callbacks=(profiler,),
            checkpoint=None,
            rounds_per_call=rounds,
            stream=False,
            description={},
            rewrite=rewrite,
        )
    )
    try:
        run = simulation.run()
    finally:
        profiler.close()
    (executable,) = simulation.program.executables()
    return Profiled(run, _step_cost(seen[0], run.num_lanes), len(seen), executable.as_text())
