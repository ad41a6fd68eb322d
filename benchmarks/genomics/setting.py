"""The data of the benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fedjax_med.data import FederatedDataset

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
