"""The engine: client programs, lanes, placements, cohorts and the outer loop."""

from fedjax_med.engine import callbacks, cohorts, placement
from fedjax_med.engine.callbacks import Evaluation, Progress
from fedjax_med.engine.checkpoint import CheckpointError
from fedjax_med.engine.contracts import (
    Adaptation,
    Adapted,
    Aggregator,
    Batch,
    Client,
    ClientProgram,
    ClientResult,
    Cohort,
    CohortMetrics,
    CohortResult,
    FederatedAlgorithm,
    GradientResult,
    RoundResult,
    RunClients,
    Stacked,
    Variables,
    frozen,
    gradient,
)
from fedjax_med.engine.evaluate import evaluate
from fedjax_med.engine.experiments import Experiments, grid
from fedjax_med.engine.lane_executor import Axes, LaneExecutor
from fedjax_med.engine.local_work import epochs, poisson_steps, steps
from fedjax_med.engine.precision import mixed_precision
from fedjax_med.engine.run import CheckpointPolicy, Run, Timings
from fedjax_med.engine.sequential import ClientError, SequentialExecutor
from fedjax_med.engine.simulate import simulate
from fedjax_med.engine.survey import Survey, Surveyed, survey
from fedjax_med.engine.task import Task
from fedjax_med.engine.unlearning import retrain_without

__all__ = [
    "Adaptation",
    "Adapted",
    "Aggregator",
    "Axes",
    "Batch",
    "CheckpointError",
    "CheckpointPolicy",
    "Client",
    "ClientError",
    "ClientProgram",
    "ClientResult",
    "Cohort",
    "CohortMetrics",
    "CohortResult",
    "Evaluation",
    "Experiments",
    "FederatedAlgorithm",
    "GradientResult",
    "LaneExecutor",
    "Progress",
    "RoundResult",
    "Run",
    "RunClients",
    "SequentialExecutor",
    "Stacked",
    "Survey",
    "Surveyed",
    "Task",
    "Timings",
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
    "survey",
]
