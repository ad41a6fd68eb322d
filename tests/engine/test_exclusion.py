"""Clients whose update is not finite are left out, counted and named; cohorts may be empty."""

from functools import lru_cache

import jax
import numpy as np
import optax
import pytest

from fedjax_med import aggregation, algorithms, models, tasks
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import cohorts, gradient, grid, placement, simulate
from tests.engine.toy import (
    AGGREGATORS,
    LOCAL_WORK,
    PLACEMENTS,
    assert_close,
    initial_variables,
    make_dataset,
    make_task,
    momentum,
    toy_loss,
    with_persistent_state,
)

BAD = 4
GRADIENT = gradient(toy_loss)


def damaged(dataset, value):
    """One number of one example of one client is not finite."""
    x = dataset.train.examples["x"].copy()
    x[dataset.train.offsets[BAD] + 1, 2] = value
    train = type(dataset.train)({**dataset.train.examples, "x": x}, dataset.train.sizes)
    return dataset.replace(train=train)


def run(dataset, cohort, aggregator="weighted_mean", where="three_lanes", rounds=3):
    make, lanes = PLACEMENTS[where]
    return simulate(
        with_persistent_state(GRADIENT, momentum(), AGGREGATORS[aggregator]()),
        dataset,
        task=make_task(),
        rounds=rounds,
        local_work=LOCAL_WORK["epochs"],
        cohort=cohort,
        placement=make(),
        lanes=lanes,
        rounds_per_call=rounds,
    )


OTHERS = cohorts.listed([[c for c in range(10) if c != BAD]])


@lru_cache
def of_sound_data(everyone, aggregator="weighted_mean", where="three_lanes"):
    """With all clients, or with those that are sound in the tests below."""
    return run(make_dataset(), cohorts.everyone() if everyone else OTHERS, aggregator, where)


@pytest.mark.parametrize(
    "aggregator, where, value",
    [
        ("weighted_mean", "mesh", np.inf),
        ("clip_mean", "three_lanes", -np.inf),
        ("clip_median", "mesh_split", np.nan),
        pytest.param("weighted_mean", "three_lanes", np.nan, marks=pytest.mark.slow),
        pytest.param("median", "pmap", np.nan, marks=pytest.mark.slow),
    ],
)
def test_a_client_that_is_not_finite_is_left_out_and_named(aggregator, where, value):
    got = run(damaged(make_dataset(), value), cohorts.everyone(), aggregator, where)
    want = of_sound_data(False, aggregator, where)
    # As if it had not taken part (in other lanes, hence another order of sums).
    assert_close(got.variables, want.variables, 1e-5)
    assert got.excluded == [(r, f"hospital {BAD}") for r in range(3)]
    assert got.history["num_excluded"].tolist() == [1, 1, 1]
    assert got.history["num_clients"].tolist() == [10, 10, 10]
    np.testing.assert_array_equal(got.history["weight"], want.history["weight"])
    # Its persistent state is that before its first round; the others' have moved on.
    memory, rounds = got.client_states
    assert rounds.tolist() == [3 * (c != BAD) for c in range(10)]
    assert all((m[BAD] == 0).all() for m in memory)
    assert_close(got.client_states, want.client_states, 1e-5)


def test_the_client_that_is_left_out_would_have_mattered():
    with_it, without = of_sound_data(True), of_sound_data(False)
    with pytest.raises(AssertionError):
        assert_close(with_it.variables, without.variables, 1e-3)


def test_nobody_is_left_out_of_finite_data():
    got = of_sound_data(True)
    assert got.excluded == [] and not got.history["num_excluded"].any()


def test_all_clients_left_out_move_nothing():
    dataset = make_dataset()
    x = np.full_like(dataset.train.examples["x"], np.nan)
    train = type(dataset.train)({**dataset.train.examples, "x": x}, dataset.train.sizes)
    for aggregator in ("clip_mean", "clip_median"):
        got = run(dataset.replace(train=train), cohorts.everyone(), aggregator, rounds=2)
        assert_close(got.variables, initial_variables(), 0)
        assert got.history["num_excluded"].tolist() == [10, 10]
        assert got.history["weight"].tolist() == [0, 0]


