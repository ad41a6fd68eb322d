"""What every algorithm keeps to, and what some become in known cases."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_med import aggregation, algorithms
from fedjax_med.engine import Variables, cohorts, epochs, gradient, simulate, steps
from fedjax_med.engine.placement import one_device
from tests.engine.toy import (
    AGGREGATORS,
    ALGORITHMS,
    LOCAL_WORK,
    assert_close,
    initial_variables,
    make_dataset,
    make_task,
    prepare_chunk,
    toy_loss,
)

GRADIENT = gradient(toy_loss)
NAMES = pytest.mark.parametrize("name", ALGORITHMS)


def built(name, aggregator="weighted_mean"):
    return ALGORITHMS[name](GRADIENT, AGGREGATORS[aggregator]())


@NAMES
def test_a_server_state_is_arrays_around_the_variables(name):
    variables = jax.tree.map(jnp.asarray, initial_variables())
    state = built(name).init(variables)
    assert jax.tree.structure(state.variables) == jax.tree.structure(variables)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(state))
    assert_close(state.variables, variables, 0)


# Of every kind of state one: momentum of clients alone, of the server too, of clients that keep it.
KINDS = ("fed_avg", "fed_yogi", "fed_opt_adam_both_sides", "local_only", "with_persistent_state")


@pytest.mark.parametrize(
    "name", [n if n in KINDS else pytest.param(n, marks=pytest.mark.slow) for n in ALGORITHMS]
)
def test_rounds_keep_the_state_trace_once_and_learn(name):
    calls = 0

    def counting(variables, batch):
        nonlocal calls
        calls += 1
        return GRADIENT(variables, batch)

    program, args = prepare_chunk(
        lambda hyper: ALGORITHMS[name](counting, aggregation.weighted_mean()),
        make_dataset(),
        LOCAL_WORK["epochs"],
        one_device(),
        2,
        num_rounds=8,
        cohort=cohorts.everyone(),
    )
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), args[:2])
    state, clients, first, _ = program(*args)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), (state, clients)) == shapes
    before = calls
    assert before > 0
    state, _, second, _ = program(state, clients, *args[2:])
    assert calls == before
    # An algorithm that learns nothing would pass many a comparison with itself.
    if name == "with_persistent_state":  # which reports no loss
        pairs = zip(state.variables.params, initial_variables().params, strict=True)
        assert max(np.abs(a - b).max() for a, b in pairs) > 0.1
    else:
        start, end = first.mean["train_loss"][:2], second.mean["train_loss"][-3:]
        assert end.mean() < 0.93 * start.mean()


def run(algorithm, dataset=None, work=LOCAL_WORK["epochs"], rounds=3, **options):
    dataset = dataset or make_dataset()
    return simulate(
        algorithm, dataset, task=make_task(), rounds=rounds, local_work=work, lanes=2, **options
    ).variables


@lru_cache
def fed_avg_run(weighting=algorithms.by_examples):
    """FedAvg by plain SGD on the ragged clients, that others become in their limits."""
    return run(algorithms.fed_avg(GRADIENT, optax.sgd(0.1), weighting=weighting))


# Reductions of one algorithm to another: the same arithmetic but for a few operations that are
# exact, or the last bit of a float32 (1.2e-7) of each of a few dozen steps.
EXACT, SAME = 0, 1e-6


def test_fed_prox_without_pull_is_fed_avg():
    sgd = optax.sgd(0.1)
    got = run(algorithms.fed_prox(GRADIENT, sgd, mu=0.0))
    assert_close(got, fed_avg_run(), SAME)
    other = run(algorithms.fed_prox(GRADIENT, sgd, mu=0.1))
    with pytest.raises(AssertionError):
        assert_close(got, other, 1e-3)


def test_fed_opt_with_plain_sgd_is_fed_avg():
    sgd = optax.sgd(0.1)
    got = run(algorithms.fed_opt(GRADIENT, sgd, optax.sgd(1.0)))
    assert_close(got, fed_avg_run(), EXACT)


def test_one_step_of_fed_avg_is_a_step_of_fed_sgd():
    one = steps(1, batch_size=64, shuffle=False)
    got = run(algorithms.fed_avg(GRADIENT, optax.sgd(0.1)), work=one, rounds=1)
    want = run(algorithms.fed_sgd(GRADIENT, optax.sgd(0.1)), work=one, rounds=1)
    assert_close(got, want, SAME)


def no_dropout(variables, batch):
    return toy_loss(variables, batch, dropout=0.0)


def test_fed_sgd_is_the_gradient_of_everybody_whatever_the_batch_size():
    def run_with(batch_size):
        def stateless(variables, batch):
            losses, _ = no_dropout(variables, batch)
            return losses, variables.state

        algorithm = algorithms.fed_sgd(gradient(stateless), optax.sgd(0.5))
        return run(algorithm, work=epochs(1, batch_size=batch_size), rounds=2)

    assert_close(run_with(3), run_with(64), SAME)


def test_one_client_with_one_step_is_central_training():
    dataset = make_dataset((9,))
    x, y = dataset.train.examples["x"], dataset.train.examples["y"]
    optimizer = optax.sgd(0.3)
    got = run(
        algorithms.fed_avg(gradient(no_dropout), optimizer),
        dataset,
        epochs(1, batch_size=9, shuffle=False),
        rounds=4,
    )

    def mean_loss(params, running_mean):
        w1, b1, w2, b2 = params
        hidden = jnp.tanh(x @ w1 + b1[None])
        mean = 0.75 * running_mean + 0.25 * hidden.mean(axis=0)
        logits = (hidden - 0.1 * running_mean[None]) @ w2 + b2
        return jnp.mean(jnp.logaddexp(0.0, logits) - y * logits), mean

    params, state = jax.tree.map(jnp.asarray, initial_variables())
    for _ in range(4):
        grads, new_state = jax.grad(mean_loss, has_aux=True)(params, state)
        params, state = jax.tree.map(lambda p, g: p - 0.3 * g, params, grads), new_state
    assert_close(got, Variables(params, state), 1e-5)


def test_equal_weights_are_those_of_clients_of_equal_size():
    sgd = optax.sgd(0.1)
    weighted = algorithms.fed_avg(GRADIENT, sgd)
    equal = algorithms.fed_avg(GRADIENT, sgd, weighting=algorithms.equal)
    plain = algorithms.fed_avg(GRADIENT, sgd, aggregator=aggregation.mean())
    same = make_dataset((6, 6, 6))
    assert_close(run(weighted, same), run(equal, same), SAME)
    assert_close(fed_avg_run(algorithms.equal), run(plain), SAME)
    with pytest.raises(AssertionError):  # on ragged clients the weights matter
        assert_close(fed_avg_run(), fed_avg_run(algorithms.equal), 1e-3)


def test_server_momentum_is_that_of_optax():
    sgd = optax.sgd(0.1)
    got = run(
        algorithms.fed_avg(GRADIENT, sgd, server_learning_rate=0.7, server_momentum=0.8), rounds=4
    )
    want = run(algorithms.fed_opt(GRADIENT, sgd, optax.sgd(0.7, momentum=0.8)), rounds=4)
    assert_close(got, want, EXACT)


def adaptive(second_moment, rate, b1, tau):
    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return zeros, zeros

    def update(grads, state, params=None):
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state[0], grads)
        v = jax.tree.map(lambda v, g: second_moment(v, g * g), state[1], grads)
        return jax.tree.map(lambda m, v: -rate * m / (jnp.sqrt(v) + tau), m, v), (m, v)

    return optax.GradientTransformation(init, update)


@pytest.mark.parametrize(
    "make, b1, second_moment",
    [
        (algorithms.fed_adagrad, 0.0, lambda v, d2: v + d2),
        (algorithms.fed_adam, 0.9, lambda v, d2: 0.99 * v + 0.01 * d2),
        (algorithms.fed_yogi, 0.9, lambda v, d2: v - 0.01 * d2 * jnp.sign(v - d2)),
    ],
    ids=["fed_adagrad", "fed_adam", "fed_yogi"],
)
def test_adaptive_servers_follow_algorithm_2(make, b1, second_moment):
    sgd = optax.sgd(0.1)
    got = run(make(GRADIENT, sgd, server_learning_rate=0.05), rounds=4)
    server = adaptive(second_moment, 0.05, b1, 1e-3)
    assert_close(got, run(algorithms.fed_opt(GRADIENT, sgd, server), rounds=4), SAME)


def test_local_only_leaves_the_server_alone_and_trains_every_client_by_itself():
    dataset = make_dataset()
    algorithm = algorithms.local_only(GRADIENT, optax.sgd(0.1, momentum=0.9))
    together = simulate(
        algorithm, dataset, task=make_task(), rounds=3, local_work=LOCAL_WORK["epochs"], lanes=2
    )
    assert_close(together.variables, initial_variables(), 0)
    # A client ends where it ends without the others (the key of a client is its number).
    alone = simulate(
        algorithm,
        dataset,
        task=make_task(),
        rounds=3,
        local_work=LOCAL_WORK["epochs"],
        cohort=cohorts.listed([(5,)]),
        lanes=1,
    )
    own = jax.tree.map(lambda x: x[5], (together.client_states, alone.client_states))
    assert_close(*own, SAME)
    untouched = jax.tree.map(lambda x: x[0], alone.client_states).variables
    assert_close(untouched, initial_variables(), 0)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: algorithms.fed_prox(GRADIENT, optax.sgd(0.1), mu=-0.1), "mu must be 0 or more"),
        (lambda: algorithms.fed_prox(GRADIENT, optax.sgd(0.1), mu=float("nan")), "mu must be 0"),
        (
            lambda: algorithms.fed_adam(GRADIENT, optax.sgd(0.1), server_learning_rate=0.0),
            "server_learning_rate must be positive, got 0.0",
        ),
        (
            lambda: algorithms.fed_adam(GRADIENT, optax.sgd(0.1), server_learning_rate=1.0, b2=1.0),
            "b2 must be at least 0 and below 1, got 1.0",
        ),
        (
            lambda: algorithms.fed_yogi(
                GRADIENT, optax.sgd(0.1), server_learning_rate=1.0, b1=-1.0
            ),
            "b1 must be at least 0 and below 1, got -1.0",
        ),
        (
            lambda: algorithms.fed_adagrad(
                GRADIENT, optax.sgd(0.1), server_learning_rate=1.0, tau=0.0
            ),
            "tau must be positive, got 0.0",
        ),
    ],
)
def test_bad_hyperparameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
