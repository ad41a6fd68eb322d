"""Aggregators by themselves, against NumPy, on the contract the engine uses them by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med.aggregation import (
    chain,
    clip_by_client_norm,
    coordinate_median,
    mean,
    weighted_mean,
)
from fedjax_med.aggregation.chain import ClientTransform
from fedjax_med.engine import Stacked

KEY = jax.random.key(0)
SEEDS = st.integers(0, 2**31 - 1)
CLIENTS = 6


def make_updates(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    updates = {"a": rng.standard_normal((CLIENTS, 2, 3)), "b": rng.standard_normal((CLIENTS,))}
    weight = rng.integers(0, 4, CLIENTS).astype(np.float32)  # some clients are padding
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), updates), jnp.asarray(weight)


def aggregate(aggregator, updates, weight):
    """What an executor does, in one line of vmap; padding clients come as zeros."""
    like = jax.tree.map(lambda x: x[0], updates)
    state = aggregator.init(like)

    def zero_padding(x):
        return jnp.where((weight > 0).reshape((-1,) + (1,) * (x.ndim - 1)), x, 0)

    updates = jax.tree.map(zero_padding, updates)
    messages = jax.vmap(aggregator.encode, (0, 0, None, None))(updates, weight, state, KEY)
    if aggregator.reduction == "sum":
        return aggregator.decode(jax.tree.map(lambda x: x.sum(axis=0), messages), state)
    values = jax.vmap(lambda m: jax.flatten_util.ravel_pytree(m)[0])(messages[0])
    summed = jax.tree.map(lambda x: x.sum(axis=0), messages[1])
    flat, state = aggregator.decode((Stacked(values, weight, lambda t: t), summed), state)
    return jax.flatten_util.ravel_pytree(like)[1](flat), state


def assert_trees_close(got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        # A sum of six float32 numbers of order 1.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def numpy_mean(updates, weight):
    weight = np.asarray(weight)
    total = max(weight.sum(), 1e-30)
    return jax.tree.map(
        lambda u: np.tensordot(weight, np.asarray(u), 1).astype(np.float32) / np.float32(total),
        updates,
    )


@given(SEEDS)
def test_weighted_mean(seed):
    updates, weight = make_updates(seed)
    assert_trees_close(aggregate(weighted_mean(), updates, weight)[0], numpy_mean(updates, weight))


@given(SEEDS)
def test_plain_mean_counts_clients_of_positive_weight(seed):
    updates, weight = make_updates(seed)
    want = numpy_mean(updates, np.float32(np.asarray(weight) > 0))
    assert_trees_close(aggregate(mean(), updates, weight)[0], want)


@given(SEEDS)
def test_median_of_the_clients_that_are_there(seed):
    updates, weight = make_updates(seed)
    there = np.asarray(weight) > 0
    got = aggregate(coordinate_median(), updates, weight)[0]
    for a, u in zip(jax.tree.leaves(got), jax.tree.leaves(updates), strict=True):
        want = np.median(np.asarray(u)[there], axis=0) if there.any() else 0 * np.asarray(a)
        np.testing.assert_allclose(a, want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("make", [weighted_mean, mean, coordinate_median])
@pytest.mark.parametrize("present", [0, 1, 2])
def test_none_one_or_two_clients(make, present):
    updates, _ = make_updates(0)
    weight = jnp.float32([0, 2, 0, 0, 2, 0]) * jnp.float32([0, present > 0, 0, 0, present > 1, 0])
    got = aggregate(make(), updates, weight)[0]
    chosen = [1, 4][:present]
    want = jax.tree.map(
        lambda u: u[jnp.array(chosen)].mean(axis=0) if chosen else 0 * u[0], updates
    )
    assert_trees_close(got, want)


def test_a_few_outliers_move_the_mean_but_not_the_median():
    updates, _ = make_updates(1)
    weight = jnp.ones(CLIENTS)
    spoiled = jax.tree.map(lambda u: u.at[0].set(1e6), updates)
    assert aggregate(weighted_mean(), spoiled, weight)[0]["b"] > 1e5
    median = aggregate(coordinate_median(), spoiled, weight)[0]["b"]
    assert abs(float(median)) <= float(jnp.abs(updates["b"][1:]).max())


@pytest.mark.parametrize("make", [weighted_mean, mean, coordinate_median])
def test_dtypes_are_kept(make):
    updates, weight = make_updates(2, jnp.bfloat16)
    got = aggregate(make(), updates, weight)[0]
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(got))


def norms(updates):
    return np.sqrt(
        sum(np.square(np.asarray(u)).reshape(CLIENTS, -1).sum(1) for u in updates.values())
    )


@given(SEEDS, st.floats(0.1, 10))
def test_clipping_scales_to_the_norm_over_all_leaves(seed, max_norm):
    updates, weight = make_updates(seed)
    transform = clip_by_client_norm(max_norm)
    apply = jax.vmap(transform.apply, (0, 0, None, None))
    clipped, same_weight, _ = apply(updates, weight, transform.init(updates), KEY)
    np.testing.assert_array_equal(same_weight, weight)
    scale = np.minimum(1, max_norm / norms(updates))
    np.testing.assert_allclose(clipped["b"], updates["b"] * scale, rtol=1e-5)
    np.testing.assert_allclose(clipped["a"], updates["a"] * scale[:, None, None], rtol=1e-5)
    assert (norms(clipped) <= max_norm * (1 + 1e-5)).all()


def test_clipping_at_infinity_is_the_identity():
    updates, weight = make_updates(3)
    transform = clip_by_client_norm(float("inf"))
    for c in range(CLIENTS):
        one = jax.tree.map(lambda u, c=c: u[c], updates)
        clipped, _, _ = transform.apply(one, weight[c], (), KEY)
        assert_trees_close(clipped, one)


@pytest.mark.parametrize("max_norm", [1.0, 1e-30, float("inf")])
def test_a_client_that_did_not_move_stays_where_it_is(max_norm):
    zero = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(())}
    clipped, _, _ = clip_by_client_norm(max_norm).apply(zero, jnp.float32(1), (), KEY)
    assert_trees_close(clipped, zero)


def test_an_update_whose_norm_overflows_becomes_zero():
    huge = {"a": jnp.full((2, 3), 3e38), "b": jnp.float32(1.0)}
    clipped, _, _ = clip_by_client_norm(1.0).apply(huge, jnp.float32(1), (), KEY)
    assert all(bool((x == 0).all()) for x in jax.tree.leaves(clipped))


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_norms_that_are_not_positive_are_refused(bad):
    with pytest.raises(ValueError, match="max_norm must be positive, got"):
        clip_by_client_norm(bad)


@pytest.mark.parametrize("make", [weighted_mean, mean, coordinate_median])
def test_an_empty_chain_is_what_it_ends_in(make):
    updates, weight = make_updates(4)
    assert chain(then=make()).reduction == make().reduction
    assert_trees_close(
        aggregate(chain(then=make()), updates, weight)[0], aggregate(make(), updates, weight)[0]
    )


@pytest.mark.parametrize("make", [weighted_mean, coordinate_median])
def test_a_chain_applies_its_transforms_from_left_to_right(make):
    double = ClientTransform(
        lambda like: (),
        lambda update, weight, state, key: (jax.tree.map(lambda u: 2 * u, update), weight, ()),
    )
    updates, weight = make_updates(5)
    clip = clip_by_client_norm(0.5)
    clipped_last = aggregate(chain(double, clip, then=make()), updates, weight)[0]
    doubled_last = aggregate(chain(clip, double, then=make()), updates, weight)[0]
    one = aggregate(chain(clip, then=make()), updates, weight)[0]
    assert_trees_close(doubled_last, jax.tree.map(lambda u: 2 * u, one))
    with pytest.raises(AssertionError):
        assert_trees_close(clipped_last, doubled_last)


@pytest.mark.parametrize("make", [weighted_mean, coordinate_median])
def test_statistics_of_transforms_are_summed_and_reach_their_own_state(make):
    def count_moved(threshold):
        def apply(update, weight, state, key):
            return update, weight, (weight > threshold).astype(jnp.int32)

        return ClientTransform(
            lambda like: jnp.int32(100), apply, lambda total, state: state + total
        )

    updates, _ = make_updates(6)
    weight = jnp.float32([0, 1, 2, 3, 4, 5])
    aggregator = chain(count_moved(0.5), count_moved(3.5), then=make())
    got, state = aggregate(aggregator, updates, weight)
    assert [int(s) for s in state[:2]] == [105, 102]
    assert_trees_close(got, aggregate(make(), updates, weight)[0])


def test_transforms_of_a_chain_have_keys_of_their_own():
    seen = []

    def apply(update, weight, state, key):
        seen.append(jax.random.key_data(key).tolist())
        return update, weight, ()

    transform = ClientTransform(lambda like: (), apply)
    aggregator = chain(transform, transform, then=weighted_mean())
    update = {"b": jnp.float32(1.0)}
    aggregator.encode(update, jnp.float32(1), aggregator.init(update), KEY)
    assert seen[0] != seen[1]
