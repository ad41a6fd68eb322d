"""Integrated gradients: completeness, known cases, and sums per hospital."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_med import models
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import Variables
from fedjax_med.explanation import attributions, federated_mean, integrated_gradients
from fedjax_med.explanation._rows import apply_rows

SIZES = (7, 0, 12)


def clients(seed, features=3):
    rng = np.random.default_rng(seed)
    return {
        name: {"x": rng.normal(size=(n, features)).astype(np.float32), "y": np.zeros(n, np.int32)}
        for name, n in zip("abc", SIZES, strict=True)
    }


@pytest.fixture(scope="module")
def dataset():
    return FederatedDataset.from_clients(
        clients(0), test=clients(1), feature_names=("age", "cp=1", "cp=2")
    )


@pytest.fixture(scope="module")
def network():
    model = models.mlp([8])
    variables = model.init(jax.random.key(0), jnp.zeros((1, 3)))
    return model, variables


def test_parts_of_a_linear_model_are_coefficient_times_change():
    model = models.linear(2)
    kernel = np.random.default_rng(2).normal(size=(3, 2)).astype(np.float32)
    variables = Variables({"kernel": kernel, "bias": np.ones(2, np.float32)})
    x, baseline = clients(3)["c"]["x"], np.array([1.0, 2.0, -1.0])
    got = integrated_gradients(model, variables, x, baseline, steps=1, output=1)
    np.testing.assert_allclose(got, (x - baseline) * kernel[:, 1], rtol=1e-5, atol=1e-6)


def test_parts_of_a_product_are_known():
    # f = x0 x1 from 0: the integral of a x1 over a is x1 / 2, so each column has half the product.
    model = models.from_function(lambda key, x: {}, lambda p, x: x[:, 0] * x[:, 1] + x[:, 2] ** 3)
    x = clients(4)["c"]["x"]
    got = integrated_gradients(model, Variables({}), x, np.zeros(3), steps=3)
    half = x[:, 0] * x[:, 1] / 2
    np.testing.assert_allclose(got, np.column_stack([half, half, x[:, 2] ** 3]), atol=1e-5)


def test_parts_add_up_to_the_change_of_the_output(dataset, network):
    model, variables = network
    x, baseline = dataset.test.examples["x"], federated_mean(dataset)
    outputs = apply_rows(model, variables, jnp.concatenate([x, np.float32(baseline)[None]]))
    change = np.asarray(outputs[:-1, 0] - outputs[-1, 0])
    worst = [
        np.abs(integrated_gradients(model, variables, x, baseline, steps=s).sum(1) - change).max()
        for s in (2, 256)
    ]
    # Kinks of a ReLU network leave errors of first order in the number of steps.
    assert worst[1] < 2e-3 < worst[0]
    got = attributions(model, variables, dataset, steps=256)
    np.testing.assert_allclose(got.incompleteness, worst[1], rtol=0.05, atol=1e-6)


def test_summaries_are_means_over_patients_with_categories_added_up(dataset, network):
    model, variables = network
    got = attributions(model, variables, dataset, steps=4, batch_size=16)
    parts = integrated_gradients(
        model, variables, dataset.test.examples["x"], federated_mean(dataset), steps=4
    )
    parts = np.column_stack([parts[:, 0], parts[:, 1] + parts[:, 2]])
    np.testing.assert_allclose(got.federated.absolute, np.abs(parts).mean(0), rtol=1e-4)
    np.testing.assert_allclose(got.per_hospital["a"].signed, parts[:7].mean(0), rtol=1e-4)
    assert got.columns == ("age", "cp") and np.isnan(got.per_hospital["b"].absolute).all()
    np.testing.assert_allclose(
        got.baseline, np.float64(dataset.train.examples["x"]).mean(0), rtol=1e-12
    )
    assert json.loads(json.dumps(got.as_dict(), allow_nan=False))["num_patients"]["c"] == 12


def test_arguments_that_do_not_fit_are_named(dataset, network):
    model, variables = network
    x = dataset.test.examples["x"]
    missing = x.copy()
    missing[0, 0] = np.nan
    with pytest.raises(ValueError, match="x must have no missing values"):
        integrated_gradients(model, variables, missing, np.zeros(3))
    with pytest.raises(ValueError, match=r"got \[19, 3\] and \[2\]"):
        integrated_gradients(model, variables, x, np.zeros(2))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        attributions(model, variables, dataset, steps=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        attributions(model, variables, dataset, steps=2, batch_size=0)
    assert integrated_gradients(model, variables, x[:0], np.zeros(3)).shape == (0, 3)
