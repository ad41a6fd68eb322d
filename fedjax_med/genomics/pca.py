"""Federated principal components of genotypes, equal to those of the pooled ones.

What leaves a hospital in each pass: the sum over its people of their standardised genotypes times
their products with the block that was sent, `[snps, block]`. The sum over hospitals is enough. Scores
of people stay where the people are.

References:
  Patterson, Price and Reich, "Population structure and eigenanalysis", PLoS Genetics 2, 2006.
  https://doi.org/10.1371/journal.pgen.0020190
  Hartebrodt, Nasirigerdeh, Blumenthal and Röttger, "Federated principal component analysis for
  genome-wide association studies", ICDM 2021. https://doi.org/10.1109/ICDM51629.2021.00127
  Musco and Musco, "Randomized block Krylov methods for stronger and faster approximate singular
  value decomposition", NeurIPS 2015. https://arxiv.org/abs/1504.05477
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fedjax_med.data import FederatedDataset
from fedjax_med.engine.contracts import Array, Batch, Client, ClientProgram, ClientResult
from fedjax_med.genomics.quality import COUNTS, Counts
from fedjax_med.genomics.rows import centred, genotype_survey, product
from fedjax_med.preprocessing.columns import table_of
from fedjax_med.preprocessing.messages import Messages

_OVERSAMPLING = 6  # columns of a block beyond the components that are asked for


class Scaling(NamedTuple):
    """How dosages are standardised.

    Attributes:
      mean: float64 `[snps]`, twice the frequency of the allele.
      scale: float64 `[snps]`, what deviations are multiplied by; 0 where the frequency is 0 or 1.
    """

    mean: Array
    scale: Array

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Standardised dosages of people at hand `[N, snps]`, 0 where missing; float64."""
        return np.where(np.isnan(x), 0, (x - self.mean) * self.scale)


class Block(NamedTuple):
    """What the server sends: how to standardise, and `vectors` `[snps, block]`."""

    scaling: Scaling
    vectors: Array


class Components(NamedTuple):
    """Principal components of genotypes.

    Attributes:
      scaling: of the dosages, by the frequencies of the training people of all hospitals.
      axes: float64 `[snps, components]`, orthonormal; the largest entry of each is positive.
      variances: float64 `[components]`, of the scores of the training people, largest first.
      passes: products that were asked for.
      error: bound of the sine of the largest angle between the space of `axes` and that of the
        pooled components, in exact arithmetic.
    """

    scaling: Scaling
    axes: np.ndarray
    variances: np.ndarray
    passes: int
    error: float

    def project(self, x: np.ndarray) -> np.ndarray:
        """Scores `[N, components]` of people with dosages `[N, snps]`, NaN where missing.

        Also of people whom the components have not seen; their scores shrink towards 0, the more
        the fewer people there were per SNP.

        Raises:
          ValueError: if there is another number of SNPs.
        """
        if x.ndim != 2 or x.shape[1] != len(self.axes):
            raise ValueError(f"x must have shape [N, {len(self.axes)}], got {list(x.shape)}.")
        return self.scaling(np.asarray(x, np.float64)) @ self.axes


def scaling_of(counts: Counts) -> Scaling:
    """The standardisation of Patterson et al., eqs. 1 to 3, with variance 1 in equilibrium.

        (x - 2p) / sqrt(2 p (1 - p))

    Theirs lacks the 2 under the root, which changes no component. SNPs without two alleles become 0.
    """
    p = np.where(counts.called > 0, np.nan_to_num(counts.frequency), 0)
    variance = 2 * p * (1 - p)
    varies = variance > 0
    return Scaling(2 * p, np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0))


def _begin(ask: Block, client: Client) -> Array:
    del client
    return jnp.zeros_like(ask.vectors)


def _step(ask: Block, carry: Array, batch: Batch) -> Array:
    z = centred(ask.scaling.mean, batch)
    scale = ask.scaling.scale[:, None]
    inside = product("ns,sk->nk", z, scale * ask.vectors)
    return carry + batch.sum_over_splits(scale * product("ns,nk->sk", z, inside))


def _end(ask: Block, carry: Array, client: Client) -> ClientResult:
    del ask
    return ClientResult({"products": carry}, client.num_examples.astype(float))


