"""Metrics of the tasks against scikit-learn, losses against formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from fedjax_med import models, tasks
from fedjax_med.engine import Batch

N = 40


def make_batch(y, mask=None):
    rng = np.random.default_rng(0)
    mask = np.ones(N, bool) if mask is None else mask
    examples = {"x": jnp.asarray(rng.standard_normal((N, 3)), jnp.float32), "y": jnp.asarray(y)}
    return Batch(examples, jnp.asarray(mask), jnp.float32(mask.sum()), jax.random.key(0))


def ratios(task, variables, batch):
    sums = task.metrics(variables, batch)
    assert set(sums) == set(task.metric_names)
    assert len(task.higher_is_better) == len(task.metric_names)
    return {
        name: float(batch.masked_sum(top) / batch.masked_sum(bottom))
        for name, (top, bottom) in sums.items()
    }


HALF = np.arange(N) % 2 == 0


@pytest.mark.parametrize("mask", [None, HALF], ids=["all", "half"])
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_binary_classification(mask, dtype):
    y = np.random.default_rng(1).integers(0, 2, N).astype(dtype)
    batch = make_batch(y, mask)
    task = tasks.binary_classification(models.mlp([4]), batch.examples)
    variables = task.init(3)
    got = ratios(task, variables, batch)
    model = models.mlp([4])
    kept = slice(None) if mask is None else mask
    logits = np.asarray(model.apply(variables, batch, False)[0])[kept, 0]
    y, probability = y[kept], 1 / (1 + np.exp(-np.float64(logits)))
    predicted = (probability > 0.5).astype(int)
    np.testing.assert_allclose(got["loss"], sklearn_metrics.log_loss(y, probability), rtol=1e-5)
    assert got["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(y, predicted))
    assert got["sensitivity"] == pytest.approx(sklearn_metrics.recall_score(y, predicted))
    assert got["specificity"] == pytest.approx(
        sklearn_metrics.recall_score(y, predicted, pos_label=0)
    )
    losses, state = task.loss(variables, batch)
    assert losses.shape == (N,) and state == ()
    np.testing.assert_allclose(batch.masked_sum(losses) / batch.count, got["loss"], rtol=1e-5)


@pytest.mark.parametrize("mask", [None, HALF], ids=["all", "half"])
def test_multiclass_classification(mask):
    y = np.random.default_rng(2).integers(0, 4, N).astype(np.int32)
    batch = make_batch(y, mask)
    model = models.mlp([5], num_outputs=4)
    task = tasks.multiclass_classification(model, batch.examples)
    variables = task.init(3)
    got = ratios(task, variables, batch)
    kept = slice(None) if mask is None else mask
    logits = np.float64(model.apply(variables, batch, False)[0])[kept]
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    want = sklearn_metrics.log_loss(y[kept], probability, labels=range(4))
    np.testing.assert_allclose(got["loss"], want, rtol=1e-5)
    want = sklearn_metrics.accuracy_score(y[kept], probability.argmax(axis=1))
    assert got["accuracy"] == pytest.approx(want)


@pytest.mark.parametrize("mask", [None, HALF], ids=["all", "half"])
def test_regression(mask):
    y = np.random.default_rng(3).standard_normal(N).astype(np.float32)
    batch = make_batch(y, mask)
    model = models.mlp([5])
    task = tasks.regression(model, batch.examples)
    variables = task.init(3)
    got = ratios(task, variables, batch)
    kept = slice(None) if mask is None else mask
    predicted = np.asarray(model.apply(variables, batch, False)[0])[kept, 0]
    np.testing.assert_allclose(
        got["mse"], sklearn_metrics.mean_squared_error(y[kept], predicted), rtol=1e-5
    )
    np.testing.assert_allclose(
        got["mae"], sklearn_metrics.mean_absolute_error(y[kept], predicted), rtol=1e-5
    )
    losses, _ = task.loss(variables, batch)
    np.testing.assert_allclose(batch.masked_sum(losses) / batch.count, got["mse"] / 2, rtol=1e-5)


def test_losses_of_extreme_logits_are_finite():
    model = models.from_function(
        lambda key, x: jnp.float32(1e4), lambda params, x: params * x[:, :1]
    )
    batch = make_batch(np.arange(N, dtype=np.int32) % 2)
    task = tasks.binary_classification(model, batch.examples)
    losses, _ = task.loss(task.init(0), batch)
    assert jnp.isfinite(losses).all() and losses.max() > 1e3
    grads = task.gradient(task.init(0), batch).grads
    assert jnp.isfinite(grads)


def test_the_probability_of_the_positive_class():
    model = models.linear()
    batch = make_batch(np.zeros(N, np.int32))
    task = tasks.binary_classification(model, batch.examples)
    variables = task.init(0)
    half = tasks.classification.predicted_probability(model, variables, batch)
    np.testing.assert_allclose(half, np.full(N, 0.5))
