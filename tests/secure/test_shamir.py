"""Shamir's sharing over the field of 65521, in NumPy as on the host; masking tests run it in JAX."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedjax_med.secure import shamir
from tests.draws import draws

PRIME = shamir.PRIME


def elements(rng, shape):
    return rng.integers(0, PRIME, shape, dtype=np.uint32)


def polynomial(secret, coefficients, x):
    """With Python's integers."""
    return (secret + sum(int(c) * x ** (k + 1) for k, c in enumerate(coefficients))) % PRIME


@draws(quick=40, thorough=500)
@given(threshold=st.integers(1, 9), extra=st.integers(0, 4), seed=st.integers(0, 2**32 - 1))
def test_any_threshold_shares_recover_the_secret(threshold, extra, seed):
    rng = np.random.default_rng(seed)
    secret = elements(rng, 3)
    coefficients = elements(rng, (threshold - 1, 3))
    points = np.sort(rng.choice(np.arange(1, PRIME), threshold + extra, replace=False))
    points = points.astype(np.uint32)
    shares = shamir.share(secret, coefficients, points)
    assert shares.dtype == np.uint32
    for x, row in zip(points, shares, strict=True):
        want = [polynomial(int(s), coefficients[:, i], int(x)) for i, s in enumerate(secret)]
        np.testing.assert_array_equal(row, want)
    chosen = rng.permutation(threshold + extra)[:threshold]
    np.testing.assert_array_equal(shamir.recover(points[chosen], shares[chosen]), secret)


def test_one_share_less_says_nothing():
    """For any secret there is one polynomial through t - 1 shares: every secret is as likely."""
    rng = np.random.default_rng(0)
    points = np.array([1, 2, 3], np.uint32)
    shares = shamir.share(elements(rng, 1), elements(rng, (3, 1)), points)
    for candidate in (0, 1, 200, PRIME - 1):
        with_secret = np.concatenate([[0], points]).astype(np.uint32)
        values = np.concatenate([[[candidate]], shares]).astype(np.uint32)
        # A fourth share that fits the candidate exists: recovery with it gives the candidate.
        fourth = interpolate(with_secret, values[:, 0], 4)
        four = np.append(shares, [[fourth]], axis=0).astype(np.uint32)
        assert shamir.recover(np.array([1, 2, 3, 4], np.uint32), four)[0] == candidate


def interpolate(points, values, x):
    """Lagrange's formula with Python's integers."""
    total = 0
    for i, (xi, yi) in enumerate(zip(points, values, strict=True)):
        term = int(yi)
        for j, xj in enumerate(points):
            if i != j:
                term = term * (x - int(xj)) * pow(int(xi) - int(xj), -1, PRIME) % PRIME
        total += term
    return total % PRIME


def test_shares_of_too_few_are_uniform_and_their_recovery_is_no_hint():
    rng = np.random.default_rng(1)
    n = 20_000
    secret = np.full(n, 7, np.uint32)
    points = np.array([5, 9, 11], np.uint32)
    shares = shamir.share(secret, elements(rng, (2, n)), points)
    guess = shamir.recover(points[:2], shares[:2])
    for values in (*shares, guess):
        counts = np.histogram(values, bins=64, range=(0, PRIME))[0]
        assert stats.chisquare(counts).pvalue > 1e-3
    # A right guess happens by chance only: once in 65521.
    assert (guess == secret).mean() < 1e-3
    # Two points of a polynomial of degree 2 are independent.
    assert stats.pearsonr(shares[0], shares[1]).pvalue > 1e-3
    # A mutant whose highest coefficient is 0 is a line, which two shares give away.
    weak = shamir.share(secret, np.stack([elements(rng, n), 0 * secret]), points)
    np.testing.assert_array_equal(shamir.recover(points[:2], weak[:2]), secret)


def test_words_as_bytes_and_back():
    words = np.random.default_rng(2).integers(0, 2**32, (3, 8), dtype=np.uint32)
    elements_ = shamir.to_bytes(words)
    assert elements_.shape == (3, 32) and elements_.max() < 256
    np.testing.assert_array_equal(elements_[0, :4], np.frombuffer(words[0, :1].tobytes(), np.uint8))
    np.testing.assert_array_equal(shamir.from_bytes(elements_), words)


def test_products_of_the_largest_elements_do_not_wrap():
    top = np.full(2, PRIME - 1, np.uint32)
    points = np.array([PRIME - 1, PRIME - 2], np.uint32)
    shares = shamir.share(top, top[None], points)
    assert shares[0, 0] == polynomial(PRIME - 1, [PRIME - 1], PRIME - 1)
    np.testing.assert_array_equal(shamir.recover(points, shares), top)
