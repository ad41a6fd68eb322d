"""Polygenic scores of simulated outcomes on real genotypes, federated and not.

Outcomes have known effects (`genomics.simulate_phenotype`), and a shift of every hospital, which is what
confounds. A fifth of each hospital's people is kept out, the same for all outcomes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from fedjax_med import genomics
from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.genomics import Association
from fedjax_med.studies.genotype_references import (
    HERITABILITY,
    THRESHOLD,
    dual_ridge,
    local_clumped,
    simple_regression,
)

SITE_SHIFT = 1.0
_FOLDS = 5


def rows_of(dataset: FederatedDataset, chosen: np.ndarray) -> FederatedDataset:
    """The genotypes of some of the training people, bool `[N]`."""
    client = np.repeat(np.arange(dataset.num_clients), dataset.train.sizes)[chosen]
    sizes = np.bincount(client, minlength=dataset.num_clients)
    x = dataset.train.examples["x"][chosen]
    return FederatedDataset(dataset.name, dataset.client_names, ClientArrays({"x": x}, sizes))


def phenotypes(dataset: FederatedDataset, seeds: Sequence[int]) -> list[genomics.Phenotype]:
    """An outcome for every seed."""
    return [
        genomics.simulate_phenotype(
            dataset, heritability=HERITABILITY, site_shift=SITE_SHIFT, seed=seed
        )
        for seed in seeds
    ]


def outcomes(dataset: FederatedDataset, seeds: Sequence[int]) -> np.ndarray:
    """Outcomes `[N, seeds]`."""
    return np.column_stack([made.outcome for made in phenotypes(dataset, seeds)])


def kept_out(dataset: FederatedDataset) -> np.ndarray:
    """A fifth of each hospital's people, bool `[N]`."""
    sizes = dataset.train.sizes
    client = np.repeat(np.arange(dataset.num_clients), sizes)
    order = np.random.default_rng(0).permutation(len(client))
    place = np.empty(len(client), int)
    for i in range(dataset.num_clients):
        mine = order[client[order] == i]
        place[mine] = np.arange(len(mine)) * _FOLDS // len(mine)
    return place == 0


def within(score: np.ndarray, outcome: np.ndarray, client: np.ndarray) -> float:
    """Squared correlation within hospitals: both less the means of their hospital."""

    def less(values: np.ndarray) -> np.ndarray:
        totals = np.bincount(client, values, minlength=client.max() + 1)
        return values - (totals / np.maximum(np.bincount(client), 1))[client]

    return genomics.explained(less(score), less(outcome))


def meta_analysis(dataset: FederatedDataset, outcome: np.ndarray) -> Association:
    """The regressions of every hospital, averaged with inverse variances as weights.

    What leaves a hospital: effect and standard error of every SNP.
    """
    offsets = dataset.train.offsets
    x = dataset.train.examples["x"]
    own = [
        simple_regression(x[begin:end], outcome[begin:end])
        for begin, end in itertools.pairwise(offsets)
    ]
    with np.errstate(divide="ignore"):
        weight = np.array([np.where(np.isfinite(se) & (se > 0), 1 / se**2, 0) for _, se in own])
    effect = np.nan_to_num([effect for effect, _ in own])
    total = weight.sum(axis=0)
    safe = np.where(total > 0, total, 1)
    mean = (weight * effect).sum(axis=0) / safe
    z = mean * np.sqrt(safe)
    return Association(mean, 1 / np.sqrt(safe), z, genomics.log10_p_of_z(z))


def clumped(
    train: FederatedDataset, outcome: np.ndarray, found: Association, new: np.ndarray
) -> np.ndarray:
    """Predictions `[new]` from the SNPs below the threshold."""
    score = genomics.clumped_score(train, outcome, found, threshold=THRESHOLD)
    return score.predict(new)


def ridge(
    train: FederatedDataset, y: np.ndarray, new: np.ndarray, *, tolerance: float
) -> np.ndarray:
    """Predictions `[new, outcomes]` from all SNPs."""
    score = genomics.ridge_score(train, y, heritability=HERITABILITY, tolerance=tolerance)
    return score.predict(new)


def alone(
    dataset: FederatedDataset, y: np.ndarray, tested: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ridge and clumped scores `[tested, outcomes]` of hospitals that use their own people only."""
    x = dataset.train.examples["x"]
    client = np.repeat(np.arange(dataset.num_clients), dataset.train.sizes)
    local = np.zeros((int(tested.sum()), y.shape[1]))
    own = np.zeros_like(local)
    for i in range(dataset.num_clients):
        mine, test = ~tested & (client == i), client[tested] == i
        local[test] = dual_ridge(x[mine], y[mine], x[tested][test])
        for column in range(y.shape[1]):
            own[test, column] = local_clumped(x[mine], y[mine, column], x[tested][test])
    return local, own
