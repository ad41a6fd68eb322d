"""Scores against hand-worked numbers, definitions and known laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med.evaluation.forecasting import (
    block_interval,
    correlation,
    coverage,
    draw_blocks,
    interval_score,
    rmse,
    uncrossed,
    weighted_interval_score,
)
from fedjax_med.tasks.forecasting import LEVELS
from tests.draws import draws

RNG = np.random.default_rng(0)


def test_interval_score_by_hand():
    """80 %: alpha 0.2, so a unit outside costs 10."""
    low, high = np.array([1.0, 1.0, 1.0]), np.array([3.0, 3.0, 3.0])
    truth = np.array([2.0, 0.5, 4.0])
    np.testing.assert_allclose(interval_score(low, high, truth, level=0.8), [2, 7, 12])
    assert coverage(low, high, truth).tolist() == [1, 0, 0]


def test_weighted_interval_score_by_hand():
    """Median 2 and 50 % interval 1 to 4, truth 5: (3 / 2 + 0.5 / 2 * (3 + 4 * 1)) / 1.5."""
    got = weighted_interval_score(np.array([1.0, 2.0, 4.0]), np.array(5.0), (0.25, 0.5, 0.75))
    np.testing.assert_allclose(got, (1.5 + 0.25 * 7) / 1.5)
    alone = weighted_interval_score(np.array([[2.0]]), np.array([5.0]), (0.5,))
    np.testing.assert_allclose(alone, [3])


@draws(25, 300)
@given(seed=st.integers(0, 2**32 - 1), half=st.integers(0, 5))
def test_weighted_interval_score_is_twice_the_mean_pinball_loss(seed, half):
    """Bracher et al., section 2.3, up to the factor of the number of levels."""
    rng = np.random.default_rng(seed)
    lower = np.sort(rng.uniform(0.01, 0.49, half))
    levels = np.concatenate([lower, [0.5], 1 - lower[::-1]])
    if (np.diff(levels) < 1e-6).any():
        return
    quantiles, truth = np.sort(rng.normal(size=(4, len(levels)))), rng.normal(size=4)
    error = truth[:, None] - quantiles
    pinball = np.maximum(levels * error, (levels - 1) * error).mean(axis=1)
    got = weighted_interval_score(quantiles, truth, levels.tolist())
    np.testing.assert_allclose(got, 2 * pinball, rtol=1e-9)


def test_weighted_interval_score_of_the_true_law_is_least():
    """The score is proper: of normal forecasts, the true one is best on average."""
    from scipy.stats import norm

    truth = RNG.normal(size=20_000)
    at = norm.ppf(LEVELS)

    def score(shift, spread):
        quantiles = np.broadcast_to(shift + spread * at, (len(truth), len(LEVELS)))
        return weighted_interval_score(quantiles, truth, LEVELS).mean()

    best = score(0.0, 1.0)
    # Each is worse by 1 % or more, the standard error of such paired differences is below 0.2 %.
    assert all(score(*other) > 1.01 * best for other in ((0.3, 1.0), (0.0, 0.6), (0.0, 1.6)))


def test_quantiles_are_sorted_and_no_worse():
    crossed = RNG.normal(size=(500, len(LEVELS)))
    truth = RNG.normal(size=500)
    sorted_ = uncrossed(crossed)
    assert (np.diff(sorted_) >= 0).all()
    levels = np.array(LEVELS)

    def loss(quantiles):
        error = truth[:, None] - quantiles
        return np.maximum(levels * error, (levels - 1) * error).sum(axis=1)

    assert (loss(sorted_) <= loss(crossed) + 1e-12).all()


def test_weights_are_repeated_weeks():
    forecast, truth = RNG.normal(100, 5, (6, 3)), RNG.normal(100, 5, (6, 3))
    times = np.array([0, 2, 1, 3, 1, 0])
    rows = np.repeat(np.arange(6), times)
    a, b = forecast[rows].ravel(), truth[rows].ravel()
    np.testing.assert_allclose(rmse(forecast, truth, times), np.sqrt(np.mean((a - b) ** 2)))
    got = correlation(forecast, truth, np.stack([times, np.ones(6)]))
    want = [np.corrcoef(a, b)[0, 1], np.corrcoef(forecast.ravel(), truth.ravel())[0, 1]]
    np.testing.assert_allclose(got, want, rtol=1e-9)
    assert np.isnan(correlation(np.ones((6, 3)), truth))
    np.testing.assert_allclose(correlation(3 * truth - 7, truth), 1)


def test_blocks_are_runs_of_weeks_around_the_end():
    drawn = draw_blocks(10, 400, length=5, seed=1)
    assert (drawn.sum(axis=1) == 10).all()
    # Two blocks of 5: every resample is the sum of two runs on the circle of weeks.
    runs = np.stack([np.roll([1.0] * 5 + [0.0] * 5, k) for k in range(10)])
    pairs = {tuple(runs[a] + runs[b]) for a in range(10) for b in range(10)}
    assert {tuple(row) for row in drawn} <= pairs
    # Each week 1 on average; a mean of 400 counts of standard deviation below 1.
    assert np.abs(drawn.mean(axis=0) - 1).max() < 4 / 20
    with pytest.raises(ValueError, match="length must be from 1 to 10 weeks, got 11"):
        draw_blocks(10, 3, length=11, seed=0)


def test_block_intervals_hold_the_mean_of_correlated_weeks():
    """Autoregressive weeks (0.7): blocks of 12 hold the truth far more often than single weeks."""
    num_series, num_weeks = 150, 240
    noise = RNG.normal(size=(num_series, num_weeks + 50))
    weeks = np.zeros_like(noise)
    for t in range(1, weeks.shape[1]):
        weeks[:, t] = 0.7 * weeks[:, t - 1] + noise[:, t]
    held = {}
    for length in (1, 12):
        drawn = draw_blocks(num_weeks, 200, length=length, seed=0) / num_weeks
        low, high = np.quantile(drawn @ weeks[:, -num_weeks:].T, [0.025, 0.975], axis=0)
        held[length] = ((low <= 0) & (0 <= high)).mean()
    # Known of such blocks: somewhat below 95 %. 150 series have a standard error of 2 to 4 %.
    assert held[12] > 0.82 and held[1] < 0.72


def test_block_interval_is_of_the_same_resamples():
    values = np.arange(20.0)
    found = block_interval(lambda w: w @ values / w.sum(-1), 20, length=4, num_resamples=300)
    drawn = draw_blocks(20, 300, length=4, seed=0) @ values / 20
    assert found.value == values.mean() and found.num_undefined == 0
    np.testing.assert_allclose((found.low, found.high), np.quantile(drawn, [0.025, 0.975]))
    lost = block_interval(lambda w: np.full(w.shape[:-1], np.nan), 20, length=4, num_resamples=9)
    assert np.isnan(lost.low) and lost.num_undefined == 9


def test_bad_levels_are_named():
    with pytest.raises(ValueError, match=r"levels must rise symmetrically about 0.5, got \(0.1, 0"):
        weighted_interval_score(np.zeros((2, 3)), np.zeros(2), (0.1, 0.5, 0.8))
    with pytest.raises(ValueError, match=r"quantiles must have 3 levels, got shape \[2, 2\]"):
        weighted_interval_score(np.zeros((2, 2)), np.zeros(2), (0.1, 0.5, 0.9))
    with pytest.raises(ValueError, match=r"level must be between 0 and 1, got 1\.0"):
        interval_score(np.zeros(1), np.ones(1), np.ones(1), level=1.0)
