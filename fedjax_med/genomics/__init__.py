"""Federated genetics: quality control, structure, associations and scores from sums over hospitals.

Everything is computed from what hospitals sum over their own people, through the `run_clients` of
training, and equals the analysis of the pooled people up to rounding. Genotypes are dosages from 0 to 2
in `examples["x"]`, NaN where missing; training rows only. Figures are in `reporting.genomics_figures`.
"""

from fedjax_med.genomics.linear import linear_association
from fedjax_med.genomics.logistic import logistic_association, logistic_score_test
from fedjax_med.genomics.p_values import (
    Association,
    genomic_control,
    log10_p_of_t,
    log10_p_of_z,
)
from fedjax_med.genomics.pca import (
    Components,
    Scaling,
    principal_angle,
    principal_components,
    scaling_of,
    scores,
)
from fedjax_med.genomics.phenotypes import Phenotype, simulate_phenotype
from fedjax_med.genomics.polygenic import (
    PolygenicScore,
    clumped_score,
    explained,
    ridge_score,
)
from fedjax_med.genomics.quality import Counts, counts, hardy_weinberg, keep, site_counts
from fedjax_med.genomics.rows import client_indicators, is_autosomal, select_snps

__all__ = [
    "Association",
    "Components",
    "Counts",
    "Phenotype",
    "PolygenicScore",
    "Scaling",
    "client_indicators",
    "clumped_score",
    "counts",
    "explained",
    "genomic_control",
    "hardy_weinberg",
    "is_autosomal",
    "keep",
    "linear_association",
    "log10_p_of_t",
    "log10_p_of_z",
    "logistic_association",
    "logistic_score_test",
    "principal_angle",
    "principal_components",
    "ridge_score",
    "scaling_of",
    "scores",
    "select_snps",
    "simulate_phenotype",
    "site_counts",
]
