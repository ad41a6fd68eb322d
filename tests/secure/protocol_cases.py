"""What the tests of secure aggregation share: rosters, and a whole round without an engine."""

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.engine.channel import ABSENT, Roster
from fedjax_med.secure.fixed_point import fixed_point_mean
from fedjax_med.secure.masking import masked

CAPACITY = 9
WORDS = 40  # not a multiple of a block of 16


def roster_of(ids, *, capacity=CAPACITY, round_index=3, seed=7, passes=0):
    members = np.full(capacity, ABSENT, np.int32)
    members[: len(ids)] = np.sort(ids)
    return Roster(
        jnp.asarray(members),
        jnp.int32(len(ids)),
        jnp.int32(round_index),
        jnp.uint32(seed),
        passes,
    )


def integer_sum(num_clients):
    """An aggregator of integers as they are; its messages need no encoding."""
    aggregator = fixed_point_mean(num_clients, bound=1.0)
    return aggregator._replace(encode=lambda update, weight, state, key: update)


def channel_of(alive=None, *, num_clients=CAPACITY, **options):
    if alive is not None:
        options["dropout"] = lambda roster: alive
    return masked(integer_sum(num_clients), num_clients=num_clients, **options).channel


def play_round(messages, roster, alive=None, **options):
    """Every client of the roster seals `messages[place]`; returns sealed, sum and delivery."""
    channel = channel_of(alive, **options)
    places = jnp.arange(roster.members.shape[0])
    sealed = jax.vmap(lambda m, p: channel.seal(m, p, roster))(messages, places)
    present = places < roster.count
    sealed = jnp.where(present[:, None], sealed, 0)
    total = jnp.sum(sealed, axis=0, dtype=jnp.uint32)
    opened, delivery = channel.open(total, messages[0], roster)
    return sealed, opened, delivery
