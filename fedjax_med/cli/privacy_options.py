"""The options of `fedjax-med audit` and `fedjax-med tradeoff`. Importing this does not import JAX."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group

from fedjax_med.cli.options import _FILES, FileOptions, _option

_AUDIT = Group("Audit", sort_key=1)
_PRIVACY = Group("Protection", sort_key=2)
_TRAINING = Group("Training", sort_key=3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditOptions(FileOptions):
    """What was given on the command line about an audit; None where nothing was."""

    runs: Annotated[
        int | None,
        _option(
            _AUDIT,
            "Trainings with a canary, and as many without, at least 20. More give a closer bound. "
            "Default: 200.",
        ),
    ] = None
    shadows: Annotated[
        int | None,
        _option(
            _AUDIT,
            "Shadow models of membership inference, an even number of at least 4. Default: 32.",
        ),
    ] = None
    seed: Annotated[int | None, _option(_AUDIT, "Root of all randomness. Default: 0.")] = None
    unit: Annotated[
        Literal["hospital", "record"] | None,
        _option(
            _PRIVACY,
            "What a protection that is tried on a run without any protects. Default: record.",
        ),
    ] = None
    epsilon: Annotated[
        float | None,
        _option(
            _PRIVACY,
            "Try a protection of this epsilon on a run without any. Default: none is tried.",
        ),
    ] = None
    delta: Annotated[
        float | None,
        _option(
            _PRIVACY,
            "Its delta, below one over the number of units. Default: a power of ten of at most a tenth "
            "of that.",
        ),
    ] = None
    clip_norm: Annotated[
        float | None,
        _option(_PRIVACY, "Its bound on gradients of records or updates of hospitals. Default: 1."),
    ] = None
    output: Annotated[
        Path | None,
        _option(_FILES, "Folder for audit.json, figures and report.html. Default: RUN/audit."),
    ] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TradeoffOptions(FileOptions):
    """What was given on the command line about a study of utility against epsilon."""

    epsilon: Annotated[
        str | None,
        _option(
            _PRIVACY,
            "Epsilons separated by commas, each spent by a whole training. Default: 0.5,1,2,4,8.",
        ),
    ] = None
    unit: Annotated[
        Literal["record", "hospital"] | None,
        _option(_PRIVACY, "What is protected. Default: each in turn."),
    ] = None
    delta: Annotated[
        float | None,
        _option(
            _PRIVACY,
            "Of (epsilon, delta), below one over the number of units. Default: a power of ten of at "
            "most a tenth of that.",
        ),
    ] = None
    clip_norms: Annotated[
        str | None,
        _option(
            _PRIVACY,
            "Clip bounds separated by commas, of which each epsilon gets the best. Default: "
            "0.1,0.3,1,3.",
        ),
    ] = None
    model: Annotated[
        str | None, _option(_TRAINING, "Kind of model, as for `run`. Default: linear.")
    ] = None
    rounds: Annotated[
        int | None, _option(_TRAINING, "Federated rounds at record level. Default: 20.")
    ] = None
    hospital_rounds: Annotated[
        int | None, _option(_TRAINING, "Federated rounds at hospital level. Default: 3.")
    ] = None
    steps: Annotated[
        int | None, _option(_TRAINING, "Local steps of a round at record level. Default: 5.")
    ] = None
    batch_size: Annotated[
        int | None, _option(_TRAINING, "Patients of a minibatch on average. Default: 16.")
    ] = None
    learning_rates: Annotated[
        str | None,
        _option(
            _TRAINING,
            "Learning rates separated by commas, of which each epsilon gets the best. Default: "
            "0.01,0.03,0.1,0.3,1.",
        ),
    ] = None
    seeds: Annotated[int | None, _option(_TRAINING, "Trainings with other seeds. Default: 5.")] = (
        None
    )
    splits: Annotated[
        int | None,
        _option(
            _TRAINING,
            "Random divisions into training and test patients, at least 2; 1 for the dataset's own. "
            "Default: 5.",
        ),
    ] = None
    seed: Annotated[int | None, _option(_TRAINING, "Root of all randomness. Default: 0.")] = None
    output: Annotated[
        Path | None,
        _option(
            _FILES,
            "Folder for result.json, the figure and report.html. Default: a new folder "
            "runs/DATASET-tradeoff-TIME.",
        ),
    ] = None
