"""What the programs of this package read: genotypes as dosages, outcomes and covariates of people.

Arrays of people are aligned with the training rows of a dataset, client after client. In a real
federation each hospital would hold its own part of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.data import ClientArrays, DataError, FederatedDataset
from fedjax_med.engine import Survey
from fedjax_med.engine.contracts import Array, Batch
from fedjax_med.preprocessing.columns import table_of
from fedjax_med.preprocessing.messages import Messages, Surveyor

# Genotypes are wide: few people at a time stay in the cache, and less of a minibatch is padding.
_BATCH_SIZE = 64


def genotype_survey(
    dataset: FederatedDataset, messages: Messages | None = None, **leaves: np.ndarray
) -> Surveyor:
    """The training rows of a dataset of genotypes, with further leaves `[N, ...]`, to be asked.

    Raises:
      DataError: if `examples["x"]` is no table of dosages between 0 and 2, NaN where missing.
    """
    x = table_of(dataset.train)
    wrong = (x < 0) | (x > 2)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        names = dataset.feature_names
        raise DataError(
            f"dosages must be between 0 and 2, NaN where missing, got {x[row, column]:g} at "
            f"{names[column] if names else f'SNP {column}'}."
        )
    return survey_of(dataset, messages, x=x, **leaves)


def survey_of(
    dataset: FederatedDataset, messages: Messages | None = None, **leaves: np.ndarray
) -> Surveyor:
    """Leaves `[N, ...]` of the training rows of a dataset, to be asked."""
    arrays = ClientArrays(leaves, dataset.train.sizes)
    survey = Survey(arrays, dataset.client_names, batch_size=_BATCH_SIZE)
    return Surveyor(survey, messages or Messages())


def centred(mean: Array, batch: Batch) -> jax.Array:
    """Dosages about `mean` `[snps]`, 0 where missing or padding; float64 `[batch, snps]`.

    A missing genotype is so taken for the mean of its SNP.
    """
    x = batch.examples["x"].astype(float)
    there = batch.mask[:, None] & ~jnp.isnan(x)
    return jnp.where(there, x - mean[None], 0)


def product(formula: str, *factors: jax.Array) -> jax.Array:
    """`einsum` with all digits."""
    return jnp.einsum(formula, *factors, precision="highest")


def design(dataset: FederatedDataset, covariates: np.ndarray | None) -> np.ndarray:
    """An intercept and the covariates, float64 `[N, 1 + covariates]`.

    Raises:
      ValueError: if `covariates` is not finite `[N, covariates]`.
    """
    n = dataset.train.num_examples
    if covariates is None:
        return np.ones((n, 1))
    covariates = np.asarray(covariates, np.float64)
    if covariates.ndim != 2 or len(covariates) != n or not np.isfinite(covariates).all():
        raise ValueError(
            f"covariates must be finite [{n}, covariates], a row for each training example, got "
            f"shape {list(covariates.shape)}{_not_finite(covariates)}."
        )
    return np.column_stack([np.ones(n), covariates])


def outcome_of(dataset: FederatedDataset, outcome: np.ndarray, *, binary: bool) -> np.ndarray:
    """The outcome of the training rows, float64 `[N]`.

    Raises:
      ValueError: if it is not finite `[N]`, or not 0 and 1 where it is binary.
    """
    n = dataset.train.num_examples
    y = np.asarray(outcome, np.float64)
    if y.shape != (n,) or not np.isfinite(y).all():
        raise ValueError(
            f"outcome must be finite [{n}], one for each training example, got shape "
            f"{list(y.shape)}{_not_finite(y)}."
        )
    if binary and not np.isin(y, (0, 1)).all():
        raise ValueError(f"outcome must be 0 or 1, got {y[~np.isin(y, (0, 1))][0]:g}.")
    return y


def client_indicators(dataset: FederatedDataset) -> np.ndarray:
    """An indicator for each client but the first, float64 `[N, clients - 1]`.

    As covariates they are an intercept for each hospital. Clients without training rows have none.
    """
    sizes = dataset.train.sizes
    present = np.flatnonzero(sizes)
    client = np.repeat(np.arange(len(sizes)), sizes)
    return (client[:, None] == present[1:]).astype(np.float64)


def select_snps(dataset: FederatedDataset, keep: np.ndarray | Sequence[int]) -> FederatedDataset:
    """The dataset with some of its SNPs, all splits of it.

    Args:
      dataset: genotypes.
      keep: bool `[snps]`, or positions.

    Raises:
      ValueError: if no SNP is kept, or `keep` has another length.
    """
    width = table_of(dataset.train).shape[1]
    keep = np.asarray(keep)
    if keep.dtype == bool and keep.shape != (width,):
        raise ValueError(f"keep must have shape [{width}], got {list(keep.shape)}.")
    columns = np.flatnonzero(keep) if keep.dtype == bool else keep.astype(np.int64)
    if columns.size == 0:
        raise ValueError("keep must choose at least one SNP, got none.")
    names = dataset.feature_names
    splits = {
        split: ClientArrays({**arrays.examples, "x": table_of(arrays)[:, columns]}, arrays.sizes)
        for split, arrays in dataset.splits().items()
    }
    return FederatedDataset(
        name=dataset.name,
        client_names=dataset.client_names,
        feature_names=tuple(names[c] for c in columns) if names else (),
        label_names=dataset.label_names,
        licence=dataset.licence,
        source=dataset.source,
        citation=dataset.citation,
        **splits,
    )


def is_autosomal(chromosome: Sequence[str]) -> np.ndarray:
    """Where the chromosome is one of "1" to "22" (or "chr1" to "chr22"); bool `[snps]`."""
    known = {str(number) for number in range(1, 23)}
    return np.array([name.removeprefix("chr") in known for name in chromosome], bool)


def _not_finite(values: np.ndarray) -> str:
    wrong = values[~np.isfinite(values)]
    return f" with {wrong.flat[0]}" if wrong.size else ""
