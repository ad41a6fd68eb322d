"""Secure aggregation as a channel: masks, drop-out and recovery, inside the compiled round.

What a client hands in is its message and masks that look like noise to whoever lacks their keys:

    y_i = x_i + PRG(b_i) + sum over neighbours j of (+-1) PRG(s_ij)   modulo 2**bits

The masks of pairs cancel in the sum of all. Where clients drop out after the others have masked, the
server asks neighbours for their shares: of b_i for clients that handed in, of the secret behind the
s_ij for those that did not, never both for one client. It recovers these keys from `threshold`
shares, computes the masks that are left in the sum and takes them off.

References:
  Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017.
  https://eprint.iacr.org/2017/281
  Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020.
  https://eprint.iacr.org/2020/704
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fedjax_med.engine.channel import ABSENT, Channel, Delivery, Roster
from fedjax_med.engine.contracts import Aggregator, PyTree
from fedjax_med.secure import keys, shamir
from fedjax_med.secure.fixed_point import fixed_point
from fedjax_med.secure.ring import degree, neighbours_of
from fedjax_med.secure.words import Words
from fedjax_med_kernels.masks import keystream, sum_of_masks

Dropout = float | Callable[[Roster], jax.Array]

_DROPOUT = 0x64726F70  # keeps these draws apart from other randomness of the seed


class Masking(NamedTuple):
    """The protocol's sizes, checked.

    Attributes:
      num_clients: clients of the largest cohort.
      neighbours: clients that each shares masks with, even; in smaller cohorts all others.
      threshold: shares that recover a key.
      min_survivors: a round is rejected if fewer clients hand in.
      dropout: probability that a client vanishes after the others have masked; or a function of the
        roster that says who stays, bool `[capacity]`.
      words: how messages become words.
    """

    num_clients: int
    neighbours: int
    threshold: int
    min_survivors: int
    dropout: Dropout
    words: Words


def masked(
    aggregator: Aggregator,
    *,
    num_clients: int,
    neighbours: int = 10,
    threshold: int | None = None,
    min_survivors: int = 2,
    dropout: Dropout = 0.0,
    bits: int = 32,
    extras_bound: float | None = None,
) -> Aggregator:
    """`aggregator` with secure aggregation of whatever its clients send.

    Everything in a message is masked: updates, weights, and what transforms or algorithms add to
    it, so put it innermost: `chain(clip, then=masked(...))`. The sum is that of the integers without
    masks, bit for bit, on any placement. A round whose sum cannot be recovered leaves the server as
    it was; `num_dropped` and `rejected` are metrics of every round.

    Args:
      aggregator: with the reduction "sum" and integer messages: `fixed_point_mean`,
        `distributed_dp_mean`.
      num_clients: clients of the largest cohort; `simulate` refuses samplers of larger ones.
      neighbours: clients that each shares masks with, even.
      threshold: shares that recover a key; more than half of the neighbours if None.
      min_survivors: a round is rejected if fewer clients hand in.
      dropout: probability that a client vanishes after masking, or a function of the roster that
        says who stays, bool `[capacity]`.
      bits: sums are modulo `2**bits`.
      extras_bound: largest size of a floating number in a message, if there are any; they are clipped
        to it and encoded in fixed point.

    Raises:
      ValueError: names the argument that does not fit; so does a drop-out rate that on average
        leaves a client fewer surviving neighbours than the threshold.
    """
    if aggregator.reduction != "sum":
        raise ValueError(
            "aggregator must have the reduction 'sum' to be masked, got "
            f"{aggregator.reduction!r}: masks only cancel in sums."
        )
    if aggregator.channel is not None:
        raise ValueError("aggregator must not have a channel already.")
    if not 1 <= bits <= 32:
        raise ValueError(f"bits must be 1 to 32, got {bits}.")
    num_others = degree(neighbours, num_clients)
    # Of more, a small cohort has no use, but every one costs a stream.
    neighbours = min(neighbours, 2 * (num_clients // 2))
    # More than half, or one half could be asked for the self mask and the other for the pairs'.
    least = num_others // 2 + 1
    threshold = least if threshold is None else threshold
    if not least <= threshold <= num_others:
        raise ValueError(
            f"threshold must be {least} to {num_others}, more than half of a client's {num_others} "
            f"neighbours and no more than all, got {threshold}."
        )
    if not 2 <= min_survivors <= num_clients:
        raise ValueError(
            f"min_survivors must be 2 to {num_clients} (num_clients), got {min_survivors}."
        )
    if not callable(dropout):
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and less than 1, got {dropout!r}.")
        left = (1 - dropout) * num_others
        if left < threshold or (1 - dropout) * num_clients < min_survivors:
            raise ValueError(
                f"dropout={dropout:g} is beyond recovery: on average it leaves {left:.3g} of "
                f"{num_others} neighbours and {(1 - dropout) * num_clients:.3g} of {num_clients} "
                f"clients, and a round needs {threshold} (threshold) and {min_survivors} "
                "(min_survivors)."
            )
    extras = None if extras_bound is None else fixed_point(num_clients, extras_bound)
    m = Masking(num_clients, neighbours, threshold, min_survivors, dropout, Words(bits, extras))

    def seal(message: PyTree, place: jax.Array, roster: Roster) -> jax.Array:
        return masked_words(m, m.words.flatten(message), place, roster)

    def open_(total: jax.Array, like: PyTree, roster: Roster) -> tuple[PyTree, Delivery]:
        total, delivery = unmask(m, total, roster)
        return m.words.unflatten(total, like), delivery

    def check(max_clients: int) -> None:
        if max_clients > num_clients:
            raise ValueError(
                f"A cohort may have {max_clients} clients, but secure aggregation was built for at "
                f"most {num_clients} (num_clients); a larger sum could wrap the modulus."
            )
        if degree(neighbours, max_clients) < threshold:
            raise ValueError(
                f"Cohorts have at most {max_clients} clients, so none has the {threshold} "
                "neighbours (threshold) that recovery takes."
            )

    return aggregator._replace(channel=Channel(seal, open_, check))


def survivors(m: Masking, roster: Roster) -> jax.Array:
    """Which of the roster's places hand in what they masked, bool `[capacity]`."""
    present = roster.members != ABSENT
    rate = m.dropout
    if callable(rate):
        return present & rate(roster)
    key = jax.random.fold_in(jax.random.key(roster.seed), _DROPOUT)
    key = jax.random.fold_in(key, roster.round_index)
    each = jax.vmap(jax.random.fold_in, (None, 0))(key, roster.members)
    stays = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - rate))(each)
    return present & stays


