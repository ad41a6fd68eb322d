"""Signal models: what they do not see, what they learn, and that the rewrite takes them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_med.engine import Batch, gradient
from fedjax_med.models.signals import gru, residual_network, temporal_convolution
from fedjax_med.tasks import multiclass_classification
from fedjax_med_kernels.client_batched import client_batched

TIME, CHANNELS, OUTPUTS = 24, 2, 3
MODELS = {
    "resnet": residual_network(OUTPUTS, widths=(4,), kernel=5),
    "convolution": temporal_convolution(OUTPUTS, channels=4, depth=2),
    "gru": gru(OUTPUTS, hidden=4),
}
every_model = pytest.mark.parametrize("name", MODELS)
X = np.random.default_rng(0).normal(size=(6, TIME, CHANNELS)).astype(np.float32)
Y = np.arange(6, dtype=np.int32) % OUTPUTS


def make_batch(x, mask=None):
    mask = np.ones(len(x), bool) if mask is None else mask
    return Batch(
        {"x": jnp.asarray(x), "y": jnp.asarray(Y[: len(x)])},
        jnp.asarray(mask),
        jnp.float32(mask.sum()),
        jax.random.key(0),
    )


def initial(name):
    return jax.jit(MODELS[name].init)(jax.random.key(1), X[:1])


def outputs(name, variables, x):
    apply = lambda v, x: MODELS[name].apply(v, make_batch(x), False)[0]
    return jax.jit(apply)(variables, x)


@every_model
def test_the_mean_over_time_is_not_seen(name):
    variables = initial(name)
    offset = np.array([3.0, -1.5], np.float32)[None, None]
    want = outputs(name, variables, X)
    assert want.shape == (6, OUTPUTS)
    # The offset is taken away again up to a rounding of numbers of order 3, times some layers.
    np.testing.assert_allclose(outputs(name, variables, X + offset), want, atol=1e-4)
    assert np.abs(outputs(name, variables, 2 * X) - want).max() > 1e-3


@every_model
def test_every_time_within_reach_matters(name):
    variables = initial(name)
    total = lambda x: jnp.sum(MODELS[name].apply(variables, make_batch(x), False)[0] ** 2)
    slope = np.asarray(jax.jit(jax.grad(total))(X))
    if name != "convolution":
        assert (np.abs(slope).max(axis=(0, 2)) > 0).all()
        return
    # Beyond 7 values the causal layers see the mean alone, which the first value is as much part of.
    direct = np.abs(slope - slope[:, :1]).max(axis=(0, 2))
    assert (direct[TIME - 7 :] > 1e-3).all()
    assert (direct[: TIME - 7] < 1e-6 * np.abs(slope).max()).all()


@every_model
def test_padded_rows_change_no_gradient(name):
    task = multiclass_classification(MODELS[name], {"x": X, "y": Y})
    variables, mask = initial(name), np.array([1, 1, 1, 1, 0, 0], bool)
    run = jax.jit(task.gradient)
    got = run(variables, make_batch(X, mask))
    other = X.copy()
    other[4:] = 100.0
    for a, b in zip(
        jax.tree.leaves(got.grads),
        jax.tree.leaves(run(variables, make_batch(other, mask)).grads),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@every_model
def test_the_model_learns_six_examples(name):
    """From 1.1 nats of chance to nearly nothing."""
    task = multiclass_classification(MODELS[name], {"x": X, "y": Y})
    optimizer, batch = optax.adam(0.03), make_batch(X)

    @jax.jit
    def train(variables):
        def step(carry, _):
            variables, state = carry
            result = gradient(task.loss)(variables, batch)
            updates, state = optimizer.update(result.grads, state)
            params = optax.apply_updates(variables.params, updates)
            return (variables._replace(params=params), state), result.loss

        start = variables, optimizer.init(variables.params)
        return jax.lax.scan(step, start, length=150)[1]

    losses = train(initial(name))
    assert losses[0] > 0.7 and losses[-1] < 0.1


@pytest.mark.parametrize("name, operations", [("resnet", 4), ("convolution", 3)])
def test_convolutions_are_replaced_and_equal(name, operations):
    """With weights per client; the kernels' rewrite takes all of them."""
    model, records = MODELS[name], []

    def loss(variables, batch):
        made, state = model.apply(variables, batch, True)
        return jnp.sum(made**2, axis=1), state

    start = initial(name)
    moved = jax.tree.map(lambda a: a * 1.3 + 0.05, start)
    clients = jax.tree.map(lambda a, b: jnp.stack([a, b]), moved, start)

    def slopes(fn):
        summed = lambda variables: jnp.sum(fn(variables, make_batch(X))[0])
        return jax.jit(jax.vmap(jax.grad(summed)))(clients)

    got, want = slopes(client_batched(loss, report=records.append)), slopes(loss)
    assert len(records) == operations and all(r.implementation is not None for r in records)
    scale = max(float(np.abs(x).max()) for x in jax.tree.leaves(want))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        # The same sums of some hundred products in another order, through some layers.
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: residual_network(0), "num_outputs must be at least 1, got 0"),
        (lambda: residual_network(2, widths=(8, 6)), r"multiples of 4, at least one, got \(8, 6\)"),
        (lambda: residual_network(2, widths=()), "multiples of 4, at least one"),
        (lambda: residual_network(2, kernel=0), "kernel must be at least 1, got 0"),
        (lambda: temporal_convolution(2, depth=0), "depth must be at least 1, got 0"),
        (lambda: gru(2, hidden=0), "hidden must be at least 1, got 0"),
    ],
)
def test_bad_sizes_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@every_model
def test_tables_are_refused(name):
    with pytest.raises(ValueError, match=r"must be a signal \[batch, time, channels\], got shape"):
        jax.eval_shape(MODELS[name].init, jax.random.key(0), X[:, :, 0])
