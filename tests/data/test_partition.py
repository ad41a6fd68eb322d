import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_med.data import DataError, check
from fedjax_med.data.partition import (
    dirichlet_label_skew,
    feature_shift,
    iid,
    quantity_skew,
)

PARTITIONERS = {
    "iid": iid,
    "dirichlet": lambda e, n, **o: dirichlet_label_skew(e, n, alpha=0.3, **o),
    "dirichlet_tiny_alpha": lambda e, n, **o: dirichlet_label_skew(e, n, alpha=1e-3, **o),
    "quantity_alpha": lambda e, n, **o: quantity_skew(e, n, alpha=0.2, **o),
    "quantity_sigma": lambda e, n, **o: quantity_skew(e, n, sigma=2.0, **o),
    "feature_shift": feature_shift,
}


def make_examples(n, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "id": np.arange(n),
        "x": rng.standard_normal((n, 3)).astype(np.float32),
        "y": rng.integers(0, classes, n).astype(np.int32),
    }


@pytest.mark.parametrize("partitioner", PARTITIONERS.values(), ids=PARTITIONERS.keys())
@settings(max_examples=30)
@given(n=st.integers(1, 60), data=st.data())
def test_every_example_goes_to_exactly_one_client(partitioner, n, data):
    num_clients = data.draw(st.integers(1, n))
    seed = data.draw(st.integers(0, 2**31))
    examples = make_examples(n)
    dataset = partitioner(examples, num_clients, seed=seed, name="parts")
    check(dataset, num_classes=4)  # no client is empty
    assert dataset.name == "parts"
    assert dataset.num_clients == num_clients
    ids = dataset.train.examples["id"]
    np.testing.assert_array_equal(np.sort(ids), np.arange(n))
    np.testing.assert_array_equal(dataset.train.examples["y"], examples["y"][ids])
    if partitioner is not feature_shift:
        np.testing.assert_array_equal(dataset.train.examples["x"], examples["x"][ids])
    again = partitioner(examples, num_clients, seed=seed)
    assert again.fingerprint() == dataset.fingerprint()


@pytest.mark.parametrize("partitioner", PARTITIONERS.values(), ids=PARTITIONERS.keys())
def test_another_seed_deals_differently(partitioner):
    examples = make_examples(100)
    assert (
        partitioner(examples, 7, seed=0).fingerprint()
        != partitioner(examples, 7, seed=1).fingerprint()
    )


@pytest.mark.parametrize("partitioner", PARTITIONERS.values(), ids=PARTITIONERS.keys())
def test_more_clients_than_examples_are_refused(partitioner):
    with pytest.raises(DataError, match=r"6 clients .* need 6 examples, got 5"):
        partitioner(make_examples(5), 6)
    with pytest.raises(DataError, match="num_clients must be at least 1, got 0"):
        partitioner(make_examples(5), 0)


def test_iid_sizes_are_even_and_labels_alike():
    dataset = iid(make_examples(20_003), 10)
    assert set(dataset.train.sizes) == {2000, 2001}
    for i in range(10):
        share = np.bincount(dataset.train.client(i)["y"]) / dataset.train.sizes[i]
        # Standard deviation of a share sqrt(3/16 / 2000) = 0.0097; five of them.
        assert np.abs(share - 0.25).max() < 0.05


@pytest.mark.parametrize("alpha", [1e-310, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize("num_clients, min_size", [(200, 1), (40, 5), (1, 200), (66, 3)])
def test_dirichlet_reaches_its_minimum_and_ends(alpha, num_clients, min_size):
    dataset = dirichlet_label_skew(make_examples(200), num_clients, alpha=alpha, min_size=min_size)
    assert dataset.train.sizes.min() >= min_size
    assert dataset.train.num_examples == 200


def label_shares(dataset, classes):
    counts = [
        np.bincount(dataset.train.client(i)["y"], minlength=classes)
        for i in range(dataset.num_clients)
    ]
    return np.array(counts) / dataset.train.sizes[:, None]


def test_dirichlet_alpha_sets_the_skew():
    examples = make_examples(20_000, classes=10)
    most = {
        alpha: label_shares(dirichlet_label_skew(examples, 20, alpha=alpha), 10).max(1).mean()
        for alpha in (0.05, 1.0, 1000.0)
    }
    # The share of a client's commonest of ten classes: most of it, some of it, a tenth.
    assert most[0.05] > 0.6
    assert 0.15 < most[1.0] < 0.5
    assert most[1000.0] < 0.13


def test_dirichlet_shares_have_the_variance_of_the_distribution():
    # One class over K clients: shares are Dirichlet(alpha), variance (1/K)(1-1/K)/(K alpha+1).
    num_clients, alpha, n = 5, 0.7, 10_000
    examples = {"y": np.zeros(n, np.int32)}
    shares = np.array(
        [
            dirichlet_label_skew(examples, num_clients, alpha=alpha, seed=s).train.sizes / n
            for s in range(300)
        ]
    )
    want = 0.2 * 0.8 / (num_clients * alpha + 1)
    # 1500 shares; the relative standard error of their variance is about 6 %.
    assert shares.var() == pytest.approx(want, rel=0.2)


def test_dirichlet_moves_no_more_than_it_must():
    examples = make_examples(300)
    free = dirichlet_label_skew(examples, 10, alpha=0.1, min_size=1, seed=3)
    raised = dirichlet_label_skew(examples, 10, alpha=0.1, min_size=12, seed=3)
    deficit = np.maximum(12 - free.train.sizes, 0)
    assert deficit.sum() > 0
    grown = np.maximum(raised.train.sizes - free.train.sizes, 0)
    np.testing.assert_array_equal(grown, deficit)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"alpha": 0.0}, "alpha must be positive and finite, got 0.0"),
        ({"alpha": float("nan")}, "alpha must be positive"),
        ({"alpha": float("inf")}, "alpha must be positive"),
        ({"alpha": 1.0, "min_size": 3}, "4 clients of at least 3 .* need 12 examples, got 10"),
        ({"alpha": 1.0, "min_size": 0}, "min_size must be at least 1"),
        ({"alpha": 1.0, "label": "z"}, "dict with the key 'z'"),
        ({"alpha": 1.0, "label": "x"}, "one integer label per example"),
    ],
)
def test_dirichlet_refuses(options, sentence):
    with pytest.raises(DataError, match=sentence):
        dirichlet_label_skew(make_examples(10), 4, **options)


