"""Outcomes with known effects, simulated on real genotypes: to see what an analysis finds of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedjax_med.data import FederatedDataset
from fedjax_med.preprocessing.columns import table_of

_COMMON = 0.05  # least frequency of the rarer allele of a causal SNP


class Phenotype(NamedTuple):
    """An outcome, and what it was made of.

    Attributes:
      outcome: float64 `[N]`, of the training rows.
      genetic: float64 `[N]`, the part that SNPs make.
      causal: int64 `[causal]`, positions of these SNPs, ascending.
      effects: float64 `[causal]`, per copy of the counted allele.
    """

    outcome: np.ndarray
    genetic: np.ndarray
    causal: np.ndarray
    effects: np.ndarray


def simulate_phenotype(
    dataset: FederatedDataset,
    *,
    heritability: float = 0.5,
    num_causal: int = 20,
    site_shift: float = 0.0,
    seed: int = 0,
) -> Phenotype:
    """Draws `genetic + site + noise` for the training rows of all clients.

    Effects of standardised SNPs are normal, and scaled so that the genetic part has the variance
    `heritability` over all people; noise is normal with the rest of 1. On top of it everybody of a
    client has the same normal shift, as an environment would make it: in populations that differ
    genetically it is what confounds associations.

    Args:
      dataset: genotypes; missing ones count for the mean.
      heritability: from 0 to 1.
      num_causal: SNPs with an effect, drawn of those with a minor frequency of at least 0.05.
      site_shift: standard deviation of the clients' shifts.
      seed: of all draws.

    Raises:
      ValueError: if an argument is out of range.
    """
    if not 0 <= heritability <= 1:
        raise ValueError(f"heritability must be between 0 and 1, got {heritability!r}.")
    if not site_shift >= 0:
        raise ValueError(f"site_shift must be 0 or more, got {site_shift!r}.")
    x = table_of(dataset.train)
    called = np.maximum((~np.isnan(x)).sum(axis=0), 1)
    mean = np.nansum(x, axis=0, dtype=np.float64) / called
    common = np.flatnonzero(np.minimum(mean, 2 - mean) >= 2 * _COMMON)
    if not 1 <= num_causal <= common.size:
        raise ValueError(
            f"num_causal must be between 1 and {common.size}, the SNPs with a minor frequency of at "
            f"least {_COMMON:g}, got {num_causal}."
        )
    rng = np.random.default_rng(seed)
    causal = np.sort(rng.choice(common, num_causal, replace=False))
    g = x[:, causal].astype(np.float64) - mean[causal]
    g = np.where(np.isnan(g), 0, g)
    effects = rng.normal(size=num_causal) / g.std(axis=0)
    effects *= np.sqrt(heritability) / (g @ effects).std()
    shift = site_shift * rng.normal(size=dataset.num_clients)
    noise = np.sqrt(1 - heritability) * rng.normal(size=len(x))
    genetic = g @ effects
    outcome = genetic + np.repeat(shift, dataset.train.sizes) + noise
    return Phenotype(outcome, genetic, causal, effects)
