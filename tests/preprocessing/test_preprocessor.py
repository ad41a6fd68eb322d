import numpy as np
import pytest

from fedjax_med import datasets
from fedjax_med.data import ClientArrays, DataError
from fedjax_med.preprocessing import SUPPRESSED, Preprocessor, site_report
from tests.preprocessing import worlds

NUMERIC = [0, 1, 5]


def by_hand(x, method):
    """Filled in and standardised over the pooled rows, in float64."""
    x = x.astype(np.float64)
    fill = np.nanquantile(x, 0.5, axis=0, method="inverted_cdf")
    if method == "mean":
        fill[NUMERIC] = np.nanmean(x[:, NUMERIC], axis=0)
    count = (~np.isnan(x)).sum(axis=0)
    ones = np.nansum(x[:, [2, 3, 4]], axis=0)
    fill[2] = ones[0] > count[2] / 2
    rest = count[3] - ones[1] - ones[2]
    fill[3:5] = 0
    if max(ones[1:]) >= rest:
        fill[3 + np.argmax(ones[1:])] = 1
    filled = np.where(np.isnan(x), fill, x)
    part = filled[:, NUMERIC]
    filled[:, NUMERIC] = (part - part.mean(axis=0)) / part.std(axis=0)
    flags = np.isnan(x)[:, [0, 1, 2, 3, 5]]
    return np.concatenate([filled, flags], axis=1)


@pytest.mark.parametrize("method", ["mean", "median"])
def test_equal_to_the_same_on_pooled_rows(table, method):
    fitted = Preprocessor.fit(table, impute=method, min_count=1)
    new = fitted.apply(table)
    got, want = new.train.examples["x"], by_hand(table.train.examples["x"], method)
    # A median is known to 2**-15 of 1e4 (a third of a standard deviation), the values to float32.
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=0.4 if method == "median" else 1e-6)
    others = [i for i in range(11) if i != 1]
    np.testing.assert_allclose(got[:, others], want[:, others], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got[:, NUMERIC].mean(axis=0, dtype=float), 0, atol=1e-6)
    np.testing.assert_allclose(got[:, NUMERIC].std(axis=0, dtype=float), 1, atol=1e-6)
    assert got.dtype == np.float32 and set(np.unique(got[:, 2:5])) == {0, 1}
    assert new.feature_names[6:] == tuple(
        f"missing({n})" for n in ("age", "chol", "female", "stage", "lab")
    )
    np.testing.assert_array_equal(new.train.examples["y"], table.train.examples["y"])


def test_division_among_hospitals_changes_nothing(table):
    x = table.train.examples["x"]
    other = worlds.divided(x, (1, 2, 3, 21))
    want = Preprocessor.fit(table).transform(x)
    np.testing.assert_allclose(Preprocessor.fit(other).transform(x), want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"standardize": "per-client", "combat": ["age"]}])
def test_nothing_but_training_rows_is_looked_at(table, options):
    alone = Preprocessor.fit(table, **options).to_json()
    for poison in (np.nan, np.inf, 1e30):
        assert Preprocessor.fit(worlds.held_out(table, poison), **options).to_json() == alone


def test_every_hospital_on_its_own_scale(table):
    fitted = Preprocessor.fit(table, standardize="per-client", min_count=1)
    new = fitted.apply(worlds.held_out(table, np.nan))
    for i in (0, 2, 3):
        x = new.train.client(i)["x"][:, NUMERIC].astype(np.float64)
        np.testing.assert_allclose(x.mean(axis=0), 0, atol=2e-6)
        np.testing.assert_allclose(x.std(axis=0), 1, atol=2e-6)
    assert not np.isnan(new.test.examples["x"]).any()  # also where there are no training rows
    assert {m.statistic: m.leaves for m in fitted.messages} == {
        "mean and variance": "sum",
        "quantiles": "sum",
        "own mean and variance": "nothing",
    }
    with pytest.raises(DataError, match="site must be one of North, Empty, South, East, got None"):
        fitted.transform(table.train.examples["x"])


@pytest.mark.parametrize("options", [{}, {"standardize": "per-client", "combat": True}])
def test_a_new_hospital(table, options):
    fitted = Preprocessor.fit(table, min_count=2, **options)
    rows = table.train.client(2)["x"]  # as if South came again
    wider = fitted.with_site("West", rows)
    got, want = wider.transform(rows, "West"), fitted.transform(rows, "South")
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(wider.transform(rows, "South"), want)
    assert wider.sites == (*worlds.SITES, "West")
    if options:
        with pytest.raises(DataError, match="got 'West'; estimate"):
            fitted.transform(rows, "West")
    else:
        np.testing.assert_array_equal(fitted.transform(rows), want)
    with pytest.raises(DataError, match="'South' already"):
        fitted.with_site("South", rows)


