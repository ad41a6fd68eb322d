"""Federated learning simulation for medical research: whole rounds compiled by JAX.

    import fedjax_med as fm

    hospitals = fm.datasets.load("breast-cancer")
    run = fm.simulate(algorithm, hospitals, task=task, rounds=500, ...)

Names are imported when they are first used, so that the command line answers at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fedjax_med._version import __version__

if TYPE_CHECKING:
    from fedjax_med import (
        aggregation,
        algorithms,
        attacks,
        clock,
        data,
        datasets,
        evaluation,
        explanation,
        genomics,
        models,
        preprocessing,
        privacy,
        secure,
        streams,
        studies,
        surveillance,
        tasks,
    )
    from fedjax_med.engine import (
        CheckpointPolicy,
        Experiments,
        Run,
        Task,
        Variables,
        callbacks,
        cohorts,
        epochs,
        evaluate,
        frozen,
        gradient,
        grid,
        mixed_precision,
        placement,
        poisson_steps,
        retrain_without,
        simulate,
        steps,
    )

_PACKAGES = (
    "aggregation",
    "algorithms",
    "attacks",
    "clock",
    "data",
    "datasets",
    "engine",
    "evaluation",
    "explanation",
    "genomics",
    "models",
    "preprocessing",
    "privacy",
    "secure",
    "streams",
    "studies",
    "surveillance",
    "tasks",
)
_FROM_ENGINE = (
    "CheckpointPolicy",
    "Experiments",
    "Run",
    "Task",
    "Variables",
    "callbacks",
    "cohorts",
    "epochs",
    "evaluate",
    "frozen",
    "gradient",
    "grid",
    "mixed_precision",
    "placement",
    "poisson_steps",
    "retrain_without",
    "simulate",
    "steps",
)

__all__ = [
    "CheckpointPolicy",
    "Experiments",
    "Run",
    "Task",
    "Variables",
    "__version__",
    "aggregation",
    "algorithms",
    "attacks",
    "callbacks",
    "clock",
    "cohorts",
    "data",
    "datasets",
    "epochs",
    "evaluate",
    "evaluation",
    "explanation",
    "frozen",
    "genomics",
    "gradient",
    "grid",
    "mixed_precision",
    "models",
    "placement",
    "poisson_steps",
    "preprocessing",
    "privacy",
    "retrain_without",
    "secure",
    "simulate",
    "steps",
    "streams",
    "studies",
    "surveillance",
    "tasks",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"fedjax_med.{name}")
    if name in _FROM_ENGINE:
        return getattr(importlib.import_module("fedjax_med.engine"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
