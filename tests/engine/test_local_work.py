import re

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med.algorithms import fed_avg
from fedjax_med.engine import epochs, poisson_steps, steps
from fedjax_med.engine.cohorts import everyone, listed, uniform
from fedjax_med.engine.layout import spread
from fedjax_med.engine.schedule import Scheduler
from tests.engine import toy

SIZE, BATCH, COUNT = st.integers(1, 40), st.integers(1, 12), st.integers(1, 7)


def endless_minibatches(size, batch_size):
    """(epoch, minibatch of it) one after the other; the last short minibatch is kept."""
    epoch = 0
    while True:
        for step, _ in enumerate(range(0, size, batch_size)):
            yield epoch, step
        epoch += 1


@given(SIZE, BATCH, COUNT, st.integers(1, 12))
def test_steps_go_on_where_the_last_round_stopped(size, batch_size, num_steps, rounds):
    work = steps(num_steps, batch_size=batch_size)
    minibatches = endless_minibatches(size, batch_size)
    for round_index in range(rounds):
        first = work.cursor(np.array([size]), np.array([round_index]))
        want = [next(minibatches) for _ in range(num_steps)]
        assert want[0] == (int(first[0][0]), int(first[1][0]))
        assert work.num_steps(np.array([size])).tolist() == [num_steps]


@given(SIZE, BATCH, COUNT, st.integers(1, 6))
def test_epochs_begin_new_every_round(size, batch_size, num_epochs, rounds):
    work = epochs(num_epochs, batch_size=batch_size)
    minibatches = endless_minibatches(size, batch_size)
    for round_index in range(rounds):
        first = work.cursor(np.array([size]), np.array([round_index]))
        count = int(work.num_steps(np.array([size]))[0])
        want = [next(minibatches) for _ in range(count)]
        assert want[0] == (int(first[0][0]), int(first[1][0])) and first[1][0] == 0
        assert count == num_epochs * len(range(0, size, batch_size))


def test_sizes_may_be_jax_arrays():
    sizes = jnp.array([1, 4, 5])
    assert epochs(2, batch_size=4).num_steps(sizes).tolist() == [2, 2, 4]
    assert steps(3, batch_size=4).num_steps(sizes).tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: epochs(0, batch_size=1), "num_epochs must be at least 1, got 0."),
        (lambda: epochs(1, batch_size=0), "batch_size must be at least 1, got 0."),
        (lambda: steps(0, batch_size=1), "steps must be at least 1, got 0."),
        (lambda: steps(1, batch_size=-2), "batch_size must be at least 1, got -2."),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_client_moves_on_only_in_rounds_it_takes_part_in():
    sizes = np.array([5, 3])
    work = steps(2, batch_size=2)  # client 0 has 3 minibatches an epoch, client 1 has 2
    scheduler = Scheduler(sizes, spread(sizes, 1), listed([(0,), (0, 1), (1,)]), work, 0)
    draws = [scheduler.draw(r)[0] for r in range(3)]
    columns = [(d.client.tolist(), d.first_epoch.tolist(), d.first_step.tolist()) for d in draws]
    places = [{c: (e, s) for c, e, s in zip(*three, strict=True)} for three in columns]
    assert places == [{0: (0, 0)}, {0: (0, 2), 1: (0, 0)}, {1: (1, 0)}]


def test_looking_ahead_moves_nobody():
    sizes = np.arange(1, 9)
    scheduler = Scheduler(sizes, spread(sizes, 2), uniform(4), steps(3, batch_size=2), 0)
    ahead = scheduler.preview(range(3))
    for r, want in enumerate(ahead):
        for a, b in zip(scheduler.draw(r), want, strict=True):
            for x, y in zip(a, b, strict=True):
                np.testing.assert_array_equal(x, y)


def test_devices_get_their_own_clients():
    sizes = np.arange(1, 9)
    layout = spread(sizes, 3)
    scheduler = Scheduler(sizes, layout, everyone(), epochs(1, batch_size=2), 0)
    draws = scheduler.draw(0)
    for members, draw in zip(layout.members, draws, strict=True):
        np.testing.assert_array_equal(members, draw.client)
        np.testing.assert_array_equal(draw.num_steps, -(-sizes[members] // 2))


def test_poisson_samples_are_the_same_in_lanes_and_one_after_the_other():
    """Samples come from the step's key alone; some of them are empty."""
    dataset, work = toy.make_dataset(), poisson_steps(3, expected=1.5, batch_size=4)
    algorithm = fed_avg(toy.compiled_gradient("float32"), optax.sgd(0.1))
    want = toy.run_sequentially(algorithm, dataset, work, num_rounds=1)
    got = toy.run_placed(algorithm, dataset, work, "three_lanes", num_rounds=1)
    # Float32 sums over ten clients in another order.
    toy.assert_close(got.state, want.state, rtol=1e-5)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_steps": 0, "expected": 1.0, "batch_size": 2}, "steps must be at least 1"),
        ({"num_steps": 1, "expected": 3.0, "batch_size": 2}, "at most batch_size 2, got 3.0"),
        ({"num_steps": 1, "expected": 0.0, "batch_size": 2}, "expected must be positive"),
    ],
)
def test_poisson_steps_out_of_range(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        poisson_steps(**settings)
