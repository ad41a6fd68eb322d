import numpy as np
import pytest

from fedjax_med import datasets, genomics
from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.preprocessing import Messages


def pooled_components(x, k):
    """By the definition: standardise, and take the SVD of everybody."""
    p = np.nanmean(x, axis=0) / 2
    z = np.where(np.isnan(x), 0, (x - 2 * p) / np.sqrt(2 * p * (1 - p)))
    _, singular, axes = np.linalg.svd(z, full_matrices=False)
    return z, axes[:k].T, singular**2 / len(x)


@pytest.fixture(scope="module")
def found(hospitals):
    messages = Messages()
    return genomics.principal_components(hospitals, 3, tolerance=1e-9, messages=messages), messages


def test_components_are_the_pooled_ones(hospitals, found):
    x = hospitals.train.examples["x"].astype(np.float64)
    components, messages = found
    z, axes, variances = pooled_components(x, 3)
    assert genomics.principal_angle(components.axes, axes) < 1e-8
    np.testing.assert_allclose(components.variances, variances[:3], rtol=1e-12)
    assert components.error <= 1e-9
    # Signs: the largest entry of each component is positive.
    axes = axes * np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0))
    np.testing.assert_allclose(components.project(x), z @ axes, atol=1e-6)
    scores = genomics.scores(components, hospitals)
    np.testing.assert_allclose((scores**2).mean(axis=0), 1, rtol=1e-10)
    counted, *products = messages.entries  # the last block is narrower
    assert counted.passes == 1 and sum(m.passes for m in products) == components.passes
    assert products[0].shapes == {"products": (40, 9)} and products[0].leaves == "sum"


def test_few_people_and_snps_are_exhausted_not_overrun():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (8, 12)).astype(np.float32)
    x[:, 0] = 1  # an SNP that does vary, in nobody here
    x[:, 1] = 0  # and one without a second allele
    small = FederatedDataset("s", ("A", "B"), ClientArrays({"x": x}, np.array([5, 3])))
    got = genomics.principal_components(small, 4)
    kept = np.flatnonzero(x.mean(axis=0) > 0)
    _, axes, variances = pooled_components(x[:, kept].astype(np.float64), 4)
    assert genomics.principal_angle(got.axes[kept], axes) < 1e-4
    np.testing.assert_allclose(got.variances, variances[:4], rtol=1e-6)
    np.testing.assert_allclose(got.axes[1], 0, atol=1e-14)
    with pytest.raises(ValueError, match=r"at least 1 and below 8, .* got 8"):
        genomics.principal_components(small, 8)
    with pytest.raises(ValueError, match=r"x must have shape \[N, 12\], got \[8, 11\]"):
        got.project(x[:, 1:])


def test_angles_are_those_that_were_made():
    a, b, c = np.eye(3)
    tilted = np.cos(1e-9) * b + np.sin(1e-9) * c
    assert genomics.principal_angle(np.array([a, b]).T, np.array([a, tilted]).T) == pytest.approx(
        1e-9, rel=1e-6
    )
    assert genomics.principal_angle(a[:, None], c[:, None]) == pytest.approx(np.pi / 2)


@pytest.mark.slow
def test_components_of_hapmap3_are_those_of_all_people(shared_data_dir):
    dataset = datasets.hapmap3(data_dir=shared_data_dir)
    autosomal = genomics.is_autosomal(datasets.hapmap3_snps(shared_data_dir).chromosome)
    dataset = genomics.select_snps(dataset, autosomal)
    got = genomics.principal_components(dataset, 10)
    x = dataset.train.examples["x"].astype(np.float64)
    _, axes, variances = pooled_components(x, 10)
    assert genomics.principal_angle(got.axes, axes) < 1e-4
    np.testing.assert_allclose(got.variances, variances[:10], rtol=1e-7)
    # A population that the components have not seen lies among its neighbours.
    names = np.array(dataset.client_names)
    others = dataset.select([name for name in names if name != "TSI"])
    unseen = genomics.principal_components(others, 2)
    place = {
        name: unseen.project(dataset.train.client(i)["x"]).mean(axis=0)
        for i, name in enumerate(names)
    }
    distance = {name: np.linalg.norm(place[name] - place["TSI"]) for name in names}
    del distance["TSI"]
    assert min(distance, key=distance.__getitem__) == "CEU"
