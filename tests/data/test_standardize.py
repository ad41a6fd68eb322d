import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med.data import ClientArrays, DataError, FederatedDataset, standardize
from fedjax_med.data.standardize import (
    client_statistics,
    combine,
    fit,
    fit_per_client,
    site_statistics,
)


def make_dataset(sizes, offset=0.0, dtype=np.float64, seed=0, **metadata):
    rng = np.random.default_rng(seed)
    sizes = np.asarray(sizes)
    shift = np.repeat(rng.normal(0, 3, (len(sizes), 3)), sizes, axis=0)
    x = (rng.normal(0, 1, (sizes.sum(), 3)) + shift) * [1, 50, 0.01] + offset
    examples = {"x": x.astype(dtype), "y": np.zeros(len(x), np.int32)}
    names = tuple(f"c{i}" for i in range(len(sizes)))
    return FederatedDataset("toy", names, ClientArrays(examples, sizes), **metadata)


@pytest.mark.parametrize("chunk_values", [1, 50, 2**21])
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(lambda s: sum(s) > 1),
    seed=st.integers(0, 1000),
)
def test_combined_site_statistics_equal_the_pooled_rows(chunk_values, sizes, seed):
    dataset = make_dataset(sizes, seed=seed)
    x = dataset.train.examples["x"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standardize, "_CHUNK_VALUES", chunk_values)
        stacked = client_statistics(dataset.train)
    one_by_one = [site_statistics(dataset.train.client(i)["x"]) for i in range(len(sizes))]
    for pooled in (combine(stacked), combine(one_by_one)):
        assert pooled.count == len(x)
        size = np.abs(x).max(axis=0)
        assert (np.abs(pooled.mean - x.mean(axis=0)) <= 1e-12 * size).all()
        for ddof in (0, 1):
            std, want = np.sqrt(pooled.variance(ddof)), x.std(axis=0, ddof=ddof)
            assert (np.abs(std - want) <= 1e-12 * size).all()


def test_combine_survives_values_far_from_zero():
    # A sum of squares would lose all digits of a variance of 1 next to squares of 1e18.
    dataset = make_dataset([30, 1, 50], offset=1e9)
    x = dataset.train.examples["x"]
    pooled = combine(client_statistics(dataset.train))
    exact = x - 1e9  # exact: the values are close to a power of ten and to each other
    np.testing.assert_allclose(pooled.mean - 1e9, exact.mean(axis=0), atol=1e-6)
    # A mean of 1e9 is kept to 1.2e-7, and so is what is measured from it.
    std = np.sqrt(pooled.variance())
    np.testing.assert_allclose(std[:2], exact.std(axis=0)[:2], rtol=0, atol=2e-7)


def test_combine_in_any_grouping_is_the_same():
    dataset = make_dataset([5, 9, 1, 20])
    a, b, c, d = [site_statistics(dataset.train.client(i)["x"]) for i in range(4)]
    nested = combine([combine([a, b]), combine([c, d])])
    for got, want in zip(nested, combine([d, c, b, a]), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)
    with pytest.raises(DataError, match="at least one site"):
        combine([])


def test_sites_reveal_one_number_per_feature_and_statistic():
    statistics = client_statistics(make_dataset([5, 9]).train)
    assert [field.shape for field in statistics] == [(2,), (2, 3), (2, 3)]
    assert {field.dtype for field in statistics} == {np.dtype(np.float64)}


