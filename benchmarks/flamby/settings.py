"""The two datasets as FLamby has them: inputs, model, loss, budget and hyperparameters.

Everything a centre has is there twice, with FLamby's inputs and with inputs on one scale for
everybody, so that both are trained in one compiled call: a dataset holds the clients of both, and an
experiment is about those of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from benchmarks.flamby.strategies import Rates
from fedjax_med import datasets, models, tasks
from fedjax_med.data import FederatedDataset
from fedjax_med.data.standardize import fit, fit_per_client
from fedjax_med.engine import Task, Variables, epochs, steps
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.evaluation import Outcome
from fedjax_med.evaluation.concordance import c_index

INPUTS = ("FLamby's", "federated")
EVERYBODY = "everybody"
_INIT_STREAM = 0x666C616D  # apart from other draws of the same seed


class Setting(NamedTuple):
    """A dataset with its protocol.

    Attributes:
      name: of the dataset.
      metric_name: in words.
      centres: names of the centres, in FLamby's order.
      inputs: dataset of the centres for each of `INPUTS`.
      pooled_inputs: the inputs that the pooled model is trained on, for each of `INPUTS`.
      task: model and loss.
      likelihood: the same in full batches, from 0, for Newton's method.
      labels: `(examples) -> labels`, as `score` takes them.
      score: `(logits or log hazards [models, N], labels, weight [..., N]) -> metric [...]` of a
        centre, mean over models.
      rates: learning rates of every strategy, from FLamby's configuration.
      rounds: of local work.
      local_work: 100 minibatches; the next round goes on where this one stopped.
      alone_work: of models trained pooled or alone, with Adam.
      adam_rate: its learning rate.
    """

    name: str
    metric_name: str
    centres: tuple[str, ...]
    inputs: dict[str, FederatedDataset]
    pooled_inputs: dict[str, FederatedDataset]
    task: Task
    likelihood: Task
    labels: Callable[[dict[str, np.ndarray]], Any]
    score: Callable[..., np.ndarray]
    rates: dict[str, Rates]
    rounds: int
    local_work: LocalWork
    alone_work: LocalWork
    adam_rate: float

    def both(self) -> FederatedDataset:
        """The centres with FLamby's inputs, then those with federated inputs."""
        return _together({f"{how} ": self.inputs[how] for how in INPUTS})

    def both_and_everybody(self) -> FederatedDataset:
        """For each of `INPUTS` the centres, and a client that has all of their examples."""
        parts = {}
        for how in INPUTS:
            parts[f"{how} "] = self.inputs[how]
            parts[f"{how} {EVERYBODY} "] = self.pooled_inputs[how].pooled()
        return _together(parts)

    def members(self, how: str) -> np.ndarray:
        """Positions in `both()` of the centres with these inputs."""
        return INPUTS.index(how) * len(self.centres) + np.arange(len(self.centres))

    def outputs(self, params: dict[str, np.ndarray], how: str, split: str = "test") -> np.ndarray:
        """Outputs `[..., N]` of models `[..., features, 1]` for all centres' examples."""
        x = self.inputs[how].splits()[split].examples["x"].astype(np.float64)
        kernel = np.asarray(params["kernel"], np.float64)[..., 0]
        return kernel @ x.T + np.asarray(params["bias"], np.float64)


def _together(parts: dict[str, FederatedDataset]) -> FederatedDataset:
    clients = {
        prefix + name: part.train.client(index)
        for prefix, part in parts.items()
        for index, name in enumerate(part.client_names)
    }
    return FederatedDataset.from_clients(clients, name="both")


def torch_linear(seed: int, num_features: int) -> Variables:
    """PyTorch's `Linear(num_features, 1)`: all from U(-1 / sqrt(features), 1 / sqrt(features))."""
    bound = num_features**-0.5
    drawn = np.random.default_rng([_INIT_STREAM, seed]).uniform(-bound, bound, num_features + 1)
    drawn = drawn.astype(np.float32)
    return Variables({"kernel": jnp.asarray(drawn[:-1, None]), "bias": jnp.asarray(drawn[-1:])})


def started_as_in_pytorch(task: Task, num_features: int) -> Task:
    """The task of a linear model, with PyTorch's initial values."""
    return task._replace(init=lambda seed: torch_linear(seed, num_features))


