"""Polygenic scores from sums over hospitals: clumping and thresholding, and ridge regression.

What leaves a hospital: for a clumped score the cross-products of the SNPs that pass the threshold, in
one pass; for a ridge, in each pass, the sum over its people of their genotypes times their present
predictions. The sum over hospitals is enough for either.

References:
  Purcell et al. (International Schizophrenia Consortium), Nature 460, 2009, for scores of SNPs below a
  threshold. https://doi.org/10.1038/nature08185
  Meuwissen, Hayes and Goddard, Genetics 157, 2001, for ridge regression (their BLUP).
  https://doi.org/10.1093/genetics/157.4.1819
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.data import FederatedDataset
from fedjax_med.datasets import Snps
from fedjax_med.engine.contracts import Array, Batch, Client, ClientProgram, ClientResult
from fedjax_med.genomics.p_values import Association
from fedjax_med.genomics.pca import PRODUCTS, Block, scaling_of
from fedjax_med.genomics.quality import COUNTS, Counts
from fedjax_med.genomics.rows import centred, genotype_survey, product, survey_of
from fedjax_med.preprocessing.columns import table_of
from fedjax_med.preprocessing.messages import Messages

# Cross-products of more SNPs than this would be gigabytes.
_MOST_CANDIDATES = 4096


class PolygenicScore(NamedTuple):
    """A linear score of genotypes.

    Attributes:
      mean: float64 `[snps]`, what a missing dosage is taken for.
      weights: float64 `[snps]`, or `[snps, outcomes]`, per copy of the counted allele.
      intercept: float64 `[]` or `[outcomes]`, of people with the mean of every SNP.
    """

    mean: np.ndarray
    weights: np.ndarray
    intercept: np.ndarray

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Scores `[N]`, or `[N, outcomes]`, of people with dosages `[N, snps]`, NaN where missing."""
        deviation = np.asarray(x, np.float64) - self.mean
        return self.intercept + np.where(np.isnan(deviation), 0, deviation) @ self.weights


class Target(NamedTuple):
    """What a hospital tells of outcomes.

    Attributes:
      products: `[snps, outcomes]`, sums of standardised genotypes times the outcomes.
      total: `[outcomes]`, sums of the outcomes.
      rows: `[]`, its people.
    """

    products: Array
    total: Array
    rows: Array


def _begin_target(ask: Block, client: Client) -> Target:
    del client
    return Target(jnp.zeros_like(ask.vectors), jnp.zeros(ask.vectors.shape[1]), jnp.zeros(()))


def _step_target(ask: Block, carry: Target, batch: Batch) -> Target:
    z = centred(ask.scaling.mean, batch) * ask.scaling.scale[None]
    y = jnp.where(batch.mask[:, None], batch.examples["outcome"], 0)
    rows = jnp.sum(batch.mask, dtype=float)
    seen = Target(product("ns,nk->sk", z, y), jnp.sum(y, axis=0), rows)
    return jax.tree.map(jnp.add, carry, batch.sum_over_splits(seen))


def _end(ask, carry, client: Client) -> ClientResult:
    del ask
    return ClientResult(carry, client.num_examples.astype(float))


TARGET = ClientProgram(_begin_target, _step_target, _end)


def _begin_cross(mean: Array, client: Client) -> dict[str, Array]:
    del client
    return {"products": jnp.zeros((mean.size, mean.size)), "total": jnp.zeros(())}


def _step_cross(mean: Array, carry: dict[str, Array], batch: Batch) -> dict[str, Array]:
    g = centred(mean, batch)
    y = batch.examples["outcome"][:, 0]
    seen = {"products": product("ns,nt->st", g, g), "total": jnp.sum(jnp.where(batch.mask, y, 0))}
    return jax.tree.map(jnp.add, carry, batch.sum_over_splits(seen))


CROSS = ClientProgram(_begin_cross, _step_cross, _end)


