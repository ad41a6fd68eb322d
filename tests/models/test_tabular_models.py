"""Networks for tables: missing values, categories, and what they can learn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_med import models, tasks
from fedjax_med.engine import Batch, Variables

NAMES = ("age", "stage=I", "stage=II", "smoker", "site=left", "site=right", "site=both")
COLUMNS = models.columns_of(NAMES)
MODELS = {
    "network": partial(models.tabular_network, COLUMNS, (5,), embedding_size=3),
    "linear network": partial(models.tabular_network, COLUMNS, (), embedding_size=2),
    "tokens": partial(models.feature_tokens, COLUMNS, dim=4, depth=2, heads=2),
}
EACH = pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())


def table(seed=0, n=6):
    """Rows in which any column may be missing; the first row misses all, the second nothing."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, 7), np.float32)
    x[:, [0, 3]] = rng.standard_normal((n, 2))
    x[np.arange(n), 1 + rng.integers(0, 2, n)] = 1
    x[np.arange(n), 4 + rng.integers(0, 3, n)] = 1
    for at in ([0], [1, 2], [3], [4, 5, 6]):
        gone = rng.random(n) < 0.4
        gone[:2] = True, False
        x[np.ix_(gone, at)] = np.nan
    return x


def applied(model, params, x):
    size = len(x)
    batch = Batch({"x": x}, jnp.ones(size, bool), jnp.float32(size), jax.random.key(0))
    return model.apply(Variables(params), batch, False)[0]


def params_of(model):
    return model.init(jax.random.key(1), jnp.asarray(table()[1:2])).params


def test_columns_are_found_by_their_names():
    assert COLUMNS.numeric == (0, 3) and COLUMNS.width == 7
    assert COLUMNS.categories == (("stage", (1, 2)), ("site", (4, 5, 6)))
    # Indicators of a column need not stand together.
    assert models.columns_of(["a=1", "b", "a=2"]).categories == (("a", (0, 2)),)
    with pytest.raises(ValueError, match="feature_names"):
        models.columns_of([])


@EACH
def test_missing_values_never_reach_outputs_or_gradients(build):
    model = build(num_outputs=3)
    params, x = params_of(model), jnp.asarray(table())
    assert np.isnan(x).any(axis=0).all() and np.isnan(x[0]).all()

    @jax.jit
    def both(params, x):
        outputs = applied(model, params, x)
        return outputs, jax.grad(lambda p, x: (applied(model, p, x) ** 2).sum(), (0, 1))(params, x)

    outputs, (by_params, by_x) = both(params, x)
    assert outputs.shape == (6, 3) and outputs.dtype == np.float32
    leaves = jax.tree.leaves((outputs, by_params, by_x))
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    np.testing.assert_array_equal(by_x[np.isnan(x)], np.zeros(int(np.isnan(x).sum())))


@EACH
def test_a_missing_value_is_no_value_at_all(build):
    """Another row than with a 0, and the same whatever is missing elsewhere in the block."""
    model = build()
    params, x = params_of(model), table()[1:2].repeat(5, axis=0)
    x[1, 0], x[2, 0] = 0, np.nan
    x[3, 4:], x[4, 5] = np.nan, np.nan
    outputs = jax.jit(partial(applied, model))(params, jnp.asarray(x))[:, 0]
    assert abs(outputs[1] - outputs[2]) > 1e-4 and abs(outputs[3] - outputs[0]) > 1e-4
    assert outputs[3] == outputs[4]


def test_a_network_without_hidden_layers_written_out():
    model = MODELS["linear network"]()
    params, x = params_of(model), table(5)
    got = np.asarray(applied(model, params, jnp.asarray(x)))[:, 0]
    kernel, bias = (np.float64(params["layers"][0][leaf]) for leaf in ("kernel", "bias"))
    kernel, at = kernel[:, 0], [0, 3]
    want = bias + np.nan_to_num(x[:, at]) @ kernel[:2] + np.isnan(x[:, at]) @ kernel[2:4]
    for start, (name, block) in zip((4, 6), COLUMNS.categories, strict=True):
        own = jax.tree.map(np.float64, params["embeddings"][name])
        gone = np.isnan(x[:, block[0]])
        row = np.where(gone, 0, np.argmax(x[:, block], axis=1))
        embedded = np.where(gone[:, None], own["missing"], own["table"][row])
        want += embedded @ kernel[start : start + 2]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)  # ten float32 additions


