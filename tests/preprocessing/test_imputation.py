import numpy as np
import pytest

from fedjax_med.data import ClientArrays, DataError
from fedjax_med.preprocessing import fit_imputer
from tests.preprocessing import worlds


@pytest.mark.parametrize("method", ["mean", "median", "mode"])
def test_what_is_filled_in_comes_from_all_hospitals(table, method):
    x = table.train.examples["x"].astype(np.float64)
    imputer = fit_imputer(table, method)
    if method == "mean":
        want = np.nanmean(x, axis=0)
    else:  # of numbers there is no mode: the median
        want = np.nanquantile(x, 0.5, axis=0, method="inverted_cdf")
    np.testing.assert_allclose(imputer.fill[[0, 1, 5]], want[[0, 1, 5]], rtol=2.0**-15)
    ones = np.nansum(x, axis=0)
    assert imputer.fill[2] == (ones[2] > (~np.isnan(x[:, 2])).sum() / 2)
    got = imputer.apply(table).train.examples["x"]
    missing = np.isnan(x)
    np.testing.assert_array_equal(got[~missing], table.train.examples["x"][~missing])
    assert got.dtype == np.float32 and not np.isnan(got).any()
    assert got[missing[:, 0], 0].tolist() == [np.float32(imputer.fill[0])] * missing[:, 0].sum()


@pytest.mark.parametrize(
    "counts, want",
    [((5, 3), (1, 0)), ((3, 5), (0, 1)), ((3, 4), (0, 0)), ((4, 4), (1, 0))],
    # 12 rows: the rest belongs to neither category.
)
def test_blocks_are_filled_with_their_most_frequent_category(counts, want):
    stage = np.repeat([0, 1, 2, 3], [*counts, 12 - sum(counts), 4])  # 3: missing
    x = np.tile(worlds.pooled_rows()[:16], (1, 1))
    x[:, 3:5] = np.where(stage[:, None] == 3, np.nan, stage[:, None] == [0, 1])
    imputer = fit_imputer(worlds.divided(x, (7, 0, 5, 4)))
    assert tuple(imputer.fill[3:5]) == want


def test_single_columns_are_filled_as_asked(table):
    x = table.train.examples["x"].astype(np.float64)
    imputer = fit_imputer(table, "median", methods={"female": "mean", "lab": "mean"})
    np.testing.assert_allclose(imputer.fill[[2, 5]], np.nanmean(x[:, [2, 5]], axis=0), rtol=1e-12)
    with pytest.raises(DataError, match="'lab' must be 'mean' or 'median'"):
        fit_imputer(table, methods={"lab": "mode"})
    with pytest.raises(DataError, match="unknown column 'labs'"):
        fit_imputer(table, methods={"labs": "mean"})


def test_indicators_say_what_was_missing_once_per_block(table):
    x = table.train.examples["x"]
    imputer = fit_imputer(table, indicators=True)
    names = ("age", "chol", "female", "stage", "lab")
    assert imputer.feature_names == (*worlds.NAMES, *(f"missing({name})" for name in names))
    got = imputer.apply(table)
    np.testing.assert_array_equal(got.train.examples["x"][:, 6:], np.isnan(x)[:, [0, 1, 2, 3, 5]])
    assert got.feature_names == imputer.feature_names
    few = fit_imputer(table, indicators=True, min_count=1 + int(np.isnan(x[:, 0]).sum()))
    assert "missing(age)" not in few.feature_names
    taken = table.replace(feature_names=("missing(lab)", *worlds.NAMES[1:]))
    with pytest.raises(DataError, match=r"'missing\(lab\)', but there is a column"):
        fit_imputer(taken, indicators=True)


def test_columns_with_too_few_values_are_dropped(table):
    x = table.train.examples["x"].copy()
    x[:, 0] = np.nan
    x[2:, 1] = np.nan
    sparse = table.replace(train=ClientArrays({"x": x}, table.train.sizes))
    assert fit_imputer(sparse).dropped == ("age",)
    imputer = fit_imputer(sparse, min_count=3)
    assert imputer.dropped == ("age", "chol")
    assert imputer.transform(x).shape == (27, 4)
    with pytest.raises(DataError, match=r"shape \[rows, 6\], got \[3, 2\]"):
        imputer.transform(np.zeros((3, 2)))
