"""How messages get to the server where they do not travel in the clear.

An aggregator may bring a `Channel`: it seals each client's whole message, the sums over lanes and
devices are sums of sealed messages, and the server opens the total alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

PyTree = Any

ABSENT = np.iinfo(np.int32).max
"""What stands in `Roster.members` where nobody is."""


class Roster(NamedTuple):
    """Who takes part in a round: the same on every device, whatever the lanes.

    Attributes:
      members: int32 `[capacity]`, the clients' ids in ascending order, then `ABSENT`.
      count: int32 `[]`, how many they are.
      round_index: int32 `[]`.
      seed: uint32 `[]`, root of the run's randomness.
      passes: passes over the cohort that came before in the same round; a Python number.
      max_clients: no cohort is announced to be larger; a Python number, None if unknown.
    """

    members: jax.Array
    count: jax.Array
    round_index: jax.Array
    seed: jax.Array
    passes: int = 0
    max_clients: int | None = None


class Delivery(NamedTuple):
    """What became of a round's sealed messages.

    Attributes:
      num_dropped: int32 `[]`, clients whose message did not arrive.
      rejected: bool `[]`, the sum could not be opened; the server must not move.
    """

    num_dropped: jax.Array
    rejected: jax.Array


class Channel(NamedTuple):
    """Seals messages that are summed, and opens their sum.

    Attributes:
      seal: `(message, place, roster) -> sealed`, of the client `roster.members[place]`; sealed
        messages are pytrees of arrays that can be added. Zeros are a message that did not arrive.
      open: `(total, message_like, roster) -> (message, delivery)`, from the sum of the sealed
        messages to the sum of the messages; zeros if it is rejected.
      check: `(max_clients) -> None`, raises ValueError for cohorts the channel is not built for;
        called before anything is compiled.
    """

    seal: Callable[[PyTree, jax.Array, Roster], PyTree]
    open: Callable[[PyTree, PyTree, Roster], tuple[PyTree, Delivery]]
    check: Callable[[int], None]


def call_roll(
    client_id: jax.Array,
    num_slots: jax.Array,
    round_index: jax.Array,
    seed: jax.Array,
    *,
    devices: str | None = None,
    passes: int = 0,
    max_clients: int | None = None,
) -> Roster:
    """The roster of a round, from one device's slots `client_id`, of which `num_slots` are filled.

    One small `all_gather` over the axis `devices`.
    """
    filled = jnp.arange(client_id.shape[0]) < num_slots
    members = jnp.where(filled, client_id, ABSENT)
    if devices is not None:
        members = lax.all_gather(members, devices, tiled=True)
    members = jnp.sort(members)
    count = jnp.sum(members != ABSENT, dtype=jnp.int32)
    return Roster(members, count, round_index, seed, passes, max_clients)


def seal_one(channel: Channel, message: PyTree, client_id: jax.Array, roster: Roster) -> PyTree:
    """The sealed message of the client `client_id`."""
    return channel.seal(message, jnp.searchsorted(roster.members, client_id), roster)


def add_sealed(
    channel: Channel,
    total: PyTree,
    messages: PyTree,
    ends: jax.Array,
    client_id: jax.Array,
    roster: Roster,
    experiments: str | None = None,
) -> PyTree:
    """`total` and the sealed messages of the lanes that end.

    A loop over these lanes alone: a mask costs far more than the sum it goes into, and in most
    segments few lanes end.

    Args:
      channel: how messages are sealed.
      total: sum of the sealed messages so far.
      messages: pytree of arrays `[lanes, ...]`.
      ends: bool `[lanes]`.
      client_id: int32 `[lanes]`.
      roster: of the round.
      experiments: name of the axis of vmapped experiments; one trip count for all keeps the loop
        a loop.
    """
    order = jnp.argsort(~ends, stable=True)
    count = jnp.sum(ends, dtype=jnp.int32)
    if experiments is not None:
        count = lax.pmax(count, experiments)

    def add(i: jax.Array, total: PyTree) -> PyTree:
        lane = order[i]
        message = jax.tree.map(lambda x: x[lane], messages)
        sealed = seal_one(channel, message, client_id[lane], roster)
        return jax.tree.map(
            lambda t, s: t + jnp.where(ends[lane], s, jnp.zeros_like(s)), total, sealed
        )

    return lax.fori_loop(0, count, add, total)
