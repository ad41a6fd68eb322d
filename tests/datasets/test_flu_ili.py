"""Weeks and windows against the file read here, hand-worked calendars, and leaks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med import datasets
from fedjax_med.data import DataError
from fedjax_med.data.standardize import site_statistics
from fedjax_med.datasets import weekly
from fedjax_med.datasets._flu_ili import forecasting_dataset, parts_of
from tests.draws import draws


def series(counts):
    counts = np.asarray(counts, np.float64)
    season, week = weekly.calendar(2002, len(counts))
    names = tuple(f"Region {i + 1}" for i in range(counts.shape[1]))
    return weekly.WeeklyCounts(counts, names, season, week, np.eye(len(names), dtype=bool))


def test_years_of_53_weeks():
    """Of the CDC's calendars of the years that the data spans."""
    assert [y for y in range(2002, 2018) if weekly.weeks_of_year(y) == 53] == [2003, 2008, 2014]


def test_calendar_meets_the_jumps_of_the_counts(shared_data_dir):
    """More providers report from week 40 on, above all in the first years."""
    found = datasets.flu_ili_counts(data_dir=shared_data_dir)
    total = found.counts.sum(axis=1)
    jumps = np.flatnonzero(total[1:] > 2.5 * total[:-1]) + 1
    assert found.week[jumps].tolist()[:5] == [40, 40, 40, 40, 40] and len(jumps) >= 5
    assert (found.season[0], found.week[0]) == (2002, 40)
    assert (found.season[-1], found.week[-1]) == (2017, 41)


def test_states_are_the_later_years_of_the_regions(shared_data_dir):
    regions = datasets.flu_ili_counts(data_dir=shared_data_dir)
    states = datasets.flu_ili_counts("states", data_dir=shared_data_dir)
    assert states.counts.shape == (360, 49) and regions.counts.shape == (785, 10)
    first = int(np.flatnonzero((regions.season == 2010) & (regions.week == 40))[0])
    assert (states.season[0], states.week[0]) == (2010, 40)
    a, b = regions.counts.sum(1)[first : first + 360], states.counts.sum(1)
    assert np.corrcoef(np.diff(np.log(a)), np.diff(np.log(b)))[0, 1] > 0.95
    assert (states.adjacent == states.adjacent.T).all() and states.adjacent.diagonal().all()


def test_rows_are_those_of_the_file(shared_data_dir):
    table = np.loadtxt(shared_data_dir / "flu_ili" / "region785.txt", delimiter=",")
    data = datasets.flu_ili(
        data_dir=shared_data_dir, window=3, horizons=(1, 4), standardize=None, validation_from=2010
    )
    start_validation, start_test = 418, 522  # 8 and 10 seasons, two of them of 53 weeks
    sizes = {name: arrays.sizes.tolist() for name, arrays in data.splits().items()}
    # The first origin is the third week, or the week before the part; the last has 4 more.
    assert sizes == {"train": [412] * 10, "validation": [101] * 10, "test": [260] * 10}
    train, test = data.train.client(2), data.test.client(9)
    np.testing.assert_array_equal(train["x"][0, :3], table[:3, 2])
    np.testing.assert_array_equal(train["y"][0], table[[3, 6], 2])
    np.testing.assert_array_equal(train["y"][-1], table[[414, 417], 2])
    np.testing.assert_array_equal(data.validation.client(0)["y"][0, 0], table[start_validation, 0])
    np.testing.assert_array_equal(test["x"][0, :3], table[start_test - 3 : start_test, 9])
    np.testing.assert_array_equal(test["y"][0], table[[start_test, start_test + 3], 9])
    # Row 2 is week 42: two weeks after the angle 0.
    want = [np.sin(2 * np.pi * 2 / 52), np.cos(2 * np.pi * 2 / 52)]
    np.testing.assert_allclose(train["x"][0, 3:], want, rtol=1e-6)


@draws(30, 300)
@given(
    window=st.integers(1, 6),
    horizons=st.sets(st.integers(1, 9), min_size=1).map(sorted),
    cuts=st.sets(st.integers(16, 60), min_size=1, max_size=2).map(sorted),
)
def test_nothing_of_a_later_part_is_seen_earlier(window, horizons, cuts):
    """Values are their own week, so every window says what it has seen."""
    weeks = np.arange(80.0)[:, None] + np.zeros(2)
    for begin, end in zip([0, *cuts], [*cuts, 80], strict=True):
        if end - begin < horizons[-1] - horizons[0] + 1:
            continue
        if begin == 0 and end < window + horizons[-1]:
            continue
        cut = weekly.windows(weeks, window=window, horizons=horizons, begin=begin, end=end)
        assert cut.target.min() >= begin and cut.target.max() == end - 1
        assert (cut.past[..., -1] == cut.origin[:, None]).all()
        np.testing.assert_array_equal(
            cut.target - cut.past[..., -1:], np.broadcast_to(horizons, cut.target.shape)
        )
        assert cut.past.max() < end - 1 and cut.past.shape[-1] == window


