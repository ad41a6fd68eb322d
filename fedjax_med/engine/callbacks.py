"""Callbacks at chunk boundaries. Rounds in between never stop for them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from fedjax_med.engine.contracts import Variables


class Evaluation(NamedTuple):
    """Metrics of the current model on one split of the data.

    With experiments every array has a leading `[experiments]` axis.

    Attributes:
      split: "train", "validation" or "test".
      round: rounds that were done.
      pooled: `{name: array []}` over the examples of all clients.
      per_client: `{name: array [clients]}`; NaN where a client has no examples, or the metric is
        not defined on them.
    """

    split: str
    round: int
    pooled: dict[str, np.ndarray]
    per_client: dict[str, np.ndarray]


class Progress(NamedTuple):
    """What a callback is told.

    Attributes:
      round: rounds that are done.
      num_rounds: rounds of the whole run.
      first_round: first round that `metrics` covers.
      metrics: `{name: array [(experiments,) new rounds]}`: weighted means over the cohorts, and
        `num_clients`, `num_excluded`, `weight`.
      excluded: `(round, client name)` of the clients left out as not finite.
      evaluations: evaluations made at this boundary, possibly none.
      past_evaluations: all evaluations of the run up to now, those included.
      seconds_per_round: of the last chunk.
      useful_fraction: share of lane steps that trained a client, last chunk.
      variables: returns the current model as host arrays; only where the callback stopped the
        run (`stops_at`) or an evaluation did.
    """

    round: int
    num_rounds: int
    first_round: int
    metrics: dict[str, np.ndarray]
    excluded: list[tuple[int, str]]
    evaluations: list[Evaluation]
    past_evaluations: list[Evaluation]
    seconds_per_round: float
    useful_fraction: float
    variables: Callable[[], Variables]


@runtime_checkable
class Callback(Protocol):
    """Something that happens while a run goes on."""

    def stops_at(self, round_index: int) -> bool:
        """Whether the run has to stop for this callback after `round_index` rounds."""
        ...

    def __call__(self, progress: Progress) -> bool | None:
        """Called after every chunk; True ends the run."""
        ...

    def close(self) -> None:
        """Called once at the end of the run, also after an error."""
        ...


class _Watcher:
    """A callback that never makes the run stop."""

    def stops_at(self, round_index: int) -> bool:
        """Never."""
        del round_index
        return False

    def close(self) -> None:
        """Nothing to release."""


class JsonLines(_Watcher):
    """Appends a JSON line per round, and one per evaluation, to a file."""

    def __init__(self, path: Path | str):
        """Opens (or creates) the file for appending."""
        self.path = Path(path)
        self._file = self.path.open("a", encoding="utf-8")

    def __call__(self, progress: Progress) -> None:
        """Writes what is new."""
        for line in round_records(progress):
            self._file.write(json.dumps(line) + "\n")
        for evaluation in progress.evaluations:
            self._file.write(json.dumps(evaluation_record(evaluation)) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoard(_Watcher):
    """Writes scalars for TensorBoard: the rounds' metrics and pooled evaluations."""

    def __init__(self, folder: Path | str):
        """Creates the event file under `folder`."""
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def __call__(self, progress: Progress) -> None:
        """Writes what is new; experiments become `name/0`, `name/1`, ..."""
        for record in round_records(progress):
            step = record["round"]
            self._write({k: v for k, v in record.items() if k != "round"}, "train", step)
        for evaluation in progress.evaluations:
            pooled = {name: value.tolist() for name, value in evaluation.pooled.items()}
            self._write(pooled, evaluation.split, evaluation.round)

    def _write(self, values: dict[str, Any], group: str, step: int) -> None:
        for name, value in values.items():
            if isinstance(value, list):
                for number, single in enumerate(value):
                    if isinstance(single, int | float):
                        self._writer.add_scalar(f"{group}/{name}/{number}", single, step)
            elif isinstance(value, int | float):
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()


class ProgressBar(_Watcher):
    """A bar with rounds done, rounds per second and time left, on standard error."""

    def __init__(self, console: Any = None):
        """Uses `console` (rich) or one on standard error."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining

        self._bar = Progress(
            TextColumn("rounds"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            Remaining(),
            TextColumn("{task.fields[note]}"),
            console=console or Console(stderr=True),
        )
        self._task = None

    def __call__(self, progress: Progress) -> None:
        """Moves the bar."""
        rate = f"{1 / progress.seconds_per_round:,.0f}/s" if progress.seconds_per_round else ""
        if rate.startswith("0/"):
            rate = f"{progress.seconds_per_round:.1f} s each"
        loss = progress.metrics.get("train_loss")
        note = f"loss {np.mean(loss[..., -1]):.4f}" if loss is not None and loss.size else ""
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task("", total=progress.num_rounds, rate="", note="")
        self._bar.update(self._task, completed=progress.round, rate=rate, note=note)

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.stop()


@dataclasses.dataclass
class EarlyStopping:
    """Ends a run when a pooled evaluation metric has stopped getting better.

    Attributes:
      metric: name of the metric.
      patience: evaluations without an improvement of at least `min_delta`.
      mode: "min" or "max".
      split: which evaluation to look at.
      min_delta: smallest change that counts.
    """

    metric: str
    patience: int
    mode: str = "min"
    split: str = "validation"
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        """Checks the arguments."""
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {self.mode!r}.")
        if self.patience < 1:
            raise ValueError(f"patience must be at least 1, got {self.patience}.")

    def stops_at(self, round_index: int) -> bool:
        """Evaluations stop the run anyway."""
        del round_index
        return False

    def __call__(self, progress: Progress) -> bool:
        """Whether to end the run; from all evaluations, so a resumed run decides alike."""
        best, bad = math.inf, 0
        for evaluation in progress.past_evaluations:
            if evaluation.split != self.split:
                continue
            if self.metric not in evaluation.pooled:
                raise ValueError(
                    f"metric {self.metric!r} is not among those evaluated: "
                    f"{', '.join(sorted(evaluation.pooled))}."
                )
            value = float(np.mean(evaluation.pooled[self.metric]))
            score = value if self.mode == "min" else -value
            best, bad = (score, 0) if score < best - self.min_delta else (best, bad + 1)
        return bad >= self.patience

    def close(self) -> None:
        """Nothing to release."""


def _number(value: Any) -> Any:
    """JSON has no NaN: undefined metrics become null."""
    value = np.asarray(value)
    if value.ndim:
        return [_number(v) for v in value]
    return value.item() if np.isfinite(value) else None


def round_records(progress: Progress) -> list[dict[str, Any]]:
    """One JSON-able record per new round."""
    count = progress.round - progress.first_round
    records = []
    for offset in range(count):
        values = {name: _number(v[..., offset]) for name, v in progress.metrics.items()}
        index = progress.first_round + offset
        record = {"round": index + 1, **values}
        left_out = [name for r, name in progress.excluded if r == index]
        if left_out:
            record["excluded_clients"] = left_out
        records.append(record)
    return records


def evaluation_record(evaluation: Evaluation) -> dict[str, Any]:
    """A JSON-able record of an evaluation."""
    return {
        "round": evaluation.round,
        "split": evaluation.split,
        "pooled": {name: _number(v) for name, v in evaluation.pooled.items()},
        "per_client": {name: _number(v) for name, v in evaluation.per_client.items()},
    }
