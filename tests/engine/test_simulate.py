"""The outer loop: what a run returns, streaming, evaluation and what is refused."""

from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from fedjax_med import aggregation, algorithms, datasets, models, tasks
from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.engine import (
    Variables,
    chunk_source,
    cohorts,
    epochs,
    evaluate,
    gradient,
    grid,
    placement,
    simulate,
    steps,
)
from fedjax_med.engine.run import CheckpointPolicy
from tests.engine.toy import (
    COHORTS,
    LOCAL_WORK,
    NUM_ROUNDS,
    PLACEMENTS,
    assert_close,
    initial_variables,
    make_dataset,
    make_task,
    momentum,
    reference,
    toy_loss,
    with_persistent_state,
)

GRADIENT = gradient(toy_loss)


def build():
    return with_persistent_state(GRADIENT, momentum(), aggregation.weighted_mean())


def run(dataset=None, algorithm=None, **options):
    defaults = dict(
        task=make_task(), rounds=NUM_ROUNDS, local_work=LOCAL_WORK["steps"], cohort=COHORTS, lanes=2
    )
    return simulate(algorithm or build(), dataset or make_dataset(), **(defaults | options))


@pytest.mark.parametrize("rounds_per_call", [2, 64, pytest.param(1, marks=pytest.mark.slow)])
def test_rounds_per_call_change_nothing(rounds_per_call):
    got = run(rounds_per_call=rounds_per_call)
    want = reference("with_persistent_state", "weighted_mean", "steps")
    assert_close((got.state, got.client_states), want[:2], 1e-5)
    assert got.num_traces == 1 and got.rounds == NUM_ROUNDS
    assert sum(count for count, _ in got.seconds_per_round) == NUM_ROUNDS
    assert max(count for count, _ in got.seconds_per_round) <= rounds_per_call


def test_a_run_can_be_repeated_bit_for_bit_and_seeds_matter():
    one, same, other = run(seed=3), run(seed=3), run(seed=4)
    assert_close((one.state, one.client_states), (same.state, same.client_states), 0)
    with pytest.raises(AssertionError):
        assert_close(one.variables, other.variables, 1e-3)


def test_variables_can_be_given_and_are_left_alone():
    given = jax.tree.map(lambda x: x + 0.5, initial_variables())
    kept = jax.tree.map(np.copy, given)
    started = run(variables=given, rounds=1)
    assert_close(given, kept, 0)
    with pytest.raises(AssertionError):
        assert_close(started.variables, run(rounds=1).variables, 1e-2)
    # Arrays of JAX survive the donation of the state, too.
    on_device = jax.tree.map(jax.numpy.asarray, given)
    again = run(variables=on_device, rounds=1)
    assert_close(again.variables, started.variables, 0)
    assert_close(on_device, kept, 0)


def test_history_counts_clients_weight_and_loss():
    dataset = make_dataset()
    algorithm = algorithms.fed_avg(GRADIENT, momentum())
    got = simulate(
        algorithm,
        dataset,
        task=make_task(),
        rounds=NUM_ROUNDS,
        local_work=LOCAL_WORK["epochs"],
        cohort=COHORTS,
        lanes=3,
    )
    sizes = dataset.train.sizes
    assert got.history["num_clients"].tolist() == [len(c) for c in COHORTS.rounds]
    assert got.history["weight"].tolist() == [sizes[list(c)].sum() for c in COHORTS.rounds]
    want = reference("fed_avg", "weighted_mean", "epochs").train_loss
    np.testing.assert_allclose(got.history["train_loss"], want, rtol=1e-5)
    assert got.memory_bytes["arguments"] > dataset.train.examples["x"].nbytes
    assert got.timings.total_s >= got.timings.run_s > 0 and got.timings.compile_s > 0


# -- streaming -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where, on_disk",
    [
        ("three_lanes", False),
        ("mesh", True),
        pytest.param("three_lanes", True, marks=pytest.mark.slow),
        pytest.param("mesh", False, marks=pytest.mark.slow),
    ],
)
def test_streamed_data_gives_the_same_as_resident_data(where, on_disk, tmp_path):
    dataset = make_dataset(test=True)
    make, lanes = PLACEMENTS[where]
    options = dict(placement=make(), lanes=lanes, rounds=8, rounds_per_call=2)
    want = run(dataset, **options)
    if on_disk:
        dataset.save(tmp_path / "data")
        dataset = FederatedDataset.load(tmp_path / "data", memory_map=True)
        assert isinstance(dataset.train.examples["x"], np.memmap)
    got = run(dataset, stream=True, **options)
    # The same program on the same minibatches, whose rows lie elsewhere.
    assert_close((got.state, got.client_states), (want.state, want.client_states), 1e-6)
    # One shape serves all chunks here; another trace would be for a chunk larger than expected.
    assert got.num_traces <= 2


