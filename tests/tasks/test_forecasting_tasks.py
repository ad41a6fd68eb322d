"""Forecasting tasks against NumPy in float64, and what their losses are least at."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_med import algorithms
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import Batch, Variables, local_work, simulate
from fedjax_med.models import from_function, linear
from fedjax_med.tasks.forecasting import LEVELS, point_forecast, quantile_forecast

H, Q, N = 2, 3, 5
RNG = np.random.default_rng(0)
EXAMPLE = {"x": np.zeros((1, 2), np.float32), "y": np.zeros((1, H), np.float32)}


def make_batch(x, y):
    examples = {"x": jnp.asarray(x), "y": jnp.asarray(y)}
    return Batch(examples, jnp.ones(len(x), bool), jnp.float32(len(x)), jax.random.key(0))


def constant(outputs):
    """A model that says `params`, whatever it sees."""
    return from_function(
        lambda key, x: jnp.zeros(outputs), lambda p, x: jnp.broadcast_to(p, (len(x), outputs))
    )


def test_losses_and_metrics_are_those_of_numpy():
    levels = (0.1, 0.4, 0.9)
    x = RNG.normal(size=(N, 2)).astype(np.float32)
    y = RNG.normal(size=(N, H)).astype(np.float32)
    kernel = RNG.normal(size=(2, H * Q)).astype(np.float32)
    variables = Variables({"kernel": jnp.asarray(kernel), "bias": jnp.zeros(H * Q)})
    quantiles = (np.float64(x) @ kernel).reshape(N, H, Q)
    error = y[..., None] - quantiles
    pinball = np.where(error > 0, error * levels, error * (np.array(levels) - 1)).mean((1, 2))
    task = quantile_forecast(linear(H * Q), EXAMPLE, levels=levels)
    np.testing.assert_allclose(task.loss(variables, make_batch(x, y))[0], pinball, rtol=1e-5)
    found = {k: np.asarray(v[0]) for k, v in task.metrics(variables, make_batch(x, y)).items()}
    assert set(found) == set(task.metric_names)
    np.testing.assert_allclose(found["pinball"], pinball, rtol=1e-5)
    np.testing.assert_allclose(found["mae"], np.abs(error[..., 1]).mean(1), rtol=1e-5)
    inside = (quantiles[..., 0] <= y) & (y <= quantiles[..., 2])
    np.testing.assert_allclose(found["coverage"], inside.mean(1))

    point = point_forecast(linear(H), EXAMPLE)
    narrow = Variables({"kernel": jnp.asarray(kernel[:, :H]), "bias": jnp.zeros(H)})
    error = np.float64(x) @ kernel[:, :H] - y
    np.testing.assert_allclose(
        point.loss(narrow, make_batch(x, y))[0], 0.5 * (error**2).mean(1), rtol=1e-5
    )
    found = point.metrics(narrow, make_batch(x, y))
    np.testing.assert_allclose(found["mae"][0], np.abs(error).mean(1), rtol=1e-5)


def test_one_horizon_needs_no_axis():
    x, y = RNG.normal(size=(N, 2)).astype(np.float32), RNG.normal(size=N).astype(np.float32)
    for task, wide in (
        (point_forecast(constant(1), EXAMPLE), jnp.ones(1)),
        (quantile_forecast(constant(Q), EXAMPLE, levels=(0.2, 0.5, 0.8)), jnp.arange(3.0)),
    ):
        flat, _ = task.loss(Variables(wide), make_batch(x, y))
        deep, _ = task.loss(Variables(wide), make_batch(x, y[:, None]))
        assert flat.shape == (N,)
        np.testing.assert_array_equal(flat, deep)


def test_federated_training_finds_the_quantiles_of_all_places():
    """A constant model, two places of different levels: quantiles of the weeks of both."""
    y = np.sort(RNG.uniform(size=120)).astype(np.float32)
    parts = {"North": y[:60], "South": y[60:]}
    dataset = FederatedDataset.from_clients(
        {
            name: {"x": np.zeros((60, 1), np.float32), "y": part[:, None]}
            for name, part in parts.items()
        }
    )
    task = quantile_forecast(constant(len(LEVELS)), dataset.train.examples)

    run = simulate(
        algorithms.fed_avg(task.gradient, optax.sgd(0.3)),
        dataset,
        task=task,
        rounds=400,
        local_work=local_work.epochs(1, batch_size=60),
    )
    got = np.asarray(run.variables.params)
    # With one full step a round, FedAvg's fixed point is that of the pooled weeks. A week is a
    # share of 0.008; where the law is uniform, distances shrink by 4 % in a round.
    share = (y[:, None] <= got[None]).mean(axis=0)
    np.testing.assert_allclose(share, LEVELS, atol=0.03)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"levels must rise between 0 and 1, got \(0.5, 0.1\)"):
        quantile_forecast(constant(2), EXAMPLE, levels=(0.5, 0.1))
    task = quantile_forecast(constant(5), EXAMPLE, levels=(0.1, 0.5, 0.9))
    with pytest.raises(ValueError, match="the model must give 2 horizons times 3 outputs, got "):
        task.loss(Variables(jnp.zeros(5)), make_batch(jnp.zeros((N, 2)), jnp.zeros((N, H))))