def ridge_score(
    dataset: FederatedDataset,
    outcome: np.ndarray,
    *,
    heritability: float = 0.5,
    tolerance: float = 1e-8,
    max_passes: int = 200,
    messages: Messages | None = None,
) -> PolygenicScore:
    """Ridge regression on all standardised SNPs, solved by conjugate gradients.

    With Z the standardised genotypes of all people, y the outcome less its mean, and M SNPs that vary,

        minimise  |y - Z b|^2 + penalty |b|^2,     penalty = M (1 - heritability) / heritability

    the best linear prediction where all effects are normal with variance `heritability / M`. A pass is
    one product `Z^T (Z v)`; matrices of all SNPs are never made. It equals the ridge of the pooled
    people up to `tolerance`.

    Args:
      dataset: `examples["x"]` are dosages from 0 to 2, NaN where missing.
      outcome: `[N]` of the training rows, or `[N, outcomes]`, solved side by side.
      heritability: above 0 and below 1.
      tolerance: of the residual of the normal equations, relative to their right-hand side.
      max_passes: products at most.
      messages: notes what hospitals told.

    Raises:
      DataError: if there are other dosages.
      ValueError: if an argument is out of range, or it does not converge.
    """
    if not 0 < heritability < 1:
        raise ValueError(f"heritability must be above 0 and below 1, got {heritability!r}.")
    n, width = table_of(dataset.train).shape
    y = np.asarray(outcome, np.float64)
    if y.ndim not in (1, 2) or len(y) != n or not np.isfinite(y).all():
        raise ValueError(
            f"outcome must be finite [{n}] or [{n}, outcomes], a row for each training example, got "
            f"shape {list(y.shape)}."
        )
    surveyor = genotype_survey(dataset, messages, outcome=y.reshape(n, -1))
    told = surveyor.total("genotype counts", COUNTS, np.zeros(width))
    scaling = scaling_of(Counts(*(np.asarray(values) for values in told)))
    zeros = np.zeros((width, y.reshape(n, -1).shape[1]))
    target: Target = surveyor.total("products with outcomes", TARGET, Block(scaling, zeros))
    # Standardised genotypes sum to 0 over people, so the mean of the outcome takes nothing away.
    right = np.asarray(target.products)
    penalty = max(int((scaling.scale > 0).sum()), 1) * (1 - heritability) / heritability

    def image(block: np.ndarray) -> np.ndarray:
        told = surveyor.total("products with genotypes", PRODUCTS, Block(scaling, block))
        return np.asarray(told["products"]) + penalty * block

    weights = _conjugate_gradients(image, right, tolerance, max_passes) * scaling.scale[:, None]
    shape = (width, *y.shape[1:])
    intercept = (np.asarray(target.total) / float(target.rows)).reshape(y.shape[1:])
    return PolygenicScore(scaling.mean, weights.reshape(shape), intercept)


def _conjugate_gradients(
    image: Callable[[np.ndarray], np.ndarray], right: np.ndarray, tolerance: float, max_passes: int
) -> np.ndarray:
    """Solves for every column of `right` by itself (Hestenes and Stiefel, 1952)."""
    solution = np.zeros_like(right)
    residual, direction = right.copy(), right.copy()
    squared = (residual**2).sum(axis=0)
    goal = tolerance**2 * squared
    for _ in range(max_passes):
        if (squared <= goal).all():
            return solution
        found = image(direction)
        curvature = (direction * found).sum(axis=0)
        # Columns that are solved, or 0 from the beginning, stay where they are.
        open_ = squared > goal
        step = np.where(open_, squared / np.where(open_, curvature, 1), 0)
        solution += step * direction
        residual -= step * found
        new = np.where(open_, (residual**2).sum(axis=0), squared)
        direction = residual + np.where(open_, new / np.where(open_, squared, 1), 0) * direction
        squared = new
    if (squared <= goal).all():
        return solution
    raise ValueError(
        f"conjugate gradients have not converged after max_passes={max_passes}; allow more, or a lower "
        "heritability."
    )