def accuracy(logits: np.ndarray, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Share of right predictions where the probability is cut at 0.5, mean over models."""
    right = (logits > 0) == (label > 0)[None]
    return weight @ right.mean(axis=0) / weight.sum(-1)


def concordance(risk: np.ndarray, outcome: Outcome, weight: np.ndarray) -> np.ndarray:
    """Harrell's C-index with lifelines' conventions, mean over models.

    Which pairs can be compared depends on no model, so for thousands of resamples models are
    averaged within pairs.
    """
    if len(risk) == 1:
        return c_index(risk[0], outcome, weight)
    time, event = np.asarray(outcome.time), np.asarray(outcome.event)
    i = np.flatnonzero(event)
    later = (time[i, None] < time) | ((time[i, None] == time) & ~event)
    right = [(r[i, None] > r) + 0.5 * (r[i, None] == r) for r in risk]
    earlier = weight[..., i]
    comparable = (earlier * (weight @ later.T)).sum(-1)
    concordant = (earlier * (weight @ (later * np.mean(right, axis=0)).T)).sum(-1)
    defined = np.where(comparable > 0, comparable, 1.0)
    return np.where(comparable > 0, concordant / defined, np.nan)


def heart_disease(data_dir: str | None) -> Setting:
    """Fed-Heart-Disease; its inputs are standardised within every centre.

    The pooled model is trained on inputs standardised over all centres, and judged on test examples
    standardised within theirs, as in FLamby.
    """
    raw = datasets.load("heart-disease", data_dir=data_dir, standardize=None)
    everywhere = fit(raw, ddof=1, epsilon=1e-9).apply(raw)
    likelihood = tasks.binary_classification(models.linear(), raw.train.examples)
    return Setting(
        name="heart-disease",
        metric_name="accuracy",
        centres=raw.client_names,
        inputs={"FLamby's": fit_per_client(raw).apply(raw), "federated": everywhere},
        pooled_inputs={"FLamby's": everywhere, "federated": everywhere},
        task=started_as_in_pytorch(likelihood, len(raw.feature_names)),
        likelihood=likelihood,
        labels=lambda examples: examples["y"],
        score=accuracy,
        rates={
            "FedAvg": Rates(0.001),
            "FedProx": Rates(0.001, mu=0.01),
            "SCAFFOLD": Rates(0.001),
            "Cyclic": Rates(0.01),
            "FedAdagrad": Rates(0.003162, server=0.316228),
            "FedAdam": Rates(0.01, server=0.01),
            "FedYogi": Rates(0.003162, server=0.01),
        },
        rounds=15,
        local_work=steps(100, batch_size=4),
        alone_work=epochs(50, batch_size=4),
        adam_rate=1e-3,
    )


def tcga_brca(data_dir: str | None) -> Setting:
    """Fed-TCGA-BRCA; age is in years in its inputs, all else are indicators."""
    raw = datasets.load("tcga-brca", data_dir=data_dir, standardize=None)
    scaled = fit(raw, columns=["age_at_index"], ddof=1).apply(raw)
    return Setting(
        name="tcga-brca",
        metric_name="C-index",
        centres=raw.client_names,
        inputs={"FLamby's": raw, "federated": scaled},
        pooled_inputs={"FLamby's": raw, "federated": scaled},
        # Tied patients one after the other and the mean over all of a minibatch, as in FLamby.
        task=started_as_in_pytorch(
            tasks.cox(models.linear(), raw.train.examples, ties="order"), len(raw.feature_names)
        ),
        likelihood=tasks.cox(models.linear(), raw.train.examples),
        labels=lambda examples: Outcome(examples["time"], examples["event"] > 0),
        score=concordance,
        rates={
            "FedAvg": Rates(0.1),
            "FedProx": Rates(0.1, mu=0.1),
            "SCAFFOLD": Rates(0.01),
            "Cyclic": Rates(0.01),
            "FedAdagrad": Rates(0.01, server=1.0),
            "FedAdam": Rates(0.01, server=0.1),
            "FedYogi": Rates(0.01, server=0.1),
        },
        rounds=5,
        local_work=steps(100, batch_size=8),
        alone_work=epochs(30, batch_size=8),
        adam_rate=0.1,
    )


SETTINGS: dict[str, Callable[[str | None], Setting]] = {
    "heart-disease": heart_disease,
    "tcga-brca": tcga_brca,
}