@pytest.mark.parametrize(
    "options",
    [{}, {"impute": None, "standardize": None}, {"standardize": "per-client", "combat": ["age"]}],
)
def test_saved_and_loaded_it_is_the_same(table, options, tmp_path):
    fitted = Preprocessor.fit(table, **options)
    path = tmp_path / "new" / "preprocessor.json"
    fitted.save(path)
    fitted.save(path)  # written over, and nothing is left beside it
    assert [p.name for p in path.parent.iterdir()] == ["preprocessor.json"]
    loaded = Preprocessor.load(path)
    assert loaded.to_json() == fitted.to_json() and loaded.messages == fitted.messages
    np.testing.assert_array_equal(
        loaded.apply(table).train.examples["x"], fitted.apply(table).train.examples["x"]
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no JSON"),
        ("[]", "got None"),
        ('{"format": "fedjax_med.preprocessor", "version": 2}', "version must be"),
        ('{"format": "fedjax_med.preprocessor", "version": 1, "names": []}', "not as it was saved"),
    ],
)
def test_other_files_are_refused(text, message, tmp_path):
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(DataError, match=f"file.json cannot be used: .*{message}"):
        Preprocessor.load(path)
    with pytest.raises(DataError, match="there is no file"):
        Preprocessor.load(tmp_path / "none.json")


def test_columns_without_information(table):
    x = table.train.examples["x"].copy()
    x[:, 0], x[:, 5] = 7, np.nan
    x[4:, 1] = np.nan  # four values
    sparse = table.replace(train=ClientArrays({"x": x}, table.train.sizes))
    fitted = Preprocessor.fit(sparse, indicators=False)
    assert fitted.dropped == ("chol", "lab")
    got = fitted.apply(sparse).train.examples["x"]
    assert (got[:, 0] == 0).all() and got.shape == (27, 4)  # a constant has scale 1
    kept = Preprocessor.fit(sparse, impute=None)
    assert np.isnan(kept.apply(sparse).train.examples["x"][:, 5]).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"impute": {"age": "mode"}}, "'age' must be 'mean' or 'median'"),
        ({"columns": ["ages"]}, "unknown column 'ages'"),
        ({"combat": ["sex"]}, "unknown column 'sex'"),
        ({"combat": "age"}, "must be a list of names, got the text 'age'"),
        ({"min_count": 0}, "min_count must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(table, options, message):
    with pytest.raises(DataError, match=message):
        Preprocessor.fit(table, **options)


def test_other_columns_are_refused(table):
    fitted = Preprocessor.fit(table)
    with pytest.raises(DataError, match=r"shape \[rows, 6\], got \[2, 3\]"):
        fitted.transform(np.zeros((2, 3)))
    with pytest.raises(DataError, match="'chol' holds an infinite value"):
        fitted.transform(np.array([[1.0, -np.inf, 0, 0, 0, np.inf]]))
    with pytest.raises(DataError, match="columns of the dataset must be"):
        fitted.apply(table.replace(feature_names=("a", *worlds.NAMES[1:])))


@pytest.mark.parametrize(
    "name", ["ncctg-lung", pytest.param("heart-disease", marks=pytest.mark.slow)]
)
def test_real_tables_end_without_missing_values(shared_data_dir, name):
    options = {"standardize": None} if name == "heart-disease" else {}
    dataset = datasets.load(name, shared_data_dir, **options)
    fitted = Preprocessor.fit(dataset)
    new = fitted.apply(dataset)
    for arrays in new.splits().values():
        assert np.isfinite(arrays.examples["x"]).all()
    x = new.train.examples["x"][:, list(fitted.standardised)].astype(np.float64)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-6)


@pytest.mark.slow
def test_a_hundred_thousand_encounters(shared_data_dir):
    dataset = datasets.load("diabetes130", shared_data_dir)
    fitted = Preprocessor.fit(dataset)
    new = fitted.apply(dataset)
    x = new.train.examples["x"]
    assert np.isfinite(x).all() and np.isfinite(new.test.examples["x"]).all()
    raw = dataset.train.examples["x"].astype(np.float64)
    ages = raw[:, 0][~np.isnan(raw[:, 0])]
    assert fitted.imputer is not None
    assert fitted.imputer.fill[0] == np.quantile(ages, 0.5, method="inverted_cdf")
    report = site_report(dataset)
    sizes = dataset.train.sizes
    np.testing.assert_array_equal(report.rows, np.where(sizes < 5, SUPPRESSED, sizes))
    assert not report.units
