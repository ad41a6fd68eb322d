"""Distributed differential privacy: noise in shares, so that no single party has to be trusted with it.

What each client does to its update: clip its norm, rotate it at random so that all coordinates are
about equally large, round it to whole numbers without losing the bound on the norm, add its share of
whole-numbered noise, and reduce modulo `2**bits`. Under masks the server sees the sum alone, whose noise
is that of all shares.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int32

from fedjax_med.engine.contracts import Aggregator, PyTree
from fedjax_med.secure.discrete_noise import discrete_gaussian, draw, skellam
from fedjax_med.secure.distributed_dp_accounting import DistributedDP
from fedjax_med.secure.masking import Dropout, masked
from fedjax_med_kernels.quantization import stochastic_round
from fedjax_med_kernels.walsh_hadamard import padded_size, walsh_hadamard

_MAX_TRIES = 64  # each fails with probability at most beta; all of them below 1e-13 for e**-0.5
_ROTATION = 0x726F7461  # the rotation is public, and no secret of any client


class DistributedDPState(NamedTuple):
    """State of `distributed_dp_mean`.

    Attributes:
      number: int32 `[]`, sums decoded so far; each has a rotation of its own.
      num_clients: int32 `[]`, clients whose update is in the last sum.
      like: zeros in the structure, shapes and dtypes of the update.
    """

    number: jax.Array
    num_clients: jax.Array
    like: PyTree


def conditional_round(
    key: jax.Array, x: Float[Array, " dim"], norm_bound: float
) -> Int32[Array, " dim"]:
    """Stochastic rounding to whole numbers, repeated until the L2 norm is at most `norm_bound`.

    After 64 tries numbers are rounded towards 0, which keeps any bound that `x` keeps. A little bias is
    the price of the bound (Kairouz et al., ICML 2021, section 4.3).
    """
    # A margin for the rounding of a float32 sum of squares, so that the bound holds exactly.
    largest = jnp.float32((norm_bound * (1 - 1e-5)) ** 2)

    def too_long(q: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(q.astype(jnp.float32))) > largest

    def goes_on(loop: tuple[jax.Array, jax.Array]) -> jax.Array:
        tries, q = loop
        return too_long(q) & (tries < _MAX_TRIES)

    def again(loop: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        tries, _ = loop
        return tries + 1, stochastic_round(jax.random.fold_in(key, tries), x)

    first = stochastic_round(jax.random.fold_in(key, _MAX_TRIES), x)
    _, q = lax.while_loop(goes_on, again, (jnp.int32(0), first))
    return jnp.where(too_long(q), jnp.trunc(x).astype(jnp.int32), q)


def rotate(x: Float[Array, " dim"], number: jax.Array) -> Float[Array, " padded"]:
    """Random signs, then the orthonormal Walsh-Hadamard transform; the same for all clients."""
    padded = padded_size(x.shape[0])
    return walsh_hadamard(
        jnp.pad(x, (0, padded - x.shape[0])) * _signs(number, padded), orthonormal=True
    )


def rotate_back(y: Float[Array, " padded"], number: jax.Array, dim: int) -> Float[Array, " dim"]:
    """The inverse of `rotate`."""
    return (walsh_hadamard(y, orthonormal=True) * _signs(number, y.shape[0]))[:dim]


def distributed_dp_mean(plan: DistributedDP) -> Aggregator:
    """The mean of the clients' clipped updates with differential privacy from noise in shares.

    All clients count alike; weights of 0 leave a client's update out, but not its noise, without which
    the sum would have less than is accounted for. Shapes and dtypes of updates are kept. Without masks
    the server could look at single clients, each with its small share of the noise only: see
    `secure_distributed_dp_mean`. A draw's distribution is exact to 1e-13; that and the wrapping of
    sums at `wrap_probability` affect what the server gets, and delta by less than `dim * 1e-13` a round.

    Raises:
      ValueError: at `init`, if an update has more numbers than `plan.dim`, or half or fewer.

    References:
      See `distributed_dp_accounting`.
    """
    stddev = plan.scaled_stddev
    table = skellam(stddev**2) if plan.noise == "skellam" else discrete_gaussian(stddev)
    modulus = 2**plan.bits

    def init(update: PyTree) -> DistributedDPState:
        dim = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(update))
        if padded_size(dim) != plan.dim:
            raise ValueError(
                f"dim must be {padded_size(dim)} for an update of {dim} numbers, got {plan.dim}."
            )
        zero = jnp.int32(0)
        like = jax.tree.map(lambda u: jnp.zeros(u.shape, u.dtype), update)
        return DistributedDPState(zero, zero, like)

    def encode(
        update: PyTree, weight: jax.Array, state: DistributedDPState, key: jax.Array
    ) -> PyTree:
        x = ravel_pytree(jax.tree.map(lambda u: u.astype(jnp.float32), update))[0]
        takes_part = weight > 0
        norm = jnp.sqrt(jnp.sum(jnp.square(x)))
        # Of norm 0 nothing is clipped; one that overflows becomes 0.
        x = x * jnp.where(norm > plan.clip, plan.clip / norm, takes_part)
        round_key, noise_key = jax.random.split(key)
        scaled = rotate(x, state.number) * jnp.float32(plan.scale)
        whole = conditional_round(round_key, scaled, plan.norm_bound)
        total = whole * takes_part + draw(noise_key, table, scaled.shape)
        words = lax.bitcast_convert_type(total, jnp.uint32) & jnp.uint32(modulus - 1)
        return words, takes_part.astype(jnp.uint32)

    def decode(reduced: PyTree, state: DistributedDPState) -> tuple[PyTree, DistributedDPState]:
        words, count = reduced
        half = jnp.uint32(modulus // 2)
        shifted = (words + half) & jnp.uint32(modulus - 1)
        centred = shifted.astype(jnp.int32) - modulus // 2
        vector, unravel = ravel_pytree(
            jax.tree.map(lambda u: jnp.zeros(u.shape, jnp.float32), state.like)
        )
        mean = centred.astype(jnp.float32) * jnp.float32(1 / plan.scale)
        mean = rotate_back(mean, state.number, vector.shape[0]) / jnp.maximum(count, 1)
        aggregate = jax.tree.map(
            lambda m, u: jnp.where(count > 0, m, 0).astype(u.dtype), unravel(mean), state.like
        )
        return aggregate, DistributedDPState(state.number + 1, count.astype(jnp.int32), state.like)

    return Aggregator(init, encode, decode, "sum")


def secure_distributed_dp_mean(
    plan: DistributedDP,
    *,
    neighbours: int = 10,
    threshold: int | None = None,
    dropout: Dropout = 0.0,
) -> Aggregator:
    """`distributed_dp_mean` through masks; rounds of fewer than `plan.min_survivors` are rejected.

    Raises:
      ValueError: see `masked`.
    """
    return masked(
        distributed_dp_mean(plan),
        num_clients=plan.num_clients,
        neighbours=neighbours,
        threshold=threshold,
        min_survivors=max(2, plan.survivors),
        dropout=dropout,
        bits=plan.bits,
    )


def _signs(number: jax.Array, dim: int) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(_ROTATION), number)
    return jax.random.rademacher(key, (dim,), jnp.float32)