def test_an_update_that_overflows_is_left_out_before_it_is_clipped():
    # min(1, max_norm / norm) of an infinite norm is 0, and 0 * inf would be NaN in everybody.
    data = FederatedDataset.from_clients(
        {
            name: {"x": np.full((3, 1), scale, np.float32), "y": np.ones(3, np.float32)}
            for name, scale in (("sound", 2.0), ("huge", 1e25))
        }
    )
    task = tasks.regression(models.linear(), data.train.examples)
    clip = aggregation.clip_by_client_norm(1.0)
    got = simulate(
        algorithms.fed_avg(
            task.gradient,
            optax.sgd(1.0),
            aggregator=aggregation.chain(clip, then=aggregation.weighted_mean()),
        ),
        data,
        task=task,
        rounds=1,
        local_work=LOCAL_WORK["epochs"],
        lanes=1,
    )
    assert got.excluded == [(0, "huge")]
    assert np.isfinite(got.variables.params["kernel"]).all()
    # The sound client's step was clipped to length 1.
    length = np.hypot(*(np.ravel(v)[0] for v in got.variables.params.values()))
    np.testing.assert_allclose(length, 1.0, rtol=1e-6)


def test_with_experiments_only_the_diverging_one_leaves_clients_out():
    dataset = make_dataset()

    def build(rate):
        return algorithms.fed_avg(GRADIENT, optax.sgd(rate))

    got = simulate(
        build,
        dataset,
        task=make_task(),
        rounds=2,
        local_work=LOCAL_WORK["epochs"],
        experiments=grid(rate=[0.1, np.inf]),
        lanes=2,
    )
    assert got.history["num_excluded"].tolist() == [[0, 0], [10, 10]]
    assert np.isfinite(jax.tree.leaves(got.variables)[0]).all()


@pytest.mark.parametrize(
    "aggregator, stream",
    [
        ("weighted_mean", True),
        ("median", False),
        pytest.param("clip_mean", False, marks=pytest.mark.slow),
        pytest.param("clip_median", True, marks=pytest.mark.slow),
    ],
)
def test_an_empty_cohort_changes_nothing(aggregator, stream):
    # Ten clients at 5 %: most rounds are empty, some are not.
    cohort = cohorts.poisson(0.05)
    drawn = [len(cohort.draw(10, r, 0)) for r in range(8)]
    assert 0 in drawn and max(drawn) > 0
    models_seen = []

    class Watch:
        def stops_at(self, round_index):
            return True

        def __call__(self, progress):
            models_seen.append(progress.variables())

        def close(self):
            pass

    got = simulate(
        algorithms.fed_avg(GRADIENT, momentum(), aggregator=AGGREGATORS[aggregator]()),
        make_dataset(),
        task=make_task(),
        rounds=8,
        local_work=LOCAL_WORK["steps"],
        cohort=cohort,
        lanes=2,
        callbacks=[Watch()],
        stream=stream,
    )
    assert got.history["num_clients"].tolist() == drawn
    assert all(np.isfinite(values).all() for values in got.history.values())
    before = initial_variables()
    for count, after in zip(drawn, models_seen, strict=True):
        same = all(
            np.array_equal(a, b)
            for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        )
        assert same == (count == 0)
        before = after


@pytest.mark.parametrize(
    "place, stream",
    [
        (placement.one_device, False),
        (lambda: placement.mesh(4), True),
        pytest.param(placement.one_device, True, marks=pytest.mark.slow),
        pytest.param(lambda: placement.mesh(4), False, marks=pytest.mark.slow),
    ],
)
def test_a_run_of_empty_cohorts_leaves_the_model_as_it_was(place, stream):
    got = simulate(
        algorithms.fed_avg(GRADIENT, momentum()),
        make_dataset(),
        task=make_task(),
        rounds=2,
        local_work=LOCAL_WORK["epochs"],
        cohort=cohorts.listed([()]),
        placement=place(),
        stream=stream,
    )
    assert_close(got.variables, initial_variables(), 0)
    assert got.history["num_clients"].tolist() == [0, 0]
    assert got.history["train_loss"].tolist() == [0, 0]


def test_a_model_that_only_its_client_keeps_is_left_out_as_well():
    """Local training sends nothing, so its update cannot tell that it diverged."""
    got = simulate(
        algorithms.local_only(GRADIENT, momentum()),
        damaged(make_dataset(), np.nan),
        task=make_task(),
        rounds=2,
        local_work=LOCAL_WORK["epochs"],
        lanes=3,
    )
    assert got.excluded == [(0, f"hospital {BAD}"), (1, f"hospital {BAD}")]
    kept = jax.tree.map(lambda x: x[BAD], got.client_states.variables)
    assert_close(kept, initial_variables(), 0)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(got.client_states.variables))
