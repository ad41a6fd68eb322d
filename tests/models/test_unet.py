"""U-Nets keep the size, are rewritten as a whole, and train everywhere alike."""

from collections import Counter
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_med import algorithms, datasets, models, tasks
from fedjax_med.engine import Batch, CheckpointPolicy, Variables, epochs, placement, simulate
from fedjax_med_kernels.client_batched import client_batched

NUM_CLIENTS, BATCH_SIZE = 2, 3
# With axes that cannot be halved.
SIZES = {"2-D": (7, 6), "3-D": (3, 4, 2)}
networks = pytest.mark.parametrize(
    "size, upsampling",
    [
        (SIZES["2-D"], "transposed"),
        pytest.param(SIZES["2-D"], "nearest", marks=pytest.mark.slow),
        (SIZES["3-D"], "transposed"),
        pytest.param(SIZES["3-D"], "nearest", marks=pytest.mark.slow),
    ],
    ids=str,
)


def build(upsampling):
    return models.unet(3, (2, 4), upsampling=upsampling)


def make_batch(size, dtype=np.float32):
    rng = np.random.default_rng(0)
    examples = {
        "x": jnp.asarray(rng.standard_normal((BATCH_SIZE, *size, 1)), dtype),
        "mask": jnp.asarray(rng.integers(0, 3, (BATCH_SIZE, *size)), jnp.int32),
    }
    mask = jnp.arange(BATCH_SIZE) < BATCH_SIZE - 1
    return Batch(examples, mask, jnp.asarray(BATCH_SIZE - 1, dtype), jax.random.key(0))


@lru_cache
def of_clients(size, upsampling):
    """Weights of clients; drawn once, as another compilation would round them otherwise."""
    x = make_batch(size).examples["x"][:1]
    one = jax.jit(build(upsampling).init)(jax.random.key(1), x)
    scaled = lambda x, c: np.float64(x) * (1 + 0.3 * c) + 0.05 * c
    return jax.tree.map(lambda x: np.stack([scaled(x, c) for c in range(NUM_CLIENTS)]), one)


@lru_cache
def evaluated(size, upsampling, rewritten):
    """Gradients and losses of clients of different weights, in float64."""
    model, clients = build(upsampling), of_clients(size, upsampling)
    with jax.enable_x64(True):
        batch = make_batch(size, np.float64)
        loss = tasks.segmentation(model, batch.examples).loss
        loss = client_batched(loss) if rewritten else loss

        def of_client(variables):
            def mean(params):
                losses, _ = loss(Variables(params, ()), batch)
                return batch.masked_sum(losses) / batch.count, losses

            return jax.grad(mean, has_aux=True)(variables.params)

        return jax.tree.map(np.asarray, jax.jit(jax.vmap(of_client))(clients))


@networks
def test_losses_and_gradients_are_equal_after_the_rewrite(size, upsampling):
    got, want = (evaluated(size, upsampling, rewritten) for rewritten in (True, False))
    scale = max(np.abs(x).max() for x in jax.tree.leaves(want))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == np.float64
        # Sums of below 2**7 terms in 15 layers, divided by standard deviations down to 0.01.
        bound = 2**7 * 15 * 100 * np.finfo(np.float64).eps
        np.testing.assert_allclose(a, b, rtol=0, atol=bound * scale)


@networks
def test_every_convolution_and_pooling_is_replaced(size, upsampling):
    model, batch, records = build(upsampling), make_batch(size), []
    variables = jax.eval_shape(model.init, jax.random.key(0), batch.examples["x"][:1])
    loss = tasks.segmentation(model, batch.examples).loss
    jax.eval_shape(client_batched(loss, report=records.append), variables, batch)
    assert Counter(r.operation for r in records) == {"convolution": 8, "max-pooling": 1}
    assert all(r.implementation is not None for r in records)


@networks
def test_outputs_have_the_size_of_the_scans(size, upsampling):
    model, batch = build(upsampling), make_batch(size)
    variables = jax.eval_shape(model.init, jax.random.key(0), batch.examples["x"][:1])
    outputs, _ = jax.eval_shape(lambda v: model.apply(v, batch, True), variables)
    assert outputs.shape == (BATCH_SIZE, *size, 3) and outputs.dtype == np.float32


def test_a_scan_that_is_shifted_is_shifted_in_the_result():
    """By four pixels, which all levels can follow; where neither edge is seen."""
    model = models.unet(2, (4, 4), group_size=4)
    x = np.zeros((2, 40, 40, 1), np.float32)
    x[0, 18:20, 18:20] = 1.0
    x[1] = np.roll(x[0], (4, 4), (0, 1))
    x = jnp.asarray(x)

    def outputs(key):
        variables = model.init(key, x[:1])
        batch = Batch({"x": x}, jnp.ones(2, bool), jnp.float32(2), key)
        return model.apply(variables, batch, False)[0]

    got = np.asarray(jax.jit(outputs)(jax.random.key(0)))
    middle = got[0, 12:28, 12:28]
    assert middle.std() > 1e-3
    np.testing.assert_allclose(got[1, 16:32, 16:32], middle, rtol=1e-4, atol=1e-5)


@lru_cache
def small_scans():
    scanners = tuple(s._replace(patients=4 + i) for i, s in enumerate(datasets.SCANNERS[:3]))
    return datasets.synthetic_scans(
        size=(8, 8), scanners=scanners, validation_patients=0, test_patients=2
    )


def train(rounds=2, **options):
    data = small_scans()
    task = tasks.segmentation(models.unet(2, (2, 4)), data.train.examples)
    algorithm = algorithms.fed_avg(task.gradient, optax.sgd(0.1))
    work = options.pop("local_work", epochs(1, batch_size=4))
    return simulate(algorithm, data, task=task, rounds=rounds, local_work=work, **options)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(lambda: placement.pmap(2), id="pmap", marks=pytest.mark.slow),
        pytest.param(lambda: placement.mesh(2, splits=2), id="split minibatches"),
    ],
)
def test_placements_agree(place):
    one, other = train(), train(placement=place(), lanes=1)
    for a, b in zip(jax.tree.leaves(one.variables), jax.tree.leaves(other.variables), strict=True):
        # The order of sums; group normalisation divides by deviations down to 0.03.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_resumed_run_goes_on_bit_for_bit(tmp_path):
    whole = train(4, lanes=2, checkpoint=CheckpointPolicy(tmp_path / "whole", every=2))
    train(2, lanes=2, checkpoint=CheckpointPolicy(tmp_path / "parts", every=2))
    resumed = train(
        4, lanes=2, checkpoint=CheckpointPolicy(tmp_path / "parts", every=2, resume=True)
    )
    for a, b in zip(
        jax.tree.leaves(whole.variables), jax.tree.leaves(resumed.variables), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_outputs": 1}, "num_outputs must be at least 2, got 1."),
        ({"features": (4,)}, "features must be at least 2 positive numbers, got (4,)."),
        ({"features": (4, 6)}, "group_size must divide all features (4, 6), got 4."),
    ],
)
def test_what_is_not_allowed_is_named(options, message):
    with pytest.raises(ValueError) as error:
        models.unet(**options)
    assert str(error.value) == message
