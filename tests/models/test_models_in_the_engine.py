"""Plain functions, Flax Linen and Flax NNX modules, unchanged, under the engine."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from fedjax_med import algorithms, models, tasks
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import Batch, Variables, cohorts, epochs, placement, simulate

FEATURES = 6


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Dense(16)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.8)(x)
        x = nn.Dropout(0.3, deterministic=not train)(nn.relu(x))
        return nn.Dense(1)(x)


class PlainLinen(nn.Module):
    """No state, no dropout and no argument that says whether it is training."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.tanh(nn.Dense(8)(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(FEATURES, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, momentum=0.8, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.last = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))


class PlainNnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(FEATURES, 8, rngs=rngs)
        self.last = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.tanh(self.first(x)))


MODELS = {
    "linear": models.linear,
    "mlp": lambda: models.mlp([16, 8]),
    "linen": lambda: models.from_linen(Linen()),
    "plain_linen": lambda: models.from_linen(PlainLinen()),
    "nnx": lambda: models.from_nnx(Nnx),
    "plain_nnx": lambda: models.from_nnx(PlainNnx),
}
WITH_STATE = ("linen", "nnx")


def make_dataset():
    rng = np.random.default_rng(0)
    teacher = rng.standard_normal(FEATURES)

    def client(n):
        x = rng.standard_normal((n, FEATURES)) * 2 + 1
        return {"x": x.astype(np.float32), "y": (x @ teacher > 0).astype(np.int32)}

    sizes = {"North": 24, "South": 9, "West": 40}
    return FederatedDataset.from_clients({name: client(n) for name, n in sizes.items()})


DATASET = make_dataset()


def train(model, rounds=15, client_optimizer=None, **options):
    task = tasks.binary_classification(model, DATASET.train.examples)
    defaults = dict(local_work=epochs(1, batch_size=8), lanes=2)
    return simulate(
        algorithms.fed_avg(task.gradient, client_optimizer or optax.sgd(0.1, momentum=0.9)),
        DATASET,
        task=task,
        rounds=rounds,
        **(defaults | options),
    )


@pytest.mark.parametrize("name", MODELS)
def test_models_learn_under_the_engine(name):
    run = train(MODELS[name](), evaluate_every=15, evaluate_on=("train",))
    loss = run.history["train_loss"]
    assert loss[-3:].mean() < 0.7 * loss[0]
    assert run.evaluations[-1].pooled["accuracy"] > 0.85
    assert run.num_traces == 1


@pytest.mark.parametrize(
    "name",
    [n if n in ("mlp", *WITH_STATE) else pytest.param(n, marks=pytest.mark.slow) for n in MODELS],
)
@pytest.mark.parametrize("place", [lambda: placement.mesh(3)], ids=["mesh"])
def test_placement_does_not_matter(name, place):
    one, other = train(MODELS[name](), 4), train(MODELS[name](), 4, placement=place(), lanes=1)
    for a, b in zip(jax.tree.leaves(one.variables), jax.tree.leaves(other.variables), strict=True):
        # The order of sums; batch statistics divide by standard deviations of minibatches of
        # one example at least, which makes the last bits of float32 count a hundred times.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["linen", pytest.param("nnx", marks=pytest.mark.slow)])
def test_batch_statistics_are_averaged_over_clients(name):
    run = train(MODELS[name](), rounds=1)
    initial = tasks.binary_classification(MODELS[name](), DATASET.train.examples).init(0)
    assert jax.tree.structure(run.variables.state) == jax.tree.structure(initial.state)
    each = [
        train(MODELS[name](), rounds=1, cohort=cohorts.listed([(c,)])).variables.state
        for c in range(3)
    ]
    weight = DATASET.train.sizes / DATASET.train.sizes.sum()
    for mean, *own, start in zip(
        jax.tree.leaves(run.variables.state),
        *(jax.tree.leaves(s) for s in each),
        jax.tree.leaves(initial.state),
        strict=True,
    ):
        want = sum(w * s for w, s in zip(weight, own, strict=True))
        np.testing.assert_allclose(mean, want, rtol=1e-4, atol=1e-5)
        assert np.abs(mean - start).max() > 0.05