def test_a_change_of_test_weeks_changes_no_training_row():
    rng = np.random.default_rng(0)
    before = series(rng.poisson(50, (300, 2)))
    parts = parts_of(before, test_from=2006)
    begin = parts["test"][0]
    later = before.counts.copy()
    later[begin:] *= 7
    made = [
        forecasting_dataset(
            before,
            weekly.fit_log_scale(counts[:begin]).apply(counts),
            parts,
            window=5,
            horizons=(1, 3),
            name="toy",
        )
        for counts in (before.counts, later)
    ]
    for key in ("x", "y"):
        first, second = (data.train.examples[key] for data in made)
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(made[0].test.examples["y"], made[1].test.examples["y"])


def test_shared_scale_is_that_of_all_weeks_pooled():
    counts = np.random.default_rng(1).poisson(30, (40, 3)) * [1.0, 5.0, 20.0]
    scale = weekly.fit_log_scale(counts, shared=True)
    pooled = site_statistics(np.log1p(counts).reshape(-1, 1))
    np.testing.assert_allclose(scale.mean, np.full(3, pooled.mean[0]), rtol=1e-12)
    np.testing.assert_allclose(scale.deviation, np.full(3, pooled.variance()[0] ** 0.5), rtol=1e-12)
    own = weekly.fit_log_scale(counts)
    scaled = own.apply(counts)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(own.logarithms(scaled), np.log1p(counts), rtol=1e-12)
    assert (weekly.fit_log_scale(np.ones((4, 1))).deviation == 1).all()  # nothing varies


def test_gaps_are_refused_or_filled():
    gaps = series([[1.0, 5.0], [np.nan, 6.0], [np.nan, 7.0], [4.0, 8.0]])
    with pytest.raises(DataError) as error:
        weekly.without_gaps(gaps)
    assert str(error.value) == (
        "Region 1 has no count in week 41 of 2002 (row 2); pass fill='previous' or "
        "fill='linear' to fill such weeks in."
    )
    assert weekly.without_gaps(gaps, "previous").counts[:, 0].tolist() == [1, 1, 1, 4]
    assert weekly.without_gaps(gaps, "linear").counts[:, 0].tolist() == [1, 2, 3, 4]
    late = series([[1.0], [np.nan]])
    assert weekly.without_gaps(late, "previous").counts[:, 0].tolist() == [1, 1]
    for counts, fill in (([[np.nan], [1.0]], "previous"), ([[1.0], [np.nan]], "linear")):
        with pytest.raises(DataError, match=rf"none to fill it in from by '{fill}'; begin later"):
            weekly.without_gaps(series(counts), fill)
    with pytest.raises(DataError, match="Region 1 has -2 patients in week 40 of 2002 "):
        weekly.without_gaps(series([[-2.0], [1.0]]))
    with pytest.raises(DataError, match="fill must be None, 'previous' or 'linear', got 'zero'"):
        weekly.without_gaps(gaps, "zero")


def test_options_that_do_not_fit_are_named(shared_data_dir):
    with pytest.raises(DataError, match="places must be 'regions' or 'states', got 'county'"):
        datasets.flu_ili(places="county")
    toy = series(np.ones((160, 1)))
    with pytest.raises(DataError, match="test_from must be a season from 2003 to 2005, got 2020"):
        parts_of(toy, test_from=2020)
    with pytest.raises(DataError, match="validation_from must be before test_from, got 2005 and"):
        parts_of(toy, test_from=2004, validation_from=2005)
    with pytest.raises(ValueError, match=r"horizons must rise from 1 or more, got \(2, 1\)"):
        weekly.windows(toy.counts, window=2, horizons=(2, 1), begin=0, end=9)
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        weekly.windows(toy.counts, window=0, horizons=(1,), begin=0, end=9)
    with pytest.raises(DataError, match="train of flu-ili: no window of 600 weeks with a target 1"):
        datasets.flu_ili(data_dir=shared_data_dir, window=600)
