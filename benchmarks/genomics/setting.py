"""The data of the benchmark and its simulated outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fedjax_med.data import FederatedDataset

NUM_COMPONENTS = 10
HERITABILITY = 0.5
SITE_SHIFT = 1.0
THRESHOLD = 1e-4
Record = dict[str, Any]


def genotypes() -> tuple[FederatedDataset, Any]:
    """The autosomal SNPs, and what is known of them."""
    from fedjax_med import datasets, genomics

    snps = datasets.hapmap3_snps()
    autosomal = np.flatnonzero(genomics.is_autosomal(snps.chromosome))
    chosen = type(snps)(
        tuple(snps.name[i] for i in autosomal),
        tuple(snps.chromosome[i] for i in autosomal),
        snps.position[autosomal],
        tuple(snps.allele[i] for i in autosomal),
        tuple(snps.other[i] for i in autosomal),
    )
    return genomics.select_snps(datasets.hapmap3(), autosomal), chosen


def rows_of(dataset: FederatedDataset, chosen: np.ndarray) -> FederatedDataset:
    """The dataset with some of its people, bool `[N]`."""
    from fedjax_med.data import ClientArrays, FederatedDataset

    client = np.repeat(np.arange(dataset.num_clients), dataset.train.sizes)[chosen]
    sizes = np.bincount(client, minlength=dataset.num_clients)
    x = dataset.train.examples["x"][chosen]
    return FederatedDataset(dataset.name, dataset.client_names, ClientArrays({"x": x}, sizes))


def outcomes(dataset: FederatedDataset, seeds: Sequence[int]) -> np.ndarray:
    from fedjax_med import genomics

    made = [
        genomics.simulate_phenotype(
            dataset, heritability=HERITABILITY, site_shift=SITE_SHIFT, seed=seed
        )
        for seed in seeds
    ]
    return np.column_stack([m.outcome for m in made])


def within(score: np.ndarray, outcome: np.ndarray, client: np.ndarray) -> float:
    """Squared correlation within populations: both less the means of their population."""
    from fedjax_med import genomics

    def less(values: np.ndarray) -> np.ndarray:
        totals = np.bincount(client, values, minlength=client.max() + 1)
        return values - (totals / np.maximum(np.bincount(client), 1))[client]

    return genomics.explained(less(score), less(outcome))
