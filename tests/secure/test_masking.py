"""Masked sums are the integer sums, bit for bit; single masked messages say nothing."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedjax_med import aggregation
from fedjax_med.engine.channel import ABSENT, seal_one
from fedjax_med.secure import fixed_point_mean, keys, masked, masking
from tests.draws import draws
from tests.secure.protocol_cases import (
    CAPACITY,
    WORDS,
    channel_of,
    integer_sum,
    play_round,
    roster_of,
)

# Neighbours and threshold: a ring of two, of four, and a complete graph.
GRAPHS = {"two": (2, 2), "four": (4, 3), "all": (8, 5)}


@lru_cache
def compiled_round(graph):
    neighbours, threshold = GRAPHS[graph]

    def whole_round(messages, roster, alive):
        return play_round(messages, roster, alive, neighbours=neighbours, threshold=threshold)

    return jax.jit(whole_round)


def recoverable(ids, alive, neighbours, threshold):
    """By plain Python: has everybody enough surviving neighbours?"""
    n = len(ids)
    for place in range(n):
        near = {(place + o) % n for o in range(-neighbours // 2, neighbours // 2 + 1)} - {place}
        if sum(alive[j] for j in near) < threshold:
            return False
    return sum(alive[:n]) >= 2


@pytest.mark.parametrize(
    "graph", ["four", *(pytest.param(g, marks=pytest.mark.slow) for g in ("two", "all"))]
)
@draws(quick=30, thorough=300)
@given(data=st.data())
def test_the_sum_is_that_of_the_integers_for_any_cohort_and_any_drop_outs(graph, data):
    ids = data.draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=CAPACITY, unique=True))
    alive = np.array(data.draw(st.lists(st.booleans(), min_size=CAPACITY, max_size=CAPACITY)))
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    messages = rng.integers(0, 2**32, (CAPACITY, WORDS), dtype=np.uint32)
    roster = roster_of(ids, seed=seed)
    _, opened, delivery = compiled_round(graph)(messages, roster, alive)
    kept = messages[: len(ids)][alive[: len(ids)]]
    want = kept.sum(axis=0, dtype=np.uint32)
    possible = recoverable(ids, alive, *GRAPHS[graph])
    assert bool(delivery.rejected) != possible
    assert int(delivery.num_dropped) == len(ids) - len(kept)
    np.testing.assert_array_equal(opened, want if possible else np.zeros_like(want))


@pytest.mark.parametrize("bits", [20])
def test_sums_modulo_a_power_of_two(bits):
    rng = np.random.default_rng(bits)
    messages = rng.integers(0, 2**bits, (CAPACITY, WORDS), dtype=np.uint32)
    options = {"neighbours": 4, "threshold": 3, "bits": bits}
    play = jax.jit(lambda m, r, a: play_round(m, r, a, **options))
    alive = np.arange(CAPACITY) != 2
    sealed, opened, _ = play(messages, roster_of(range(CAPACITY)), alive)
    assert int(sealed.max()) < 2**bits
    np.testing.assert_array_equal(
        opened, messages[alive].sum(axis=0, dtype=np.uint64) % np.uint64(2**bits)
    )


def looks_uniform(words):
    """The least of three p-values: of bytes, of the 32 bit positions, and of a message in them."""
    words = np.asarray(words, np.uint32)
    counts = np.bincount(words.view(np.uint8), minlength=256)
    of_bytes = stats.chisquare(counts).pvalue
    bits = (words[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    z = (bits.sum(axis=0) - len(words) / 2) / np.sqrt(len(words) / 4)
    of_bits = stats.chi2.sf((z**2).sum(), 32)
    pairs = stats.pearsonr(words[:-1].astype(np.float64), words[1:].astype(np.float64)).pvalue
    return min(of_bytes, of_bits, pairs)


@lru_cache
def one_sealed_update():
    """A fixed-point update of 2**15 numbers, plain and as its client hands it in."""
    numbers = fixed_point_mean(CAPACITY, bound=1.0)
    update = np.random.default_rng(0).normal(0, 0.05, 2**15)
    update = jnp.asarray(update, jnp.float32)
    plain = numbers.encode(update, jnp.float32(1), numbers.init(update), jax.random.key(0))
    roster = roster_of(range(CAPACITY))
    seal = jax.jit(lambda m, i: seal_one(channel_of(neighbours=4, threshold=3), m, i, roster))
    return np.asarray(plain[0]), np.asarray(seal(plain[0], jnp.int32(4))), seal


def test_a_masked_update_looks_uniform_and_the_plain_one_does_not():
    plain, sealed, _ = one_sealed_update()
    # Fixed seeds: these numbers do not change; an honest mask falls below 1e-3 once in 300.
    assert looks_uniform(sealed) > 1e-3
    assert looks_uniform(plain) < 1e-100
    correlation = np.corrcoef(sealed.astype(np.float64), plain.view(np.int32))[0, 1]
    assert abs(correlation) < 4 / np.sqrt(len(plain))  # four standard errors


def test_another_message_changes_what_is_handed_in_by_exactly_the_difference():
    plain, sealed, seal = one_sealed_update()
    other = np.roll(plain, 1)
    np.testing.assert_array_equal(np.asarray(seal(other, jnp.int32(4))) - sealed, other - plain)


def test_without_masks_the_test_of_uniformity_fails(monkeypatch):
    monkeypatch.setattr(
        masking, "sum_of_masks", lambda k, c, n, words: jnp.zeros(words, jnp.uint32)
    )
    plain, *_ = one_sealed_update()
    roster = roster_of(range(CAPACITY))
    seal = jax.jit(lambda m, i: seal_one(channel_of(neighbours=4, threshold=3), m, i, roster))
    assert looks_uniform(seal(plain, jnp.int32(4))) < 1e-100


@pytest.mark.parametrize("reuse", [False, True])
def test_no_key_and_nonce_serve_twice(monkeypatch, reuse):
    """Over clients, rounds and passes; and the count notices a nonce that is used again."""
    seen = []

    def record(stream_keys, coefficient, nonce, words):
        seen.append((stream_keys, coefficient, nonce))
        return jnp.zeros(words, jnp.uint32)

    monkeypatch.setattr(masking, "sum_of_masks", record)
    if reuse:
        same = lambda roster, purpose, client: jnp.stack(
            [jnp.uint32(0), jnp.asarray(client).astype(jnp.uint32), jnp.uint32(purpose)]
        )
        monkeypatch.setattr(keys, "_nonce", same)
    channel = channel_of(neighbours=2, threshold=2)

    @jax.jit
    def streams(round_index):
        for passes in range(2):
            roster = roster_of([0, 1, 5])._replace(round_index=round_index, passes=passes)
            for place in range(3):
                channel.seal(jnp.zeros(4, jnp.uint32), jnp.int32(place), roster)
        recorded = list(seen)
        seen.clear()
        return recorded

    used = [
        (key.tobytes(), np.asarray(nonce).tobytes())
        for round_index in (0, 1)
        for each, coefficient, nonce in streams(round_index)
        for key, c in zip(np.asarray(each), np.asarray(coefficient), strict=True)
        if c
    ]
    # Three masks of their own and three pairs, each of which two clients compute, in four passes.
    assert len(used) == 4 * (3 + 2 * 3)
    assert (len(set(used)) == 4 * (3 + 3)) != reuse


@pytest.mark.slow
def test_padding_places_and_their_number_change_nothing():
    messages = np.random.default_rng(1).integers(0, 2**32, (CAPACITY, WORDS), dtype=np.uint32)
    alive = np.array([True] * 3 + [False] + [True] * 5)
    ids = [2, 30, 31, 77, 100]
    sealed, opened, _ = compiled_round("four")(messages, roster_of(ids), alive)
    options = {"neighbours": 4, "threshold": 3}
    small = jax.jit(lambda m, r, a: play_round(m, r, a, **options))
    want, total, _ = small(messages[:5], roster_of(ids, capacity=5), alive[:5])
    np.testing.assert_array_equal(sealed[:5], want)
    np.testing.assert_array_equal(opened, total)


def test_the_rate_of_drop_outs_is_the_one_asked_for():
    capacity, rate = 5000, 0.3
    m = masking.Masking(capacity, 2, 2, 2, rate, masking.Words(32, None))
    roster = roster_of(range(capacity - 1), capacity=capacity)
    alive = np.asarray(masking.survivors(m, roster))
    assert not alive[-1] and roster.members[-1] == ABSENT
    # Four standard errors of a proportion.
    assert abs(alive[:-1].mean() - 0.7) < 4 * np.sqrt(0.3 * 0.7 / capacity)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"neighbours": 3}, "neighbours must be even and at least 2, got 3"),
        ({"num_clients": 1}, "at least 2 clients, got 1"),
        ({"threshold": 2}, "threshold must be 3 to 4, .* got 2"),
        ({"threshold": 5}, "threshold must be 3 to 4, .* got 5"),
        ({"min_survivors": 1}, "min_survivors must be 2 to 9"),
        ({"dropout": 0.5}, "dropout=0.5 is beyond recovery: on average it leaves 2 of 4"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1, got 1.0"),
        ({"bits": 33}, "bits must be 1 to 32, got 33"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        masked(integer_sum(9), **{"num_clients": 9, "neighbours": 4, **options})


def test_only_sums_are_masked_and_only_once():
    with pytest.raises(ValueError, match="reduction 'sum'"):
        masked(aggregation.coordinate_median(), num_clients=4, neighbours=2)
    once = masked(integer_sum(4), num_clients=4, neighbours=2)
    with pytest.raises(ValueError, match="a channel already"):
        masked(once, num_clients=4, neighbours=2)


def test_floating_numbers_need_a_bound():
    channel = channel_of(neighbours=4)
    roster = roster_of(range(4))
    with pytest.raises(ValueError, match=r"message\['loss'\] is float32.*extras_bound"):
        channel.seal({"loss": jnp.ones(2)}, jnp.int32(0), roster)
    channel = channel_of(neighbours=4, threshold=3, extras_bound=8.0)
    messages = {"loss": jnp.arange(4.0)[:, None] - 1.25, "n": jnp.arange(-2, 2)}

    @jax.jit
    def play(messages):
        places = jnp.arange(4)
        sealed = jax.vmap(lambda m, p: channel.seal(m, p, roster))(messages, places)
        like = jax.tree.map(lambda x: x[0], messages)
        return channel.open(jnp.sum(sealed, axis=0, dtype=jnp.uint32), like, roster)[0]

    got = play(messages)
    assert got["loss"] == 1.0 and got["n"] == -2  # multiples of a quarter are exact
