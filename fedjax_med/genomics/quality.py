"""Allele frequencies, missing genotypes and Hardy-Weinberg equilibrium, from counts of hospitals.

What leaves a hospital: of each SNP, how many of its people have no, one and two copies. The sum over
hospitals is enough for frequencies and filters. Equilibrium is another matter: where populations
differ in frequency, all of them together have too few heterozygotes (Wahlund's effect), so it is to be
judged within hospitals, and `site_counts` are told one by one.

References:
  Wigginton, Cutler and Abecasis, "A note on exact tests of Hardy-Weinberg equilibrium", American
  Journal of Human Genetics 76, 2005. https://doi.org/10.1086/429864
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import gammaln

from fedjax_med.data import FederatedDataset
from fedjax_med.engine.contracts import Array, Batch, Client, ClientProgram, ClientResult, PyTree
from fedjax_med.genomics.rows import genotype_survey
from fedjax_med.preprocessing.columns import table_of
from fedjax_med.preprocessing.messages import Messages

# Outcomes as likely as the one seen, up to rounding of gammaln, belong to the p-value.
_AS_LIKELY = 1e-9


class Counts(NamedTuple):
    """People by their genotype at each SNP, `[snps]` of all or `[clients, snps]` of each client.

    Dosages that are no whole numbers, as imputation gives them, count for the nearest one, while
    `copies` is exact.

    Attributes:
      none: people without a copy of the counted allele.
      one: heterozygous people.
      two: people with two copies.
      missing: people without a genotype.
      copies: sum of the dosages.
    """

    none: Array
    one: Array
    two: Array
    missing: Array
    copies: Array

    @property
    def called(self) -> np.ndarray:
        """People with a genotype."""
        return self.none + self.one + self.two

    @property
    def frequency(self) -> np.ndarray:
        """Frequency of the counted allele, NaN where nobody has a genotype."""
        with np.errstate(invalid="ignore"):
            return self.copies / (2 * self.called)

    @property
    def minor_frequency(self) -> np.ndarray:
        """Frequency of the rarer allele, at most a half."""
        return np.minimum(self.frequency, 1 - self.frequency)

    @property
    def missingness(self) -> np.ndarray:
        """Share of people without a genotype."""
        return self.missing / (self.called + self.missing)


def _begin(shared: PyTree, client: Client) -> Counts:
    del client
    zeros = jnp.zeros_like(shared)
    return Counts(zeros, zeros, zeros, zeros, zeros)


def _step(shared: PyTree, carry: Counts, batch: Batch) -> Counts:
    del shared
    x = batch.examples["x"].astype(float)
    real = batch.mask[:, None]
    nearest = jnp.round(x)  # NaN equals nothing

    def people(chosen: jax.Array) -> jax.Array:
        return jnp.sum(real & chosen, axis=0, dtype=float)

    there = real & ~jnp.isnan(x)
    seen = Counts(
        none=people(nearest == 0),
        one=people(nearest == 1),
        two=people(nearest == 2),
        missing=people(jnp.isnan(x)),
        copies=jnp.sum(jnp.where(there, x, 0), axis=0),
    )
    return jax.tree.map(jnp.add, carry, batch.sum_over_splits(seen))


def _end(shared: PyTree, carry: Counts, client: Client) -> ClientResult:
    del shared
    return ClientResult(carry, client.num_examples.astype(float))


def _end_own(shared: PyTree, carry: Counts, client: Client) -> ClientResult:
    del shared
    return ClientResult((), client.num_examples.astype(float), state=carry)


COUNTS = ClientProgram(_begin, _step, _end)
OWN_COUNTS = ClientProgram(_begin, _step, _end_own)


def counts(dataset: FederatedDataset, *, messages: Messages | None = None) -> Counts:
    """Genotypes of the training rows of all clients together, from the sums of their counts.

    Args:
      dataset: `examples["x"]` are dosages from 0 to 2, NaN where missing.
      messages: notes what hospitals told.

    Returns:
      float64 arrays `[snps]`.

    Raises:
      DataError: if there are other values.
    """
    width = table_of(dataset.train).shape[1]
    found = genotype_survey(dataset, messages).total("genotype counts", COUNTS, np.zeros(width))
    return Counts(*(np.asarray(values) for values in found))


def site_counts(dataset: FederatedDataset, *, messages: Messages | None = None) -> Counts:
    """Each client's own `counts`, float64 arrays `[clients, snps]`; told one by one."""
    width = table_of(dataset.train).shape[1]
    zeros = np.zeros((dataset.num_clients, width))
    surveyor = genotype_survey(dataset, messages)
    states = Counts(zeros, zeros, zeros, zeros, zeros)
    found = surveyor.own("own genotype counts", OWN_COUNTS, np.zeros(width), states, "per-site")
    return Counts(*(np.asarray(values) for values in found))