def masked_words(m: Masking, words: jax.Array, place: jax.Array, roster: Roster) -> jax.Array:
    """What the client at `place` hands in, uint32 `[words]`; zeros if it vanished before.

    The client computes the mask of its own seed and one for every neighbour.
    """
    neighbours = neighbours_of(place, roster.count, m.neighbours)
    client_id = roster.members[jnp.concatenate([place[None], neighbours.place])]
    own = keys.client_keys(client_id, roster)
    partner_id, partner_secret = client_id[1:], own.secret[1:]
    pairs = keys.pair_keys(
        jnp.broadcast_to(client_id[0], partner_id.shape),
        jnp.broadcast_to(own.secret[0], partner_secret.shape),
        partner_id,
        partner_secret,
        roster,
    )
    streams = jnp.concatenate([own.self_seed[:1], pairs.key])
    coefficient = jnp.concatenate([jnp.ones(1, jnp.int32), neighbours.sign])
    mask = sum_of_masks(streams, coefficient, keys.stream_nonce(roster), words.shape[0])
    handed_in = survivors(m, roster)[place]
    return jnp.where(handed_in, (words + mask) & _modulus(m), 0)


def unmask(m: Masking, total: jax.Array, roster: Roster) -> tuple[jax.Array, Delivery]:
    """Takes the masks that are left off the sum of what arrived; zeros if that is impossible."""
    alive = survivors(m, roster)
    present = roster.members != ABSENT
    streams, coefficient, recovered = left_in_sum(m, alive, roster)
    num_alive = jnp.sum(alive, dtype=jnp.int32)
    rejected = ~jnp.all(recovered | ~present) | (num_alive < m.min_survivors)
    rejected |= roster.count > m.num_clients  # such a sum might have wrapped
    # A stream costs as much as the message has words, so only those that are needed are computed.
    order = jnp.argsort(coefficient == 0, stable=True)
    needed = jnp.where(rejected, 0, jnp.sum(coefficient != 0, dtype=jnp.int32))
    nonce = keys.stream_nonce(roster)

    def take_off(i: jax.Array, total: jax.Array) -> jax.Array:
        stream = keystream(streams[order[i]], nonce, total.shape[0])
        return total - coefficient[order[i]].astype(jnp.uint32) * stream

    total = lax.fori_loop(0, needed, take_off, total) & _modulus(m)
    num_dropped = jnp.sum(present & ~alive, dtype=jnp.int32)
    return jnp.where(rejected, 0, total), Delivery(num_dropped, rejected)


