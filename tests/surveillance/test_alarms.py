"""Thresholds have the rate that they state, on series without outbreaks; definitions by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med.surveillance import (
    cusum,
    cusum_threshold,
    detection,
    false_alarm_rate,
    score_threshold,
    scores,
)
from tests.draws import draws


def null_series(num, weeks, seed):
    """Logarithms of counts: a season, weeks that follow each other, no outbreak `[num, weeks]`."""
    rng = np.random.default_rng(seed)
    noise, state = rng.standard_t(5, (num, weeks)), np.zeros((num, weeks))
    for t in range(1, weeks):
        state[:, t] = 0.8 * state[:, t - 1] + 0.2 * noise[:, t]
    return 5 + np.cos(2 * np.pi * np.arange(weeks) / 52) + state


def one_week_ahead(logs, fitted_to):
    """Scores `[num, weeks - 1]` by least squares on the last week and the season."""
    weeks = np.arange(logs.shape[1])
    made = []
    for row in logs:
        angle = 2 * np.pi * weeks[:-1] / 52
        x = np.stack([np.ones(len(row) - 1), row[:-1], np.sin(angle), np.cos(angle)], axis=1)
        coefficients = np.linalg.lstsq(x[:fitted_to], row[1 : fitted_to + 1])[0]
        made.append(row[1:] - x @ coefficients)
    return np.array(made)


def test_false_alarms_come_as_often_as_stated():
    """Forecast model from 3 years, threshold from the next 4, judged on 4 more, 60 places."""
    score = one_week_ahead(null_series(60, 52 * 11 + 1, 0), 52 * 3)
    training, later = score[:, 156:364], score[:, 364:]
    for rate in (0.02, 0.1):
        limit = np.array([score_threshold(row, rate) for row in training])[:, None]
        got = false_alarm_rate(later > limit)
        # 60 places x 208 weeks; the thresholds, of 208 weeks each, add as much variance again.
        error = np.sqrt(2 * rate * (1 - rate) / later.size)
        assert abs(got - rate) < 4 * error + 1 / 209
        sums = [cusum_threshold(row, reference=0.1, rate=rate) for row in training[:12]]
        alarm = [
            cusum(row, reference=0.1, threshold=limit)
            for row, limit in zip(later[:12], sums, strict=True)
        ]
        # Sums of some weeks are fewer independent pieces than weeks: a third more or less.
        assert rate / 1.5 < false_alarm_rate(np.array(alarm)) < 1.5 * rate


@draws(40, 400)
@given(n=st.integers(1, 60), rate=st.floats(0.02, 0.6), seed=st.integers(0, 999))
def test_threshold_is_the_order_statistic_of_conformal_prediction(n, rate, seed):
    """Of n + 1 exchangeable scores, the share of ranks above the threshold is at most the rate."""
    training = np.random.default_rng(seed).normal(size=n)
    rank = int(np.ceil((n + 1) * (1 - rate) - 1e-9))
    if rank > n:
        with pytest.raises(
            ValueError, match=rf"rate .* needs at least \d+ training weeks, got {n}"
        ):
            score_threshold(training, rate)
        return
    limit = score_threshold(training, rate)
    above = (training > limit).sum()
    assert above == n - rank
    # Of the n + 1 places that a new score may take among them, these are above the threshold.
    assert (above + 1) / (n + 1) <= rate + 1e-9 < (above + 2) / (n + 1) + 2e-9


def test_cusum_by_hand():
    """S: 0.5, 1.5 (alarm, back to 0), 0, 0.5, 1.0, 2.5 (alarm)."""
    score = np.array([1.0, 1.5, -2.0, 1.0, 1.0, 2.0])
    alarm = cusum(score, reference=0.5, threshold=1.2)
    assert alarm.tolist() == [False, True, False, False, False, True]
    several = cusum(np.stack([score, -score]), reference=0.5, threshold=1.2)
    np.testing.assert_array_equal(several[0], alarm)
    assert several[1].tolist() == [False, False, True, False, False, False]


def test_cusum_threshold_is_the_smallest():
    training = np.random.default_rng(3).normal(size=300)
    limit = cusum_threshold(training, reference=0.5, rate=0.05, length=1, num_series=200)
    # Other draws of the same weeks: 1000 alarms in 20,800 weeks, a standard error of 3 %.
    drawn = np.random.default_rng(9).choice(training, (200, 104))
    share = lambda threshold: cusum(drawn, reference=0.5, threshold=threshold).mean()
    assert abs(share(limit) - 0.05) < 0.008
    assert share(0.8 * limit) > 0.055


def test_small_rises_are_found_by_sums_and_large_ones_at_once():
    """A rise of one standard deviation for 8 weeks, and of 4: both at 2 % of false alarms."""
    rng = np.random.default_rng(4)
    training = rng.normal(size=400)
    high = score_threshold(training, 0.02)
    limit = cusum_threshold(training, reference=0.5, rate=0.02)
    found = {}
    for rise in (1.0, 4.0):
        weeks = rng.normal(rise, 1, (500, 8))
        found[rise] = (
            detection(weeks > high),
            detection(cusum(weeks, reference=0.5, threshold=limit)),
        )
    at_once, adding = found[1.0]
    assert adding.found > at_once.found + 0.1
    assert min(d.found for d in found[4.0]) > 0.99 and found[4.0][0].delay < 0.2


def test_detection_and_scores_by_hand():
    alarm = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]], bool)
    assert detection(alarm) == (0.75, 1.0)
    nothing = detection(np.zeros((2, 3), bool))
    assert nothing.found == 0 and np.isnan(nothing.delay)
    outbreak = np.array([[0, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]], bool)
    assert false_alarm_rate(alarm, outbreak) == 0.2
    assert np.isnan(false_alarm_rate(alarm, np.ones_like(outbreak)))
    got = scores(np.array([3.0, 1.0]), np.zeros(2), np.ones(2), np.array([4.0, 2.0]))
    np.testing.assert_allclose(got, [0.5, 0.0])


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"rate must be between 0 and 1, got 1\.5"):
        score_threshold(np.zeros(9), 1.5)
    with pytest.raises(ValueError, match="training must be a list of finite scores"):
        score_threshold(np.array([np.nan]), 0.5)
    with pytest.raises(ValueError, match=r"threshold must be above 0, got 0\.0"):
        cusum(np.zeros(3), reference=0.0, threshold=0.0)
    with pytest.raises(ValueError, match="length must be from 1 to 3 weeks, got 4"):
        cusum_threshold(np.zeros(3), reference=0.0, rate=0.5, length=4)
    with pytest.raises(ValueError, match=r"alarm must be \[outbreaks, weeks\], got shape \[3\]"):
        detection(np.zeros(3, bool))
