from fractions import Fraction
from math import comb, factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med import genomics
from fedjax_med.data import ClientArrays, DataError, FederatedDataset
from fedjax_med.genomics import Counts
from fedjax_med.preprocessing import Messages
from tests.draws import draws


def table(none, one, two, missing=0.0):
    of = [np.atleast_1d(np.asarray(v, np.float64)) for v in (none, one, two, missing)]
    return Counts(*of, copies=of[1] + 2 * of[2])


def test_counts_are_those_of_the_pooled_people(hospitals):
    x = hospitals.train.examples["x"]
    messages = Messages()
    got = genomics.counts(hospitals, messages=messages)
    for values, dosage in zip(got[:3], (0, 1, 2), strict=True):
        np.testing.assert_array_equal(values, (x == dosage).sum(axis=0))
    np.testing.assert_array_equal(got.missing, np.isnan(x).sum(axis=0))
    np.testing.assert_allclose(got.frequency, np.nanmean(x, axis=0) / 2, rtol=1e-6)  # float32 mean
    np.testing.assert_allclose(got.missingness, np.isnan(x).mean(axis=0), rtol=1e-12)
    assert got.minor_frequency.max() <= 0.5
    assert [(m.leaves, m.passes) for m in messages.entries] == [("sum", 1)]


def test_counts_of_clients_are_their_own_and_told_one_by_one(hospitals):
    messages = Messages()
    own = genomics.site_counts(hospitals, messages=messages)
    south = hospitals.train.client(1)["x"]
    np.testing.assert_array_equal(own.one[1], (south == 1).sum(axis=0))
    np.testing.assert_array_equal(own.copies[1], np.nansum(south, axis=0))
    assert own.two.shape == (3, 40) and messages.entries[0].leaves == "per-site"


def exact(n, rare, one):
    """The definition in whole numbers: arrangements of alleles over people."""

    def ways(h):
        rarer = (rare - h) // 2
        other = n - h - rarer
        return Fraction(factorial(n), factorial(rarer) * factorial(h) * factorial(other)) * 2**h

    all_ways = {h: ways(h) for h in range(rare % 2, rare + 1, 2)}
    assert sum(all_ways.values()) == comb(2 * n, rare)
    return float(sum(w for w in all_ways.values() if w <= all_ways[one]) / comb(2 * n, rare))


@draws(quick=40, thorough=500)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
def test_equilibrium_is_the_exact_test(none, one, two):
    n, rare = none + one + two, 2 * min(none, two) + one
    got = genomics.hardy_weinberg(table(none, one, two))[0]
    assert got == pytest.approx(exact(n, rare, one), rel=1e-9)  # rounding of gammaln


def test_mixed_populations_lack_heterozygotes():
    # Two hospitals in perfect equilibrium, at frequencies 0.1 and 0.9 (Wahlund's effect).
    each = table([[1], [81]], [[18], [18]], [[81], [1]], [[0], [0]])
    assert (genomics.hardy_weinberg(each) > 0.5).all()
    both = Counts(*(values.sum(axis=0) for values in each))
    assert genomics.hardy_weinberg(both)[0] < 1e-20
    assert genomics.keep(each, equilibrium=1e-6).tolist() == [True]
    assert genomics.keep(both, equilibrium=1e-6).tolist() == [False]


def test_filters_drop_rare_and_missing_snps():
    found = table([98, 99, 60, 0, 0], [2, 1, 20, 0, 0], [0, 0, 10, 0, 100], [0, 0, 10, 100, 0])
    # Frequencies 0.01, 0.005, 0.22, none and 1; a tenth of the third is missing, all of the fourth.
    assert genomics.keep(found).tolist() == [True, False, False, False, False]
    assert genomics.keep(found, missingness=0.1).tolist() == [True, False, True, False, False]
    everything = genomics.keep(found, minor_frequency=0.0)
    assert everything.tolist() == [True, True, False, False, True]
    with pytest.raises(ValueError, match=r"minor_frequency must be between 0 and 0\.5, got 0\.6"):
        genomics.keep(found, minor_frequency=0.6)


def test_chosen_snps_keep_their_names(hospitals):
    chosen = genomics.select_snps(hospitals, np.arange(40) % 20 == 3)
    assert chosen.feature_names == ("rs3", "rs23")
    x = hospitals.train.examples["x"]
    np.testing.assert_array_equal(chosen.train.examples["x"], x[:, [3, 23]])
    with pytest.raises(ValueError, match=r"keep must have shape \[40\], got \[3\]"):
        genomics.select_snps(hospitals, np.ones(3, bool))
    with pytest.raises(ValueError, match="at least one SNP"):
        genomics.select_snps(hospitals, np.zeros(40, bool))
    assert genomics.is_autosomal(["1", "22", "23", "X", "chr7"]).tolist() == [1, 1, 0, 0, 1]


def test_what_is_no_dosage_is_refused():
    x = np.array([[0, 1], [2, 3]], np.float32)
    wrong = FederatedDataset("w", ("A",), ClientArrays({"x": x}, np.array([2])), None, None)
    with pytest.raises(DataError, match="between 0 and 2, NaN where missing, got 3 at SNP 1"):
        genomics.counts(wrong)