def make_batch(key=0, count=8):
    rows = slice(0, 8)
    examples = {k: jnp.asarray(v[rows]) for k, v in DATASET.train.examples.items()}
    return Batch(examples, jnp.arange(8) < count, jnp.float32(count), jax.random.key(key))


def initial(model):
    return model.init(jax.random.key(1), jnp.asarray(DATASET.train.examples["x"][:1]))


@pytest.mark.parametrize("name", ["linear", "mlp", "plain_linen", "plain_nnx"])
def test_gradients_are_those_of_jax_grad(name):
    model, batch = MODELS[name](), make_batch(count=5)
    variables = initial(model)
    got = tasks.binary_classification(model, DATASET.train.examples).gradient(variables, batch)
    x, y = batch.examples["x"][:5], batch.examples["y"][:5]

    def logits_of(params):
        if name == "plain_linen":
            return PlainLinen().apply({"params": params}, x)[:, 0]
        if name == "plain_nnx":
            hidden = jnp.tanh(x @ params["first"]["kernel"] + params["first"]["bias"][None])
            return (hidden @ params["last"]["kernel"] + params["last"]["bias"][None])[:, 0]
        layers = [params] if name == "linear" else params
        hidden = x
        for layer in layers:
            hidden = hidden @ layer["kernel"] + layer["bias"][None]
            hidden = jax.nn.relu(hidden) if layer is not layers[-1] else hidden
        return hidden[:, 0]

    def mean_loss(params):
        logits = logits_of(params)
        return jnp.mean(jnp.logaddexp(0.0, logits) - y * logits)

    value, grads = jax.value_and_grad(mean_loss)(variables.params)
    np.testing.assert_allclose(got.loss, value, rtol=1e-5)
    assert jax.tree.structure(got.grads) == jax.tree.structure(grads)
    for a, b in zip(jax.tree.leaves(got.grads), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_linen_modules_get_their_collections_and_dropout_key():
    model, batch = MODELS["linen"](), make_batch()
    variables = initial(model)
    got, state = model.apply(variables, batch, True)
    want, updated = Linen().apply(
        {"params": variables.params, **variables.state},
        batch.examples["x"],
        train=True,
        rngs={"dropout": batch.key},
        mutable=["batch_stats"],
    )
    np.testing.assert_allclose(got, want, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(dict(updated)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("name", WITH_STATE)
def test_dropout_follows_the_key_in_training_only(name):
    model = MODELS[name]()
    variables = initial(model)

    def outputs(key, train):
        return np.asarray(model.apply(variables, make_batch(key), train)[0])

    np.testing.assert_array_equal(outputs(1, True), outputs(1, True))
    assert (outputs(1, True) != outputs(2, True)).any()
    np.testing.assert_array_equal(outputs(1, False), outputs(2, False))
    _, state = model.apply(variables, make_batch(), False)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(variables.state), strict=True):
        np.testing.assert_array_equal(a, b)  # evaluation moves no statistics


def test_nnx_modules_are_called_as_they_are():
    variables, batch = initial(MODELS["nnx"]()), make_batch()
    got, _ = MODELS["nnx"]().apply(variables, batch, False)
    module = Nnx(nnx.Rngs(0))
    params = nnx.state(module, nnx.Param)
    nnx.replace_by_pure_dict(params, variables.params)
    nnx.update(module, params)
    module.eval()
    np.testing.assert_allclose(got, module(batch.examples["x"]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_seeds_decide_the_initial_model(name):
    task = tasks.binary_classification(MODELS[name](), DATASET.train.examples)
    one, same, other = task.init(0), task.init(0), task.init(1)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)
    if name != "linear":  # which starts at zero
        assert any(
            (a != b).any()
            for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True)
        )


def test_a_function_has_no_state_and_is_called_with_its_parameters():
    model = models.from_function(
        lambda key, x: jnp.ones(x.shape[-1]), lambda params, x: (x * params[None]).sum(axis=1)
    )
    variables = initial(model)
    assert isinstance(variables, Variables) and variables.state == ()
    outputs, state = model.apply(variables, make_batch(), True)
    np.testing.assert_allclose(outputs, make_batch().examples["x"].sum(axis=1), rtol=1e-6)
    assert state == ()
