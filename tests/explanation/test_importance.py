"""Permutation importance: what is permuted, within whom, and what comes out."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_med import models
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import Variables
from fedjax_med.evaluation import binary_metrics, regression_metrics, single_output
from fedjax_med.explanation import permutation_importance
from fedjax_med.explanation.importance import _orders, _row_keys

SIZES = (30, 0, 1, 50)
NAMES = ("age", "cp=1", "cp=2", "dose")
MODEL = models.linear()
METRICS = {**binary_metrics(), **regression_metrics()}


def make(seed=0, noise=0.0):
    rng = np.random.default_rng(seed)
    num = sum(SIZES)
    category = rng.integers(3, size=num)
    x = np.column_stack(
        [rng.normal(size=num), category == 1, category == 2, rng.normal(size=num)]
    ).astype(np.float32)
    kernel = np.array([[2.0], [0.5], [-0.5], [0.0]], np.float32)
    y = ((x @ kernel)[:, 0] + noise * rng.normal(size=num)).astype(np.float32)
    cut = np.cumsum(SIZES)[:-1]
    clients = {
        name: {"x": a, "y": b}
        for name, a, b in zip("abcd", np.split(x, cut), np.split(y, cut), strict=True)
    }
    dataset = FederatedDataset.from_clients(clients, test=clients, feature_names=NAMES)
    return dataset, Variables({"kernel": kernel, "bias": np.zeros(1, np.float32)})


def importance(dataset, variables, metric="rmse", **options):
    return permutation_importance(
        MODEL, variables, dataset, METRICS[metric], link=single_output, **options
    )


def test_an_error_without_a_column_is_that_of_a_random_patient():
    dataset, variables = make()
    got = importance(dataset, variables, num_repeats=40)
    assert got.columns == ("age", "cp", "dose")
    x = dataset.test.client(3)["x"]
    # The model is right, so the error is the difference to another patient's part: its mean square
    # is twice the variance with divisor n - 1 times (n - 1) / n, as a patient may keep its value.
    age = 2 * x[:, 0]
    own = got.per_hospital["d"]
    np.testing.assert_allclose(own.baseline, 0, atol=1e-6)
    # The root of a mean square over 50 pairs; 40 repeats of a tenth leave 2 %, four times that.
    np.testing.assert_allclose(own.mean[0], np.sqrt(2 * age.var()), rtol=0.07)
    block = x[:, 1:3] @ [0.5, -0.5]
    np.testing.assert_allclose(own.mean[1], np.sqrt(2 * block.var()), rtol=0.07)
    assert own.mean[2] == 0 and own.sd[2] == 0  # the model does not look at it
    assert own.sd[0] > 0


def test_federated_is_the_mean_weighted_by_patients_and_empty_hospitals_are_left_out():
    dataset, variables = make(noise=1.0)
    got = importance(dataset, variables)
    rows = np.array([30, 1, 50]) / 81
    by_hand = sum(r * got.per_hospital[n].mean for r, n in zip(rows, "acd", strict=True))
    np.testing.assert_allclose(got.federated.mean, by_hand, rtol=1e-12)
    assert np.isnan(got.per_hospital["b"].mean).all()
    np.testing.assert_array_equal(got.per_hospital["c"].mean, 0)  # nobody to change with
    text = json.dumps(got.as_dict(), allow_nan=False)
    assert json.loads(text)["per_hospital"]["b"]["baseline"] is None


def test_metrics_that_are_best_at_one_fall():
    dataset, variables = make()
    binary = dataset.map_examples(lambda e: {"x": e["x"], "y": (e["y"] > 0).astype(np.int32)})
    got = permutation_importance(MODEL, variables, binary, METRICS["auroc"])
    assert got.pooled.baseline == 1 and 0.2 < got.pooled.mean[0] < 0.6
    assert got.pooled.mean[0] > got.pooled.mean[1] > got.pooled.mean[2] == 0
    # One patient has no AUROC; the federated mean is over the other two hospitals.
    assert np.isnan(got.per_hospital["c"].mean).all() and not np.isnan(got.federated.mean).any()


def test_permutations_stay_within_hospitals_and_follow_from_seed_patient_column_and_repeat():
    client = np.repeat(range(4), SIZES)
    place = np.arange(81) - np.cumsum([0, *SIZES])[client]
    orders = lambda seed, column, repeats, c=client, p=place: np.asarray(
        _orders(
            _row_keys(jax.random.key(seed), jnp.asarray(c), jnp.asarray(p)),
            jnp.asarray(c),
            jnp.int32(column),
            jnp.arange(repeats),
        )
    )
    got = orders(0, 2, 3)
    for order in got:
        np.testing.assert_array_equal(np.sort(order), np.arange(81))
        np.testing.assert_array_equal(client[order], client)
    np.testing.assert_array_equal(got[:2], orders(0, 2, 2))  # more repeats change none
    for other in (orders(1, 2, 1)[0], orders(0, 3, 1)[0], got[1]):
        assert (got[0] != other).any()
    # A hospital permutes alike whatever the sizes of the others.
    alone = orders(0, 2, 1, client[client == 3], place[client == 3])[0]
    np.testing.assert_array_equal(got[0][client == 3] - 31, alone)


def test_choosing_columns_and_blocks_changes_no_number():
    dataset, variables = make(noise=0.5)
    everything = importance(dataset, variables, num_repeats=2)
    some = importance(dataset, variables, num_repeats=2, columns=["cp"], batch_size=16)
    # Blocks of another size change the order of float32 products.
    np.testing.assert_allclose(some.federated.mean, everything.federated.mean[1:2], rtol=1e-5)
    assert some.columns == ("cp",)
    once = importance(dataset, variables, num_repeats=1)
    assert np.isnan(once.pooled.sd).all()
    with pytest.raises(ValueError, match=r"columns must be among age, cp, dose, got \['cp=1'\]"):
        importance(dataset, variables, columns=["cp=1"])
    with pytest.raises(ValueError, match="num_repeats must be at least 1, got 0"):
        importance(dataset, variables, num_repeats=0)
