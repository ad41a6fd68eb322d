"""Methods that learn responses of patients to drugs, on every division of the patients at once.

All divisions of a method are one compiled call. Rates are fixed, nothing is tuned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import optax

from fedjax_med import algorithms as fm
from fedjax_med import tasks
from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.datasets._gdsc import (
    ask_for_the_others,
    patients_held_out,
    responses_held_out,
    whole_matrix,
)
from fedjax_med.engine import Experiments, FederatedAlgorithm, epochs, simulate
from fedjax_med.evaluation import predict_experiments
from fedjax_med.evaluation.recommendation import ndcg_at_k, precision_at_k, spearman
from fedjax_med.models import Model
from fedjax_med.tasks.modalities import NETWORKS
from fedjax_med.tasks.response import DrugScale

K = 5  # drugs that are recommended
KNOWN = 20  # responses of a new patient
TEST = 0.2
RESPONSES, PATIENTS, LEFT_OUT = "responses", "patients", "hospital left out"
_KEYS = ("x", "y", "measured")


class Method(NamedTuple):
    """A row of the table.

    Attributes:
      title: its name in tables.
      model: a key of `NETWORKS["responses"]`.
      build: `gradient -> algorithm`.
      personal: whether clients are judged by models of their own.
      is_baseline: whether nothing is federated.
      pooled: whether all rows are at one client.
      left_out: whether hospitals are left out as well.
      explained: what it is, for baselines.
    """

    title: str
    model: str
    build: Callable[[Any], FederatedAlgorithm]
    personal: bool = False
    is_baseline: bool = False
    pooled: bool = False
    left_out: bool = False
    explained: str = ""


def _factors() -> optax.GradientTransformation:
    return optax.adam(0.03)


def _encoder() -> optax.GradientTransformation:
    return optax.adam(0.01)


_FACTORS, _ENCODER = "factorisation", "autoencoder"
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "fedavg": Method(
            "factorisation, FedAvg", _FACTORS, lambda g: fm.fed_avg(g, _factors()), left_out=True
        ),
        "fedprox": Method(
            "factorisation, FedProx", _FACTORS, lambda g: fm.fed_prox(g, _factors(), mu=0.01)
        ),
        "fedadam": Method(
            "factorisation, FedAdam",
            _FACTORS,
            lambda g: fm.fed_adam(g, _factors(), server_learning_rate=0.03),
        ),
        "ditto": Method(
            "factorisation, Ditto",
            _FACTORS,
            lambda g: fm.ditto(g, _factors(), lam=0.1),
            personal=True,
        ),
        "local": Method(
            "factorisation, alone",
            _FACTORS,
            lambda g: fm.local_only(g, _factors()),
            personal=True,
            is_baseline=True,
            explained="each hospital trains on its own patients and shares nothing",
        ),
        "pooled": Method(
            "factorisation, pooled",
            _FACTORS,
            lambda g: fm.fed_avg(g, _factors()),
            is_baseline=True,
            pooled=True,
            explained="one model trained on the patients of all hospitals in one place",
        ),
        "autoencoder-fedavg": Method(
            "autoencoder, FedAvg", _ENCODER, lambda g: fm.fed_avg(g, _encoder())
        ),
        "autoencoder-fedper": Method(
            "autoencoder, FedPer (own encoder)",
            _ENCODER,
            lambda g: fm.fed_per(
                g, _encoder(), is_personal=fm.layers("encoder"), weighting=fm.by_examples
            ),
            personal=True,
        ),
        "autoencoder-pooled": Method(
            "autoencoder, pooled",
            _ENCODER,
            lambda g: fm.fed_avg(g, _encoder()),
            is_baseline=True,
            pooled=True,
        ),
    }
)
FEDERATED = tuple(name for name, method in METHODS.items() if not method.is_baseline)


class Population(NamedTuple):
    """A division.

    Attributes:
      setting: `RESPONSES`, `PATIENTS` or `LEFT_OUT`.
      dataset: scaled rows of all hospitals.
      scale: of every drug.
      members: hospitals that train.
      judged: hospitals that are judged.
      seeds: of the training; divisions of a setting have different ones.
    """

    setting: str
    dataset: FederatedDataset
    scale: DrugScale
    members: tuple[int, ...]
    judged: tuple[int, ...]
    seeds: tuple[int, ...]


def populations(
    dataset: FederatedDataset, seeds: Sequence[int], *, seeds_left_out: Sequence[int]
) -> list[Population]:
    """Both divisions for every seed, and every hospital left out if that has seeds."""
    whole = whole_matrix(dataset)
    everyone = tuple(range(whole.num_clients))
    parts = []
    for setting in (RESPONSES, PATIENTS):
        for seed in seeds:
            raw = (
                responses_held_out(whole, test=TEST, seed=seed)
                if setting == RESPONSES
                else patients_held_out(whole, test=TEST, known=KNOWN, seed=seed)
            )
            scale = tasks.drug_scale(raw)
            parts.append(Population(setting, scale.apply(raw), scale, everyone, everyone, (seed,)))
    for index in everyone if seeds_left_out else ():
        others = tuple(i for i in everyone if i != index)
        scale = tasks.drug_scale(whole.select([whole.client_names[i] for i in others]))
        asked = ask_for_the_others(whole.train.examples["x"], KNOWN, 0)
        divided = scale.apply(whole.replace(test=ClientArrays(asked, whole.train.sizes)))
        parts.append(Population(LEFT_OUT, divided, scale, others, (index,), tuple(seeds_left_out)))
    return parts


def joined(parts: Sequence[Population], pooled: bool) -> FederatedDataset:
    """One dataset of the clients of all divisions."""
    datasets = [p.dataset.pooled() if pooled else p.dataset for p in parts]
    splits = {
        split: ClientArrays(
            {
                key: np.concatenate([d.splits()[split].examples[key] for d in datasets])
                for key in _KEYS
            },
            np.concatenate([d.splits()[split].sizes for d in datasets]),
        )
        for split in ("train", "test")
    }
    names = [f"{i}: {name}" for i, d in enumerate(datasets) for name in d.client_names]
    return datasets[0].replace(client_names=tuple(names), **splits)


class Outputs(NamedTuple):
    """Standardised outputs `[rows, drugs]` of a division's model for its test rows."""

    population: int
    seed: int
    outputs: np.ndarray


