"""From the options that were given to the full configuration of a run, and back on resume."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from fedjax_med.cli.errors import UsageError
from fedjax_med.cli.models import MODELS
from fedjax_med.cli.options import RunOptions
from fedjax_med.cli.privacy import check_privacy, unit_of

_ADAPTIVE = ("fedadam", "fedyogi", "fedadagrad")
_ANY_SERVER_OPTIMIZER = ("fedavg", "fedsgd", "fedprox")
_NUM_EVALUATIONS = 50
_NUM_CHECKPOINTS = 20

_DEFAULTS = {
    "rounds": 100,
    "cohort": "all",
    "batch_size": 16,
    "client_lr": 0.03,
    "algorithm": "fedavg",
    "client_optimizer": "sgd",
    "local_epochs": 1,
}
_ADAM: dict[str, Any] = {"client_optimizer": "adam"}
_OF_GRAPHS = {
    "algorithm": "fede",
    "rounds": 10,
    "local_epochs": 3,
    "batch_size": 128,
    "client_optimizer": "adam",
    "client_lr": 0.02,
}
_DEFAULTS_OF_KIND: dict[str, dict[str, Any]] = {
    # Patients are compared with those of their minibatch, so all of a hospital are in one.
    "survival": {"batch_size": 0, "client_lr": 0.1},
    # Those of the studies of these kinds.
    "links": _OF_GRAPHS,
    "responses": {"rounds": 40, "client_optimizer": "adam", "client_lr": 0.03},
    "forecast": {"rounds": 30, "batch_size": 64, "client_lr": 1.0},
}
# By the loss and the main metric on a quarter of the training patients, the mean of up to four
# divisions; of equally good ones those that take less time. With larger rates, patients at home
# (parkinsons-telemonitoring) diverge when each trains alone, since some have outliers.
_OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "breast-cancer": {"client_lr": 0.1},
    "diabetes-progression": {"rounds": 50},
    "diabetes130": {"rounds": 20, "client_lr": 0.3, "batch_size": 128},
    "hapmap3": {"rounds": 50, "client_lr": 0.1},
    # Those of the studies; fewer rounds where a round of a network takes seconds on a CPU.
    "breast-mnist": {**_ADAM, "rounds": 16, "client_lr": 0.003},
    "diabetes130-visits": {**_ADAM, "rounds": 6, "client_lr": 0.003, "batch_size": 64},
    "mitbih-beats": {"rounds": 10, "client_lr": 0.1, "batch_size": 32},
    "mitbih-rr": {"rounds": 5, "client_lr": 0.3, "batch_size": 64},
    "pneumonia-mnist": {**_ADAM, "rounds": 4, "client_lr": 0.003, "batch_size": 32},
    "synthetic-ehr": {**_ADAM, "rounds": 10, "client_lr": 0.003, "batch_size": 32},
    "synthetic-scans": {**_ADAM, "rounds": 15, "client_lr": 0.003, "batch_size": 4},
    "synthetic-volumes": {**_ADAM, "rounds": 8, "client_lr": 0.003, "batch_size": 4},
    "heart-disease": {"client_lr": 0.1},
    "ncctg-lung": {"rounds": 50, "client_lr": 0.01},
    "parkinsons-telemonitoring": {"client_lr": 0.003, "batch_size": 32},
    "synthetic": {"client_lr": 0.3, "cohort": "100", "batch_size": 8},
    "tcga-brca": {"rounds": 50, "client_lr": 1.0},
    "umls": _OF_GRAPHS,
    "vaccine-trial": {"rounds": 30, "client_lr": 1.0, "batch_size": 128},
}
_TAKE_MISSING = ("embeddings", "transformer")
# What only tables have.
_OF_TABLES = ("hidden", "impute", "standardize", "combat")
_HAVE_HIDDEN_LAYERS = ("mlp", "embeddings")

# What may differ between a run and its continuation: it changes no number of the result.
_FREE_ON_RESUME = frozenset(
    "rounds output resume checkpoint_every baselines data_dir tensorboard quiet".split()
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All choices of a run, every default filled in; what `config.json` holds.

    Attributes:
      dataset: name of a dataset, or a folder.
      batch_size: 0 for all patients of a hospital at once.
      hidden: units of the hidden layers, empty for models without.
      impute: None for models that take missing values.
      devices: None for all there are.
      lanes: None where the engine chooses.
      unit: what differential privacy protects, None without it.

    The others are as in `RunOptions`.
    """

    dataset: str
    algorithm: str
    rounds: int
    cohort: str
    seed: int
    mu: float | None
    local_epochs: int | None
    local_steps: int | None
    batch_size: int
    shuffle: bool
    client_optimizer: str
    client_lr: float
    momentum: float
    server_optimizer: str
    server_lr: float
    server_momentum: float
    weighting: str
    aggregator: str
    clip_norm: float | None
    model: str
    hidden: tuple[int, ...]
    impute: str | None
    standardize: str
    combat: bool
    precision: str
    rewrite: bool
    evaluate_every: int
    early_stop: str | None
    baselines: bool
    placement: str
    devices: int | None
    splits: int
    lanes: int | None
    checkpoint_every: int
    unit: str | None
    epsilon: float | None
    noise_multiplier: float | None
    delta: float | None

    def as_json(self) -> dict[str, Any]:
        """JSON-able, in the order of the fields."""
        return {**dataclasses.asdict(self), "hidden": list(self.hidden)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunConfig:
        """The inverse of `as_json`; raises KeyError or TypeError where that is not possible."""
        names = [field.name for field in dataclasses.fields(cls)]
        chosen: dict[str, Any] = {name: values[name] for name in names}
        return cls(**{**chosen, "hidden": tuple(chosen["hidden"])})

    @property
    def early_stopping(self) -> tuple[str, int] | None:
        """Metric and patience, or None."""
        return None if self.early_stop is None else parse_early_stop(self.early_stop)


def option_name(field: str) -> str:
    """How an option is written."""
    return "--" + field.replace("_", "-")


def resolve(
    dataset: str, options: RunOptions, kind: str | None = None, modality: str | None = None
) -> RunConfig:
    """Fills in the defaults and refuses what does not fit together.

    Args:
      dataset: name of a dataset, a folder or a schema file.
      options: what was given.
      kind: of the outcome, see `tasks.kind_of`; None as long as the data are not read.
      modality: of the examples, see `tasks.modality_of`; None as long as the data are not read.

    Raises:
      UsageError: names the option, its value and what is allowed.
    """
    o = options
    own = {
        **_DEFAULTS,
        **_DEFAULTS_OF_KIND.get(kind or "", {}),
        **_OWN_DEFAULTS.get(dataset, {}),
    }
    algorithm = o.algorithm or own["algorithm"]
    _check_numbers(o)
    if o.local_epochs is not None and o.local_steps is not None:
        raise UsageError(
            f"--local-epochs {o.local_epochs} and --local-steps {o.local_steps} exclude each "
            "other; give one of them."
        )
    _only_for(o, "mu", algorithm, ("fedprox",))
    _only_for(o, "server_momentum", algorithm, ("fedavgm",))
    _only_for(o, "server_optimizer", algorithm, _ANY_SERVER_OPTIMIZER)
    _refuse_other_than_fede(o, dataset, algorithm, modality)
    client_optimizer = o.client_optimizer or own["client_optimizer"]
    server_optimizer = algorithm if algorithm in _ADAPTIVE else o.server_optimizer or "sgd"
    if o.momentum and client_optimizer != "sgd":
        raise UsageError(
            f"--momentum {o.momentum} has no effect with --client-optimizer {client_optimizer}; "
            "it is for sgd."
        )
    model = _model(o, modality)
    is_table = modality in (None, "table")
    for name in () if is_table else _OF_TABLES:
        if getattr(o, name) is not None:
            raise UsageError(
                f"{option_name(name)} {getattr(o, name)} has no effect on {dataset}, which is no "
                f"table ({modality})."
            )
    if model not in _HAVE_HIDDEN_LAYERS and o.hidden is not None:
        raise UsageError(
            f"--hidden {o.hidden} has no effect with --model {model}; it is for "
            f"{' and '.join(_HAVE_HIDDEN_LAYERS)}."
        )
    if model in _TAKE_MISSING and o.impute is not None:
        raise UsageError(
            f"--impute {o.impute} has no effect with --model {model}, which takes missing values."
        )
    if o.aggregator == "median" and o.weighting == "examples":
        raise UsageError(
            "--weighting examples has no effect with --aggregator median, which knows no weights."
        )
    placement, devices, splits = _placement(o)
    check_privacy(o)
    unit = unit_of(o)
    batch_size = _or(o.batch_size, own["batch_size"])
    if batch_size % splits:
        raise UsageError(f"--splits {splits} must divide the batch size {batch_size} evenly.")
    if o.early_stop is not None:
        parse_early_stop(o.early_stop)
        if modality in ("responses", "series"):
            raise UsageError(
                f"--early-stop {o.early_stop} is not for {dataset}: rows kept at random would hold what "
                "others are trained on."
            )
    cohort = o.cohort or own["cohort"]
    parse_cohort(cohort)
    rounds = o.rounds or own["rounds"]
    client_lr = own["client_lr"] * _step(client_optimizer) / _step(own["client_optimizer"])
    return RunConfig(
        dataset=dataset,
        algorithm=algorithm,
        rounds=rounds,
        cohort=cohort,
        seed=o.seed or 0,
        mu=_or(o.mu, 0.1) if algorithm == "fedprox" else None,
        local_epochs=None if o.local_steps else o.local_epochs or own["local_epochs"],
        local_steps=o.local_steps,
        batch_size=batch_size,
        shuffle=_or(o.shuffle, True),
        client_optimizer=client_optimizer,
        client_lr=_or(o.client_lr, client_lr),
        momentum=o.momentum or 0.0,
        server_optimizer=server_optimizer,
        server_lr=_or(o.server_lr, _server_lr(algorithm, server_optimizer)),
        server_momentum=_or(o.server_momentum, 0.9) if algorithm == "fedavgm" else 0.0,
        weighting=o.weighting
        or ("equal" if o.aggregator == "median" or unit == "hospital" else "examples"),
        aggregator=o.aggregator or "mean",
        clip_norm=o.clip_norm,
        model=model,
        hidden=_hidden(o.hidden or "32,16") if model in _HAVE_HIDDEN_LAYERS else (),
        impute=None if model in _TAKE_MISSING or not is_table else o.impute or "median",
        standardize=o.standardize or ("global" if is_table else "none"),
        combat=_or(o.combat, False),
        precision=o.precision or "float32",
        rewrite=_or(o.rewrite, True),
        evaluate_every=o.evaluate_every or max(1, round(rounds / _NUM_EVALUATIONS)),
        early_stop=o.early_stop,
        baselines=_or(o.baselines, True),
        placement=placement,
        devices=devices,
        splits=splits,
        lanes=o.lanes,
        checkpoint_every=o.checkpoint_every or max(50, rounds // _NUM_CHECKPOINTS),
        unit=unit,
        epsilon=o.epsilon,
        noise_multiplier=o.noise_multiplier,
        delta=o.delta,
    )


def _refuse_other_than_fede(
    o: RunOptions, dataset: str, algorithm: str, modality: str | None
) -> None:
    """Graphs are learned by FedE, which shares entities and nothing else; other data are not."""
    if modality is not None and (algorithm == "fede") != (modality == "graph"):
        allowed = "must be fede for a graph" if modality == "graph" else "fede is for graphs only"
        raise UsageError(f"--algorithm {allowed}, got {algorithm} for {dataset}.")
    for name in (
        ("server_lr", "weighting", "aggregator", "clip_norm") if algorithm == "fede" else ()
    ):
        if getattr(o, name) is not None:
            raise UsageError(
                f"{option_name(name)} {getattr(o, name)} has no effect with --algorithm fede, which "
                "averages an entity over the hospitals that have it."
            )


def _step(optimizer: str) -> float:
    """How large its learning rates are, compared with those of SGD."""
    return 1.0 if optimizer == "sgd" else 0.1


def _model(o: RunOptions, modality: str | None) -> str:
    """The name of the model, which must be one of the modality."""
    known = [name for names in MODELS.values() for name in names]
    if modality is not None:
        # What is learned from genotypes are their components, a table.
        known = MODELS["table" if modality == "genotypes" else modality]
    if o.model is None:
        return "mlp" if o.hidden and modality in (None, "table") else known[0]
    if o.model not in known:
        of = "" if modality is None else f" for {modality} data"
        raise UsageError(
            f"--model must be one of {', '.join(dict.fromkeys(known))}{of}, got {o.model!r}."
        )
    return o.model


def resume(stored: RunConfig, dataset: str, options: RunOptions, folder: str) -> RunConfig:
    """The stored configuration, with the few options that may change taken over.

    Raises:
      UsageError: names the first option that disagrees, what was stored and what was given.
    """
    _check_numbers(options)
    if dataset != stored.dataset:
        raise UsageError(
            f"{folder} is the folder of another run: its dataset is {stored.dataset}, now it is "
            f"{dataset}; give another folder, or that dataset."
        )
    given = {
        field.name: value
        for field in dataclasses.fields(options)
        if (value := getattr(options, field.name)) is not None
    }
    for name, value in given.items():
        if name in _FREE_ON_RESUME:
            continue
        before = getattr(stored, name)
        if name == "hidden":
            value = _hidden(value)
        if before != value:
            raise UsageError(
                f"{option_name(name)} was {_shown(before)} in the run in {folder}, now it is "
                f"{_shown(value)}; leave it out to resume, or start a new run in another folder."
            )
    rounds = given.get("rounds", stored.rounds)
    if rounds < stored.rounds:
        raise UsageError(
            f"--rounds was {stored.rounds} in the run in {folder}, now it is {rounds}; a resumed "
            "run may be longer, not shorter."
        )
    return dataclasses.replace(
        stored,
        rounds=rounds,
        checkpoint_every=given.get("checkpoint_every", stored.checkpoint_every),
        baselines=given.get("baselines", stored.baselines),
    )


def parse_cohort(text: str) -> tuple[Literal["all", "uniform", "poisson"], float]:
    """The kind of sampling, and its number of clients or its rate."""
    if text == "all":
        return "all", 1.0
    kind, colon, rate = text.partition(":")
    try:
        if colon and kind == "poisson" and 0 < float(rate) <= 1:
            return "poisson", float(rate)
        if not colon and int(text) >= 1:
            return "uniform", float(int(text))
    except ValueError:
        pass
    raise UsageError(
        f"--cohort must be 'all', a number of clients of at least 1, or 'poisson:RATE' with a rate "
        f"above 0 and at most 1, got {text!r}."
    )


def parse_early_stop(text: str) -> tuple[str, int]:
    """'METRIC/PATIENCE'."""
    metric, slash, patience = text.partition("/")
    if not (metric and slash and patience.isdecimal() and int(patience) >= 1):
        raise UsageError(
            "--early-stop must be METRIC/PATIENCE, such as loss/5, with a patience of at least 1, "
            f"got {text!r}."
        )
    return metric, int(patience)


def _hidden(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise UsageError(
            f"--hidden must be whole numbers of at least 1 separated by commas, got {text!r}."
        )
    return tuple(int(part) for part in parts)


def _placement(o: RunOptions) -> tuple[str, int | None, int]:
    splits, devices = o.splits or 1, o.devices
    default = "mesh" if splits > 1 else "pmap" if (devices or 1) > 1 else "one-device"
    placement = o.placement or default
    if splits > 1 and placement != "mesh":
        raise UsageError(f"--splits {splits} has no effect with --placement {placement}.")
    if placement == "one-device":
        if (devices or 1) > 1:
            raise UsageError(
                f"--devices {devices} does not fit --placement one-device; use pmap or mesh."
            )
        devices = 1
    return placement, devices, splits


def _server_lr(algorithm: str, server_optimizer: str) -> float:
    if server_optimizer != "sgd":
        return 0.03
    return 0.3 if algorithm == "fedsgd" else 1.0


def _check_numbers(o: RunOptions) -> None:
    """Ranges of single options."""
    for name in (
        "rounds local_epochs local_steps evaluate_every checkpoint_every devices splits lanes"
    ).split():
        value = getattr(o, name)
        if value is not None and value < 1:
            raise UsageError(f"{option_name(name)} must be at least 1, got {value}.")
    if o.batch_size is not None and o.batch_size < 0:
        raise UsageError(
            "--batch-size must be at least 1, or 0 for all patients of a hospital at once, got "
            f"{o.batch_size}."
        )
    for name in ("client_lr", "server_lr", "clip_norm"):
        value = getattr(o, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"{option_name(name)} must be above 0 and finite, got {value}.")
    for name in ("momentum", "server_momentum"):
        value = getattr(o, name)
        if value is not None and not 0 <= value < 1:
            raise UsageError(f"{option_name(name)} must be from 0 to below 1, got {value}.")
    if o.mu is not None and not (math.isfinite(o.mu) and o.mu >= 0):
        raise UsageError(f"--mu must be 0 or more and finite, got {o.mu}.")
    if o.seed is not None and not 0 <= o.seed < 2**32:
        raise UsageError(f"--seed must be from 0 to {2**32 - 1}, got {o.seed}.")


def _only_for(o: RunOptions, name: str, algorithm: str, allowed: tuple[str, ...]) -> None:
    value = getattr(o, name)
    if value is not None and algorithm not in allowed:
        raise UsageError(
            f"{option_name(name)} {value} has no effect with --algorithm {algorithm}; it is for "
            f"{', '.join(allowed)}."
        )


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "not set"
    return "not set" if value is None else str(value)
