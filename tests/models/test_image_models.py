"""Residual networks, batch normalisation and augmentation: by hand, with padding, on all placements."""

import dataclasses
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.ndimage import map_coordinates

from fedjax_med import algorithms, models, tasks
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import Batch, CheckpointPolicy, epochs, placement, simulate
from fedjax_med.engine.contracts import Variables, gradient
from fedjax_med.models.augmentation import _resampled
from fedjax_med_kernels.client_batched import client_batched

SIZE = 8
SMALL = {"widths": (4, 8), "stem_stride": 1}
AUGMENTATIONS = (
    models.affine(shift=0.1, degrees=15.0, zoom=0.2, flip=True),
    models.intensity(contrast=0.2, brightness=0.1),
)
NETWORKS = {
    "group": models.resnet(norm="group", **SMALL),
    "batch": models.resnet(norm="batch", **SMALL),
    "tiny-augmented": models.augmented(
        models.resnet(norm="batch", widths=(4,), stem_stride=2), *AUGMENTATIONS
    ),
    "batch-augmented": models.augmented(models.resnet(norm="batch", **SMALL), *AUGMENTATIONS),
}


def make_dataset():
    rng = np.random.default_rng(0)

    def client(n):
        y = rng.integers(2, size=n).astype(np.int32)
        x = rng.integers(200, size=(n, SIZE, SIZE, 1)) + 40 * y[:, None, None, None]
        return {"x": x.astype(np.uint8), "y": y}

    return FederatedDataset.from_clients({"North": client(7), "South": client(12)})


DATASET = make_dataset()


def make_batch(count=6, padding=0, key=0, dtype=np.float32):
    """A minibatch of 6 rows, of which those from `count` on are `padding`."""
    x = np.array(DATASET.train.examples["x"][:6])
    y = np.array(DATASET.train.examples["y"][:6])
    x[count:], y[count:] = padding, padding % 2
    if dtype == np.float64:
        x = x / 127.5 - 1  # of 8 bits they would become float32
    mask = jnp.arange(6) < count
    return Batch({"x": x, "y": y}, mask, jnp.asarray(count, dtype), jax.random.key(key))


@lru_cache
def task_of(name):
    return tasks.binary_classification(NETWORKS[name], DATASET.train.examples)


@lru_cache
def initial(name):
    return jax.jit(NETWORKS[name].init)(jax.random.key(1), DATASET.train.examples["x"][:1])


def assert_close(got, want, rtol, atol):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), got, want)


# -- batch normalisation ---------------------------------------------------------------------------


def test_batch_norm_is_that_of_the_real_examples():
    module = models.BatchNorm(momentum=0.7, epsilon=1e-3)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6, 3, 5)) * 2 + 1
    state = {"mean": rng.standard_normal(5), "var": rng.random(5) + 0.5}
    params = {"scale": rng.random(5) + 0.5, "bias": rng.standard_normal(5)}

    def call(x, train):
        return module.apply(
            {"params": params, "batch_stats": state}, x, train, batch, mutable=["batch_stats"]
        )

    with jax.enable_x64(True):
        batch = make_batch(count=4, dtype=np.float64)
        (got, new), (judged, same) = jax.jit(lambda x: (call(x, True), call(x, False)))(x)
    mean, var = x[:4].mean((0, 1)), x[:4].var((0, 1))
    of = lambda m, v: params["scale"] * (x - m) / np.sqrt(v + 1e-3) + params["bias"]
    np.testing.assert_allclose(got, of(mean, var), rtol=1e-12)
    np.testing.assert_allclose(new["batch_stats"]["mean"], 0.7 * state["mean"] + 0.3 * mean)
    np.testing.assert_allclose(new["batch_stats"]["var"], 0.7 * state["var"] + 0.3 * var)
    np.testing.assert_allclose(judged, of(state["mean"], state["var"]), rtol=1e-12)
    jax.tree.map(np.testing.assert_array_equal, same["batch_stats"], state)


def test_batch_norm_in_training_needs_the_minibatch():
    with pytest.raises(ValueError, match="batch must be given to BatchNorm in training, got None"):
        models.BatchNorm().init(jax.random.key(0), jnp.zeros((2, 3)), True)


@pytest.mark.parametrize("name", ["tiny-augmented", pytest.param("group", marks=pytest.mark.slow)])
def test_padding_changes_nothing(name):
    """Losses of real rows, gradients and state are the same numbers, whatever padded rows hold."""
    task = task_of(name)

    @jax.jit
    def evaluated(variables, batch):
        losses, _ = task.loss(variables, batch)
        return jnp.where(batch.mask, losses, 0), gradient(task.loss)(variables, batch)

    one = evaluated(initial(name), make_batch(count=4, padding=0))
    for padding in (255, 77):
        other = evaluated(initial(name), make_batch(count=4, padding=padding))
        jax.tree.map(np.testing.assert_array_equal, one, other)
    full = evaluated(initial(name), make_batch(count=6))
    assert np.abs(np.asarray(full[1].loss) - one[1].loss) > 1e-4


