"""The options of `fedjax-med run`, `profile` and `study`, as they appear in their help.

Every option is None unless it was given, so that defaults can depend on the dataset and a
resumed run can tell what its user asked for. Importing this does not import JAX.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from fedjax_med.cli.models import MODELS

Algorithm = Literal[
    "fedavg", "fedsgd", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "fede"
]
Optimizer = Literal["sgd", "adam", "adamw", "yogi", "adagrad", "rmsprop"]

_FEDERATED = Group("Federated training", sort_key=1)
_LOCAL = Group("Training inside a hospital", sort_key=2)
_SERVER = Group("Combining the hospitals' models", sort_key=3)
_MODEL = Group("Model", sort_key=4)
_OTHER_MODELS = "; ".join(
    f"{modality}: {', '.join(names)}" for modality, names in MODELS.items() if modality != "table"
)
_PRIVACY = Group("Differential privacy", sort_key=5)
_JUDGING = Group("Evaluation and baselines", sort_key=6)
_WHERE = Group("Where it runs", sort_key=7)
_FILES = Group("Files and output", sort_key=8)


def _option(group: Group, help: str, *names: str, **more) -> Parameter:
    # Defaults are in the words of the help: they may depend on the dataset.
    return Parameter(name=names or None, group=group, help=help, show_default=False, **more)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Options of every command that reads data and writes a report."""

    data_dir: Annotated[
        Path | None,
        _option(
            _FILES,
            "Folder with local copies of the data files. Default: the folder in the environment "
            "variable FEDJAX_MED_DATA, else they are downloaded once.",
        ),
    ] = None
    quiet: Annotated[
        bool,
        _option(_FILES, "No progress and no table: print only where the report is.", negative=()),
    ] = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions(FileOptions):
    """What was given on the command line about a training; None where nothing was."""

    algorithm: Annotated[
        Algorithm | None,
        _option(_FEDERATED, "How the hospitals learn together. Default: fedavg; fede for graphs."),
    ] = None
    rounds: Annotated[
        int | None,
        _option(
            _FEDERATED,
            "Number of federated rounds; in each, the hospitals train locally and their models "
            "are combined once. Default: 100, or what suits the dataset.",
        ),
    ] = None
    cohort: Annotated[
        str | None,
        _option(
            _FEDERATED,
            "Who takes part in a round: 'all' hospitals, a number of them drawn at random, or "
            "'poisson:RATE', each hospital independently with that probability (0 to 1). "
            "Default: all (100 clients for synthetic).",
        ),
    ] = None
    seed: Annotated[
        int | None,
        _option(
            _FEDERATED,
            "Root of all randomness; the same seed gives the same result. Default: 0.",
        ),
    ] = None
    mu: Annotated[
        float | None,
        _option(
            _FEDERATED,
            "fedprox only: strength of the pull towards the shared model, 0 or more. Default: 0.1.",
        ),
    ] = None

    local_epochs: Annotated[
        int | None,
        _option(
            _LOCAL,
            "Passes over a hospital's own patients in every round. Default: 1.",
        ),
    ] = None
    local_steps: Annotated[
        int | None,
        _option(
            _LOCAL,
            "Instead of epochs: minibatches of every hospital in every round, the next round "
            "going on where the last one stopped.",
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        _option(
            _LOCAL,
            "Patients in a minibatch, 0 for all of a hospital at once. Default: depends on the "
            "dataset; for your own 16, and 0 for survival, where risks are compared in a minibatch.",
        ),
    ] = None
    shuffle: Annotated[
        bool | None,
        _option(
            _LOCAL,
            "Patients in a new random order every epoch, or always in the stored one. "
            "Default: shuffled.",
        ),
    ] = None
    client_optimizer: Annotated[
        Optimizer | None,
        _option(_LOCAL, "Optimizer inside a hospital, new in every round. Default: sgd."),
    ] = None
    client_lr: Annotated[
        float | None,
        _option(
            _LOCAL,
            "Learning rate inside a hospital, above 0. Default: depends on the dataset (for your "
            "own 0.03, for survival 0.1); a tenth of it for optimizers other than sgd.",
        ),
    ] = None
    momentum: Annotated[
        float | None,
        _option(
            _LOCAL,
            "Momentum inside a hospital, from 0 to below 1; for sgd only. Default: 0.",
        ),
    ] = None

    server_optimizer: Annotated[
        Optimizer | None,
        _option(
            _SERVER,
            "Optimizer that applies the combined update to the shared model; for fedavg, "
            "fedsgd and fedprox. Default: sgd.",
        ),
    ] = None
    server_lr: Annotated[
        float | None,
        _option(
            _SERVER,
            "Its learning rate, above 0. Default: 1 (the plain mean of the models); for "
            "fedadam, fedyogi, fedadagrad and other adaptive server optimizers 0.03, for "
            "fedsgd 0.3.",
        ),
    ] = None
    server_momentum: Annotated[
        float | None,
        _option(
            _SERVER,
            "fedavgm only: momentum of the server, from 0 to below 1. Default: 0.9.",
        ),
    ] = None
    weighting: Annotated[
        Literal["examples", "equal"] | None,
        _option(
            _SERVER,
            "Whether a hospital counts by its number of training patients or all count the "
            "same. Default: examples.",
        ),
    ] = None
    aggregator: Annotated[
        Literal["mean", "median"] | None,
        _option(
            _SERVER,
            "How updates are combined: their mean, or the median of every coordinate, which "
            "resists a faulty hospital and knows no weighting. Default: mean.",
        ),
    ] = None
    clip_norm: Annotated[
        float | None,
        _option(
            _SERVER,
            "Scale each hospital's update down to at most this length (L2 norm), above 0. "
            "Default: no clipping.",
        ),
    ] = None

    model: Annotated[
        str | None,
        _option(
            _MODEL,
            "Of tables: linear is a logistic, linear or Cox regression, whatever the outcome asks "
            "for; mlp a fully connected network; embeddings the same, with categories and missing "
            "values embedded; transformer has columns as tokens. Images, signals and visits have "
            f"others: {_OTHER_MODELS}. Default: linear for tables, else the first of them.",
        ),
    ] = None
    hidden: Annotated[
        str | None,
        _option(
            _MODEL,
            "mlp and embeddings only: units of hidden layers, separated by commas. Default: 32,16.",
        ),
    ] = None
    impute: Annotated[
        Literal["mean", "median", "mode"] | None,
        _option(
            _MODEL,
            "What fills in missing values, found from all hospitals' training patients without "
            "pooling them; linear and mlp only, since the other models take missing values. "
            "Default: median.",
        ),
    ] = None
    standardize: Annotated[
        Literal["global", "per-client", "none"] | None,
        _option(
            _MODEL,
            "Mean 0 and variance 1 of every numeric column over all hospitals' training patients "
            "(global) or at every hospital (per-client), which hides how its patients differ. "
            "Default: global.",
        ),
    ] = None
    combat: Annotated[
        bool | None,
        _option(
            _MODEL,
            "First take away what shifts and stretches the numeric columns of each hospital "
            "(ComBat), such as a laboratory's own calibration. Default: no.",
        ),
    ] = None
    precision: Annotated[
        Literal["float32", "bfloat16", "float64"] | None,
        _option(
            _MODEL,
            "Number format of the training arithmetic; with bfloat16, parameters and sums stay "
            "in float32. Default: float32.",
        ),
    ] = None
    rewrite: Annotated[
        bool | None,
        _option(
            _MODEL,
            "Compute convolutions and pooling in a way that stays fast when every hospital has "
            "its own weights; other models are not touched. Default: yes.",
        ),
    ] = None

    placement: Annotated[
        Literal["one-device", "pmap", "mesh"] | None,
        _option(
            _WHERE,
            "One device; or hospitals spread over the devices of this machine (pmap), or over "
            "a mesh (mesh). Default: one-device; with --devices above 1 pmap, with --splits mesh.",
        ),
    ] = None
    devices: Annotated[
        int | None,
        _option(
            _WHERE,
            "Devices that the hospitals are spread over; on a machine without accelerator that "
            "many are simulated. Default: 1.",
        ),
    ] = None
    splits: Annotated[
        int | None,
        _option(
            _WHERE,
            "mesh only: devices that share every minibatch, for hospitals too big for one; must "
            "divide the batch size. Default: 1.",
        ),
    ] = None
    lanes: Annotated[
        int | None,
        _option(
            _WHERE,
            "Hospitals trained side by side on each device; changes speed and memory only. "
            "Default: chosen automatically.",
        ),
    ] = None

    output: Annotated[
        Path | None,
        _option(
            _FILES,
            "Folder for configuration, metrics, checkpoints and report.html. Default: a new "
            "folder runs/DATASET-ALGORITHM-TIME.",
        ),
    ] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions(TrainingOptions):
    """What was given to `fedjax-med run`."""

    epsilon: Annotated[
        float | None,
        _option(
            _PRIVACY,
            "Train with differential privacy, with noise that uses up this epsilon in the rounds of "
            "the run; needs --clip-norm. Default: no privacy.",
        ),
    ] = None
    noise_multiplier: Annotated[
        float | None,
        _option(
            _PRIVACY,
            "Train with differential privacy, with noise of so many clip norms. With --epsilon too, "
            "the run ends before the round that would exceed it. Default: what epsilon asks for.",
        ),
    ] = None
    delta: Annotated[
        float | None,
        _option(
            _PRIVACY,
            "Delta of (epsilon, delta), below one over the number of what is protected (hospitals, or "
            "the patients of the largest). Default: that number to the power of -1.1.",
        ),
    ] = None
    unit: Annotated[
        Literal["hospital", "record"] | None,
        _option(
            _PRIVACY,
            "What is protected: a whole hospital, by noise of the server, or each record of a "
            "hospital, by noise of the hospital in every local step, whose --clip-norm then bounds "
            "the gradient of a record. Default: hospital.",
        ),
    ] = None
    evaluate_every: Annotated[
        int | None,
        _option(
            _JUDGING,
            "Rounds between two evaluations on every hospital's test patients. Default: about "
            "50 evaluations in all.",
        ),
    ] = None
    early_stop: Annotated[
        str | None,
        _option(
            _JUDGING,
            "METRIC/PATIENCE, such as loss/5: stop when the metric on the validation patients "
            "has not improved in that many evaluations. Default: never.",
        ),
    ] = None
    baselines: Annotated[
        bool | None,
        _option(
            _JUDGING,
            "Also train each hospital alone and all patients pooled, with the same local work "
            "and number of rounds, to compare with. Default: yes.",
        ),
    ] = None
    resume: Annotated[
        bool,
        _option(
            _FILES,
            "Go on with the run in --output from its newest checkpoint, exactly as if it had "
            "never stopped. Options are those of that run; --rounds may be larger.",
            negative=(),
        ),
    ] = False
    checkpoint_every: Annotated[
        int | None,
        _option(
            _FILES,
            "Rounds between two checkpoints; the end always has one. Default: 50, or a twentieth of "
            "the run if that is more.",
        ),
    ] = None
    tensorboard: Annotated[
        bool,
        _option(
            _FILES,
            "Also write logs for TensorBoard to the folder tensorboard/ of the run.",
            negative=(),
        ),
    ] = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileOptions(TrainingOptions):
    """What was given to `fedjax-med profile`."""

    rounds: Annotated[
        int | None,
        _option(
            _FEDERATED,
            "Number of federated rounds to look at; as many are run before to compile and warm up, "
            "and as many to take the time without the profiler. Default: 20.",
        ),
    ] = None
    output: Annotated[
        Path | None,
        _option(
            _FILES,
            "Folder for configuration, profile.json, profile.png and trace.json.gz. Default: a new "
            "folder runs/DATASET-ALGORITHM-profile-TIME.",
        ),
    ] = None
    quiet: Annotated[
        bool,
        _option(_FILES, "No tables: print only where the profile is.", negative=()),
    ] = False


_STUDY = Group("The comparison", sort_key=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyOptions(FileOptions):
    """What was given to `fedjax-med study`; None where nothing was."""

    methods: Annotated[
        str | None,
        _option(
            _STUDY,
            "Federated methods, separated by commas: fedavg, fedprox, scaffold, fedadam, ditto, "
            "newton (linear models only). "
            "Default: all. Graphs, responses, series and genotypes have methods of their own, which an "
            "unknown name lists. Baselines are always there.",
        ),
    ] = None
    seeds: Annotated[
        int | None, _option(_STUDY, "Trainings that differ in their seed only. Default: 5.")
    ] = None
    splits: Annotated[
        int | None,
        _option(
            _STUDY,
            "Random divisions into training and test patients, at least 2. Default: 5 (3 for "
            "diabetes130).",
        ),
    ] = None
    test: Annotated[
        float | None, _option(_STUDY, "Share of test patients, above 0 and below 1. Default: 0.3.")
    ] = None
    leave_one_out: Annotated[
        bool | None,
        _option(
            _STUDY,
            "Also leave every hospital out once, to see how models do at a hospital that took no "
            "part. Default: yes.",
        ),
    ] = None
    resamples: Annotated[
        int | None,
        _option(_STUDY, "Resamples of bootstrap intervals, 0 for none. Default: 1000."),
    ] = None
    seed: Annotated[
        int | None, _option(_STUDY, "Root of all randomness, 0 or more. Default: 0.")
    ] = None
    rounds: Annotated[
        int | None, _option(_LOCAL, "Federated rounds. Default: 50, depending on the dataset.")
    ] = None
    local_epochs: Annotated[
        int | None,
        _option(_LOCAL, "Passes over a hospital's own patients in every round. Default: 1."),
    ] = None
    batch_size: Annotated[
        int | None,
        _option(
            _LOCAL,
            "Patients in a minibatch, 0 for all of a hospital at once. Default: depends on the "
            "dataset.",
        ),
    ] = None
    learning_rates: Annotated[
        str | None,
        _option(
            _LOCAL,
            "Learning rates inside a hospital, separated by commas, of which each method gets the "
            "one that is best on patients kept for choosing. Default: depends on the dataset.",
        ),
    ] = None
    model: Annotated[
        str | None,
        _option(_MODEL, "Kind of model, as for `run`. Default: linear for tables."),
    ] = None
    hidden: Annotated[
        str | None,
        _option(_MODEL, "mlp and embeddings only: units of hidden layers, separated by commas."),
    ] = None
    impute: Annotated[
        Literal["mean", "median", "mode"] | None,
        _option(_MODEL, "How missing values are filled in, federatedly. Default: median."),
    ] = None
    standardize: Annotated[
        Literal["global", "per-client"] | None,
        _option(
            _MODEL,
            "Mean and standard deviation over all hospitals' training patients, or each hospital's "
            "own, which hides how its patients differ. Default: global.",
        ),
    ] = None
    output: Annotated[
        Path | None,
        _option(
            _FILES,
            "Folder for result.json, figures and report.html. Default: a new folder "
            "runs/DATASET-study-TIME.",
        ),
    ] = None
