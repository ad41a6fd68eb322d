"""Forecasting models: what they begin as, what they see, and that the rewrite takes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_med.engine import Batch, Variables
from fedjax_med.models.forecasting import autoregression, gru, temporal_convolution
from fedjax_med_kernels.client_batched import client_batched

WINDOW, OUTPUTS = 9, 4
MODELS = {
    "autoregression": autoregression(WINDOW, OUTPUTS),
    "convolution": temporal_convolution(WINDOW, OUTPUTS, channels=3, depth=2),
    "gru": gru(WINDOW, OUTPUTS, hidden=3),
}
every_model = pytest.mark.parametrize("name", MODELS)


def make_batch(x):
    return Batch(
        {"x": jnp.asarray(x)}, jnp.ones(len(x), bool), jnp.float32(len(x)), jax.random.key(0)
    )


X = np.random.default_rng(0).normal(size=(5, WINDOW + 2)).astype(np.float32)


def moved(variables):
    """Away from the start, where the head is 0."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: leaf + rng.normal(0, 0.3, leaf.shape).astype(leaf.dtype), variables
    )


@every_model
def test_untrained_it_says_that_nothing_changes(name):
    model = MODELS[name]
    variables = jax.jit(model.init)(jax.random.key(0), X[:1])
    outputs, _ = jax.jit(model.apply, static_argnums=2)(variables, make_batch(X), False)
    np.testing.assert_allclose(outputs, np.repeat(X[:, WINDOW - 1 : WINDOW], OUTPUTS, 1))


@every_model
def test_every_input_matters(name):
    """Of the window, all that is within reach; and the other inputs."""
    model = MODELS[name]
    variables = moved(jax.jit(model.init)(jax.random.key(0), X[:1]))

    def total(x):
        return jnp.sum(model.apply(variables, make_batch(x), False)[0])

    slope = np.abs(np.asarray(jax.jit(jax.grad(total))(X))).max(axis=0)
    # Two causal layers of 3 with dilations 1 and 2 reach 7 weeks; the present is always seen.
    reach = 7 if name == "convolution" else WINDOW
    assert (slope[WINDOW - reach :] > 0).all()
    assert (slope[: WINDOW - reach] == 0).all()


def test_autoregression_by_hand():
    kernel = np.random.default_rng(2).normal(size=(WINDOW + 3, OUTPUTS)).astype(np.float32)
    bias = np.arange(OUTPUTS, dtype=np.float32)
    variables = Variables({"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)})
    got, _ = MODELS["autoregression"].apply(variables, make_batch(X), False)
    present = np.float64(X[:, WINDOW - 1 : WINDOW])
    inputs = np.concatenate([X[:, :WINDOW] - present, present, X[:, WINDOW:]], axis=1)
    # Sums of 12 products of order 1, in float32.
    np.testing.assert_allclose(got, present + inputs @ kernel + bias, atol=1e-5)


def test_convolutions_are_replaced_and_equal():
    """With weights per client; the kernels' rewrite takes all of them."""
    model, records = MODELS["convolution"], []

    def loss(variables, batch):
        outputs, state = model.apply(variables, batch, True)
        return jnp.sum(outputs**2, axis=1), state

    start = jax.jit(model.init)(jax.random.key(0), X[:1])
    clients = jax.tree.map(lambda a, b: jnp.stack([a, b]), moved(start), start)

    def mean(fn):
        summed = lambda variables: jnp.sum(fn(variables, make_batch(X))[0])
        return jax.jit(jax.vmap(jax.grad(summed)))(clients)

    got, want = mean(client_batched(loss, report=records.append)), mean(loss)
    assert len(records) == 3 and all(r.implementation is not None for r in records)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        # The same sums of some hundred products in another order.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(np.abs(b).max()))


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: autoregression(0, 1), "window must be at least 1, got 0"),
        (lambda: gru(3, 0), "num_outputs must be at least 1, got 0"),
        (lambda: gru(3, 1, hidden=0), "hidden must be at least 1, got 0"),
        (lambda: temporal_convolution(3, 1, depth=0), "depth must be at least 1, got 0"),
    ],
)
def test_bad_sizes_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_narrow_inputs_are_refused():
    with pytest.raises(ValueError, match=r"x must be \[batch, 9 or more\], got shape \[5, 4\]"):
        MODELS["autoregression"].init(jax.random.key(0), jnp.asarray(X[:, :4]))
