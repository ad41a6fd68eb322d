import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med.aggregation import weighted_mean
from fedjax_med.data import ClientArrays, DataError
from fedjax_med.engine import Survey, survey
from fedjax_med.engine.placement import mesh
from fedjax_med.preprocessing import (
    Messages,
    bounds,
    category_counts,
    fit_target,
    histogram,
    kinds_of,
    quantiles,
    statistics,
)
from fedjax_med.preprocessing.bisection import Ranks, float_grid, total_quantiles
from fedjax_med.preprocessing.columns import training_survey
from fedjax_med.preprocessing.messages import Surveyor
from fedjax_med.preprocessing.statistics import SUMS, own_moments
from tests.draws import draws
from tests.preprocessing import worlds

P = (0.0, 0.125, 0.5, 0.75, 1.0)  # sums of powers of two: p * n has no rounding error


def as_doubles(dataset):
    return dataset.train.examples["x"].astype(np.float64)


def test_statistics_equal_those_of_the_pooled_rows(table):
    x, messages = as_doubles(table), Messages()
    got = statistics(table, messages=messages)
    np.testing.assert_allclose(got.mean, np.nanmean(x, axis=0), rtol=1e-12)
    np.testing.assert_allclose(got.variance, np.nanvar(x, axis=0), rtol=1e-12)
    assert got.rows == len(x)
    np.testing.assert_array_equal(got.missing, np.isnan(x).sum(axis=0))
    np.testing.assert_array_equal(got.count, len(x) - got.missing)
    np.testing.assert_array_equal(got.ones, (x == 1).sum(axis=0))
    np.testing.assert_array_equal(got.zeros, (x == 0).sum(axis=0))
    (told,) = messages.entries  # five numbers of 8 bytes for each of six columns, and the rows
    assert (told.num_bytes, told.leaves, told.passes) == (8 * (5 * 6 + 1), "sum", 2)
    assert told.shapes["squares"] == (6,) and told.shapes["rows"] == ()


