"""Cyclic weight transfer, and the cohorts it needs."""

import numpy as np
import optax
import pytest

from fedjax_med import algorithms
from fedjax_med.engine import cohorts
from tests.algorithms import numpy_world
from tests.algorithms.numpy_world import grad, start


def order(sampler, num_clients, rounds, seed=0):
    drawn = [sampler.draw(num_clients, r, seed) for r in range(rounds)]
    assert all(d.shape == (1,) for d in drawn) and sampler.max_size(num_clients) == 1
    return [int(d[0]) for d in drawn]


@pytest.mark.parametrize("reshuffle", [True, False])
def test_everybody_has_a_turn_in_every_cycle(reshuffle):
    turns = np.reshape(order(cohorts.cyclic(reshuffle=reshuffle), 6, 60), (10, 6))
    np.testing.assert_array_equal(np.sort(turns, axis=1), np.tile(np.arange(6), (10, 1)))
    # Of 720 orders; that all ten differ is so for this seed.
    assert len({tuple(cycle) for cycle in turns}) == (10 if reshuffle else 1)


def test_the_order_depends_on_the_seed_only_if_it_is_random():
    shuffled, stored = cohorts.cyclic(), cohorts.cyclic(reshuffle=False)
    assert shuffled.uses_seed and not stored.uses_seed
    assert order(shuffled, 8, 16, seed=1) != order(shuffled, 8, 16, seed=2)
    assert order(shuffled, 8, 16, seed=1) == order(shuffled, 8, 16, seed=1)
    assert order(stored, 3, 5) == [0, 1, 2, 0, 1]


def test_the_model_is_handed_on():
    clients, rate, rounds = numpy_world.hospitals(), 0.3, 6
    w = start()
    for r in range(rounds):
        for batch in clients[r % len(clients)].minibatches():
            w = w - rate * grad(w, batch)
    run = numpy_world.run(
        algorithms.cyclic_weight_transfer(numpy_world.task().gradient, optax.sgd(rate)),
        rounds=rounds,
        cohort=cohorts.cyclic(reshuffle=False),
    )
    numpy_world.assert_agrees(run, w)
