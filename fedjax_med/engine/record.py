"""What a run has seen so far: metrics, evaluations, exclusions, and their way into checkpoints."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import jax
import numpy as np

from fedjax_med.engine import checkpoint as checkpoints
from fedjax_med.engine.arguments import Arguments
from fedjax_med.engine.callbacks import Evaluation
from fedjax_med.engine.schedule import Scheduler
from fedjax_med.engine.states import States


@dataclasses.dataclass
class Record:
    """The history of a run.

    Attributes:
      chunks: metrics of each chunk, `{name: array [(experiments,) rounds]}`.
      evaluations: all evaluations, in order.
      excluded: `(round, client name)` of clients left out because not finite.
    """

    chunks: list[dict[str, np.ndarray]] = dataclasses.field(default_factory=list)
    evaluations: list[Evaluation] = dataclasses.field(default_factory=list)
    excluded: list[tuple[int, str]] = dataclasses.field(default_factory=list)

    def history(self) -> dict[str, np.ndarray]:
        """The metrics of all rounds."""
        if not self.chunks:
            return {}
        return {
            name: np.concatenate([metrics[name] for metrics in self.chunks], axis=-1)
            for name in self.chunks[0]
        }


def configuration(a: Arguments, num_lanes: int) -> dict[str, Any]:
    """What a resumed run must agree on with the one that wrote the checkpoint."""
    described = {
        "data": a.dataset.fingerprint(),
        "local_work": repr(a.local_work),
        "cohort": _short(repr(a.sampler)),
        "placement": a.placement.describe(),
        "lanes": num_lanes,
        "seeds": list(a.seeds),
        "members": a.members and _short(repr([m.tolist() for m in a.members])),
        "rewrite": a.rewrite if isinstance(a.rewrite, bool) else "chosen",
        "hyperparameters": {n: v.tolist() for n, v in a.traced_hyperparameters().items()},
        **({"privacy": a.spending.describe()} if a.spending else {}),
        **a.description,
    }
    return json.loads(json.dumps(described))  # as it will come back: tuples are lists


def to_checkpoint(
    done: int,
    states: States,
    record: Record,
    schedulers: list[Scheduler],
    configuration: dict[str, Any],
) -> checkpoints.Checkpoint:
    """Everything a run needs to go on after `done` rounds, from states on the host."""
    history = record.history()
    arrays = {
        **checkpoints.flatten("server", states.server),
        **checkpoints.flatten("clients", states.clients),
        **checkpoints.flatten("history", history),
        "participations": np.stack([s.participations for s in schedulers]),
    }
    by_split: dict[str, list[Evaluation]] = {}
    for evaluation in record.evaluations:
        by_split.setdefault(evaluation.split, []).append(evaluation)
    for split, evaluations in by_split.items():
        # One array per metric, not per metric and evaluation: long runs have many of them.
        values = [{"pooled": e.pooled, "per_client": e.per_client} for e in evaluations]
        stacked = jax.tree.map(lambda *x: np.stack(x), *values)
        arrays |= checkpoints.flatten(f"evaluations.{split}", stacked)
    description = {
        "configuration": configuration,
        "excluded": record.excluded,
        "history": list(history),
        "evaluations": [[e.split, e.round] for e in record.evaluations],
        "metrics": {split: list(of_split[0].pooled) for split, of_split in by_split.items()},
    }
    return checkpoints.Checkpoint(done, arrays, description)


def from_checkpoint(
    saved: checkpoints.Checkpoint,
    a: Arguments,
    states: States,
    schedulers: list[Scheduler],
    configuration: dict[str, Any],
) -> tuple[States, Record]:
    """Takes over a checkpoint after checking that it is of this run.

    Args:
      saved: the checkpoint.
      a: the arguments of the run that resumes.
      states: its initial states, for structure, shapes and dtypes.
      schedulers: theirs are moved to where the checkpoint stands.
      configuration: what the checkpoint has to agree on.

    Raises:
      CheckpointError: names what differs.
    """
    folder = a.checkpoint.folder if a.checkpoint else ""
    before = saved.description["configuration"]
    for name in sorted(before.keys() | configuration.keys()):
        old, new = before.get(name), configuration.get(name)
        if old != new:
            raise checkpoints.CheckpointError(
                f"The checkpoint in {folder} is of another run: {name} was "
                f"{_short(str(old))}, now it is {_short(str(new))}."
            )
    if saved.round > a.rounds:
        raise checkpoints.CheckpointError(
            f"The checkpoint in {folder} has {saved.round} rounds, but only {a.rounds} were "
            "asked for."
        )
    arrays, described = saved.arrays, saved.description
    expected = {
        *checkpoints.flatten("server", states.server),
        *checkpoints.flatten("clients", states.clients),
    }
    for name in arrays:
        if name.startswith(("server", "clients")) and name not in expected:
            raise checkpoints.CheckpointError(
                f"The checkpoint in {folder} is of another algorithm or model: it has {name}, "
                "which this one does not know."
            )
    restored = States(
        checkpoints.unflatten("server", arrays, states.server),
        checkpoints.unflatten("clients", arrays, states.clients),
    )
    for scheduler, row in zip(schedulers, arrays["participations"], strict=True):
        scheduler.participations[:] = row
    record = Record(excluded=[(r, name) for r, name in described["excluded"]])
    if described["history"]:
        record.chunks.append({n: arrays[f"history['{n}']"] for n in described["history"]})
    seen = dict.fromkeys(described["metrics"], 0)
    for split, round_index in described["evaluations"]:
        pooled, per_client = (
            {
                name: arrays[f"evaluations.{split}['{group}']['{name}']"][seen[split]]
                for name in described["metrics"][split]
            }
            for group in ("pooled", "per_client")
        )
        seen[split] += 1
        record.evaluations.append(Evaluation(split, round_index, pooled, per_client))
    return jax.tree.map(np.asarray, restored), record


def _short(text: str) -> str:
    """Long descriptions (listed cohorts, traces) by their hash."""
    if len(text) <= 200:
        return text
    return f"{text[:60]}... sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"