# -- the network -----------------------------------------------------------------------------------


def test_stages_have_their_widths_and_norms():
    group, batch = initial("group"), initial("batch")
    assert group.state == () and set(group.params) == {"Stem", "Stage_1", "Stage_2", "Head"}
    block = group.params["Stage_2"]["Block_1"]
    assert block["First"]["Conv"]["kernel"].shape == (3, 3, 4, 8)
    assert block["Shortcut"]["Conv"]["kernel"].shape == (1, 1, 4, 8)
    assert "Shortcut" not in group.params["Stage_1"]["Block_1"]
    paths = [
        jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(batch.params)
    ]
    normed = [path for path in paths if algorithms.normalisation_layers(path)]
    assert normed == [path for path in paths if "BatchNorm" in path] and len(normed) == 12
    assert jax.tree.map(jnp.shape, batch.state["batch_stats"]["Stem"]["BatchNorm"]) == {
        "mean": (4,),
        "var": (4,),
    }


def test_resnet18_has_the_parameters_of_the_paper():
    for large, stem in ((False, 9), (True, 49)):
        model = models.resnet18(1000, large_images=large)
        like = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
        count = sum(x.size for x in jax.tree.leaves(like.params))
        # Of torchvision's resnet18: 11,689,512 with a stem of 7 x 7 x 3 x 64.
        assert count == 11_689_512 - (49 - stem) * 3 * 64


def test_images_of_8_bits_are_scaled():
    batch = make_batch()
    as_floats = batch.examples["x"].astype(np.float32) / 127.5 - 1
    floats = dataclasses.replace(batch, examples={**batch.examples, "x": as_floats})
    model = NETWORKS["group"]
    apply = jax.jit(lambda v, b: model.apply(v, b, False)[0])
    got, want = (apply(initial("group"), b) for b in (batch, floats))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"widths": (6, 8)}, r"widths must be multiples of 4, got \(6, 8\)"),
        ({"widths": ()}, "number of widths must be at least 1, got 0"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
    ],
)
def test_networks_that_cannot_be_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        models.resnet(**options)


def test_the_rewrite_leaves_gradients_equal():
    """Two clients with weights of their own, in float64; see `test_networks_rewritten`."""
    task = task_of("batch-augmented")

    def evaluated(loss):
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda x: np.asarray(x, np.float64), initial("batch-augmented"))
            clients = jax.tree.map(lambda x: np.stack([x, 1.3 * x + 0.05]), wide)
            of_client = lambda v, batch: gradient(loss)(Variables(*v), batch)
            both = jax.jit(jax.vmap(of_client, in_axes=(0, None)))
            return jax.tree.map(np.asarray, both(clients, make_batch(5, dtype=np.float64)))

    records = []
    got, want = evaluated(client_batched(task.loss, report=records.append)), evaluated(task.loss)
    # Stem, two convolutions of each of two blocks, a shortcut.
    assert [r.operation for r in records] == ["convolution"] * 6
    assert all(r.implementation for r in records)
    # As there: sums of below 2**9 terms in 20 layers, divided by deviations down to 0.01.
    bound = 2**9 * 20 * 100 * np.finfo(np.float64).eps
    assert_close(got, want, rtol=bound, atol=bound * np.abs(want.grads["Head"]["kernel"]).max())


# -- under the engine ------------------------------------------------------------------------------


def train(name, rounds=2, **options):
    task = task_of(name)
    algorithm = algorithms.fed_avg(task.gradient, optax.sgd(0.05))
    defaults = dict(local_work=epochs(1, batch_size=4), lanes=1)
    return simulate(algorithm, DATASET, task=task, rounds=rounds, **(defaults | options))


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(lambda: placement.pmap(2), id="pmap", marks=pytest.mark.slow),
        pytest.param(lambda: placement.mesh(2), id="mesh", marks=pytest.mark.slow),
        pytest.param(lambda: placement.mesh(2, splits=2), id="split"),
    ],
)
def test_placement_does_not_matter(place):
    """Also where devices share minibatches, of which some parts are all padding."""
    one, other = train("tiny-augmented"), train("tiny-augmented", placement=place())
    # Orders of float32 sums; normalisation divides by standard deviations of minibatches.
    assert_close(other.variables, one.variables, rtol=1e-4, atol=2e-5)
    moved = np.abs(one.variables.state["batch_stats"]["Stem"]["BatchNorm"]["mean"]).max()
    assert moved > 1e-3


