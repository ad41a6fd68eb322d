"""Attributions of signals: completeness, a known case, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_med.engine import Batch, Variables
from fedjax_med.explanation import signal_gradients
from fedjax_med.models import Model
from fedjax_med.models.signals import temporal_convolution

X = np.random.default_rng(0).normal(size=(5, 12, 2)).astype(np.float32)


def outputs(model, variables, x):
    ones = jnp.ones(len(x), bool)
    batch = Batch({"x": jnp.asarray(x)}, ones, jnp.float32(len(x)), jax.random.key(0))
    return np.asarray(jax.jit(lambda v: model.apply(v, batch, False)[0])(variables))


def test_parts_of_a_weighted_sum_are_its_terms():
    weight = np.random.default_rng(1).normal(size=(12, 2)).astype(np.float32)

    def apply(variables, batch, train):
        return (batch.examples["x"] * variables.params[None]).sum(axis=(1, 2)), ()

    model = Model(lambda key, x: Variables(weight), apply)
    got = signal_gradients(model, Variables(weight), X, baseline=np.ones((12, 2), np.float32))
    np.testing.assert_allclose(got, (X - 1) * weight, atol=1e-5)


def test_parts_add_up_to_the_change_from_a_flat_line():
    model = temporal_convolution(3, channels=4, depth=2)
    variables = jax.jit(model.init)(jax.random.key(0), X[:1])
    got = signal_gradients(model, variables, X, steps=64, output=2)
    assert got.shape == X.shape
    flat = outputs(model, variables, np.zeros_like(X[:1]))
    want = (outputs(model, variables, X) - flat)[:, 2]
    # Kinks of the rectifiers between the points of the rule.
    np.testing.assert_allclose(got.sum(axis=(1, 2)), want, atol=0.02 * np.abs(want).max())


def test_bad_shapes_are_named():
    model = temporal_convolution(3)
    with pytest.raises(
        ValueError, match=r"must be signals \[N, time, channels\], got shape \[5, 24"
    ):
        signal_gradients(model, Variables({}), X.reshape(5, 24))
    with pytest.raises(
        ValueError, match=r"baseline must have the shape \[12, 2\] of a signal, got"
    ):
        signal_gradients(model, Variables({}), X, baseline=np.zeros(2))
