"""Detectors: definitions by hand, stated false alarm rates, delays of known changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med.streams import adwin, ddm, page_hinkley, page_hinkley_threshold
from tests.draws import draws


def losses(num, steps, seed, *, change=None, by=0.0):
    """Skewed and correlated in time, as losses are: mean 0.5 and about 1 wide `[num, steps]`."""
    rng = np.random.default_rng(seed)
    noise, state = rng.exponential(0.5, (num, steps)), np.zeros((num, steps))
    for t in range(steps):
        state[:, t] = 0.3 * state[:, t - 1] + 0.7 * noise[:, t] if t else noise[:, 0]
    if change is not None:
        state[:, change:] += by
    return state


@draws(60, 600)
@given(
    series=st.lists(st.integers(-4, 8), min_size=1, max_size=30),
    delta=st.sampled_from([0.0, 0.5]),
    threshold=st.sampled_from([1.0, 4.5]),
)
def test_page_hinkley_is_the_sum_minus_its_minimum(series, delta, threshold):
    want, seen, sums = [], [], [0.0]
    for value in series:
        seen.append(value)
        sums.append(sums[-1] + value - np.mean(seen) - delta)
        want.append(sums[-1] - min(sums) > threshold)
        if want[-1]:
            seen, sums = [], [0.0]
    got = page_hinkley(np.array(series, float), delta=delta, threshold=threshold)
    # Halves and whole numbers over at most 30: a sum on the threshold is decided by rounding.
    again = page_hinkley(np.array(series, float), delta=delta, threshold=threshold + 1e-9)
    below = page_hinkley(np.array(series, float), delta=delta, threshold=threshold - 1e-9)
    if (again == below).all():
        assert got.tolist() == want


@pytest.mark.parametrize("rate", [0.002, 0.01])
def test_false_alarms_come_as_often_as_stated(rate):
    """Thresholds from 600 losses each, judged on 1500 later ones, 10 clients."""
    series = losses(10, 2100, 0)
    thresholds = [
        page_hinkley_threshold(row[:600], delta=0.1, rate=rate, seed=i)
        for i, row in enumerate(series)
    ]
    alarms = np.array(
        [
            page_hinkley(row[600:], delta=0.1, threshold=threshold).mean()
            for row, threshold in zip(series, thresholds, strict=True)
        ]
    )
    # Each threshold is as uncertain as the mean and the tail of 600 correlated losses make it.
    assert rate / 2 < alarms.mean() < 2 * rate
    # A mutant that forgets to begin anew would alarm at every example after the first.
    assert alarms.max() < 12 * rate


def test_a_known_change_is_found_soon():
    """A rise by one deviation after 800 examples, with one false alarm in 500 examples allowed."""
    series = losses(8, 1000, 1, change=800, by=0.4)
    delays, missed = [], 0
    for i, row in enumerate(series):
        threshold = page_hinkley_threshold(row[:600], delta=0.1, rate=0.002, seed=i)
        raised = np.flatnonzero(page_hinkley(row, delta=0.1, threshold=threshold)[800:])
        missed += not len(raised)
        delays += raised[:1].tolist()
    assert missed == 0 and np.median(delays) < 40 and max(delays) < 150


@draws(40, 400)
@given(errors=st.lists(st.booleans(), min_size=1, max_size=60), least=st.integers(1, 8))
def test_ddm_is_that_of_gama(errors, least):
    alarm, warning = [], []
    seen: list[bool] = []
    best = (np.inf, np.inf)
    for error in errors:
        seen.append(error)
        p = np.mean(seen)
        s = np.sqrt(p * (1 - p) / len(seen))
        a = w = False
        if len(seen) >= least:
            if p + s < sum(best):
                best = (p, s)
            elif best[1] > 0:
                a, w = p + s >= best[0] + 3 * best[1], p + s >= best[0] + 2 * best[1]
        alarm.append(a)
        warning.append(w)
        if a:
            seen, best = [], (np.inf, np.inf)
    got = ddm(np.array(errors, float), least=least)
    assert got.alarm.tolist() == alarm and got.warning.tolist() == warning


def test_ddm_finds_a_change_and_warns_before():
    rng = np.random.default_rng(2)
    share = np.where(np.arange(600) < 300, 0.1, 0.4)
    error = (rng.random((50, 600)) < share).astype(float)
    found = ddm(error)
    after = found.alarm[:, 300:].any(axis=1)
    # An alarm shortly before the change begins anew, among changed examples.
    assert after.mean() > 0.85
    delay = found.alarm[:, 300:].argmax(axis=1)[after]
    assert np.median(delay) < 60
    # Three deviations of a share that is looked at again and again: several false alarms.
    assert found.alarm[:, :300].any(axis=1).mean() < 0.4
    assert (found.warning | ~found.alarm).all()


def test_adwin_cuts_where_the_mean_changes():
    rng = np.random.default_rng(3)
    up = np.concatenate([rng.random(200) * 0.4, 0.5 + rng.random(200) * 0.4])
    alarm = adwin(up, delta=0.01)
    assert 200 <= np.flatnonzero(alarm)[0] < 230
    assert not adwin(up[::-1].copy(), delta=0.01).any()  # a fall is no drift
    looked = np.flatnonzero(adwin(up, delta=0.01, every=16))
    assert len(looked) and (looked % 16 == 15).all()


def test_adwin_gives_fewer_false_alarms_than_it_may():
    rng = np.random.default_rng(4)
    quiet = (rng.random((20, 300)) < 0.2).astype(float)
    rate = np.mean([adwin(row, delta=0.05).mean() for row in quiet])
    assert rate <= 0.05 / 4


def test_the_bound_of_adwin_by_hand():
    """One look at ten values, whose halves differ by `gap`; the bound is that of the paper."""
    for gap in np.linspace(0.05, 0.95, 19):
        values = np.repeat([0.0, gap], 50)
        inverse, log = 1 / 50 + 1 / 50, np.log(2 * 100 / 0.3)
        bound = np.sqrt(2 * inverse * (gap / 2) ** 2 * log) + 2 / 3 * inverse * log
        got = adwin(values, delta=0.3, every=100, least=50)
        assert got.any() == (gap > bound)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: page_hinkley(np.ones(3), delta=-1.0, threshold=1.0), "delta must be 0 or more"),
        (lambda: page_hinkley(np.ones(3), delta=0.0, threshold=0.0), "threshold must be above 0"),
        (lambda: page_hinkley(np.array([np.nan]), delta=0.0, threshold=1.0), "must be finite"),
        (lambda: page_hinkley_threshold(np.ones(9), delta=0.0, rate=1.0), "between 0 and 1"),
        (lambda: page_hinkley_threshold(np.ones(3), delta=0.0, rate=0.1), "length from 1 to n"),
        (lambda: ddm(np.array([0.5])), "error must be 0 or 1"),
        (lambda: ddm(np.ones(3), drift=1.0), "drift at least warning"),
        (lambda: adwin(np.array([2.0])), "from 0 to 1"),
        (lambda: adwin(np.ones(3), delta=0.0), "delta must be between 0 and 1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