def test_chunks_of_streamed_data_are_cut_to_their_budget(monkeypatch):
    dataset = make_dataset()
    x = dataset.train.examples["x"]
    largest_round = dataset.train.sizes.sum()
    row_bytes = x[0].nbytes + 4
    monkeypatch.setattr(chunk_source, "STREAM_BYTES", int(2.5 * largest_round * row_bytes))
    got = run(dataset, stream=True, rounds=8, rounds_per_call=64)
    assert max(count for count, _ in got.seconds_per_round) == 2
    want = run(dataset, rounds=8)
    assert_close(got.state, want.state, 1e-6)


def test_streaming_needs_less_memory_on_the_device():
    sizes = np.full(2000, 6)
    rng = np.random.default_rng(0)
    examples = {
        "x": rng.standard_normal((sizes.sum(), 5)).astype(np.float32),
        "y": rng.integers(0, 2, sizes.sum()).astype(np.int32),
    }
    dataset = FederatedDataset("many", tuple(map(str, range(2000))), ClientArrays(examples, sizes))

    def memory(stream):
        return run(
            dataset,
            algorithms.fed_avg(GRADIENT, momentum()),
            cohort=cohorts.uniform(4),
            stream=stream,
            rounds=20,
            rounds_per_call=4,
        ).memory_bytes["arguments"]

    assert memory(True) < 0.25 * memory(False)


# -- evaluation ------------------------------------------------------------------------------


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def numpy_metrics(x, y, kernel, bias):
    z = np.float64(x) @ np.float64(kernel)[:, 0] + np.float64(bias)
    predicted, positive = z > 0, y == 1
    with np.errstate(invalid="ignore"):
        return {
            "loss": np.mean(np.logaddexp(0, z) - z * y) if len(y) else np.nan,
            "accuracy": np.mean(predicted == positive) if len(y) else np.nan,
            "sensitivity": np.divide((predicted & positive).sum(), positive.sum()),
            "specificity": np.divide((~predicted & ~positive).sum(), (~positive).sum()),
        }


@pytest.fixture(scope="module")
def hospitals(shared_data_dir):
    return datasets.load("heart-disease", data_dir=shared_data_dir)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(placement.one_device, id="one_device"),
        pytest.param(lambda: placement.pmap(3), id="pmap", marks=pytest.mark.slow),
        pytest.param(lambda: placement.mesh(2, splits=2), id="mesh_split"),
    ],
)
def test_evaluation_equals_numpy_for_every_hospital_and_pooled(hospitals, place):
    task = tasks.binary_classification(models.linear(), hospitals.train.examples)
    got = simulate(
        algorithms.fed_avg(task.gradient, optax.sgd(0.05)),
        hospitals,
        task=task,
        rounds=5,
        local_work=epochs(1, batch_size=32),
        evaluate_every=2,
        evaluate_on=("test", "train"),
        placement=place(),
        lanes=2,
    )
    assert [(e.split, e.round) for e in got.evaluations] == [
        (split, r) for r in (2, 4, 5) for split in ("test", "train")
    ]
    params = got.variables.params
    for evaluation in got.evaluations[-2:]:
        arrays = hospitals.splits()[evaluation.split]
        pooled = numpy_metrics(arrays.examples["x"], arrays.examples["y"], **params)
        for name, want in pooled.items():
            np.testing.assert_allclose(evaluation.pooled[name], want, rtol=1e-5)
        for i in range(4):
            client = arrays.client(i)
            own = numpy_metrics(client["x"], client["y"], **params)
            for name, want in own.items():
                np.testing.assert_allclose(evaluation.per_client[name][i], want, rtol=1e-5)
    # The Swiss training patients are all ill: of nobody can be said how many were left alone.
    assert np.isnan(got.evaluations[-1].per_client["specificity"][2])
    alone = evaluate(got.variables, hospitals, task=task, split="train", placement=place())
    for name, value in alone.per_client.items():
        np.testing.assert_array_equal(value, got.evaluations[-1].per_client[name])


def test_clients_without_test_examples_are_not_a_number_and_count_nothing():
    whole = make_dataset(test=True)
    kept = [i for i in range(10) if i not in (0, 7)]
    names = whole.client_names
    dataset = FederatedDataset.from_clients(
        {n: whole.train.client(i) for i, n in enumerate(names)},
        test={names[i]: whole.test.client(i) for i in kept},
    )
    got = run(dataset, evaluate_every=5).evaluations[-1]
    assert np.isnan(got.per_client["accuracy"][[0, 7]]).all()
    sizes = dataset.test.sizes[kept]
    want = (got.per_client["accuracy"][kept] * sizes).sum() / sizes.sum()
    np.testing.assert_allclose(got.pooled["accuracy"], want, rtol=1e-6)