def train(
    method: Method, parts: Sequence[Population], *, rounds: int, batch_size: int
) -> list[Outputs]:
    """Trains a method on all divisions and seeds in one call."""
    dataset = joined(parts, method.pooled)
    model: Model = NETWORKS["responses"][method.model](parts[0].dataset, 0)
    task = tasks.masked_responses(model, dataset.train.examples)
    algorithm = method.build(task.gradient)
    each = [(i, seed) for i, part in enumerate(parts) for seed in part.seeds]
    size = 1 if method.pooled else parts[0].dataset.num_clients
    members = tuple(
        np.array([i]) if method.pooled else size * i + np.array(parts[i].members) for i, _ in each
    )
    run = simulate(
        algorithm,
        dataset,
        task=task,
        rounds=rounds,
        local_work=epochs(1, batch_size=batch_size),
        experiments=Experiments(tuple(seed for _, seed in each), {}, members),
    )
    predictions = predict_experiments(
        run,
        dataset,
        model,
        algorithm=algorithm if method.personal else None,
        link=lambda outputs: outputs,
        labels=lambda examples: examples["y"],
    )
    first = np.cumsum([0, *(p.dataset.splits()["test"].num_examples for p in parts)])
    return [
        Outputs(i, seed, prediction.outputs[first[i] : first[i + 1]])
        for (i, seed), prediction in zip(each, predictions, strict=True)
    ]


def judged(population: Population, outputs: np.ndarray) -> dict[str, Any]:
    """Metrics of standardised outputs `[rows, drugs]` for the hospitals that are judged.

    Returns:
      `rmse` in the unit of the responses, `spearman` (mean over drugs), `precision` and `ndcg` (mean
      over rows) as numbers, None where not defined; and by hospital `rmse_by_client` and so on, but for
      `spearman`, for which most hospitals have too few patients.
    """
    arrays = population.dataset.splits()["test"]
    rows = arrays.row_indices(population.judged)
    e = {key: value[rows] for key, value in arrays.examples.items()}
    z, known = outputs[rows].astype(np.float64), e["measured"]
    error = np.where(known, (z - e["y"]) * population.scale.scale, 0)
    client = np.repeat(np.arange(len(population.judged)), arrays.sizes[list(population.judged)])
    with np.errstate(over="ignore"):
        gain = np.where(known, 2.0 ** -e["y"].astype(np.float64), 0)
    precision = precision_at_k(-z, -e["y"], K, known)
    ndcg = ndcg_at_k(-z, gain, K, known)
    found: dict[str, Any] = {
        "rmse": float(np.sqrt((error**2).sum() / known.sum())),
        "spearman": _mean(spearman(z, e["y"], known)),
        "precision": _mean(precision),
        "ndcg": _mean(ndcg),
    }
    for key, own in (("precision", precision), ("ndcg", ndcg)):
        found[f"{key}_by_client"] = [_mean(own[client == c]) for c in range(len(population.judged))]
    found["rmse_by_client"] = [
        float(np.sqrt((error[client == c] ** 2).sum() / known[client == c].sum()))
        for c in range(len(population.judged))
    ]
    return found


def _mean(values: np.ndarray) -> float | None:
    return float(np.nanmean(values)) if np.isfinite(values).any() else None