def test_quantity_skew_sets_the_spread_of_sizes():
    examples = make_examples(50_000)
    spread = {
        sigma: np.log(quantity_skew(examples, 100, sigma=sigma).train.sizes).std()
        for sigma in (0.0, 0.5, 1.5)
    }
    assert spread[0.0] < 1e-6
    # The standard deviation of 100 normal numbers has a relative standard error of 7 %.
    assert spread[0.5] == pytest.approx(0.5, rel=0.3)
    assert spread[1.5] == pytest.approx(1.5, rel=0.3)
    even = quantity_skew(examples, 100, alpha=1e6).train.sizes
    uneven = quantity_skew(examples, 100, alpha=0.1).train.sizes
    assert even.std() < 0.02 * even.mean() < uneven.mean() < uneven.std()


@given(n=st.integers(4, 50), min_size=st.integers(1, 5), seed=st.integers(0, 99))
def test_quantity_skew_keeps_the_minimum(n, min_size, seed):
    num_clients = max(1, n // min_size // 2)
    if num_clients * min_size > n:
        return
    for options in ({"alpha": 1e-3}, {"sigma": 1e3}):
        dataset = quantity_skew(
            make_examples(n), num_clients, min_size=min_size, seed=seed, **options
        )
        assert dataset.train.sizes.min() >= min_size
        assert dataset.train.num_examples == n


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({}, "give either alpha or sigma"),
        ({"alpha": 1.0, "sigma": 1.0}, "give either alpha or sigma"),
        ({"sigma": -1.0}, "sigma must be finite and not negative"),
        ({"alpha": -1.0}, "alpha must be positive"),
    ],
)
def test_quantity_skew_refuses(options, sentence):
    with pytest.raises(DataError, match=sentence):
        quantity_skew(make_examples(10), 4, **options)


def test_feature_shift_is_affine_per_client_and_feature():
    rng = np.random.default_rng(0)
    x = rng.normal([0, 100, 5], [1, 20, 0], (300, 3))  # the last feature is constant
    examples = {"id": np.arange(300), "x": x}
    dataset = feature_shift(examples, 6, shift=0.8, log_scale=0.3, seed=1)
    slopes, moves = [], []
    for i in range(6):
        got = dataset.train.client(i)
        before = x[got["id"]]
        for j in (0, 1):
            slope, intercept = np.polyfit(before[:, j], got["x"][:, j], 1)
            np.testing.assert_allclose(got["x"][:, j], slope * before[:, j] + intercept, rtol=1e-9)
            slopes.append(slope)
            mean = x[:, j].mean()
            moves.append((slope * mean + intercept - mean) / x[:, j].std())
        np.testing.assert_allclose(got["x"][:, 2], 5.0, rtol=1e-12)
    assert len(np.unique(np.round(slopes, 9))) == 12  # its own per client and feature
    assert 0.1 < np.log(slopes).std() < 0.6
    assert 0.3 < np.std(moves) < 1.6


def test_feature_shift_of_zero_is_iid():
    examples = make_examples(50)
    none = feature_shift(examples, 5, shift=0.0, log_scale=0.0, seed=2)
    same = iid(examples, 5, seed=2)
    np.testing.assert_allclose(
        none.train.examples["x"], same.train.examples["x"], rtol=1e-6, atol=1e-6
    )
    assert none.train.examples["x"].dtype == np.float32


def test_feature_shift_of_images_is_per_channel():
    images = np.random.default_rng(0).random((12, 4, 4, 2))
    dataset = feature_shift({"x": images, "id": np.arange(12)}, 3, seed=0)
    got = dataset.train.client(1)
    for channel in range(2):
        before = images[got["id"]][..., channel].ravel()
        after = got["x"][..., channel].ravel()
        assert np.corrcoef(before, after)[0, 1] == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"shift": -1.0}, "shift must be finite and not negative"),
        ({"log_scale": float("inf")}, "log_scale must be finite"),
        ({"features": "y"}, "must be floating with a last axis"),
        ({"features": "z"}, "dict with the key 'z'"),
    ],
)
def test_feature_shift_refuses(options, sentence):
    with pytest.raises(DataError, match=sentence):
        feature_shift(make_examples(10), 4, **options)
