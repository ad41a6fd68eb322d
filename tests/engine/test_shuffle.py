"""Orders are permutations, as good as uniform, and different for every client and epoch."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fedjax_med.engine import shuffle
from fedjax_med.engine.minibatch import client_keys, minibatch_positions

ALPHA = 1e-3  # the salts are fixed, so a test that passes once always does


def orders(size, salts, padded=None):
    """`[salts, size]`, one order per salt."""
    place = jnp.arange(padded or size, dtype=jnp.int32)

    @jax.jit
    def all_orders(salts):
        order = lambda salt: shuffle.epoch_order(place, jnp.int32(size), salt)
        return jax.lax.map(order, salts, batch_size=4096)

    return np.asarray(all_orders(jnp.asarray(salts, jnp.uint32)))


def spread_salts(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2**32, count, dtype=np.uint32)


def test_every_size_gives_a_permutation():
    place = jnp.arange(300, dtype=jnp.int32)
    sizes = jnp.arange(1, 301, dtype=jnp.int32)
    order = jax.jit(jax.vmap(shuffle.epoch_order, (None, 0, None)))
    for salt in (0, 1, 2**32 - 1):
        got = np.asarray(order(place, sizes, jnp.uint32(salt)))
        for size in range(1, 301):
            assert sorted(got[size - 1, :size]) == list(range(size))
            assert (got[size - 1, size:] == 0).all()  # places beyond the end


@pytest.mark.parametrize("size", [2**20 + 1, 2**24 - 1])
def test_large_sizes_give_permutations_too(size):
    place = jnp.arange(size, dtype=jnp.int32)
    got = np.asarray(jax.jit(shuffle.epoch_order)(place, jnp.int32(size), jnp.uint32(7)))
    assert (np.bincount(got, minlength=size) == 1).all()
    # Not the identity with a few swaps: neighbours end up far apart.
    assert np.abs(np.diff(got.astype(np.int64))).mean() > size / 10


def order_p_value(size, count=200_000, seed=0):
    """Whether all `size!` orders are equally likely."""
    got = orders(size, spread_salts(count, seed))
    code = got @ size ** np.arange(size)
    possible = [np.array(p) @ size ** np.arange(size) for p in itertools.permutations(range(size))]
    observed = np.array([np.count_nonzero(code == p) for p in possible])
    assert observed.sum() == count
    return stats.chisquare(observed).pvalue


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_all_orders_of_few_examples_are_equally_likely(size):
    assert math.factorial(size) * 1000 < 200_000
    assert order_p_value(size) > ALPHA


@pytest.mark.parametrize("size", [3, 4, 5])
def test_fewer_rounds_would_not_pass(size, monkeypatch):
    monkeypatch.setattr(shuffle, "NUM_ROUNDS", 2)
    monkeypatch.setattr(shuffle, "UNROLL", 1)
    assert order_p_value(size, count=20_000) < 1e-6


@pytest.mark.parametrize("size", [7, 16, 50])
def test_every_example_is_equally_likely_at_every_place(size):
    got = orders(size, spread_salts(40_000))
    for place in (0, 1, size // 2, size - 1):
        assert stats.chisquare(np.bincount(got[:, place], minlength=size)).pvalue > ALPHA


@pytest.mark.parametrize("size", [7, 16])
def test_every_pair_is_equally_likely_at_neighbouring_places(size):
    got = orders(size, spread_salts(100_000))
    for place in (0, size - 2):
        pairs = got[:, place] * size + got[:, place + 1]
        counts = np.bincount(pairs, minlength=size * size).reshape(size, size)
        assert (np.diag(counts) == 0).all()
        different = counts[~np.eye(size, dtype=bool)]
        assert stats.chisquare(different).pvalue > ALPHA


def test_the_order_does_not_depend_on_padding():
    salts = spread_salts(50)
    np.testing.assert_array_equal(orders(9, salts), orders(9, salts, padded=16)[:, :9])


def salts_of(seeds, client_ids):
    """The roots of shuffling, `[seeds, clients]`."""
    return np.stack(
        [client_keys(jnp.uint32(s), jnp.int32(0), jnp.asarray(client_ids)).shuffle for s in seeds]
    )


def test_clients_seeds_and_epochs_have_orders_of_their_own():
    client_ids = np.arange(200, dtype=np.int32)
    salts = salts_of(range(5), client_ids)
    assert len(np.unique(salts)) == salts.size

    @jax.jit
    @jax.vmap
    def first_batches(salt):
        def of_epoch(epoch):
            return minibatch_positions(
                epoch, jnp.int32(0), jnp.int32(30), salt, batch_size=30, shuffle=True
            )[0]

        return jax.vmap(of_epoch)(jnp.arange(4, dtype=jnp.int32))

    got = np.asarray(first_batches(jnp.asarray(salts.ravel()))).reshape(-1, 30)
    assert len(np.unique(got, axis=0)) == len(got) == 5 * 200 * 4


def test_orders_of_neighbouring_clients_and_epochs_are_unrelated():
    """The first example of a client of 5 in one epoch says nothing about its next epoch or
    about the next client."""
    salts = jnp.asarray(salts_of([3], np.arange(40_000, dtype=np.int32))[0])

    @jax.jit
    def first(epoch):
        one = lambda salt: minibatch_positions(
            jnp.int32(epoch), jnp.int32(0), jnp.int32(5), salt, batch_size=2, shuffle=True
        )[0][0]
        return jax.vmap(one)(salts)

    epoch0, epoch1 = np.asarray(first(0)), np.asarray(first(1))
    for a, b in ((epoch0, epoch1), (epoch0[:-1], epoch0[1:])):
        table = np.zeros((5, 5))
        np.add.at(table, (a, b), 1)
        assert stats.chisquare(table.ravel()).pvalue > ALPHA


@pytest.mark.parametrize("do_shuffle", [True, False])
@pytest.mark.parametrize("size", [1, 3, 4, 5, 8, 11])
def test_split_minibatches_are_parts_of_the_whole(size, do_shuffle):
    def positions(step, **split):
        return minibatch_positions(
            jnp.int32(2),
            jnp.int32(step),
            jnp.int32(size),
            jnp.uint32(5),
            batch_size=4,
            shuffle=do_shuffle,
            **split,
        )

    seen = []
    for step in range(-(-size // 4)):
        whole, mask, count = positions(step)
        parts = [positions(step, split_index=i, num_splits=2) for i in range(2)]
        np.testing.assert_array_equal(whole, np.concatenate([p[0] for p in parts]))
        np.testing.assert_array_equal(mask, np.concatenate([p[1] for p in parts]))
        assert count == parts[0][2] == parts[1][2] == mask.sum()
        seen += np.asarray(whole)[np.asarray(mask)].tolist()
    assert sorted(seen) == list(range(size))
    if not do_shuffle:
        assert seen == list(range(size))