def reference_tokens(params, x):
    """An FT-Transformer for one row, heads of two, in float64."""
    p = jax.tree.map(np.float64, params)

    def norm(own, tokens):
        deviation = tokens - tokens.mean(-1, keepdims=True)
        variance = (deviation**2).mean(-1, keepdims=True)
        return deviation / np.sqrt(variance + 1e-5) * own["scale"] + own["bias"]

    tokens = []
    for i, at in enumerate(COLUMNS.numeric):
        known = x[at] * p["numeric"][i]
        tokens.append(p["missing"][i] if np.isnan(x[at]) else known)
    for i, (name, at) in enumerate(COLUMNS.categories, start=2):
        gone = np.isnan(x[list(at)]).any()
        tokens.append(p["missing"][i] if gone else x[list(at)] @ p["categories"][name])
    tokens = np.stack([p["cls"], *(t + b for t, b in zip(tokens, p["token_bias"], strict=True))])
    for number, block in enumerate(p["blocks"]):
        normal = norm(block["attention_norm"], tokens) if number else tokens
        query, key, value = (
            normal @ block[n] + block[f"{n}_bias"] for n in ("query", "key", "value")
        )
        mixed = np.zeros_like(value)
        for head in (slice(0, 2), slice(2, 4)):
            weight = np.exp(query[:, head] @ key[:, head].T / np.sqrt(2))
            mixed[:, head] = weight / weight.sum(1, keepdims=True) @ value[:, head]
        tokens = tokens + mixed @ block["out"] + block["out_bias"]
        up = norm(block["feed_norm"], tokens) @ block["up"] + block["up_bias"]
        hidden = up[:, :5] * np.maximum(up[:, 5:], 0)
        tokens = tokens + hidden @ block["down"] + block["down_bias"]
    return (
        np.maximum(norm(p["head"]["norm"], tokens[0]), 0) @ p["head"]["kernel"] + p["head"]["bias"]
    )


def test_feature_tokens_written_out():
    model = MODELS["tokens"](num_outputs=2)
    # Away from zero biases and unit scales, so that each of them counts.
    params = jax.tree.map(
        lambda p: p + 0.1 * jnp.cos(jnp.arange(p.size)).reshape(p.shape), params_of(model)
    )
    x = table(5)
    got = applied(model, params, jnp.asarray(x))
    want = [reference_tokens(params, row) for row in x]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)  # two blocks of float32


def test_the_order_of_columns_does_not_matter_to_tokens():
    turn = np.array([4, 3, 6, 1, 0, 5, 2])  # new position of each old column, blocks torn apart
    names = [NAMES[i] for i in turn]
    columns = models.columns_of(names)
    assert columns.numeric == (1, 4) and names[1] == "smoker"
    model, params = MODELS["tokens"](), params_of(MODELS["tokens"]())
    other = models.feature_tokens(columns, dim=4, depth=2, heads=2)
    blocks = dict(columns.categories)
    old = {name: [NAMES[i] for i in at] for name, at in COLUMNS.categories}
    rows = {name: np.array([old[name].index(names[i]) for i in blocks[name]]) for name in blocks}
    order = np.array([1, 0, *(2 + list(old).index(name) for name in blocks)])
    turned = {
        **params,
        "numeric": params["numeric"][np.array([1, 0])],
        "categories": {name: params["categories"][name][rows[name]] for name in blocks},
        "token_bias": params["token_bias"][order],
        "missing": params["missing"][order],
    }
    x = table(5)
    want = applied(model, params, jnp.asarray(x))
    got = applied(other, turned, jnp.asarray(x[:, turn]))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)  # sums in another order


INTERACTION = {
    "linear": (models.linear(), False),
    "network": (models.tabular_network(models.columns_of(["a", "b=0", "b=1"]), (8,)), True),
    "tokens": (models.feature_tokens(models.columns_of(["a", "b=0", "b=1"]), dim=8, depth=1), True),
}


@pytest.mark.parametrize("model, learns", INTERACTION.values(), ids=INTERACTION.keys())
def test_an_interaction_that_a_linear_model_cannot_learn(model, learns):
    """Ill where a number is positive in one category, and negative in the other."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(64), np.arange(64) % 2
    x = np.column_stack([a, b == 0, b == 1]).astype(np.float32)
    examples = {"x": jnp.asarray(x), "y": jnp.asarray((a > 0) == (b == 1), jnp.int32)}
    batch = Batch(examples, jnp.ones(64, bool), jnp.float32(64), jax.random.key(0))
    task = tasks.binary_classification(model, examples)
    optimizer = optax.adam(0.03)

    @jax.jit
    def train(variables):
        def step(_, carry):
            params, state = carry
            updates, state = optimizer.update(task.gradient(Variables(params), batch).grads, state)
            return optax.apply_updates(params, updates), state

        start = variables.params, optimizer.init(variables.params)
        params, _ = jax.lax.fori_loop(0, 200, step, start)
        return task.metrics(Variables(params), batch)["accuracy"][0].mean()

    accuracy = float(train(task.init(0)))
    assert accuracy > 0.95 if learns else accuracy < 0.75


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="embedding_size must be at least 1, got 0"):
        models.tabular_network(COLUMNS, embedding_size=0)
    with pytest.raises(ValueError, match="heads must divide dim, got heads=3 and dim=4"):
        models.feature_tokens(COLUMNS, dim=4, heads=3)
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        models.feature_tokens(COLUMNS, depth=0)
    for build in MODELS.values():
        with pytest.raises(ValueError, match="each of the 5 columns of x once, got 7"):
            build().init(jax.random.key(0), jnp.zeros((1, 5)))
