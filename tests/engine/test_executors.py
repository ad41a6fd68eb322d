"""Lanes, padding, keys and batches: what the executors promise beyond equal placements."""

import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_med import aggregation
from fedjax_med.engine import (
    Batch,
    ClientError,
    ClientProgram,
    ClientResult,
    FederatedAlgorithm,
    LaneExecutor,
    RoundResult,
    RunClients,
    SequentialExecutor,
    Variables,
    cohorts,
    epochs,
    gradient,
    placement,
)
from tests.engine.toy import (
    AGGREGATORS,
    BATCH_SIZE,
    COHORTS,
    LOCAL_WORK,
    SIZES,
    assert_close,
    make_dataset,
    momentum,
    prepare_chunk,
    reference,
    run_placed,
    run_sequentially,
    toy_loss,
    with_persistent_state,
)


class _Holder(NamedTuple):
    variables: Variables


GRADIENT = gradient(toy_loss)
PADDED_SLOTS, LANES = 13, 3


def rearranged(cohort, rng):
    """The clients of every round in another order, in other lanes, between other padding."""
    cohort = jax.tree.map(lambda x: np.asarray(x)[0], cohort)
    num_rounds = len(cohort.client)
    columns = ("client", "client_id", "first_epoch", "first_step", "num_steps", "staleness")
    # What padding slots hold must not matter: these would be other clients with other work.
    new = {name: rng.integers(0, len(SIZES), (num_rounds, PADDED_SLOTS)) for name in columns}
    lane_start = np.zeros((num_rounds, LANES + 1), np.int64)
    trip_count = np.zeros(num_rounds, np.int64)
    for r in range(num_rounds):
        count = int(cohort.lane_start[r, -1])
        order = rng.permutation(count)
        for name in columns:
            new[name][r, :count] = getattr(cohort, name)[r, :count][order]
        inner = np.sort(rng.integers(0, count + 1, LANES - 1))
        lane_start[r] = [0, *inner, count]
        steps = np.split(new["num_steps"][r, :count], inner)
        trip_count[r] = max(int(s.sum()) for s in steps)
    changed = cohort._replace(lane_start=lane_start, trip_count=trip_count, **new)
    return jax.tree.map(lambda x, like: x.astype(like.dtype)[None], changed, cohort)


@pytest.fixture(scope="module", params=["weighted_mean", "clip_median"])
def program(request):
    def build(hyperparameters):
        del hyperparameters
        return with_persistent_state(GRADIENT, momentum(), AGGREGATORS[request.param]())

    program, args = prepare_chunk(
        build, make_dataset(), LOCAL_WORK["steps"], placement.one_device(), LANES
    )
    host = jax.tree.map(np.asarray, args)  # the states are donated, so they are given anew
    want = reference("with_persistent_state", request.param, "steps")
    return program, host, want


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))  # shapes are fixed: one compilation serves all draws
def test_order_lanes_and_padding_change_nothing(program, seed):
    compiled, host, want = program
    cohort = rearranged(host[3], np.random.default_rng(seed))
    args = jax.tree.map(jnp.asarray, (*host[:3], cohort, *host[4:]))
    state, clients, shared, slots = jax.tree.map(np.asarray, compiled(*args))
    # As between placements: the order of sums.
    assert_close(state, want.state, 1e-5)
    assert_close(jax.tree.map(lambda x: x[0], clients), want.client_states, 1e-5)
    assert shared.num_clients.tolist() == [len(c) for c in COHORTS.rounds]
    assert not slots.excluded.any()


def test_the_sequential_executor_takes_any_order_too():
    listed = [np.asarray(c)[::-1] for c in COHORTS.rounds]
    dataset, work = make_dataset(), LOCAL_WORK["epochs"]
    algorithm = with_persistent_state(jax.jit(GRADIENT), momentum(), aggregation.weighted_mean())
    got = run_sequentially(algorithm, dataset, work, cohort=cohorts.listed(listed))
    assert_close(got, reference("with_persistent_state", "weighted_mean", "epochs"), 1e-5)


def two_passes(gradient_fn):
    """First a full-batch gradient of every client at the server's parameters, then local steps
    with that gradient mixed in: a round that runs clients twice, with other local work."""
    full = epochs(1, batch_size=8, shuffle=False)

    def begin_sum(shared, client):
        return jax.tree.map(jnp.zeros_like, shared.params), jnp.zeros(())

    def step_sum(shared, carry, batch):
        result = gradient_fn(shared, batch)
        total = jax.tree.map(lambda t, g: t + g * batch.count, carry[0], result.grads)
        return total, carry[1] + batch.count

    def end_sum(shared, carry, client):
        mean = jax.tree.map(lambda t: t / carry[1], carry[0])
        return ClientResult(mean, client.num_examples.astype(jnp.float32), client.state)

    def begin(shared, client):
        return shared[0]

    def step(shared, carry, batch):
        grads = gradient_fn(carry, batch).grads
        params = jax.tree.map(
            lambda p, g, m: p - 0.1 * (0.5 * g + 0.5 * m), carry.params, grads, shared[1]
        )
        return carry._replace(params=params)

    def end(shared, carry, client):
        update = jax.tree.map(jnp.subtract, shared[0].params, carry.params)
        steps_done = client.num_steps.astype(jnp.float32)
        metrics = {"steps": steps_done}
        return ClientResult(update, client.num_examples.astype(jnp.float32), client.state, metrics)

    def run_round(state, cohort, run_clients):
        mean = aggregation.weighted_mean()
        first = run_clients(
            ClientProgram(begin_sum, step_sum, end_sum), state, cohort, mean, (), local_work=full
        )
        cohort = cohort._replace(states=first.client_states)
        second = run_clients(
            ClientProgram(begin, step, end), (state, first.aggregate), cohort, mean, ()
        )
        params = jax.tree.map(jnp.subtract, state.params, second.aggregate)
        return RoundResult(
            _Holder(state._replace(params=params)), second.client_states, second.metrics
        )

    def unwrap(state, cohort, run_clients):
        return run_round(state.variables, cohort, run_clients)

    return FederatedAlgorithm(lambda v: _Holder(jax.tree.map(jnp.array, v)), unwrap)


