"""Partial dependence, against its definition in NumPy."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_med import models
from fedjax_med.data import FederatedDataset
from fedjax_med.data.standardize import Standardizer, fit
from fedjax_med.explanation import partial_dependence

SIZES = (9, 0, 14)
NAMES = ("age", "sex", "cp=mild", "cp=severe")
MODEL = models.mlp([6])


@pytest.fixture(scope="module")
def raw():
    rng = np.random.default_rng(0)
    cut = np.cumsum(SIZES)[:-1]
    category = rng.integers(3, size=23)
    x = np.column_stack(
        [rng.normal(60, 10, 23), rng.integers(2, size=23), category == 1, category == 2]
    ).astype(np.float32)
    clients = {
        n: {"x": part, "y": np.zeros(len(part), np.int32)}
        for n, part in zip("abc", np.split(x, cut), strict=True)
    }
    return FederatedDataset.from_clients(clients, test=clients, feature_names=NAMES)


@pytest.fixture(scope="module")
def standardized(raw):
    scaler = fit(raw)
    return scaler, scaler.apply(raw), MODEL.init(jax.random.key(1), jnp.zeros((1, 4)))


def predicted(variables, x):
    first, last = (
        {name: np.float64(leaf) for name, leaf in layer.items()} for layer in variables.params
    )
    hidden = np.maximum(np.float64(x) @ first["kernel"] + first["bias"], 0)
    return 1 / (1 + np.exp(-(hidden @ last["kernel"] + last["bias"])[:, 0]))


def test_curves_are_means_of_predictions_with_the_column_set(raw, standardized):
    scaler, dataset, variables = standardized
    grid = np.array([40.0, 55.0, 80.0])
    got = partial_dependence(
        MODEL, variables, dataset, "age", grid,
        standardizer=scaler, link=jax.nn.sigmoid, batch_size=12, num_individuals=2,
    )  # fmt: skip
    natural = np.float64(raw.test.examples["x"])
    curves = []
    for value in grid:
        x = natural.copy()
        x[:, 0] = value
        curves.append(predicted(variables, (x - scaler.mean) / scaler.scale))
    curves = np.stack(curves, 1)
    # The model runs in float32.
    np.testing.assert_allclose(got.federated, curves.mean(0), rtol=1e-5)
    np.testing.assert_allclose(got.per_hospital["a"], curves[:9].mean(0), rtol=1e-5)
    np.testing.assert_allclose(got.individuals, curves[[0, 22]], rtol=1e-5)
    assert np.isnan(got.per_hospital["b"]).all() and got.grid.tolist() == [40, 55, 80]
    as_dict = json.loads(json.dumps(got.as_dict(), allow_nan=False))
    assert as_dict["individuals"] is None and as_dict["per_hospital"]["b"] == [None] * 3


def test_categories_are_set_together(raw, standardized):
    scaler, dataset, variables = standardized
    got = partial_dependence(
        MODEL, variables, dataset, "cp", standardizer=scaler, link=jax.nn.sigmoid
    )
    assert got.categories == ("none of them", "mild", "severe")
    for place, block in enumerate(([0, 0], [1, 0], [0, 1])):
        x = np.float64(raw.test.examples["x"])
        x[:, 2:] = block
        want = predicted(variables, (x - scaler.mean) / scaler.scale).mean()
        np.testing.assert_allclose(got.federated[place], want, rtol=1e-5)


def test_default_grids_follow_from_sums(raw, standardized):
    scaler, dataset, variables = standardized
    got = partial_dependence(MODEL, variables, dataset, "sex", standardizer=scaler)
    assert got.grid.tolist() == [0, 1]
    got = partial_dependence(MODEL, variables, dataset, "age", standardizer=scaler)
    age = np.float64(raw.train.examples["x"][:, 0])
    want = age.mean() + age.std() * np.linspace(-2, 2, 21)
    np.testing.assert_allclose(got.grid, want, rtol=1e-6)  # via float32 of the standardised table


def test_arguments_that_do_not_fit_are_named(standardized):
    _, dataset, variables = standardized
    with pytest.raises(ValueError, match="column must be one of age, sex, cp, got 'weight'"):
        partial_dependence(MODEL, variables, dataset, "weight")
    with pytest.raises(ValueError, match="grid must be None, as 'cp' is a column of categories"):
        partial_dependence(MODEL, variables, dataset, "cp", np.zeros(2))
    with pytest.raises(ValueError, match="grid must be finite numbers, at least one"):
        partial_dependence(MODEL, variables, dataset, "age", np.array([np.nan]))
    own = Standardizer(np.zeros((3, 4)), np.ones((3, 4)))
    with pytest.raises(ValueError, match="one for all hospitals with 4 features"):
        partial_dependence(MODEL, variables, dataset, "age", standardizer=own)