def test_personal_models_are_judged_by_their_own_clients():
    dataset = make_dataset(test=True)
    got = simulate(
        algorithms.local_only(GRADIENT, momentum()),
        dataset,
        task=make_task(),
        rounds=4,
        local_work=LOCAL_WORK["epochs"],
        evaluate_every=4,
        lanes=2,
    )
    for i in range(10):
        own = jax.tree.map(lambda x, i=i: x[i], got.client_states.variables)
        (w1, b1, w2, b2), mean = own
        client = dataset.test.client(i)
        logits = (np.tanh(client["x"] @ w1 + b1) - 0.1 * mean) @ w2 + b2
        want = np.mean((logits > 0) == (client["y"] > 0))
        np.testing.assert_allclose(got.evaluations[0].per_client["accuracy"][i], want, rtol=1e-6)


def test_evaluation_does_not_disturb_training():
    dataset = make_dataset(test=True)
    assert_close(run(dataset).state, run(dataset, evaluate_every=1).state, 0)


# -- what is refused -------------------------------------------------------------------------

EMPTY_CLIENT = FederatedDataset.from_clients(
    {
        "North": {"x": np.zeros((2, 5), np.float32), "y": np.zeros(2, np.int32)},
        "South": {"x": np.zeros((0, 5), np.float32), "y": np.zeros(0, np.int32)},
    },
    name="toy",
)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(rounds=0), "rounds must be at least 1, got 0."),
        (dict(rounds_per_call=0), "rounds_per_call must be at least 1, got 0."),
        (dict(evaluate_every=-1), "evaluate_every must be at least 0, got -1."),
        (dict(lanes=0), "lanes must be at least 1, got 0."),
        (dict(seed=-1), r"seed must be from 0 to 2\*\*32 - 1, got -1."),
        (dict(seed=2**32), r"seed must be from 0 to 2\*\*32 - 1, got 4294967296."),
        (dict(cohort=cohorts.uniform(11)), "has 11 clients, but the population only 10; allowed"),
        (dict(hyperparameters={"mu": 0.1}), "hyperparameters mu need an algorithm given as a func"),
        (dict(experiments=grid(mu=[0.1])), "hyperparameters mu need an algorithm given as a func"),
        (
            dict(experiments=grid(seed=[1]), hyperparameters={"mu": 0.1}),
            "inside `experiments`, or without it, not both",
        ),
        (dict(evaluate_every=1), "evaluate_on names the split 'test', but toy has no such"),
        (dict(evaluate_every=1, evaluate_on=("tests",)), "names the split 'tests'"),
        (dict(dataset=EMPTY_CLIENT), "Client 'South' has no training examples; every client"),
        (
            dict(checkpoint=CheckpointPolicy(Path("anywhere"), every=0)),
            "checkpoint.every must be at least 1, got 0.",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_a_minibatch_that_cannot_be_split_is_refused():
    with pytest.raises(ValueError, match="batch_size 3 cannot be split over 2 devices evenly"):
        run(local_work=epochs(1, batch_size=3), placement=placement.mesh(2, splits=2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: placement.pmap(5),
        lambda: placement.mesh(5),
        lambda: placement.mesh(2, splits=3),
        lambda: placement.pmap(0),
    ],
)
def test_more_devices_than_there_are_are_refused(make):
    with pytest.raises(ValueError, match="devices were asked for, but this machine has 4"):
        make()


def test_splits_must_be_positive():
    with pytest.raises(ValueError, match="splits must be at least 1, got 0"):
        placement.mesh(splits=0)


def test_hyperparameters_are_checked_before_anything_is_traced():
    def build(mu):
        return algorithms.fed_prox(GRADIENT, optax.sgd(0.1), mu=mu)

    options = dict(task=make_task(), rounds=1, local_work=steps(1, batch_size=2))
    with pytest.raises(ValueError, match=r"mu must be 0 or more, got -0\.5"):
        simulate(build, make_dataset(), experiments=grid(mu=[0.0, -0.5]), **options)


def test_a_round_that_changes_its_state_is_refused():
    good = build()

    def run_round(state, cohort, run_clients):
        result = good.run_round(state, cohort, run_clients)
        grown = Variables((*result.state.variables.params[:3], np.zeros(2)), ())
        return result._replace(state=result.state._replace(variables=grown))

    with pytest.raises(TypeError, match="A round must keep"):
        simulate(
            good._replace(run_round=run_round),
            make_dataset(),
            task=make_task(),
            rounds=1,
            local_work=LOCAL_WORK["steps"],
            lanes=1,
        )


def test_a_round_that_changes_a_dtype_is_named_by_its_path():
    good = build()

    def run_round(state, cohort, run_clients):
        result = good.run_round(state, cohort, run_clients)
        memory, count = result.client_states
        return result._replace(client_states=(memory, count.astype(np.float32)))

    with pytest.raises(TypeError, match=r"client_states\[1\] was int32\[10\] and became float32"):
        simulate(
            good._replace(run_round=run_round),
            make_dataset(),
            task=make_task(),
            rounds=1,
            local_work=LOCAL_WORK["steps"],
            lanes=1,
        )