def clumped_score(
    dataset: FederatedDataset,
    outcome: np.ndarray,
    association: Association,
    *,
    threshold: float = 1e-4,
    max_r2: float = 0.1,
    snps: Snps | None = None,
    window: int = 250_000,
    messages: Messages | None = None,
) -> PolygenicScore:
    """Clumping and thresholding: the effects of SNPs with small p-values, of neighbours the smallest.

    From the smallest p-value on, a SNP is taken unless its squared correlation with one that is taken
    exceeds `max_r2`. Correlations are of the training people of all hospitals.

    Args:
      dataset: of the association, with the same training rows.
      outcome: `[N]`, likewise, for the intercept.
      association: of every SNP.
      threshold: largest p-value.
      max_r2: squared correlation above which SNPs are taken for one.
      snps: of the columns; if given, only SNPs of a chromosome within `window` are compared.
      window: in base pairs.
      messages: notes what hospitals told.

    Raises:
      DataError: if there are other dosages.
      ValueError: if lengths do not fit, or more than 4096 SNPs pass the threshold.
    """
    n, width = table_of(dataset.train).shape
    y = np.asarray(outcome, np.float64)
    if y.shape != (n,) or association.effect.shape != (width,):
        raise ValueError(
            f"outcome and association must have shapes {[n]} and {[width]}, got {list(y.shape)} and "
            f"{list(association.effect.shape)}."
        )
    with np.errstate(invalid="ignore"):
        candidates = np.flatnonzero(association.log10_p <= np.log10(threshold))
    if candidates.size > _MOST_CANDIDATES:
        raise ValueError(
            f"threshold must leave at most {_MOST_CANDIDATES} SNPs, got {candidates.size}; lower it."
        )
    candidates = candidates[np.argsort(association.log10_p[candidates], kind="stable")]
    counted = genotype_survey(dataset, messages).total("genotype counts", COUNTS, np.zeros(width))
    mean = np.nan_to_num(2 * Counts(*(np.asarray(values) for values in counted)).frequency)
    # Powers of two, so that scores of nearly as many SNPs share a compilation.
    room = 1 << max(candidates.size - 1, 0).bit_length()
    x = np.zeros((n, room), np.float32)
    x[:, : candidates.size] = table_of(dataset.train)[:, candidates]
    center = np.zeros(room)
    center[: candidates.size] = mean[candidates]
    surveyor = survey_of(dataset, messages, x=x, outcome=y[:, None])
    told = surveyor.total("cross-products of candidates", CROSS, center)
    cross = np.asarray(told["products"])[: candidates.size, : candidates.size]
    taken = _clumped(cross, candidates, max_r2, snps, window)
    weights = np.zeros(width)
    weights[candidates[taken]] = association.effect[candidates[taken]]
    return PolygenicScore(mean, weights, np.asarray(float(told["total"]) / n))


def _clumped(
    cross: np.ndarray, candidates: np.ndarray, max_r2: float, snps: Snps | None, window: int
) -> np.ndarray:
    """Positions among `candidates`, which are in order of their p-values, of those that are taken."""
    squares = np.diag(cross)
    r2 = cross**2 / (squares[:, None] * squares)
    if snps is not None:
        chromosome = np.array(snps.chromosome)[candidates]
        at = np.asarray(snps.position)[candidates]
        near = chromosome[:, None] == chromosome
        r2 = np.where(near & (np.abs(at[:, None] - at) <= window), r2, 0)
    taken: list[int] = []
    for i in range(len(candidates)):
        if not (r2[i, taken] > max_r2).any():
            taken.append(i)
    return np.array(taken, np.int64)


def explained(score: np.ndarray, outcome: np.ndarray) -> float:
    """Squared correlation of a score and an outcome of some people; 0 where either is constant."""
    a, b = score - score.mean(), outcome - outcome.mean()
    both = (a @ a) * (b @ b)
    return float((a @ b) ** 2 / both) if both > 0 else 0.0