def left_in_sum(
    m: Masking, alive: jax.Array, roster: Roster
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Keys of the masks that are left in the sum of what arrived, recovered from shares.

    Returns:
      uint32 `[streams, 8]` keys; int32 `[streams]`, how often each is in the sum; bool `[capacity]`,
      whether enough neighbours survived to recover a place's key.
    """
    present = roster.members != ABSENT
    capacity = present.shape[0]
    own = keys.client_keys(roster.members, roster)
    ring = partial(neighbours_of, count=roster.count, num_neighbours=m.neighbours)
    neighbours = jax.vmap(ring)(jnp.arange(capacity, dtype=jnp.int32))
    reachable = alive[neighbours.place] & (neighbours.sign != 0)
    # Clients share both; the server asks for one of the two, so only that one is computed.
    asked_for = jnp.where(alive[:, None], own.self_seed, own.secret)
    recovered = _recover(m, _shares(m, asked_for, roster), reachable)

    def for_pairs(x: jax.Array) -> jax.Array:
        return jnp.repeat(x, m.neighbours, axis=0)

    place = neighbours.place.reshape(capacity * m.neighbours)
    client_id, partner_id = for_pairs(roster.members), roster.members[place]
    # Of the keys, the server uses what is published; the rest it derives from what it recovered.
    public = keys.pair_keys(
        client_id, for_pairs(own.secret), partner_id, own.secret[place], roster
    ).public
    of_pairs = keys.recovered_pair_keys(client_id, for_pairs(recovered), partner_id, public, roster)
    in_self = alive.astype(jnp.int32)
    # What a survivor added for a pair has the opposite sign of what is missing.
    missing = present & ~alive
    in_pairs = jnp.where(missing[:, None], -neighbours.sign * reachable, 0)
    streams = jnp.concatenate([recovered, of_pairs])
    coefficient = jnp.concatenate([in_self, in_pairs.reshape(place.shape)])
    enough = jnp.sum(reachable, axis=1) >= m.threshold
    return streams, coefficient, enough


def _shares(m: Masking, secret: jax.Array, roster: Roster) -> jax.Array:
    """Of each client's secret one share for every neighbour, uint32 `[neighbours, clients, 32]`."""
    # Modulo 65521 a word is uniform up to 2**-16 of the probability of an element.
    coefficients = keys.share_coefficients(secret, m.threshold - 1, roster) % shamir.PRIME
    points = np.arange(1, m.neighbours + 1, dtype=np.uint32)
    return shamir.share(shamir.to_bytes(secret), coefficients, jnp.asarray(points))


def _recover(m: Masking, shares: jax.Array, reachable: jax.Array) -> jax.Array:
    """Each client's secret from the shares of the first `threshold` neighbours within reach."""
    first = jnp.argsort(~reachable, axis=1, stable=True)[:, : m.threshold]
    points = (first + 1).astype(jnp.uint32)
    given = jnp.take_along_axis(jnp.moveaxis(shares, 0, 1), first[:, :, None], axis=1)
    return shamir.from_bytes(shamir.recover(points, given))


def _modulus(m: Masking) -> jax.Array:
    return jnp.uint32(2**m.words.bits - 1)
