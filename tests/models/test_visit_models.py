"""Models of visits: padding, missing values and order, and training under the engine."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_med import algorithms, tasks
from fedjax_med.data import ClientArrays, DataError, FederatedDataset
from fedjax_med.datasets import health_records
from fedjax_med.engine import Batch, CheckpointPolicy, epochs, placement, simulate
from fedjax_med.models import visits

VISITS, WIDTH = 4, 5
INPUTS = visits.VisitInputs(
    9, visits.Scale((1.0, -2.0), (2.0, 0.5)), visits.Scale((60.0, 0.5), (10.0, 0.5))
)
MODELS = {
    "gru": lambda inputs: visits.visit_gru(inputs, dim=4),
    "transformer": lambda inputs: visits.visit_transformer(inputs, dim=4, depth=2),
    "bag": visits.visit_bag,
    "last": lambda inputs: visits.visit_bag(inputs, last_only=True),
}
SEQUENCES = ("gru", "transformer")


def draw(seed, num=6, num_visits=VISITS):
    """Records with everything that there may be, some of it missing."""
    rng = np.random.default_rng(seed)
    number = rng.integers(1, VISITS + 1, num).astype(np.int32)
    real = np.arange(num_visits) < number[:, None]
    labs = np.where(
        real[:, :, None] & (rng.random((num, num_visits, 2)) < 0.6),
        rng.normal(0, 3, (num, num_visits, 2)),
        np.nan,
    )
    static = np.where(rng.random((num, 2)) < 0.8, rng.normal(60, 10, (num, 2)), np.nan)
    codes = rng.integers(0, 9, (num, num_visits, WIDTH)) * real[:, :, None]
    gap = rng.integers(1, 300, (num, num_visits)) * (real & (np.arange(num_visits) > 0))
    return {
        "codes": codes.astype(np.int32),
        "labs": labs.astype(np.float32),
        "gap": gap.astype(np.float32),
        "visits": number,
        "static": static.astype(np.float32),
        "y": rng.integers(0, 2, num).astype(np.int32),
    }


def batch_of(examples):
    num = len(examples["visits"])
    examples = jax.tree.map(jnp.asarray, examples)
    return Batch(examples, jnp.ones(num, bool), jnp.float32(num), jax.random.key(0))


@pytest.fixture(scope="module")
def made():
    """Model, variables (not the zeros of linear models) and a compiled `outputs(examples)`."""

    def make(name):
        model = MODELS[name](INPUTS)
        first = jax.tree.map(lambda x: jnp.asarray(x[:1]), draw(0))
        variables = model.init(jax.random.key(1), first)
        leaves, structure = jax.tree.flatten(variables.params)
        keys = jax.random.split(jax.random.key(2), len(leaves))
        moved = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
        variables = variables._replace(params=jax.tree.unflatten(structure, moved))
        apply = jax.jit(lambda v, e: model.apply(v, batch_of(e), False)[0])
        return model, variables, lambda examples: np.asarray(apply(variables, examples))

    return {name: make(name) for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**31 - 1))
def test_what_lies_behind_the_last_visit_changes_nothing(made, name, seed):
    examples = draw(seed)
    rng = np.random.default_rng(seed)
    longer = {}
    behind = np.arange(VISITS + 3) >= examples["visits"][:, None]
    garbage = {"codes": 5, "labs": 1e4, "gap": 1e4}
    for key, leaf in examples.items():
        if key in garbage:
            wide = np.pad(leaf, [(0, 0), (0, 3)] + [(0, 0)] * (leaf.ndim - 2))
            noise = (rng.random(wide.shape) * garbage[key]).astype(leaf.dtype)
            leaf = np.where(behind.reshape(behind.shape + (1,) * (leaf.ndim - 2)), noise, wide)
        longer[key] = leaf
    # Another length is another program, whose sums round differently: a few float32 roundings.
    np.testing.assert_allclose(made[name][2](longer), made[name][2](examples), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", MODELS)
def test_values_behind_the_last_visit_change_nothing_to_the_last_bit(made, name):
    examples = draw(3)
    behind = np.arange(VISITS) >= examples["visits"][:, None]
    assert behind.any()
    changed = dict(examples)
    changed["codes"] = np.where(behind[:, :, None], 7, examples["codes"])
    changed["labs"] = np.where(behind[:, :, None], np.float32(9e9), examples["labs"])
    changed["gap"] = np.where(behind, np.float32(1e6), examples["gap"])
    np.testing.assert_array_equal(made[name][2](changed), made[name][2](examples))


@pytest.mark.parametrize("name", MODELS)
def test_every_part_of_a_record_is_read(made, name):
    """A model that ignored one of its inputs would pass all tests of padding."""
    outputs = made[name][2]
    examples = draw(5)
    last = np.maximum(examples["visits"] - 1, 0)
    rows = np.arange(len(last))
    before = outputs(examples)
    parts = {"codes": 8, "labs": 7.0, "static": 33.0}
    if name != "last":
        parts["gap"] = 100.0
    for key, value in parts.items():
        changed = {**examples, key: examples[key].copy()}
        if key == "static":
            changed[key][:, 0] = value
        elif key == "gap":
            changed[key][rows, last] = np.where(last > 0, value, 0)
        else:
            changed[key][rows, last, 0] = value
        assert np.abs(outputs(changed) - before).max() > 1e-3, key


@pytest.mark.parametrize("name", MODELS)
def test_only_sequence_models_know_the_order(made, name):
    examples = draw(7)
    examples["visits"][:] = VISITS
    examples["gap"][:, 1:] = 30
    swapped = {
        key: leaf[:, [1, 0, 2, 3]] if key in ("codes", "labs") else leaf
        for key, leaf in examples.items()
    }
    # The last known value of a laboratory test is that of the last visit.
    for e in (examples, swapped):
        e["labs"][:, -1] = 1.5
    change = np.abs(made[name][2](swapped) - made[name][2](examples)).max()
    if name in SEQUENCES:
        assert change > 1e-3
    else:
        assert change < 1e-5  # roundings of a sum in another order


def test_the_bag_is_linear_in_the_summary_it_describes(made):
    examples = draw(11)
    _, variables, outputs = made["bag"]
    want = []
    for i, n in enumerate(examples["visits"]):
        codes = examples["codes"][i, :n]
        counts = [np.sum(codes == c) if c else 0 for c in range(INPUTS.num_codes)]
        row = [*np.log1p(counts), np.log1p(n - 1), np.log1p(examples["gap"][i, :n].sum() / 30)]
        labs = examples["labs"][i, :n]
        known = [labs[~np.isnan(labs[:, k]), k] for k in range(2)]
        center, scale = INPUTS.labs
        row += [(v[-1] - center[k]) / scale[k] if len(v) else 0 for k, v in enumerate(known)]
        row += [float(len(v) > 0) for v in known]
        static = examples["static"][i]
        center, scale = INPUTS.static
        row += [0 if np.isnan(s) else (s - center[k]) / scale[k] for k, s in enumerate(static)]
        row += (~np.isnan(static)).astype(float).tolist()
        want.append(row)
    head = jax.tree.map(np.float64, variables.params["head"])
    want = np.array(want) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(outputs(examples), want, rtol=1e-4, atol=1e-5)  # float32 products


def test_the_gru_is_that_of_its_equations(made):
    """State by state in float64, for each patient as long as there are visits."""
    examples = draw(13)
    _, variables, outputs = made["gru"]
    params = jax.tree.map(np.float64, variables.params)
    embed, cell, head = params["visit"], params["gru"], params["head"]
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    want = []
    for i, n in enumerate(examples["visits"]):
        gap = np.float64(examples["gap"][i, :n])
        state = np.zeros(4)
        for v in range(n):
            x = sum(embed["codes"][c] for c in examples["codes"][i, v] if c)
            lab = (np.float64(examples["labs"][i, v]) - INPUTS.labs.center) / INPUTS.labs.scale
            known = ~np.isnan(lab)
            x = x + np.r_[np.where(known, lab, 0), known] @ embed["labs"]["kernel"]
            x = x + embed["labs"]["bias"] + embed["days"]["bias"]
            days = np.array([gap[v], gap[v + 1 :].sum()])
            x = x + np.log1p(days / 30) @ embed["days"]["kernel"]

            def gate(name, x=x):
                return x @ cell[f"i{name}"]["kernel"] + cell[f"i{name}"]["bias"]

            reset = sigmoid(gate("r") + state @ cell["hr"]["kernel"])
            update = sigmoid(gate("z") + state @ cell["hz"]["kernel"])
            new = gate("n") + reset * (state @ cell["hn"]["kernel"] + cell["hn"]["bias"])
            state = (1 - update) * np.tanh(new) + update * state
        static = (np.float64(examples["static"][i]) - INPUTS.static.center) / INPUTS.static.scale
        known = ~np.isnan(static)
        row = np.r_[state, np.where(known, static, 0), known]
        want.append(row @ head["kernel"] + head["bias"])
    np.testing.assert_allclose(outputs(examples), want, rtol=1e-4, atol=1e-5)  # float32 states


@pytest.mark.parametrize("name", SEQUENCES)
def test_gradients_are_finite_whatever_is_missing(made, name):
    model, variables, _ = made[name]
    examples = draw(17)
    examples["labs"][:] = np.nan
    examples["static"][:] = np.nan
    loss = tasks.binary_classification(model, examples).loss
    grads = jax.jit(jax.grad(lambda v: loss(v, batch_of(examples))[0].sum()))(variables)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("name", MODELS)
def test_weights_of_codes_take_codes_away(made, name):
    examples = draw(19)
    outputs = made[name][2]
    ones = {**examples, "code_weight": np.ones(examples["codes"].shape, np.float32)}
    np.testing.assert_allclose(outputs(ones), outputs(examples), rtol=1e-5, atol=1e-6)
    without = {**examples, "codes": np.zeros_like(examples["codes"])}
    weightless = {**ones, "code_weight": 0 * ones["code_weight"]}
    np.testing.assert_allclose(outputs(weightless), outputs(without), rtol=1e-5, atol=1e-6)


def small_dataset():
    arrays = draw(23, 40)
    return FederatedDataset(
        "records", ("North", "South", "West"), ClientArrays(arrays, np.array([22, 5, 13]))
    )


def train(name, rounds=3, **options):
    dataset = small_dataset()
    model = MODELS[name](visits.visit_inputs(dataset))
    task = tasks.binary_classification(model, dataset.train.examples)
    defaults = dict(local_work=epochs(1, batch_size=8), lanes=2, rounds_per_call=2)
    algorithm = algorithms.fed_avg(task.gradient, optax.sgd(0.1))
    return simulate(algorithm, dataset, task=task, rounds=rounds, **(defaults | options))


PLACES = {
    "pmap": lambda: placement.pmap(2),
    "mesh": lambda: placement.mesh(3),
    "split": lambda: placement.mesh(1, splits=2),
}
QUICK = {("gru", "mesh")}  # each is a compilation of its own


@pytest.mark.parametrize(
    "name, place",
    [
        pytest.param(n, p, marks=() if (n, p) in QUICK else pytest.mark.slow)
        for n in MODELS
        for p in PLACES
    ],
)
def test_placement_does_not_matter(name, place):
    one, other = train(name), train(name, placement=PLACES[place](), lanes=1)
    for a, b in zip(jax.tree.leaves(one.variables), jax.tree.leaves(other.variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # the order of sums


@pytest.mark.parametrize(
    "name", ["gru", *(pytest.param(n, marks=pytest.mark.slow) for n in MODELS if n != "gru")]
)
def test_resumed_runs_are_the_same_to_the_last_bit(name, tmp_path):
    whole = train(name, rounds=4)
    train(name, rounds=2, checkpoint=CheckpointPolicy(tmp_path))
    resumed = train(name, rounds=4, checkpoint=CheckpointPolicy(tmp_path, resume=True))
    for a, b in zip(
        jax.tree.leaves(whole.variables), jax.tree.leaves(resumed.variables), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_scales_come_from_training_patients_alone():
    dataset = small_dataset()
    found = visits.visit_inputs(dataset)
    e = dataset.train.examples
    labs = np.concatenate([e["labs"][i, :n] for i, n in enumerate(e["visits"])]).astype(np.float64)
    np.testing.assert_allclose(found.labs.center, np.nanmean(labs, axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.labs.scale, np.nanstd(labs, axis=0), rtol=1e-6)
    static = e["static"].astype(np.float64)
    np.testing.assert_allclose(found.static.center, np.nanmean(static, axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.static.scale, np.nanstd(static, axis=0), rtol=1e-6)
    far = ClientArrays({**e, "labs": e["labs"] + 100}, dataset.train.sizes)
    assert visits.visit_inputs(dataset.replace(test=far)) == found
    assert found.num_codes == int(e["codes"].max()) + 1
    hash(found)  # models with it are static arguments of compiled functions


def test_what_never_differs_or_is_never_known_is_left_as_it_is():
    dataset = small_dataset()
    labs = dataset.train.examples["labs"].copy()
    labs[:, :, 0] = np.nan
    labs[:, :, 1] = 3
    arrays = ClientArrays({**dataset.train.examples, "labs": labs}, dataset.train.sizes)
    assert visits.visit_inputs(dataset.replace(train=arrays)).labs == visits.Scale(
        (0.0, 3.0), (1.0, 1.0)
    )


def test_wrong_records_are_refused():
    dataset = small_dataset()

    def with_codes(codes):
        arrays = ClientArrays({**dataset.train.examples, "codes": codes}, dataset.train.sizes)
        return dataclasses.replace(dataset, train=arrays, feature_names=("none", *"abcdefgh"))

    codes = dataset.train.examples["codes"]
    visits.visit_inputs(with_codes(codes))
    with pytest.raises(DataError, match="codes of records must be 0 to 8, got 99"):
        visits.visit_inputs(with_codes(np.where(codes == 3, 99, codes)))
    with pytest.raises(DataError, match="codes of records must be 0 to 8, got -1"):
        visits.visit_inputs(with_codes(np.where(codes == 3, -1, codes)))
    with pytest.raises(DataError, match="codes of records must be whole numbers with 3 axes, got"):
        visits.visit_inputs(with_codes(codes.astype(np.float32)))
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        visits.visit_gru(INPUTS, dim=0)
    with pytest.raises(ValueError, match="dim must be even and a multiple of heads=3, got 4"):
        visits.visit_transformer(INPUTS, dim=4, heads=3)
    with pytest.raises(ValueError, match="num_outputs must be at least 1, got 0"):
        visits.visit_bag(INPUTS, 0)


@pytest.mark.slow
def test_sequence_models_find_what_no_summary_holds():
    """AUROC of the order of events: the bag stays near what it can know."""
    from fedjax_med.evaluation import binary_metrics, predict

    dataset = health_records(num_hospitals=4, num_patients=8000)
    found = {}
    for name, build in (("gru", visits.visit_gru), ("bag", visits.visit_bag)):
        model = build(visits.visit_inputs(dataset))
        task = tasks.binary_classification(model, dataset.train.examples)
        run = simulate(
            algorithms.fed_avg(task.gradient, optax.adam(3e-3)),
            dataset,
            task=task,
            rounds=8,
            local_work=epochs(1, batch_size=32),
        )
        judged = predict(run, dataset, model)
        weight = np.ones(judged.num_patients)
        auroc = binary_metrics()["auroc"]
        found[name] = float(auroc.compute(judged.outputs, judged.labels, weight))
    assert found["gru"] > found["bag"] + 0.02 > 0.6
