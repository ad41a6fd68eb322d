"""Clients that began with models of earlier rounds, against a simulator that goes by events."""

import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med import algorithms, clock
from fedjax_med.engine import gradient, simulate
from tests.algorithms import numpy_world
from tests.draws import draws
from tests.engine.toy import (
    LOCAL_WORK,
    assert_close,
    assert_identical,
    make_dataset,
    make_task,
    toy_loss,
)

RATE = 0.3
SGD = optax.sgd(RATE)
PAYLOAD = clock.Payload(1e3, 1e3)
CLIENTS = len(numpy_world.SIZES)


def asynchronous(steps, *, rounds, concurrency=CLIENTS, buffer_size=1, seed=0):
    """Computation alone takes time, so `steps` are the latencies."""
    hardware = clock.hardware(len(steps), step_s=1.0, latency_s=0.0)
    return clock.asynchronous(
        hardware,
        steps,
        PAYLOAD,
        concurrency=concurrency,
        buffer_size=buffer_size,
        rounds=rounds,
        seed=seed,
    )


def local_training(w, client, *, rho=0.0):
    """One epoch of SGD from w in float64."""
    began = w.copy()
    for batch in client.minibatches():
        w = w - RATE * (numpy_world.grad(w, batch) + rho * (w - began))
    return w


def by_events(schedule, mix):
    """Goes through the rounds with every client's own copy of the model it began with.

    A client that reports in round t began with the model after `t - staleness` rounds; `mix` makes
    the next model from the present one and `[(began with, trained to, staleness)]`.
    """
    clients = numpy_world.hospitals()
    models = [numpy_world.start()]
    for t in range(schedule.num_rounds):
        reports = []
        for client, stale in zip(schedule.clients[t], schedule.stale[t], strict=True):
            began = models[t - stale]
            reports.append((began, client, stale))
        models.append(mix(models[-1], [(b, clients[c], s) for b, c, s in reports]))
    return models[-1]


# One compilation serves all draws: the schedule is data.
STALENESS = 12


@pytest.fixture(scope="module")
def buffered():
    return algorithms.fed_buff(numpy_world.task().gradient, SGD, max_staleness=STALENESS)


@draws(3, 12)
@given(st.lists(st.integers(1, 6), min_size=CLIENTS, max_size=CLIENTS), st.integers(1, 3))
def test_fed_buff_follows_the_events(buffered, steps, buffer_size):
    schedule = asynchronous(steps, rounds=6, buffer_size=buffer_size)
    run = numpy_world.run(buffered, rounds=6, cohort=schedule)

    def mix(w, reports):
        total = np.zeros_like(w)
        for began, client, stale in reports:
            total += (began - local_training(began, client)) / np.sqrt(1 + stale)
        return w - total / len(reports)

    numpy_world.assert_agrees(run, by_events(schedule, mix))


@pytest.mark.parametrize(
    "discount, s",
    [
        (algorithms.constant_discount(), lambda t: 1.0),
        (algorithms.polynomial_discount(0.7), lambda t: (t + 1) ** -0.7),
        (
            algorithms.hinge_discount(3.0, 2.0),
            lambda t: 1.0 if t <= 2 else 1 / (3.0 * (t - 2) + 1),
        ),
    ],
    ids=["constant", "polynomial", "hinge"],
)
def test_fed_async_follows_the_events(discount, s):
    schedule = asynchronous([1, 2, 7, 3], rounds=14)
    assert schedule.max_staleness > 3  # so that the hinge bends
    algorithm = algorithms.fed_async(
        numpy_world.task().gradient,
        SGD,
        alpha=0.6,
        rho=0.2,
        max_staleness=schedule.max_staleness,
        discount=discount,
    )
    run = numpy_world.run(algorithm, rounds=14, cohort=schedule)

    def mix(w, reports):
        ((began, client, stale),) = reports
        alpha = 0.6 * s(stale)
        return (1 - alpha) * w + alpha * local_training(began, client, rho=0.2)

    want = by_events(schedule, mix)
    numpy_world.assert_agrees(run, want)
    # An engine that ignored staleness would start every client from the present model.
    schedule_now = by_events(
        clock.synchronous(
            clock.hardware(4, latency_s=0.0), 1, PAYLOAD, cohort_size=1, rounds=14, seed=0
        ),
        mix,
    )
    assert np.abs(schedule_now - want).max() > 1e-3


