"""Lower bounds on epsilon against closed forms, published audits, and mechanisms that are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedjax_med.attacks import lower_bounds as bounds

DELTA = 1e-5
# Of a Gaussian mechanism with noise multiplier 1: the analytic value, given by dp-accounting as well.
CLAIM = 4.377178


def release(sigma, seed, canaries=1000):
    """Guesses from one release of 2 * canaries in orthogonal directions, half of them included."""
    rng = np.random.default_rng(seed)
    noise = sigma * rng.normal(size=(2, canaries))
    return bounds.guess(1 + noise[0], noise[1])


def test_epsilon_of_gdp_is_that_of_the_gaussian_mechanism():
    assert bounds.epsilon_of_gdp(1.0, DELTA) == pytest.approx(CLAIM, abs=1e-6)
    assert bounds.epsilon_of_gdp(1 / 3.730632, DELTA) == pytest.approx(1.0, abs=1e-6)
    assert bounds.epsilon_of_gdp(0.0, DELTA) == 0.0
    # The definition of delta, put together again in float64.
    for mu in (0.1, 1.0, 4.0, 12.0):
        epsilon = bounds.epsilon_of_gdp(mu, DELTA)
        again = stats.norm.cdf(-epsilon / mu + mu / 2) - np.exp(epsilon) * stats.norm.cdf(
            -epsilon / mu - mu / 2
        )
        assert again == pytest.approx(DELTA, rel=1e-6)


@given(st.integers(0, 30), st.integers(1, 30), st.sampled_from([0.01, 0.05, 0.5]))
def test_clopper_pearson_is_where_the_count_becomes_improbable(count, more, significance):
    total = count + more
    bound = float(bounds.clopper_pearson(count, total, significance))
    assert stats.binom.cdf(count, total, bound) == pytest.approx(significance, rel=1e-6)
    assert bounds.clopper_pearson(total, total, significance) == 1.0


# Of 2000 canaries in one Gaussian release, audited by jax-privacy 2.0.0 at 95 %: one run, f-DP, GDP.
PUBLISHED = {1.0: (1.44, 2.22, 3.33), 0.5: (2.67, 3.72, 8.55), 0.25: (4.46, 7.37, 20.5)}


@pytest.mark.parametrize("sigma", PUBLISHED)
def test_bounds_agree_with_published_audits_within_their_spread(sigma):
    found = []
    for seed in range(8):
        guesses = release(sigma, seed)
        found.append(
            [
                estimate(guesses, DELTA)
                for estimate in (bounds.one_run_bound, bounds.f_dp_bound, bounds.gdp_bound)
            ]
        )
    mean, spread = np.mean(found, axis=0), np.std(found, axis=0, ddof=1)
    # One audit, with other thresholds than ours: within three standard deviations of a single one.
    np.testing.assert_array_less(np.abs(mean - PUBLISHED[sigma]), 3 * spread)


def test_only_the_gdp_bound_shows_noise_that_is_half_and_all_show_a_quarter():
    right, half, quarter = release(1.0, 0), release(0.5, 0), release(0.25, 0)
    estimates = (bounds.rates_bound, bounds.one_run_bound, bounds.f_dp_bound, bounds.gdp_bound)
    assert all(estimate(right, DELTA) < CLAIM for estimate in estimates)
    assert bounds.gdp_bound(half, DELTA) > CLAIM > bounds.one_run_bound(half, DELTA)
    assert all(estimate(quarter, DELTA) > CLAIM for estimate in estimates)


def test_bounds_are_rarely_above_the_truth():
    """At 80 % confidence, of 300 audits of a mechanism whose epsilon is known."""
    above = 0
    for seed in range(300):
        rng = np.random.default_rng([7, seed])
        noise = rng.normal(size=(2, 60))
        guesses = bounds.guess(1 + noise[0], noise[1])
        above += bounds.gdp_bound(guesses, DELTA, significance=0.2) > CLAIM
    # 60 are allowed; a bound that forgot to pay for its twelve numbers of guesses has some 180.
    assert above <= 60


def test_one_run_bound_of_perfect_guesses_by_hand():
    """All of k guesses right and delta 0: (e^eps / (1 + e^eps))^k = significance."""
    guesses = bounds.Guesses(20, 20, np.array([20]), np.array([0]))
    accuracy = 0.05 ** (1 / 20)
    expected = np.log(accuracy / (1 - accuracy))
    assert bounds.one_run_bound(guesses, 1e-12) == pytest.approx(expected, abs=1e-3)


def test_rates_bound_by_hand():
    guesses = bounds.Guesses(100, 100, np.array([100]), np.array([0]))
    rate = 1 - (0.05 / 2) ** (1 / 100)  # Clopper-Pearson for none of 100
    expected = np.log((1 - DELTA - rate) / rate)
    assert bounds.rates_bound(guesses, DELTA) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "estimate", [bounds.rates_bound, bounds.one_run_bound, bounds.f_dp_bound, bounds.gdp_bound]
)
def test_scores_that_say_nothing_bound_nothing(estimate):
    constant = np.zeros(200)
    assert estimate(bounds.guess(constant, constant), DELTA) == 0.0


@pytest.mark.parametrize(
    "included, excluded, named",
    [
        (np.zeros(9), np.zeros(50), "included must be the scores of at least 10"),
        (np.zeros(50), np.zeros((50, 2)), "excluded must be the scores of at least 10"),
        (np.full(50, np.nan), np.zeros(50), "included must be finite, got nan"),
    ],
)
def test_bad_scores_are_refused(included, excluded, named):
    with pytest.raises(ValueError, match=named):
        bounds.guess(included, excluded)
