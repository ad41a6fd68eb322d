"""Associations of SNPs with a binary outcome, equal to those of the pooled people.

Two ways, both from sums over hospitals: score tests of all SNPs from one pass at the model without
SNPs, and exact regressions of some of them by Newton's method, side by side.

References:
  Cox and Hinkley, "Theoretical Statistics", 1974, section 9.3, for the score test.
  Wu et al., "Grid Binary LOgistic REgression (GLORE)", Journal of the American Medical Informatics
  Association 19, 2012. https://doi.org/10.1136/amiajnl-2012-000862
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.data import FederatedDataset
from fedjax_med.engine.contracts import Array, Batch, Client, ClientProgram, ClientResult
from fedjax_med.genomics.linear import inverse_of, mean_dosage, residual_squares
from fedjax_med.genomics.p_values import Association, log10_p_of_z
from fedjax_med.genomics.rows import (
    centred,
    design,
    genotype_survey,
    outcome_of,
    product,
    select_snps,
    survey_of,
)
from fedjax_med.preprocessing.columns import table_of
from fedjax_med.preprocessing.messages import Messages

_MAX_STEPS = 30
_CONVERGED = 1e-10  # change of the linear predictor per unit of a covariate


class Derivatives(NamedTuple):
    """Of the log-likelihood by the coefficients of the model without SNPs.

    Attributes:
      gradient: `[covariates]`.
      information: `[covariates, covariates]`.
    """

    gradient: Array
    information: Array


class Score(NamedTuple):
    """What a hospital tells of SNPs at the model without them, with w = p (1 - p).

    Attributes:
      information: `[covariates, covariates]`, sum of `w c c^T`.
      slope: `[snps]`, sums of `g (y - p)`.
      with_covariates: `[snps, covariates]`, sums of `w g c`.
      squares: `[snps]`, sums of `w g^2`.
    """

    information: Array
    slope: Array
    with_covariates: Array
    squares: Array


class Model(NamedTuple):
    """What the server sends: `mean` of dosages `[snps]`, and the coefficients of covariates.

    Attributes:
      mean: `[snps]`.
      coefficients: `[covariates]`; for `NEWTON` `[snps, covariates + 1]`, the last of the SNP.
    """

    mean: Array
    coefficients: Array


def _rows(batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Covariates and outcome, 0 on padding."""
    c = jnp.where(batch.mask[:, None], batch.examples["covariates"], 0)
    return c, jnp.where(batch.mask, batch.examples["outcome"], 0)


def _residuals(c: jax.Array, y: jax.Array, coefficients: jax.Array, mask: jax.Array):
    p = jax.nn.sigmoid(c @ coefficients)
    return jnp.where(mask, y - p, 0), jnp.where(mask, p * (1 - p), 0)


def _added(carry, seen, batch: Batch):
    return jax.tree.map(jnp.add, carry, batch.sum_over_splits(seen))


def _end(shared, carry, client: Client) -> ClientResult:
    del shared
    return ClientResult(carry, client.num_examples.astype(float))


def _begin_null(shared: Array, client: Client) -> Derivatives:
    del client
    return Derivatives(jnp.zeros_like(shared), jnp.zeros((shared.size, shared.size)))


def _step_null(shared: Array, carry: Derivatives, batch: Batch) -> Derivatives:
    c, y = _rows(batch)
    residual, w = _residuals(c, y, shared, batch.mask)
    return _added(
        carry,
        Derivatives(product("nk,n->k", c, residual), product("n,nk,nl->kl", w, c, c)),
        batch,
    )


def _begin_score(shared: Model, client: Client) -> Score:
    del client
    k, snps = shared.coefficients.size, shared.mean.size
    return Score(*(jnp.zeros(shape) for shape in ((k, k), (snps,), (snps, k), (snps,))))


def _step_score(shared: Model, carry: Score, batch: Batch) -> Score:
    g = centred(shared.mean, batch)
    c, y = _rows(batch)
    residual, w = _residuals(c, y, shared.coefficients, batch.mask)
    wg = w[:, None] * g
    seen = Score(
        information=product("n,nk,nl->kl", w, c, c),
        slope=product("ns,n->s", g, residual),
        with_covariates=product("ns,nk->sk", wg, c),
        squares=jnp.sum(wg * g, axis=0),
    )
    return _added(carry, seen, batch)


def _begin_newton(shared: Model, client: Client) -> Derivatives:
    del client
    snps, k = shared.coefficients.shape
    return Derivatives(jnp.zeros((snps, k)), jnp.zeros((snps, k, k)))


def _step_newton(shared: Model, carry: Derivatives, batch: Batch) -> Derivatives:
    c, y = _rows(batch)

    def of_snp(g: jax.Array, coefficients: jax.Array) -> Derivatives:
        both = jnp.column_stack([c, g])
        residual, w = _residuals(both, y, coefficients, batch.mask)
        information = product("nk,nl->kl", both, w[:, None] * both)
        return Derivatives(product("nk,n->k", both, residual), information)

    g = centred(shared.mean, batch)
    return _added(carry, jax.vmap(of_snp, in_axes=(1, 0))(g, shared.coefficients), batch)


NULL = ClientProgram(_begin_null, _step_null, _end)
SCORE = ClientProgram(_begin_score, _step_score, _end)
NEWTON = ClientProgram(_begin_newton, _step_newton, _end)


