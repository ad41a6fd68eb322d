"""What a study does, and what is known to be good for each dataset."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import optax

from fedjax_med.preprocessing.imputation import Method as Impute
from fedjax_med.preprocessing.preprocessor import Standardize
from fedjax_med.studies.methods import METHODS
from fedjax_med.tasks.modalities import NETWORKS, Modality


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All choices of a study.

    Attributes:
      methods: keys of `METHODS`.
      model: of tables "linear", "mlp", "embeddings" or "transformer"; else one of
        `tasks.modalities.NETWORKS`.
      hidden: units of hidden layers, for "mlp" and "embeddings"; 32 and 16 if empty.
      rounds: federated rounds of every training.
      local_epochs: passes of a hospital over its patients in a round.
      batch_size: patients of a minibatch; 0 for all of a hospital at once.
      client_optimizer: "sgd", "momentum" (SGD with a momentum of 0.9) or "adam", new every round.
      learning_rates: of the clients, one is chosen for each method.
      num_seeds: trainings that differ in nothing but the seed.
      division: "random" for repeated random divisions into training and test patients; "own" for the
        dataset's own, such as an official test set or a later time, learning rates being chosen on its
        validation patients if it has some.
      num_splits: random divisions; 1 for the dataset's own.
      test: share of test patients in random divisions.
      leave_one_out: whether every hospital is left out once.
      impute: how missing values are filled in, see `Preprocessor.fit`; models that take missing
        values are given them.
      standardize: "global" or "per-client".
      num_resamples: of bootstrap intervals; 0 for none.
      seed: root of all randomness.

    Raises:
      ValueError: names the setting that does not fit.
    """

    methods: tuple[str, ...] = tuple(METHODS)
    model: str = "linear"
    hidden: tuple[int, ...] = ()
    rounds: int = 50
    local_epochs: int = 1
    batch_size: int = 16
    client_optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    learning_rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)
    num_seeds: int = 5
    division: Literal["random", "own"] = "random"
    num_splits: int = 5
    test: float = 0.3
    leave_one_out: bool = True
    impute: Impute = "median"
    standardize: Standardize = "global"
    num_resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the settings."""
        for method in self.methods:
            if method not in METHODS:
                raise ValueError(f"methods must be among {', '.join(METHODS)}, got {method!r}.")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods must name some, each once, got {self.methods!r}.")
        own = [name for name in self.methods if METHODS[name].only_sgd]
        if own and self.client_optimizer == "adam":
            raise ValueError(
                f"methods must not have {own[0]!r} with client_optimizer 'adam'; its steps are those "
                "of SGD."
            )
        exact = [name for name in self.methods if METHODS[name].exact]
        if exact and self.model != "linear":
            raise ValueError(
                f"methods must not have {exact[0]!r} with model {self.model!r}; it is for linear models."
            )
        if self.client_optimizer not in OPTIMIZERS:
            raise ValueError(
                f"client_optimizer must be {', '.join(OPTIMIZERS)}, got {self.client_optimizer!r}."
            )
        if self.division not in ("random", "own"):
            raise ValueError(f"division must be 'random' or 'own', got {self.division!r}.")
        if self.division == "own" and self.num_splits != 1:
            raise ValueError(
                f"num_splits must be 1 with the dataset's own division, got {self.num_splits}."
            )
        if self.hidden and self.model not in ("mlp", "embeddings"):
            raise ValueError(
                f"hidden {list(self.hidden)} has no effect with model {self.model!r}; it is for mlp and "
                "embeddings."
            )
        for name, least in (
            ("rounds", 1),
            ("local_epochs", 1),
            ("batch_size", 0),
            ("num_seeds", 1),
            ("num_splits", 1 if self.division == "own" else 2),
            ("num_resamples", 0),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        if not 0 < self.test < 1:
            raise ValueError(f"test must be above 0 and below 1, got {self.test}.")
        if not self.learning_rates or not all(rate > 0 for rate in self.learning_rates):
            raise ValueError(f"learning_rates must be above 0, got {self.learning_rates}.")

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self)


OPTIMIZERS: Mapping[str, Callable[[Any], optax.GradientTransformation]] = MappingProxyType(
    {"sgd": optax.sgd, "momentum": lambda rate: optax.sgd(rate, momentum=0.9), "adam": optax.adam}
)

# What differs from the defaults; larger minibatches where hospitals are large, for speed.
BY_DATASET: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "diabetes130": {"rounds": 20, "batch_size": 128, "num_splits": 3, "num_resamples": 200},
        # Risk sets are whole hospitals; several local steps, or all methods would be the same.
        "tcga-brca": {"batch_size": 0, "local_epochs": 5, "rounds": 20},
        "ncctg-lung": {"batch_size": 0, "local_epochs": 5, "rounds": 20},
        "vaccine-trial": {
            "batch_size": 256,
            "rounds": 20,
            "learning_rates": (0.03, 0.1, 0.3, 1.0),
            "num_splits": 3,
            "num_resamples": 50,  # concordance takes time in events x patients
        },
        "synthetic-ehr": {
            "division": "own",
            "client_optimizer": "adam",
            "learning_rates": (0.001, 0.003, 0.01),
            "rounds": 15,
            "batch_size": 32,
            "num_resamples": 300,
        },
        "diabetes130-visits": {
            "division": "own",
            "client_optimizer": "adam",
            "learning_rates": (0.001, 0.003, 0.01),
            "rounds": 6,
            "batch_size": 64,
            "num_resamples": 300,
        },
        # Small networks, so that a study takes minutes on a CPU.
        "synthetic-scans": {
            "model": "small-unet",
            "division": "own",
            "client_optimizer": "adam",
            "learning_rates": (0.003, 0.01),
            "rounds": 30,
            "batch_size": 4,
        },
        "synthetic-volumes": {
            "model": "small-unet",
            "division": "own",
            "client_optimizer": "adam",
            "learning_rates": (0.003, 0.01),
            "rounds": 15,
            "batch_size": 4,
        },
        # The official test images; a hospital has a hundred (or a thousand) to train on.
        "breast-mnist": {
            "division": "own",
            "client_optimizer": "adam",
            "learning_rates": (0.001, 0.003, 0.01),
            "rounds": 20,
            "batch_size": 16,
        },
        "pneumonia-mnist": {
            "division": "own",
            "client_optimizer": "adam",
            "learning_rates": (0.003,),
            "rounds": 5,
            "batch_size": 32,
        },
        # Later minutes of each patient are judged.
        "mitbih-beats": {
            "division": "own",
            "learning_rates": (0.03, 0.1, 0.3),
            "rounds": 15,
            "batch_size": 32,
            "num_resamples": 200,
        },
        "mitbih-rr": {
            "model": "gru",
            "division": "own",
            "learning_rates": (0.3, 1.0),
            "rounds": 10,
            "batch_size": 64,
            "num_resamples": 50,  # of some hundred thousand beats
        },
        # Patients' own voices have outliers, on which larger steps diverge.
        "parkinsons-telemonitoring": {
            "batch_size": 32,
            "rounds": 100,
            "learning_rates": (0.0003, 0.001, 0.003, 0.01),
        },
    }
)


def settings_for(dataset: str, modality: Modality = "table", **chosen: Any) -> Settings:
    """The default settings of a dataset by its name, with what was chosen instead.

    Methods that do not fit the model or the optimizer are left out of the default ones.

    Args:
      dataset: its name.
      modality: of the dataset, see `tasks.modality_of`.
      chosen: settings.

    Raises:
      ValueError: names the setting that does not fit.
    """
    values = {**BY_DATASET.get(dataset, {}), **chosen}
    if modality != "table":
        values = {"leave_one_out": False, "learning_rates": (0.01, 0.03, 0.1)} | values
        values.setdefault("model", next(iter(NETWORKS.get(modality, {"linear": None}))))
    if values.get("division") == "own":
        values.setdefault("num_splits", 1)
    linear = values.get("model", "linear") == "linear"
    adaptive = values.get("client_optimizer") == "adam"
    fitting = [
        name
        for name, method in METHODS.items()
        if (linear or not method.exact) and not (adaptive and method.only_sgd)
    ]
    values.setdefault("methods", tuple(fitting))
    return Settings(**values)
