"""Who shares masks with whom: every client with its nearest on a ring of the cohort.

A graph of few neighbours instead of a complete one: the cost of a client grows with its number of
neighbours and not with the cohort (Bell et al., CCS 2020. https://eprint.iacr.org/2020/704).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Neighbours(NamedTuple):
    """A client's neighbours; in small cohorts the same one is met on both sides, and counted once.

    Attributes:
      place: int32 `[neighbours]`, places on the ring.
      sign: int32 `[neighbours]`, +1 where the client adds the mask of the pair, -1 where it
        subtracts it, 0 where there is no neighbour.
    """

    place: jax.Array
    sign: jax.Array


def neighbours_of(place: jax.Array, count: jax.Array, num_neighbours: int) -> Neighbours:
    """The neighbours of one client on a ring of `count` clients in the order of their ids.

    Half on either side. Of a pair, the one with the lower place adds the mask. A cohort of at most
    `num_neighbours` clients is a complete graph.

    Args:
      place: int32 `[]`, below `count`.
      count: int32 `[]`; may be 0 or 1, without neighbours.
      num_neighbours: even.
    """
    offset = np.arange(1, num_neighbours // 2 + 1, dtype=np.int32)
    size = jnp.maximum(count, 1)
    partner = jnp.concatenate([(place + offset) % size, (place - offset) % size])
    # The client right across is a neighbour once: as the one in front.
    there = jnp.concatenate([2 * offset <= count, 2 * offset < count])
    sign = jnp.where(there, jnp.sign(partner - place), 0)
    return Neighbours(partner.astype(jnp.int32), sign.astype(jnp.int32))


def signs_on_ring(client_id: int, members: Sequence[int], num_neighbours: int) -> dict[int, int]:
    """The neighbours of a client by id, and their signs: `neighbours_of` in plain Python."""
    ring = sorted(members)
    place, count = ring.index(client_id), len(ring)
    found = {}
    for offset in range(1, min(num_neighbours // 2, count // 2) + 1):
        for partner in (ring[(place + offset) % count], ring[(place - offset) % count]):
            found[partner] = 1 if client_id < partner else -1
    return dict(sorted(found.items()))


def degree(num_neighbours: int, num_clients: int) -> int:
    """Neighbours that a client of a cohort of `num_clients` has.

    Raises:
      ValueError: for an odd or too small number of neighbours, or a cohort of fewer than 2.
    """
    if num_neighbours < 2 or num_neighbours % 2:
        raise ValueError(f"neighbours must be even and at least 2, got {num_neighbours}.")
    if num_clients < 2:
        raise ValueError(
            f"Secure aggregation needs a cohort of at least 2 clients, got {num_clients}: a sum of "
            "one is that client's update."
        )
    return min(num_neighbours, num_clients - 1)