@pytest.mark.slow
def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path):
    policy = CheckpointPolicy(tmp_path / "run", every=1)
    train("tiny-augmented", 1, checkpoint=policy)
    resumed = train("tiny-augmented", 2, checkpoint=policy)
    straight = train("tiny-augmented", 2)
    jax.tree.map(np.testing.assert_array_equal, resumed.variables, straight.variables)


# -- augmentation ----------------------------------------------------------------------------------


def changed(augmentation, images, draws):
    return np.asarray(jax.jit(augmentation.change)(images, jnp.asarray(draws, images.dtype)))


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(2)
    return jnp.asarray(rng.standard_normal((5, 6, 9, 2)), jnp.float32)


def test_augmentation_of_nothing_is_the_identity(images):
    draws = np.random.default_rng(0).random((5, 5))
    np.testing.assert_array_equal(changed(models.affine(), images, draws), images)
    np.testing.assert_array_equal(changed(models.intensity(), images, draws), images)


def test_what_draws_do_to_images(images):
    half = np.full((5, 5), 0.5)
    draws = half.copy()
    draws[1, 4] = 0.4  # mirrored; 0.5 is not
    got = changed(models.affine(flip=True), images, draws)
    want = np.array(images)
    want[1] = want[1, :, ::-1]
    np.testing.assert_allclose(got, want, atol=1e-6)
    # By a third of 6 rows and of 9 columns, up and to the left: what was there comes into view.
    draws = half.copy()
    draws[:, :2] = 1.0
    got = changed(models.affine(shift=1 / 3), images, draws)
    np.testing.assert_allclose(got[:, :4, :6], images[:, 2:, 3:], atol=1e-5)
    np.testing.assert_allclose(got[:, 4:, -1], np.array(images)[:, -1:, -1].repeat(2, 1), atol=1e-5)
    square = images[:, :, :6]
    draws = half.copy()
    draws[:, 2] = 1.0
    got = changed(models.affine(degrees=90.0), square, draws)
    np.testing.assert_allclose(got, np.rot90(square, -1, (1, 2)), atol=1e-5)
    bright = changed(models.intensity(contrast=0.25, brightness=0.5), images, [[1, 0]] * 5)
    np.testing.assert_allclose(bright, 1.25 * images - 0.5, rtol=1e-5, atol=1e-6)


def test_resampling_is_linear_interpolation(images):
    rng = np.random.default_rng(3)
    matrix = np.eye(2) + 0.3 * rng.standard_normal((5, 2, 2))
    shift = 0.2 * rng.standard_normal((5, 2))
    got = jax.jit(_resampled)(images, *(jnp.asarray(a, jnp.float32) for a in (matrix, shift)))
    middle, size = np.array([2.5, 4.0]), np.array([6, 9])
    seen = np.stack(np.meshgrid(np.arange(6), np.arange(9), indexing="ij"), -1) - middle
    for i in range(5):
        place = seen @ matrix[i].T + middle + shift[i] * size
        for c in range(2):
            want = map_coordinates(
                np.float64(images[i, ..., c]), np.moveaxis(place, -1, 0), order=1, mode="nearest"
            )
            # Places have errors of 1e-6 pixels in float32, and neighbours differ by up to 5.
            np.testing.assert_allclose(got[i, ..., c], want, atol=3e-5)


def test_every_example_and_step_draws_anew_in_training_only():
    seen = []
    watch = models.Model(
        lambda key, x: Variables({}), lambda v, batch, train: (batch.examples["x"], ())
    )
    model = models.augmented(watch, *AUGMENTATIONS)
    look = jax.jit(
        lambda batch, train: model.apply(Variables({}), batch, train)[0], static_argnums=1
    )
    batch = make_batch()
    same = np.repeat(batch.examples["x"][:1], 6, axis=0)
    for key in (0, 1):
        one = dataclasses.replace(make_batch(key=key), examples={"x": same})
        seen += list(np.asarray(look(one, True)))
        np.testing.assert_array_equal(look(one, False), same)  # untouched, still of 8 bits
    distinct = {image.tobytes() for image in seen}
    assert len(distinct) == 12


def test_draws_are_uniform():
    from fedjax_med.models.augmentation import _draws

    batch = Batch({}, jnp.ones(4000, bool), jnp.float32(4000), jax.random.key(3))
    draws = np.asarray(_draws(batch, 1, 2))
    assert draws.shape == (4000, 2) and draws.min() >= 0 and draws.max() < 1
    # Standard errors of mean and variance of uniform numbers, five of them.
    assert abs(draws.mean() - 0.5) < 5 * np.sqrt(1 / 12 / 8000)
    assert abs(draws.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / 8000)
    assert abs(np.corrcoef(draws.T)[0, 1]) < 5 / np.sqrt(4000)


@pytest.mark.parametrize("build, name", [(models.affine, "zoom"), (models.intensity, "contrast")])
def test_augmentations_refuse(build, name):
    for value in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"{name} must be finite and not negative, got"):
            build(**{name: value})