@pytest.mark.parametrize("name", ["mesh", pytest.param("three_lanes", marks=pytest.mark.slow)])
def test_a_round_may_run_its_clients_twice_with_other_local_work(name):
    dataset, work = make_dataset(), LOCAL_WORK["steps"]
    want = run_sequentially(two_passes(jax.jit(GRADIENT)), dataset, work)
    got = run_placed(two_passes(GRADIENT), dataset, work, name)
    assert_close(got.state, want.state, 1e-5)


def test_both_executors_have_the_signature_of_the_contract():
    def parameters(function):
        return [(p.name, p.kind) for p in inspect.signature(function).parameters.values()]

    for executor in (SequentialExecutor, LaneExecutor):
        assert issubclass(executor, RunClients)
        assert parameters(executor.__call__) == parameters(RunClients.__call__)


def test_errors_of_the_sequential_executor_name_the_client():
    def failing(variables, batch):
        if batch.examples["x"].shape[0] != BATCH_SIZE or float(batch.count) == 1.0:
            raise FloatingPointError("a minibatch of one example")
        return GRADIENT(variables, batch)

    algorithm = with_persistent_state(failing, optax.sgd(0.1), aggregation.weighted_mean())
    # Clients run longest first: the 17 examples of hospital 5 end with a minibatch of one.
    with pytest.raises(ClientError, match=r"Client 5 \(hospital 5\) failed: a minibatch of one"):
        run_sequentially(algorithm, make_dataset(), LOCAL_WORK["epochs"], num_rounds=1)


def test_the_sequential_executor_refuses_an_empty_cohort():
    algorithm = with_persistent_state(GRADIENT, optax.sgd(0.1), aggregation.weighted_mean())
    with pytest.raises(ClientError, match="cohort is empty"):
        run_sequentially(
            algorithm, make_dataset(), LOCAL_WORK["epochs"], num_rounds=1,
            cohort=cohorts.listed([()]),
        )  # fmt: skip


def make_batch(size=4, count=3, key=0, **options):
    return Batch(
        examples={"x": jnp.arange(size, dtype=jnp.float32)},
        mask=jnp.arange(size) < count,
        count=jnp.float32(count),
        key=jax.random.key(key),
        **options,
    )


def test_gradient_is_of_the_mean_over_real_examples():
    def loss(variables, batch):
        return (variables.params - batch.examples["x"]) ** 2, variables.state

    result = gradient(loss)(Variables(jnp.float32(1.0)), make_batch())
    # Examples 0, 1, 2: losses 1, 0, 1 and derivatives 2, 0, -2; the padding (3) counts nothing.
    np.testing.assert_allclose(result.loss, 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(result.grads, 0.0, atol=1e-7)


def test_padding_that_is_not_finite_contributes_exactly_zero():
    def loss(variables, batch):
        x = jnp.where(batch.mask, batch.examples["x"], jnp.inf)
        return variables.params * x, variables.state

    result = gradient(loss)(Variables(jnp.float32(2.0)), make_batch())
    np.testing.assert_allclose(result.loss, 2.0, rtol=1e-6)


def test_masked_sums_and_keys_of_a_whole_minibatch():
    batch = make_batch()
    assert float(batch.masked_sum(jnp.array([1.0, 2.0, 4.0, jnp.nan]))) == 7.0
    assert batch.split_key() is batch.key
    assert batch.sum_over_splits("anything") == "anything"


def test_bernoulli_draws_have_their_rate_and_layers_differ():
    batch = make_batch(size=64, count=64)
    draws = np.asarray(batch.bernoulli(0.3, (50,)))
    assert draws.shape == (64, 50)
    # 3200 coins: five standard deviations are 0.04, so 0.3 passes and 0.4 does not.
    assert abs(draws.mean() - 0.3) < 0.04 < abs(draws.mean() - 0.4)
    other = np.asarray(batch.bernoulli(0.3, (50,), layer=1))
    assert 0.3 < (draws != other).mean() < 0.55  # 2 * 0.3 * 0.7 = 0.42 if independent


def test_bernoulli_draws_do_not_depend_on_how_the_minibatch_is_split():
    whole = np.asarray(make_batch().bernoulli(0.5, (3,)))

    def part(x, mask):
        batch = Batch({"x": x}, mask, jnp.float32(3), jax.random.key(0), "split", 2)
        return batch.bernoulli(0.5, (3,)), jax.random.uniform(batch.split_key())

    whole_batch = make_batch()
    mapped = jax.vmap(part, axis_name="split")
    parts, own = mapped(whole_batch.examples["x"].reshape(2, 2), whole_batch.mask.reshape(2, 2))
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert own[0] != own[1]  # but each device can have draws of its own
