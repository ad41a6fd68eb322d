"""What a run returns, and where it writes its checkpoints."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_med.engine.callbacks import Evaluation
from fedjax_med.engine.contracts import PyTree, Variables


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
      local_steps: local steps of all clients, over all rounds run here.
      num_lanes: lanes per device.
      num_traces: how often the training program was traced (1 unless data shapes changed).
      seconds_per_round: for every chunk `(rounds, seconds per round)`.
      timings: where the time went.
      memory_bytes: `{"arguments": ..., "temporaries": ...}` of the compiled chunk, per device.
      configuration: JSON-able description of the run.
      rewritten: for "training" and "evaluation" one line that says which operations of the model
        were computed by which kernel; empty where that was switched off.
    """

    variables: Variables
    state: PyTree
    client_states: PyTree
    history: dict[str, np.ndarray]
    excluded: list[tuple[int, str]]
    evaluations: list[Evaluation]
    rounds: int
    useful_fraction: float
    local_steps: int
    num_lanes: int
    num_traces: int
    seconds_per_round: list[tuple[int, float]]
    timings: Timings
    memory_bytes: dict[str, int]
    configuration: dict[str, Any]
    rewritten: dict[str, str]


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

    def __post_init__(self) -> None:
        """Takes texts for paths."""
        object.__setattr__(self, "folder", Path(self.folder))