def logistic_score_test(
    dataset: FederatedDataset,
    outcome: np.ndarray,
    covariates: np.ndarray | None = None,
    *,
    messages: Messages | None = None,
) -> Association:
    """Score tests of all SNPs for a binary outcome, with an intercept and covariates.

    The model of covariates alone is fitted by Newton's method; one more pass gives of each SNP the
    slope U of the log-likelihood and its variance V less what covariates explain. `statistic` is
    `U / sqrt(V)`, `effect` the one step `U / V` with standard error `1 / sqrt(V)`: use
    `logistic_association` for effects. Missing genotypes are taken for the mean of their SNP.

    Args:
      dataset: `examples["x"]` are dosages from 0 to 2, NaN where missing.
      outcome: `[N]`, 0 or 1, of the training rows, client after client.
      covariates: `[N, covariates]`, likewise.
      messages: notes what hospitals told.

    Raises:
      DataError: if there are other dosages.
      ValueError: if an array does not fit, covariates depend linearly on each other, or tell the
        outcomes apart without error.
    """
    y, c = outcome_of(dataset, outcome, binary=True), design(dataset, covariates)
    null = _fitted_null(dataset, y, c, messages)
    surveyor = genotype_survey(dataset, messages, outcome=y, covariates=c)
    mean = mean_dosage(surveyor, table_of(dataset.train).shape[1])
    found: Score = surveyor.total("score", SCORE, Model(mean, null))
    told = Score(*(np.asarray(values) for values in found))
    left = residual_squares(told.squares, told.with_covariates, inverse_of(told.information))
    z = told.slope / np.sqrt(left)
    return Association(told.slope / left, 1 / np.sqrt(left), z, log10_p_of_z(z))


def logistic_association(
    dataset: FederatedDataset,
    outcome: np.ndarray,
    snps: Sequence[int] | np.ndarray,
    covariates: np.ndarray | None = None,
    *,
    messages: Messages | None = None,
) -> Association:
    """Logistic regressions on some SNPs, each with an intercept and covariates; Wald statistics.

    All SNPs take their Newton steps in the same passes, so that a hospital's message is one gradient
    and one matrix of information per SNP. NaN where a regression does not converge: a SNP that does not
    vary, or that tells the outcomes apart.

    Args:
      dataset: `examples["x"]` are dosages from 0 to 2, NaN where missing.
      outcome: `[N]`, 0 or 1, of the training rows, client after client.
      snps: bool `[snps]`, or positions, as for `select_snps`.
      covariates: `[N, covariates]`, likewise.
      messages: notes what hospitals told.

    Raises:
      DataError: if there are other dosages.
      ValueError: as for `logistic_score_test`, or if there are no such SNPs.
    """
    y, c = outcome_of(dataset, outcome, binary=True), design(dataset, covariates)
    chosen = select_snps(dataset, np.asarray(snps))
    null = _fitted_null(dataset, y, c, messages)
    surveyor = genotype_survey(chosen, messages, outcome=y, covariates=c)
    mean = mean_dosage(surveyor, table_of(chosen.train).shape[1])
    coefficients = np.column_stack([np.tile(null, (len(mean), 1)), np.zeros(len(mean))])
    moves = np.full(len(mean), np.inf)
    information = np.zeros((len(mean), c.shape[1] + 1, c.shape[1] + 1))
    for _ in range(_MAX_STEPS):
        found: Derivatives = surveyor.total("newton", NEWTON, Model(mean, coefficients))
        information = np.asarray(found.information)
        # At a separated outcome the information runs towards 0: no step is better than a wild one.
        step = np.einsum("skl,sl->sk", _inverses(information), np.asarray(found.gradient))
        moves = np.abs(step).max(axis=1)
        coefficients = coefficients + step
        if not (moves > _CONVERGED).any():  # NaN has nothing more to come
            break
        coefficients = np.where(np.isfinite(coefficients), coefficients, 0)
    converged = moves <= _CONVERGED
    with np.errstate(invalid="ignore"):
        se = np.where(converged, np.sqrt(_inverses(information)[:, -1, -1]), np.nan)
    effect = np.where(converged, coefficients[:, -1], np.nan)
    return Association(effect, se, effect / se, log10_p_of_z(effect / se))


def _inverses(matrices: np.ndarray) -> np.ndarray:
    """The inverses of symmetric matrices `[snps, k, k]`, NaN where there is none."""
    unit = np.sqrt(np.einsum("skk->sk", matrices))
    bad = ~(unit > 0).all(axis=1)
    unit = np.where(bad[:, None], 1, unit)
    scaled = matrices / unit[:, :, None] / unit[:, None]
    bad |= ~np.isfinite(scaled).all(axis=(1, 2))
    scaled[bad] = np.eye(scaled.shape[1])
    values, vectors = np.linalg.eigh(scaled)
    bad |= values[:, 0] < 1e-12
    inverse = np.einsum("skj,sj,slj->skl", vectors, 1 / np.where(bad[:, None], 1, values), vectors)
    inverse = inverse / unit[:, :, None] / unit[:, None]
    inverse[bad] = np.nan
    return inverse


def _fitted_null(
    dataset: FederatedDataset, y: np.ndarray, c: np.ndarray, messages: Messages | None
) -> np.ndarray:
    """Coefficients of the model of covariates alone."""
    surveyor = survey_of(dataset, messages, outcome=y, covariates=c)
    if not 0 < y.mean() < 1:
        raise ValueError(f"outcome must have both 0 and 1, got only {y[0]:g}.")
    coefficients = np.zeros(c.shape[1])
    for _ in range(_MAX_STEPS):
        found: Derivatives = surveyor.total("newton without SNPs", NULL, coefficients)
        matrix = np.asarray(found.information)
        if np.diag(matrix).max() < 1e-6 * len(y):
            break  # every fitted probability is 0 or 1
        step = inverse_of(matrix) @ np.asarray(found.gradient)
        coefficients = coefficients + step
        if np.abs(step).max() <= _CONVERGED:
            return coefficients
    raise ValueError(
        f"covariates must not tell the outcomes 0 and 1 apart without error; Newton's method found no "
        f"maximum in {_MAX_STEPS} steps."
    )