def hardy_weinberg(counts: Counts) -> np.ndarray:
    """Exact p-values of Hardy-Weinberg equilibrium, of the shape of the counts.

    Given the numbers of people n and of copies a of the rarer allele, h of them are heterozygous with
    probability

        n! / (((a - h)/2)! h! (n - (a + h)/2)!)  2^h  a! (2n - a)! / (2n)!

    and the p-value is the sum over all h that are not more likely than the one seen (Wigginton et al.,
    eqs. 1 and 2). 1 where nobody, or everybody, has the allele.
    """
    shape = np.shape(counts.one)
    one = np.ravel(counts.one)
    homozygous = np.minimum(np.ravel(counts.none), np.ravel(counts.two))
    n, rare = np.ravel(counts.called), 2 * homozygous + one
    # SNPs with the same counts have the same p-value: few are different.
    seen, place = np.unique(np.column_stack([n, rare, one]), axis=0, return_inverse=True)
    p_values = np.array([_exact(*(int(v) for v in row)) for row in seen])
    return p_values[place.ravel()].reshape(shape)


def _exact(n: int, rare: int, one: int) -> float:
    h = np.arange(rare % 2, rare + 1, 2)
    log_weight = (
        h * np.log(2)
        - gammaln((rare - h) / 2 + 1)
        - gammaln(h + 1)
        - gammaln(n - (rare + h) / 2 + 1)
    )
    weight = np.exp(log_weight - log_weight.max())
    at = weight[h == one][0]
    return float(min(1.0, weight[weight <= at * (1 + _AS_LIKELY)].sum() / weight.sum()))


def keep(
    counts: Counts,
    *,
    minor_frequency: float = 0.01,
    missingness: float = 0.05,
    equilibrium: float = 0.0,
) -> np.ndarray:
    """Which SNPs pass the filters; bool `[snps]`.

    Args:
      counts: of all clients, `[snps]`, or of each, `[clients, snps]`, where frequency and missing
        genotypes are judged over all of them and equilibrium within each.
      minor_frequency: least frequency of the rarer allele.
      missingness: largest share of people without a genotype.
      equilibrium: least p-value of Hardy-Weinberg equilibrium; of several clients the smallest, times
        their number (Bonferroni). 0 does not ask.

    Raises:
      ValueError: if a limit is out of range.
    """
    for name, value, most in (
        ("minor_frequency", minor_frequency, 0.5),
        ("missingness", missingness, 1.0),
        ("equilibrium", equilibrium, 1.0),
    ):
        if not 0 <= value <= most:
            raise ValueError(f"{name} must be between 0 and {most:g}, got {value!r}.")
    each = Counts(*(np.atleast_2d(values) for values in counts))
    total = Counts(*(values.sum(axis=0) for values in each))
    # The rarer allele of an SNP without any genotype is NaN, which passes no comparison.
    passed = (total.minor_frequency >= minor_frequency) & (total.missingness <= missingness)
    if equilibrium > 0:
        smallest = hardy_weinberg(each).min(axis=0) * len(each.one)
        passed &= smallest >= equilibrium
    return passed
