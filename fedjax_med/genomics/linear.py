"""Associations of SNPs with a measured outcome, equal to regressions of the pooled people.

One pass. What leaves a hospital, with c its people's covariates (and an intercept), g a SNP and y the
outcome: the sums of `c c^T`, `c y`, `y^2`, and of each SNP `g^2`, `g y` and `g c`. The sum over hospitals
is enough. By the theorem of Frisch, Waugh and Lovell these give the regression of y on g and c for every
SNP, with one small inverse for all.

References:
  Lovell, "A simple proof of the FWL theorem", Journal of Economic Education 39, 2008.
  https://doi.org/10.3200/JECE.39.1.88-91
  Nasirigerdeh et al., "sPLINK: a hybrid federated tool as a robust alternative to meta-analysis in
  genome-wide association studies", Genome Biology 23, 2022.
  https://doi.org/10.1186/s13059-021-02562-1
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.data import FederatedDataset
from fedjax_med.engine.contracts import Array, Batch, Client, ClientProgram, ClientResult
from fedjax_med.genomics.p_values import Association, log10_p_of_t
from fedjax_med.genomics.quality import COUNTS, Counts
from fedjax_med.genomics.rows import centred, design, genotype_survey, outcome_of, product
from fedjax_med.preprocessing.columns import table_of
from fedjax_med.preprocessing.messages import Messages, Surveyor

# A SNP of which covariates leave a smaller share has no association of its own.
_NOTHING_LEFT = 1e-8
# Eigenvalues of covariates of unit length below which they depend on each other.
_DEPENDENT = 1e-10


class Sums(NamedTuple):
    """What a hospital tells, float64; g about the mean of its SNP, 0 where missing.

    Attributes:
      among: `[covariates, covariates]`, sum of `c c^T`.
      outcome: `[covariates]`, sum of `c y`.
      square: `[]`, sum of `y^2`.
      with_covariates: `[snps, covariates]`, sums of `g c`.
      with_outcome: `[snps]`, sums of `g y`.
      squares: `[snps]`, sums of `g^2`.
    """

    among: Array
    outcome: Array
    square: Array
    with_covariates: Array
    with_outcome: Array
    squares: Array


class Question(NamedTuple):
    """What the server sends: `mean` of the dosages `[snps]`, and zeros `[covariates]`."""

    mean: Array
    covariates: Array


def _begin(ask: Question, client: Client) -> Sums:
    del client
    k, snps = len(ask.covariates), len(ask.mean)
    shapes = ((k, k), (k,), (), (snps, k), (snps,), (snps,))
    return Sums(*(jnp.zeros(shape) for shape in shapes))


def _step(ask: Question, carry: Sums, batch: Batch) -> Sums:
    g = centred(ask.mean, batch)
    c = jnp.where(batch.mask[:, None], batch.examples["covariates"], 0)
    y = jnp.where(batch.mask, batch.examples["outcome"], 0)
    seen = Sums(
        among=product("nk,nl->kl", c, c),
        outcome=product("nk,n->k", c, y),
        square=jnp.sum(y**2),
        with_covariates=product("ns,nk->sk", g, c),
        with_outcome=product("ns,n->s", g, y),
        squares=jnp.sum(g**2, axis=0),
    )
    return jax.tree.map(jnp.add, carry, batch.sum_over_splits(seen))


def _end(ask: Question, carry: Sums, client: Client) -> ClientResult:
    del ask
    return ClientResult(carry, client.num_examples.astype(float))


SUMS = ClientProgram(_begin, _step, _end)


def linear_association(
    dataset: FederatedDataset,
    outcome: np.ndarray,
    covariates: np.ndarray | None = None,
    *,
    messages: Messages | None = None,
) -> Association:
    """Regression of an outcome on each SNP in turn, with an intercept and covariates.

    Missing genotypes are taken for the mean of their SNP over all hospitals. The p-values are those of
    Student's t with `N - 2 - covariates` degrees of freedom.

    Args:
      dataset: `examples["x"]` are dosages from 0 to 2, NaN where missing.
      outcome: `[N]`, of the training rows, client after client.
      covariates: `[N, covariates]`, likewise, such as `scores` of principal components.
      messages: notes what hospitals told.

    Raises:
      DataError: if there are other dosages.
      ValueError: if an array does not fit, covariates depend linearly on each other, or there are
        too few people.
    """
    y = outcome_of(dataset, outcome, binary=False)
    c = design(dataset, covariates)
    freedom = len(y) - c.shape[1] - 1
    if freedom < 1:
        raise ValueError(
            f"covariates must be fewer than {len(y) - 2}, two less than the people, got "
            f"{c.shape[1] - 1}."
        )
    surveyor = genotype_survey(dataset, messages, outcome=y, covariates=c)
    mean = mean_dosage(surveyor, table_of(dataset.train).shape[1])
    found: Sums = surveyor.total("cross-products", SUMS, Question(mean, np.zeros(c.shape[1])))
    sums = Sums(*(np.asarray(values) for values in found))
    inverse = inverse_of(sums.among)
    square = sums.square - sums.outcome @ inverse @ sums.outcome
    products = sums.with_outcome - sums.with_covariates @ (inverse @ sums.outcome)
    left = residual_squares(sums.squares, sums.with_covariates, inverse)
    effect = products / left
    residual = np.maximum(square - products * effect, 0)
    se = np.sqrt(residual / freedom / left)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = effect / se
    return Association(effect, se, t, log10_p_of_t(t, float(freedom)))


def mean_dosage(surveyor: Surveyor, num_snps: int) -> np.ndarray:
    """The mean of each SNP over all hospitals, 0 where nobody has a genotype."""
    told = surveyor.total("genotype counts", COUNTS, np.zeros(num_snps))
    counted = Counts(*(np.asarray(values) for values in told))
    return np.nan_to_num(2 * counted.frequency)


def inverse_of(among: np.ndarray) -> np.ndarray:
    """The inverse of sums of `c c^T`.

    Raises:
      ValueError: if covariates depend linearly on each other.
    """
    unit = np.sqrt(np.diag(among))
    unit = np.where(unit > 0, unit, 1)
    values, vectors = np.linalg.eigh(among / unit[:, None] / unit)
    if values[0] < _DEPENDENT:
        raise ValueError(
            "covariates must be linearly independent of each other and of the intercept, which they "
            "are not."
        )
    return (vectors / values) @ vectors.T / unit[:, None] / unit


def residual_squares(squares: np.ndarray, cross: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """What covariates leave of the sums of squares of SNPs; NaN where that is nothing."""
    left = squares - np.einsum("sk,kl,sl->s", cross, inverse, cross, optimize=True)
    return np.where(left > _NOTHING_LEFT * squares, left, np.nan)
