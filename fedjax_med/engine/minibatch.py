"""Client data on one device, and which rows of it a local step reads."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import Array, PyTree
from fedjax_med.engine.local_work import LocalWork, PoissonSteps
from fedjax_med.engine.shuffle import epoch_order, hash32

_SHUFFLE = 0x5AFE5EED  # keeps the salts of shuffling apart from other uses of the seed
_SAMPLE = 0x736D706C  # keeps Poisson samples apart from other uses of a local step's key


class DeviceData(NamedTuple):
    """The clients of one device: flat examples and a table with a row per client (CSR).

    Attributes:
      examples: pytree of arrays `[rows, ...]`, all clients' examples back to back.
      offset: int32 `[clients]`, the client's first row.
      size: int32 `[clients]`, its examples.
      state_row: int32 `[clients]`, its row in the persistent states of this device.
    """

    examples: PyTree
    offset: Array
    size: Array
    state_row: Array


class ClientKeys(NamedTuple):
    """Roots of a client's randomness in one round, for every slot of a cohort."""

    step: jax.Array  # PRNG keys [slots], of (seed, round, client)
    shuffle: jax.Array  # uint32 [slots], of (seed, client): an epoch may span rounds


def client_keys(seed: jax.Array, round_index: jax.Array, client_id: jax.Array) -> ClientKeys:
    """Keys of the clients `client_id` `[slots]` in one round.

    They depend on (seed, round, client id) only, so the order of the cohort, the lanes, the
    devices and the padding change nobody's randomness.
    """
    round_key = jax.random.fold_in(jax.random.key(seed), round_index)
    step = jax.vmap(jax.random.fold_in, (None, 0))(round_key, client_id)
    # An integer hash is enough here, and a bijection: no two clients share a salt.
    salt = hash32(client_id.astype(jnp.uint32) ^ hash32(seed.astype(jnp.uint32) + _SHUFFLE))
    return ClientKeys(step, salt)


def minibatch_positions(
    epoch: jax.Array,
    step_in_epoch: jax.Array,
    size: jax.Array,
    salt: jax.Array,
    *,
    batch_size: int,
    shuffle: bool,
    split_index: jax.Array | int = 0,
    num_splits: int = 1,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Which of a client's examples a local step uses.

    Args:
      epoch: int32 `[]`, epochs the client finished before.
      step_in_epoch: int32 `[]`, minibatches already used of this epoch.
      size: int32 `[]`, examples of the client.
      salt: uint32 `[]`, the client's `ClientKeys.shuffle`.
      batch_size: examples of the whole minibatch.
      shuffle: whether the epoch's order is shuffled.
      split_index: which part of the minibatch to return.
      num_splits: parts the minibatch is split into; divides `batch_size`.

    Returns:
      int32 `[batch_size / num_splits]` positions within the client, 0 on padding; bool mask of
      the same shape; int32 `[]` real examples of the whole minibatch.
    """
    part = batch_size // num_splits
    start = step_in_epoch * batch_size
    place = start + split_index * part + jnp.arange(part, dtype=jnp.int32)
    mask = place < size
    count = jnp.clip(size - start, 0, batch_size)
    if shuffle:
        epoch_salt = hash32(salt + epoch.astype(jnp.uint32) * jnp.uint32(0x85EBCA6B))
        return epoch_order(place, size, epoch_salt), mask, count
    return jnp.where(mask, place, 0), mask, count


def _binomial(key: jax.Array, number: jax.Array, rate: jax.Array, largest: int) -> jax.Array:
    """min(Binomial(number, rate), largest), int32 `[]`, by inverting the distribution function.

    Probabilities are products of exact ratios from 0 successes on, in logarithms that stay within
    rounding of float32 for the small samples that minibatches are.
    """
    n = number.astype(jnp.float32)
    rate = jnp.minimum(rate, 1).astype(jnp.float32)
    odds = jnp.log(rate) - jnp.log1p(-rate)
    k = jnp.arange(largest, dtype=jnp.float32)
    steps = jnp.log(jnp.maximum(n - k, 0)) - jnp.log(k + 1) + odds
    logs = n * jnp.log1p(-rate) + jnp.concatenate([jnp.zeros(1, n.dtype), jnp.cumsum(steps)])
    below = jnp.cumsum(jnp.exp(logs))[:largest]
    count = jnp.sum(jax.random.uniform(key) >= below, dtype=jnp.int32)
    return jnp.where(rate < 1, jnp.minimum(count, number), jnp.minimum(number, largest))


def poisson_positions(
    key: jax.Array,
    size: jax.Array,
    work: PoissonSteps,
    *,
    split_index: jax.Array | int = 0,
    num_splits: int = 1,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Which of a client's examples a Poisson-sampled step uses; see `minibatch_positions`.

    A binomial number of them, the first places of a pseudo-random permutation of the step's own.

    Args:
      key: PRNG key of the local step.
      size: int32 `[]`, examples of the client.
      work: the sampling.
      split_index: which part of the minibatch to return.
      num_splits: parts the minibatch is split into.
    """
    count_key, order_key = jax.random.split(jax.random.fold_in(key, _SAMPLE))
    rate = jnp.float32(work.expected) / size.astype(jnp.float32)
    count = _binomial(count_key, size, rate, work.batch_size)
    part = work.batch_size // num_splits
    place = split_index * part + jnp.arange(part, dtype=jnp.int32)
    mask = place < count
    order = epoch_order(place, size, jax.random.bits(order_key, (), jnp.uint32))
    return jnp.where(mask, order, 0), mask, count


def step_positions(
    work: LocalWork,
    key: jax.Array,
    first_epoch: jax.Array,
    steps_done: jax.Array,
    size: jax.Array,
    salt: jax.Array,
    *,
    split_index: jax.Array | int = 0,
    num_splits: int = 1,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Which of a client's examples a local step uses under any local work.

    Args:
      work: the local work.
      key: PRNG key of the local step.
      first_epoch: int32 `[]`, epochs the client finished before this round.
      steps_done: int32 `[]`, minibatches used since.
      size: int32 `[]`, examples of the client.
      salt: uint32 `[]`, the client's `ClientKeys.shuffle`.
      split_index: which part of the minibatch to return.
      num_splits: parts the minibatch is split into.

    Returns:
      Positions, mask and count of `minibatch_positions`.
    """
    if isinstance(work, PoissonSteps):
        return poisson_positions(key, size, work, split_index=split_index, num_splits=num_splits)
    steps_per_epoch = -(-size // work.batch_size)
    return minibatch_positions(
        first_epoch + steps_done // steps_per_epoch,
        steps_done % steps_per_epoch,
        size,
        salt,
        batch_size=work.batch_size,
        shuffle=work.shuffle,
        split_index=split_index,
        num_splits=num_splits,
    )


def take_rows(examples: PyTree, rows: jax.Array) -> PyTree:
    """Rows of every array; `rows` must be in bounds (no clamping code is generated)."""
    return jax.tree.map(lambda x: x.at[rows].get(mode="promise_in_bounds"), examples)


def reduce_over(axis: str | None, reduce, tree: PyTree) -> PyTree:
    """`reduce(tree, axis)`, or the tree itself where there is no such axis."""
    return tree if axis is None else reduce(tree, axis)
