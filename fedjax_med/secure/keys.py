"""Keys of the simulated protocol: every one a ChaCha20 block of (seed, round, pass, client).

In a real protocol clients draw their secrets by themselves and agree on keys over a network
(`protocol.py`). Here all secrets come from the seed of the run, so that it can be repeated, and the
whole of the protocol runs in one process: the arithmetic is that of the protocol, the trust is not.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

from fedjax_med.engine.channel import Roster
from fedjax_med_kernels.masks import keystream

KEY_WORDS = 8

# What a block is for; part of its nonce, so that no block serves twice.
_CLIENT, _PAIR, _SHARES, _STREAM = range(1, 5)


class ClientKeys(NamedTuple):
    """What clients keep to themselves; both uint32 `[clients, 8]`.

    Attributes:
      self_seed: key of the mask that hides a client when the masks of its pairs are revealed.
      secret: what the keys of its pairs follow from.
    """

    self_seed: jax.Array
    secret: jax.Array


class PairKeys(NamedTuple):
    """What there is for a pair of clients; both uint32 `[pairs, 8]`.

    Attributes:
      key: of the mask that one of them adds and the other subtracts.
      public: `key` under a pad that the client with the higher id derives from its secret, and for
        which both secrets are needed. Published, it lets either secret by itself give the key,
        and whoever has neither learns nothing. It stands in for a key agreement, where the
        secret of one and the public key of the other do that.
    """

    key: jax.Array
    public: jax.Array


def client_keys(client_id: jax.Array, roster: Roster) -> ClientKeys:
    """The keys of clients `[clients]` in one pass of a round."""
    root = _root(roster.seed)
    block = jax.vmap(lambda i: keystream(root, _nonce(roster, _CLIENT, i), 2 * KEY_WORDS))
    words = block(client_id)
    return ClientKeys(words[:, :KEY_WORDS], words[:, KEY_WORDS:])


def pair_keys(
    client_id: jax.Array,
    secret: jax.Array,
    partner_id: jax.Array,
    partner_secret: jax.Array,
    roster: Roster,
) -> PairKeys:
    """The keys of pairs; `[pairs]` ids and `[pairs, 8]` secrets of both, in either order."""
    first = client_id < partner_id
    low = jnp.where(first[:, None], secret, partner_secret)
    high = jnp.where(first[:, None], partner_secret, secret)
    low_id, high_id = jnp.minimum(client_id, partner_id), jnp.maximum(client_id, partner_id)
    # One call for both halves: every call is a loop of its own to compile.
    halves = _halves(jnp.stack([low, high]), jnp.stack([high_id, low_id]), roster)
    return PairKeys(halves[0], halves[0] ^ halves[1])


def recovered_pair_keys(
    client_id: jax.Array,
    secret: jax.Array,
    partner_id: jax.Array,
    public: jax.Array,
    roster: Roster,
) -> UInt32[Array, "pairs words"]:
    """The keys of pairs from the secret of one of the two and what is published about them."""
    half = _halves(secret[None], partner_id[None], roster)[0]
    return jnp.where((client_id < partner_id)[:, None], half, half ^ public)


def share_coefficients(
    secret: jax.Array, num: int, roster: Roster
) -> UInt32[Array, "num clients bytes"]:
    """Random words for the polynomials of secrets `[clients, 8]`: 32 for each of `num` powers."""
    nonce = _nonce(roster, _SHARES, jnp.uint32(0))
    words = jax.vmap(lambda s: keystream(s, nonce, num * 32))(secret)
    return jnp.moveaxis(words.reshape(secret.shape[0], num, 32), 1, 0)


def stream_nonce(roster: Roster) -> UInt32[Array, " 3"]:
    """Nonce of all mask streams of one pass of a round; their keys tell them apart."""
    return _nonce(roster, _STREAM, jnp.uint32(0))


def _halves(secret: jax.Array, other_id: jax.Array, roster: Roster) -> jax.Array:
    """What clients derive from their own secrets `[n, pairs, 8]` about pairs that they are in."""
    derive = lambda key, i: keystream(key, _nonce(roster, _PAIR, i), KEY_WORDS)
    return jax.vmap(jax.vmap(derive))(secret, other_id)


def _root(seed: jax.Array) -> UInt32[Array, " 8"]:
    # The remaining words are a label: the seed of a run has 32 bits.
    label = b"fedjax_med secure sums".ljust(28, b"\0")
    words = [int.from_bytes(label[i : i + 4], "little") for i in range(0, 28, 4)]
    return jnp.concatenate([jnp.asarray(seed, jnp.uint32)[None], jnp.asarray(words, jnp.uint32)])


def _nonce(roster: Roster, purpose: int, client_id: jax.Array) -> UInt32[Array, " 3"]:
    domain = jnp.uint32(purpose + 8 * roster.passes)
    return jnp.stack(
        [roster.round_index.astype(jnp.uint32), jnp.asarray(client_id).astype(jnp.uint32), domain]
    )