@pytest.mark.parametrize("sizes", [(27, 0, 0, 0), (1, 2, 3, 21)])
def test_division_among_hospitals_changes_nothing(table, sizes):
    x = table.train.examples["x"]
    other = worlds.divided(x, sizes)
    for got, want in zip(statistics(other), statistics(table), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_array_equal(quantiles(other, (0.5,)), quantiles(table, (0.5,)))


def test_a_hospitals_own_moments_are_its_rows_alone(table):
    got = own_moments(training_survey(table), (4, 6), "nothing")
    for i in range(4):
        x = table.train.client(i)["x"].astype(np.float64)
        count = (~np.isnan(x)).sum(axis=0)
        np.testing.assert_array_equal(got.count[i], count)
        mean = np.nansum(x, axis=0) / np.maximum(count, 1)
        np.testing.assert_allclose(got.mean[i], mean, rtol=1e-13)
        squares = np.nansum((x - mean) ** 2, axis=0)
        # A constant column has squares of rounding errors of its mean.
        np.testing.assert_allclose(got.squares[i], squares, rtol=1e-12, atol=1e-20)


def test_histogram_is_that_of_numpy(table):
    edges = np.sort(np.random.default_rng(1).normal(0, 30, (6, 5)), axis=1)
    edges[0] = [40, 50, 60, 70, 89]  # values lie on these, the last one included
    edges[2] = [0, 0.5, 1, 2, 3]
    x, got = as_doubles(table), histogram(table, edges)
    for j in range(6):
        values = x[~np.isnan(x[:, j]), j]
        np.testing.assert_array_equal(got.counts[j], np.histogram(values, edges[j])[0])
        assert got.below[j] == (values < edges[j, 0]).sum()
        assert got.above[j] == (values > edges[j, -1]).sum()
        assert got.missing[j] == len(x) - len(values)
    with pytest.raises(DataError, match="ascending"):
        histogram(table, np.array([0.0, 0.0, 1.0]))
    with pytest.raises(DataError, match="shape"):
        histogram(table, np.zeros((2, 3)))


def test_quantiles_are_within_their_resolution(table):
    x, messages = as_doubles(table), Messages()
    want = np.nanquantile(x, P, axis=0, method="inverted_cdf").T
    got = quantiles(table, P, messages=messages)
    assert (got >= want).all()
    assert (got - want <= 2.0**-15 * np.abs(want)).all()
    np.testing.assert_array_equal(got[[0, 2, 3, 4]], want[[0, 2, 3, 4]])  # whole numbers
    np.testing.assert_array_equal(quantiles(table, P, resolution=2.0**-23), want)
    assert [m.leaves for m in messages.entries] == ["sum"]
    low, high = np.full(6, -100.0), np.full(6, 2e4)
    ranged = quantiles(table, P, within=(low, high), resolution=2.0**-12)
    assert (ranged >= want).all() and (ranged - want < 20100 * 2.0**-12).all()
    clipped = quantiles(table, (0.5,), within=(low, np.full(6, 50.0)))
    assert clipped[1] == 50


class NumpySurveyor(Surveyor):
    """Answers like hospitals would, without a compiled program."""

    def __init__(self, sites):
        self.sites = sites

    def total(self, statistic, program, shared, **options):
        up_to = sum((x[:, :, None] <= shared).sum(axis=0) for x in self.sites)
        return Ranks(sum((~np.isnan(x)).sum(axis=0) for x in self.sites), up_to)


number = st.floats(width=32, allow_nan=False, allow_infinity=False)


@draws(30, 1000)
@given(
    values=st.lists(st.one_of(number, st.integers(-3, 3).map(float)), min_size=1, max_size=12),
    cut=st.integers(0, 12),
    bits=st.integers(0, 23),
)
def test_bisection_finds_the_quantile_of_any_numbers(values, cut, bits):
    x = np.array(values)[:, None]
    want = np.quantile(x[:, 0], P, method="inverted_cdf")
    grid = float_grid(2.0**-bits)
    got = total_quantiles(NumpySurveyor([x[:cut], x[cut:]]), 1, P, grid)[0]
    assert (got >= want).all()
    # Next to zero the float32 numbers are as far apart as the smallest normal one.
    assert (got - want <= np.abs(want) * 2.0**-bits + np.finfo(np.float32).tiny).all()


def test_bounds_are_public_or_rough_unless_extremes_are_disclosed(table):
    x = as_doubles(table)
    smallest, largest = np.nanmin(x, axis=0), np.nanmax(x, axis=0)
    low, high = bounds(table, {"age": (0.0, 120.0)})
    assert (low[0], high[0]) == (0, 120)
    assert (low <= smallest).all() and (high >= largest).all()
    assert low[5] >= 2 * smallest[5] and high[5] <= 2 * largest[5]
    assert high[1] not in x  # no patient's value
    low, high = bounds(table, disclose_extremes=True)
    np.testing.assert_array_equal([low, high], [smallest, largest])
    with pytest.raises(DataError, match="unknown column 'ages'"):
        bounds(table, {"ages": (0.0, 1.0)})


def test_kinds_come_from_counts_and_not_from_names_alone():
    names = ("a=1", "a=2", "b=1", "b=2", "c=1", "d", "e", "f=1", "f=2")
    count = np.array([9, 9, 9, 9, 9, 9, 0, 9, 8])
    ones = np.array([3, 4, 6, 6, 2, 5, 0, 1, 1])
    zeros = count - ones
    zeros[4] -= 1  # another number than 0 and 1
    kinds, blocks = kinds_of(names, count, zeros, ones)
    assert [b.name for b in blocks] == ["a"]  # b: more ones than rows; f: not missing together
    assert kinds[:2] == ["category"] * 2 and kinds[2:4] == ["binary"] * 2
    assert kinds[4:] == ["numeric", "binary", "absent", "binary", "binary"]


def test_categories_are_counted_and_small_counts_left_out(table):
    x = as_doubles(table)
    first, second, missing = (x[:, 3] == 1).sum(), (x[:, 4] == 1).sum(), np.isnan(x[:, 3]).sum()
    counts = [first, second, len(x) - first - second - missing, missing]
    categories, told = category_counts(table, min_count=1)["stage"]
    assert categories == ("I", "II", "(none of them)", "(missing)")
    np.testing.assert_array_equal(told.counts, counts)
    _, told = category_counts(table, min_count=int(min(counts)) + 1)["stage"]
    assert np.isnan(told.counts).sum() == 2 and told.total == len(x)


def test_targets_are_standardised_by_training_rows_only(table):
    y = table.train.examples["y"].astype(np.float64)
    got = fit_target(worlds.held_out(table, np.nan))
    np.testing.assert_allclose(got, (y.mean(), y.std()), rtol=1e-14)
    with pytest.raises(DataError, match="regression"):
        arrays = ClientArrays(
            {**table.train.examples, "y": np.zeros(27, np.int32)}, table.train.sizes
        )
        fit_target(table.replace(train=arrays))


def test_a_survey_takes_any_aggregator_and_names_who_is_not_finite(table):
    zeros = np.zeros(6)
    total = survey(SUMS, zeros, table).aggregate
    mean = survey(SUMS, zeros, table, aggregator=weighted_mean()).aggregate
    sizes = np.array(worlds.SIZES)
    assert total.rows == sizes.sum()
    np.testing.assert_allclose(mean.rows, (sizes**2).sum() / sizes.sum(), rtol=1e-12)
    x = table.train.examples["x"].copy()
    x[[12, 24], 0] = np.inf
    with pytest.raises(ValueError, match=r"'South' found is not finite \(2 such"):
        statistics(worlds.divided(x))
    with pytest.raises(ValueError, match="no 'validation'"):
        survey(SUMS, zeros, table, split="validation")


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [4, 1024])
def test_placement_and_minibatches_change_nothing(table, batch_size):
    arrays = ClientArrays({"x": table.train.examples["x"]}, table.train.sizes)
    spread = Survey(arrays, table.client_names, batch_size=batch_size, placement=mesh(2, splits=2))
    own = own_moments(Surveyor(spread, Messages()), (4, 6), "nothing")
    for got, want in zip(own, own_moments(training_survey(table), (4, 6), "nothing"), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-20)
    total = spread(SUMS, np.zeros(6)).aggregate
    for got, want in zip(total, survey(SUMS, np.zeros(6), table).aggregate, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)