def test_synchronous_limits_are_fed_avg_bit_for_bit():
    """Equal latencies, a buffer as large as the cohort: on a network with dropout and state."""
    dataset, task = make_dataset(), make_task()
    sgd = optax.sgd(0.1, momentum=0.9)
    schedule = asynchronous([3] * 10, rounds=5, concurrency=10, buffer_size=10)
    gradient_fn = gradient(toy_loss)

    def run(algorithm, **options):
        return simulate(
            algorithm,
            dataset,
            task=task,
            rounds=5,
            local_work=LOCAL_WORK["epochs"],
            lanes=3,
            **options,
        )

    want = run(algorithms.fed_avg(gradient_fn, sgd, weighting=algorithms.equal))
    buffered = algorithms.fed_buff(gradient_fn, sgd, max_staleness=0)
    mixed = algorithms.fed_async(gradient_fn, sgd, alpha=1.0, max_staleness=0)
    for got in (run(buffered, cohort=schedule), run(mixed, cohort=schedule)):
        assert_identical(got.variables, want.variables)
    kept = algorithms.fed_buff(gradient_fn, sgd, max_staleness=3)
    assert_identical(run(kept, cohort=schedule).variables, want.variables)


def test_stale_clients_are_the_same_on_every_placement():
    from fedjax_med.engine import placement

    dataset, task = make_dataset(), make_task()
    schedule = asynchronous([1, 4, 2, 9, 3, 1, 2, 5, 1, 2], rounds=9, concurrency=8, buffer_size=3)
    assert schedule.max_staleness >= 2
    algorithm = algorithms.fed_buff(
        gradient(toy_loss), optax.sgd(0.1), max_staleness=schedule.max_staleness
    )

    def run(place, lanes):
        return simulate(
            algorithm,
            dataset,
            task=task,
            rounds=9,
            local_work=LOCAL_WORK["steps"],
            cohort=schedule,
            placement=place,
            lanes=lanes,
        )

    one = run(placement.one_device(), 2)
    # The orders of a few dozen float32 sums.
    assert_close(run(placement.pmap(4), 1).state, one.state, 1e-5, siblings=True)


def test_a_timeline_adds_up():
    schedule = asynchronous([1, 2, 7, 3], rounds=6)
    algorithm = algorithms.fed_buff(numpy_world.task().gradient, SGD, max_staleness=9)
    run = numpy_world.run(algorithm, rounds=6, cohort=schedule, evaluate_every=3)
    line = clock.timeline(run, schedule)
    np.testing.assert_array_equal(line["round"], [3, 6])
    np.testing.assert_array_equal(line["time_s"], schedule.time_s[[2, 5]])
    np.testing.assert_array_equal(line["up_bytes"], [3e3, 6e3])
    np.testing.assert_array_equal(line["loss"], [e.pooled["loss"] for e in run.evaluations])
    with pytest.raises(ValueError, match="no evaluations on 'validation'"):
        clock.timeline(run, schedule, split="validation")


# -- what is refused -------------------------------------------------------------------------


def test_a_schedule_that_is_too_stale_for_the_algorithm_is_refused():
    schedule = asynchronous([1, 2, 7, 3], rounds=14)
    stale = schedule.max_staleness
    gradient_fn = numpy_world.task().gradient
    for algorithm, kept in (
        (algorithms.fed_avg(gradient_fn, SGD), 0),
        (algorithms.fed_buff(gradient_fn, SGD, max_staleness=stale - 1), stale - 1),
    ):
        message = f"models up to {stale} rounds old, but the algorithm keeps max_staleness={kept}"
        with pytest.raises(ValueError, match=message):
            numpy_world.run(algorithm, rounds=14, cohort=schedule)


def test_a_schedule_that_is_too_short_is_refused():
    schedule = asynchronous([1, 1, 1, 1], rounds=3)
    algorithm = algorithms.fed_buff(numpy_world.task().gradient, SGD, max_staleness=9)
    with pytest.raises(ValueError, match="The schedule has 3 rounds; rounds must be at most that"):
        numpy_world.run(algorithm, rounds=5, cohort=schedule)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda g: algorithms.fed_buff(g, SGD, max_staleness=-1),
            "max_staleness must be 0 or more, got -1",
        ),
        (
            lambda g: algorithms.fed_async(g, SGD, alpha=0.0, max_staleness=1),
            "alpha must be above 0 and at most 1, got 0.0",
        ),
        (
            lambda g: algorithms.fed_async(g, SGD, alpha=0.5, rho=-1.0, max_staleness=1),
            "rho must be 0 or more, got -1.0",
        ),
        (lambda g: algorithms.polynomial_discount(-0.5), "a must be 0 or more, got -0.5"),
        (lambda g: algorithms.hinge_discount(1.0, -2.0), "b must be 0 or more, got -2.0"),
    ],
)
def test_bad_hyperparameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make(numpy_world.task().gradient)


@pytest.mark.parametrize("stream", [False, True])
def test_a_run_looks_no_further_than_its_schedule(stream):
    schedule = asynchronous([1, 2, 3, 4], rounds=2)
    algorithm = algorithms.fed_buff(numpy_world.task().gradient, SGD, max_staleness=3)
    run = simulate(
        algorithm,
        numpy_world.dataset(),
        task=numpy_world.task(),
        rounds=2,
        local_work=numpy_world.WORK,
        cohort=schedule,
        stream=stream,
    )
    assert run.rounds == 2
