"""Inversions against what is exact, and against what hides the records."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_med import models, tasks
from fedjax_med.attacks import gradient_inversion as inversion
from fedjax_med.attacks import updates

SIDE = 8  # pixels


def smooth_network(num_outputs):
    """A network with second derivatives everywhere, which DLG needs."""

    def init(key, x):
        size = x[0].size
        keys = jax.random.split(key, 2)
        return {
            "1": {"kernel": 0.3 * jax.random.normal(keys[0], (size, 16)), "bias": jnp.zeros(16)},
            "2": {
                "kernel": 0.3 * jax.random.normal(keys[1], (16, num_outputs)),
                "bias": jnp.zeros(num_outputs),
            },
        }

    def dense(layer, x):
        return x @ layer["kernel"] + layer["bias"][None]

    def apply(params, x):
        return dense(params["2"], jnp.tanh(dense(params["1"], x.reshape(len(x), -1))))

    return models.from_function(init, apply)


def images(count, seed=0):
    """Blobs at random places, from 0 to 1."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(1, SIDE - 2, (count, 2, 1, 1))
    grid = np.mgrid[:SIDE, :SIDE][None]
    blob = np.exp(-((grid - place) ** 2).sum(axis=1) / 4)
    return blob[..., None].astype(np.float32)


@pytest.fixture(scope="module")
def problem():
    x, y = images(16), (np.arange(16) % 3).astype(np.int32)
    task = tasks.multiclass_classification(smooth_network(3), {"x": x, "y": y})
    return task, task.init(0), x, y


def of(x, y, index):
    return {"x": jnp.asarray(x[index]), "y": jnp.asarray(y[index])}


def dense_psnr(gradient, originals):
    kernel, bias = inversion.first_dense(gradient)
    found = np.asarray(inversion.invert_dense(kernel, bias)).reshape(originals.shape[1:])
    return max(inversion.psnr(original, found, span=1.0) for original in originals)


def test_dense_layer_gives_its_one_input_away(problem):
    task, variables, x, y = problem
    gradient = updates.gradient_of(task, variables, of(x, y, [0]))
    # Float32: relative errors of 1e-6 are 120 dB.
    assert dense_psnr(gradient, x[:1]) > 110


def test_sum_over_records_is_a_mixture_of_them(problem):
    task, variables, x, y = problem
    found = [
        dense_psnr(updates.gradient_of(task, variables, of(x, y, slice(0, n))), x[:n])
        for n in (1, 4, 16)
    ]
    assert found[0] > 110
    assert max(found[1:]) < 30


def test_update_of_several_steps_still_leaks(problem):
    task, variables, x, y = problem
    update = updates.update_of(task, variables, of(x, y, [0]), learning_rate=0.1, num_steps=3)
    # All three gradients have the same input, so their sum has it too.
    assert dense_psnr(update, x[:1]) > 100


def test_one_step_update_is_the_gradient(problem):
    task, variables, x, y = problem
    examples = of(x, y, slice(0, 5))
    update = updates.update_of(task, variables, examples, learning_rate=0.5, num_steps=1)
    gradient = updates.gradient_of(task, variables, examples)
    for u, g in zip(jax.tree.leaves(update), jax.tree.leaves(gradient), strict=True):
        # p - (p - 0.5 g) in float32, where p is about 1.
        np.testing.assert_allclose(u, 0.5 * g, atol=3e-7)


def test_clip_and_noise_end_it(problem):
    task, variables, x, y = problem
    gradient = updates.gradient_of(task, variables, of(x, y, [0]))

    def seen(multiplier):
        sent = updates.clipped_and_noised(
            gradient, clip_norm=0.1, noise_multiplier=multiplier, key=jax.random.key(0)
        )
        return sent, dense_psnr(sent, x[:1])

    clipped, without_noise = seen(0.0)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(clipped)))
    assert norm == pytest.approx(0.1, rel=1e-5)
    assert without_noise > 100  # clipping alone hides nothing
    assert seen(0.01)[1] < 45
    assert seen(1.0)[1] < 12  # all zeros have 9


def test_noise_has_the_scale_it_says():
    zeros = {"kernel": jnp.zeros((100, 100)), "bias": jnp.zeros(100)}
    sent = updates.clipped_and_noised(
        zeros, clip_norm=2.0, noise_multiplier=1.5, key=jax.random.key(1)
    )
    # 10,000 draws: standard error of a standard deviation is 3 / sqrt(20,000).
    assert abs(float(sent["kernel"].std()) - 3) < 4 * 3 / np.sqrt(20_000)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_label_is_in_the_bias_of_the_output(problem, label):
    task, variables, x, _ = problem
    examples = {"x": jnp.asarray(x[:1]), "y": jnp.asarray([label])}
    gradient = updates.gradient_of(task, variables, examples)
    assert inversion.infer_label(gradient["2"]["bias"], 3) == label


def test_label_of_one_logit():
    assert inversion.infer_label([-0.3], 1) == 1
    assert inversion.infer_label([0.7], 1) == 0


@pytest.mark.parametrize("matching, enough", [("euclidean", 30), ("cosine", 18)])
def test_matching_finds_the_record(problem, matching, enough):
    task, variables, x, y = problem
    label = jnp.asarray(y[:1])

    def sent_by(records):
        return updates.gradient_of(task, variables, {"x": records, "y": label})

    start = 0.5 + 0.1 * jax.random.normal(jax.random.key(0), (1, *x.shape[1:]))
    found = inversion.invert_by_matching(
        sent_by,
        sent_by(jnp.asarray(x[:1])),
        start,
        matching=matching,
        num_steps=300,
        low=0.0,
        high=1.0,
    )
    assert inversion.psnr(x[0], found.records[0], span=1.0) > enough
    assert inversion.psnr(x[0], start[0], span=1.0) < 10


def test_first_dense_of_a_linear_model_and_of_a_convolution():
    linear = models.linear().init(jax.random.key(0), jnp.zeros((1, 5))).params
    kernel, bias = inversion.first_dense(linear)
    assert kernel.shape == (5, 1) and bias.shape == (1,)
    layers = models.mlp([4]).init(jax.random.key(0), jnp.zeros((1, 5))).params
    assert inversion.first_dense(layers)[0].shape == (5, 4)
    convolution = {"conv": {"kernel": jnp.zeros((3, 3, 1, 4)), "bias": jnp.zeros(4)}}
    assert inversion.first_dense(convolution) is None
    assert inversion.first_dense(()) is None


def test_psnr_by_hand():
    assert inversion.psnr([0.0, 1.0], [0.1, 0.9], span=1.0) == pytest.approx(20)
    assert inversion.psnr([0.0, 1.0], [0.0, 1.0], span=1.0) == float("inf")
    assert inversion.psnr([0.0, 1.0], [np.nan, 1.0], span=1.0) == float("inf")