def test_global_fit_uses_training_rows_only():
    dataset = make_dataset([40, 25, 60], dtype=np.float32).split(validation=0.2, test=0.3)
    fitted = fit(dataset)
    scaled = fitted.apply(dataset)
    x = dataset.train.examples["x"].astype(np.float64)
    mean, std = x.mean(axis=0), x.std(axis=0)
    for split, arrays in scaled.splits().items():
        want = (dataset.splits()[split].examples["x"] - mean) / std
        assert arrays.examples["x"].dtype == np.float32
        np.testing.assert_allclose(arrays.examples["x"], want, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(arrays.sizes, dataset.splits()[split].sizes)
    np.testing.assert_array_equal(
        fitted.transform(dataset.test.examples["x"]), scaled.test.examples["x"]
    )


def test_per_client_fit_uses_each_clients_training_rows():
    dataset = make_dataset([40, 25, 60], dtype=np.float32).split(test=0.3)
    fitted = fit_per_client(dataset)
    scaled = fitted.apply(dataset)
    for i in range(3):
        x = dataset.train.client(i)["x"].astype(np.float64)
        mean, std = x.mean(axis=0), x.std(axis=0, ddof=1) + 1e-9
        want = (dataset.test.client(i)["x"] - mean) / std
        np.testing.assert_allclose(scaled.test.client(i)["x"], want, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(
            fitted.transform(dataset.test.client(i)["x"], i), scaled.test.client(i)["x"]
        )
    with pytest.raises(DataError, match="client is needed"):
        fitted.transform(dataset.test.examples["x"])


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e7 / 3])
@pytest.mark.parametrize("fitter", [fit, fit_per_client])
def test_constant_columns_get_scale_one(fitter, constant):
    dataset = make_dataset([7, 11]).map_examples(
        lambda e: {"x": np.stack([e["x"][:, 0], np.full(18, constant)], axis=1)}
    )
    fitted = fitter(dataset)
    assert (fitted.scale[..., 1] == 1.0).all()
    assert (fitted.scale[..., 0] != 1.0).all()
    scaled = fitted.apply(dataset).train.examples["x"]
    assert np.abs(scaled[:, 1]).max() <= 1e-15 * abs(constant) * 10


def test_client_of_one_example_is_centred_not_divided():
    scaled = fit_per_client(make_dataset([1, 5])).apply(make_dataset([1, 5]))
    np.testing.assert_array_equal(scaled.train.client(0)["x"], np.zeros((1, 3)))


@pytest.mark.parametrize("columns", [["b"], [1]])
def test_columns_left_out_stay_as_they_are(columns):
    dataset = make_dataset([7, 11], feature_names=("a", "b", "c"))
    scaled = fit(dataset, columns=columns).apply(dataset)
    x, got = dataset.train.examples["x"], scaled.train.examples["x"]
    np.testing.assert_array_equal(got[:, [0, 2]], x[:, [0, 2]])
    assert got[:, 1].std() == pytest.approx(1.0, rel=1e-12)


def test_images_are_standardised_per_channel():
    rng = np.random.default_rng(0)
    images = rng.normal([10, -3], [2, 5], (9, 4, 4, 2))
    dataset = FederatedDataset.from_pooled({"x": images}, [0, 0, 1, 1, 1, 1, 1, 1, 1])
    fitted = fit(dataset)
    np.testing.assert_allclose(fitted.mean, images.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(fitted.scale, images.std(axis=(0, 1, 2)), rtol=1e-12)
    own = fit_per_client(dataset, ddof=0, epsilon=0.0)
    np.testing.assert_allclose(own.scale[1], images[2:].std(axis=(0, 1, 2)), rtol=1e-12)
    scaled = own.apply(dataset).train.client(1)["x"]
    np.testing.assert_allclose(scaled.mean(axis=(0, 1, 2)), 0, atol=1e-12)


def test_integers_become_float32():
    dataset = FederatedDataset.from_clients({"a": {"x": np.array([[1], [3]])}})
    got = fit(dataset).apply(dataset).train.examples["x"]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, [[-1], [1]])


def test_refusals():
    dataset = make_dataset([3, 4], feature_names=("a", "b", "c"))
    with pytest.raises(DataError, match="unknown column 'z'; the columns are a, b, c"):
        fit(dataset, columns=["z"])
    with pytest.raises(DataError, match=r"column must be in 0\.\.2, got 3"):
        fit(dataset, columns=[3])
    with pytest.raises(DataError, match="leaf 'y' has a last axis"):
        fit(dataset, leaf="y")
    with pytest.raises(DataError, match=r"shape \(2, 3\), but the dataset has 3 clients"):
        fit_per_client(dataset).apply(make_dataset([1, 1, 1]))