# Z^T (Z vectors) of the standardised genotypes Z, summed over people.
PRODUCTS = ClientProgram(_begin, _step, _end)


def principal_components(
    dataset: FederatedDataset,
    num_components: int = 10,
    *,
    tolerance: float = 1e-4,
    max_passes: int = 60,
    seed: int = 0,
    messages: Messages | None = None,
) -> Components:
    """The leading eigenvectors of `C = Z^T Z / N`, of standardised genotypes Z of all people.

    In every pass hospitals are sent an orthonormal block Q of `num_components` columns and some more,
    and the server learns `C Q`. The next block is what of `C Q` is orthogonal to all blocks so far, so
    that they span a Krylov space, in which the eigenvectors are sought (Rayleigh and Ritz). Behind the
    components of ancestry eigenvalues lie close together: subspace iteration, which forgets the
    blocks before, takes many times as many passes there.

    It ends when `norm(C U - U diag(variances)) / gap`, a bound of the sine of the largest angle (Davis
    and Kahan), is below `tolerance`; the gap is that to the next Ritz value.

    Args:
      dataset: `examples["x"]` are dosages from 0 to 2, NaN where missing.
      num_components: how many.
      tolerance: of the angle between their space and that of the pooled components.
      max_passes: after these it ends anyway; `error` says how far it came.
      seed: of the first block, which decides no component.
      messages: notes what hospitals told.

    Raises:
      DataError: if there are other values.
      ValueError: if there are fewer people or SNPs than components.
    """
    width = table_of(dataset.train).shape[1]
    n = dataset.train.num_examples
    rank = min(width, n)
    if not 1 <= num_components < rank:
        raise ValueError(
            f"num_components must be at least 1 and below {rank}, the smaller of the numbers of people "
            f"and of SNPs, got {num_components}."
        )
    surveyor = genotype_survey(dataset, messages)
    counted = surveyor.total("genotype counts", COUNTS, np.zeros(width))
    scaling = scaling_of(Counts(*(np.asarray(values) for values in counted)))
    size = min(num_components + _OVERSAMPLING, rank)
    block = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, size)))[0]
    basis = images = np.zeros((width, 0))
    passes = 0
    while True:
        told = surveyor.total("products with genotypes", PRODUCTS, Block(scaling, block))
        image = np.asarray(told["products"]) / n
        basis, images = np.hstack([basis, block]), np.hstack([images, image])
        ritz = basis.T @ images
        values, rotation = np.linalg.eigh((ritz + ritz.T) / 2)
        values, rotation = values[::-1], rotation[:, ::-1]
        top, turn = values[:num_components], rotation[:, :num_components]
        axes = basis @ turn
        residual = np.linalg.norm(images @ turn - axes * top, 2)
        # With nothing beyond, the Krylov space holds everything there is and the residual is 0.
        following = values[num_components] if len(values) > num_components else 0.0
        gap = top[-1] - following
        error = float(residual / gap) if gap > 0 else np.inf
        passes += 1
        room = width - basis.shape[1]
        if error <= tolerance or passes >= max_passes or room == 0:
            break
        block = _beyond(basis, image)[:, :room]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    return Components(scaling, axes * np.where(largest < 0, -1, 1), top, passes, error)


def principal_angle(a: np.ndarray, b: np.ndarray) -> float:
    """The largest angle [radians] between the spaces that columns of `a` and of `b` span."""
    a, b = np.linalg.qr(a)[0], np.linalg.qr(b)[0]
    # The sine of what is outside keeps its digits where the cosine of small angles is 1.
    outside = np.linalg.norm(b - a @ (a.T @ b), 2)
    return float(np.arcsin(min(1.0, outside)))


def _beyond(basis: np.ndarray, image: np.ndarray) -> np.ndarray:
    """An orthonormal basis of what of `image` is orthogonal to `basis`."""
    block = image
    for _ in range(2):  # once leaves rounding errors of what was taken away
        block = np.linalg.qr(block - basis @ (basis.T @ block))[0]
    return block


def scores(components: Components, dataset: FederatedDataset) -> np.ndarray:
    """Scores of the training people `[N, components]`, with standard deviation 1 over all of them.

    For covariates. Each hospital computes those of its own people.
    """
    return components.project(table_of(dataset.train)) / np.sqrt(components.variances)
