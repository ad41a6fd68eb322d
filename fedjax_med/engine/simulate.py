"""`simulate`: federated training, the engine's front door."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from fedjax_med.data import FederatedDataset
from fedjax_med.engine.arguments import AlgorithmLike, Arguments, under_guarantee
from fedjax_med.engine.callbacks import Callback
from fedjax_med.engine.cohorts import CohortSampler, everyone
from fedjax_med.engine.contracts import PyTree, Variables
from fedjax_med.engine.experiments import Experiments
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.engine.placement import Placement, one_device
from fedjax_med.engine.run import CheckpointPolicy, Run
from fedjax_med.engine.simulation import Simulation
from fedjax_med.engine.task import Task
from fedjax_med_kernels.client_batched import Choice


def simulate(
    algorithm: AlgorithmLike,
    dataset: FederatedDataset,
    *,
    task: Task,
    rounds: int,
    local_work: LocalWork,
    cohort: CohortSampler | None = None,
    placement: Placement | None = None,
    lanes: int | None = None,
    seed: int = 0,
    variables: Variables | None = None,
    state: PyTree | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    experiments: Experiments | None = None,
    evaluate_every: int = 0,
    evaluate_on: Sequence[str] = ("test",),
    callbacks: Sequence[Callback] = (),
    checkpoint: CheckpointPolicy | None = None,
    rounds_per_call: int = 64,
    stream: bool = False,
    description: Mapping[str, Any] | None = None,
    rewrite: bool | Choice = True,
) -> Run:
    """Trains `algorithm` on the clients of `dataset`, many rounds per compiled call.

    Args:
      algorithm: a `FederatedAlgorithm`, or a function of hyperparameters that returns one; its
        arguments are then traced, so other values compile nothing new.
      dataset: the clients.
      task: initial model, loss and metrics.
      rounds: federated rounds; fewer are run where the budget of a privacy plan ends.
      local_work: `epochs(...)` or `steps(...)`.
      cohort: who takes part; everyone if None, or whom the algorithm's privacy plan says.
      placement: where clients run; the first device if None.
      lanes: lanes per device; chosen from useful fraction, memory and device kind if None.
      seed: root of all randomness; ignored with `experiments`, which bring their own.
      variables: initial model; `task.init(seed)` if None.
      state: server state to begin with instead of the algorithm's first, such as `run.state` of
        another run of it; all experiments begin with it. Clients begin anew.
      hyperparameters: values for a function `algorithm`.
      experiments: many trainings in one call; see `grid`.
      evaluate_every: rounds between evaluations; the last round is always evaluated unless 0.
      evaluate_on: splits of the data to evaluate on.
      callbacks: called at chunk boundaries.
      checkpoint: where to write checkpoints and whether to resume.
      rounds_per_call: most rounds of one compiled call.
      stream: gather the data of each chunk's cohorts from host memory (or disk, if it is
        memory-mapped) while the previous chunk runs, instead of keeping it all on the device.
      description: JSON-able settings that only the caller knows (names, learning rates inside
        an algorithm that is already built); a resumed run must agree on them too.
      rewrite: whether convolutions and pooling in the loss and the metrics are computed by
        kernels that stay fast when every client has its own weights (the log and `Run.rewritten`
        say which); or a function that chooses the implementation of each, see
        `fedjax_med_kernels.client_batched`. False leaves models as they are.

    Raises:
      ValueError: names the argument that does not fit.
      CheckpointError: on resume, if the checkpoint is of another run.
    """
    start = time.perf_counter()
    try:
        arguments = Arguments(
            algorithm=algorithm,
            dataset=dataset,
            task=task,
            rounds=rounds,
            local_work=local_work,
            sampler=cohort or everyone(),
            placement=placement or one_device(),
            lanes=lanes,
            seed=seed,
            variables=variables,
            state=state,
            hyperparameters=dict(hyperparameters or {}),
            experiments=experiments,
            evaluate_every=evaluate_every,
            evaluate_on=tuple(evaluate_on),
            callbacks=tuple(callbacks),
            checkpoint=checkpoint,
            rounds_per_call=rounds_per_call,
            stream=stream,
            description=dict(description or {}),
            rewrite=rewrite,
        )
        arguments = under_guarantee(arguments, free_sampler=cohort is None)
        run = Simulation(arguments).run()
    finally:
        for callback in callbacks:
            callback.close()
    run.timings.total_s = time.perf_counter() - start
    return run
