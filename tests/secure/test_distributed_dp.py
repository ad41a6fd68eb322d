"""Distributed differential privacy: its accounting, its noise and its whole pipeline."""

import math
from functools import lru_cache
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from fedjax_med.secure import (
    DistributedDP,
    discrete_gaussian,
    distributed_dp_mean,
    draw,
    secure_distributed_dp_mean,
    skellam,
)
from fedjax_med.secure.distributed_dp import conditional_round, rotate, rotate_back
from fedjax_med.secure.distributed_dp_accounting import rounded_norm_bound
from tests.secure.protocol_cases import roster_of

# bits, clients, dim, noise multiplier: scale, scaled local standard deviation, inflated norm with
# beta = 0 and exp(-1/2), epsilon of both at delta 1e-5; digits as they were published. By the
# formulas of Kairouz et al. (2021) in google-research/federated, distributed_dp/accounting_utils.py.
VECTORS = {
    (16, 100, 2**20): (8382.5, 838.25, 1.1222, 1.0019, 5.4008, 4.7624),
    (18, 100, 2**20): (33530, 3353, 1.0305, 1.0001, 4.9078, 4.7534),
    (20, 100, 2**20): (134120, 13412, 1.0076, 1.0000, 4.7910, 4.7528),
    (16, 20, 2**17): (8409.5, 1880, 1.0431, 1.0003, 4.9726, 4.7542),
}


@pytest.mark.parametrize("noise", ["skellam", "discrete_gaussian"])
@pytest.mark.parametrize("case", VECTORS, ids=str)
def test_published_vectors(case, noise):
    bits, clients, dim = case
    scale, stddev, *norms, eps_always, eps_conditional = VECTORS[case]
    for beta, norm, epsilon in (
        (0.0, norms[0], eps_always),
        (math.exp(-0.5), norms[1], eps_conditional),
    ):
        plan = DistributedDP(clients, dim, 1.0, 1.0, bits, noise=noise, beta=beta)
        assert plan.scale == pytest.approx(scale, rel=1e-4)  # five digits are given
        assert plan.scaled_stddev == pytest.approx(stddev, rel=4e-4)
        assert plan.norm_bound / plan.scale == pytest.approx(norm, abs=6e-5)  # half a last digit
        # The scale enters with its five digits.
        assert plan.epsilon(1e-5) == pytest.approx(epsilon, abs=2e-4)


@pytest.mark.parametrize(
    "scale, beta, want",
    [
        (1e2, 0.0, 317.2277660),
        (1e2, 0.01, 158.1323145),
        (1e2, 0.5, 158.1229693),
        (1e9, 0.0, 1.0000316228),
        (1e9, 0.01, 1.000000001642),
        (1e9, 0.5, 1.000000000714),
    ],
)
def test_inflated_norms_of_tensorflow_federated(scale, beta, want):
    """Constants of TensorFlow Federated's discretization_test.py for a billion numbers."""
    got = rounded_norm_bound(scale, 10**9, beta) / scale
    # Half of the last digit that is given.
    assert got == pytest.approx(want, rel=0, abs=5e-8 if scale == 1e2 else 5e-11)
    assert scale == 1e2 or (got - 1) == pytest.approx(want - 1, rel=1e-3)


def test_without_rounding_it_is_the_gaussian():
    fine = DistributedDP(20, 2**10, 1.0, 1.0, 21, noise="discrete_gaussian")
    # Renyi epsilon of one Gaussian of multiplier 1 over whole orders is 4.7527 at delta 1e-5.
    assert fine.epsilon(1e-5) == pytest.approx(4.7527, abs=2e-4)
    assert fine.epsilon(1e-5, 0) == 0
    assert fine.epsilon(1e-5, 3) > 1.5 * fine.epsilon(1e-5)


def test_drop_outs_cost_privacy_unless_they_are_planned_for():
    plan = DistributedDP(20, 2**10, 1.0, 1.0, 20, min_survivors=15)
    everybody = DistributedDP(20, 2**10, 1.0, 1.0, 20)
    # Fifteen give the noise that is promised; twenty give more.
    assert plan.epsilon(1e-5, 2) == pytest.approx(plan.epsilon(1e-5, survivors=[15, 15]))
    assert plan.epsilon(1e-5) == pytest.approx(everybody.epsilon(1e-5), rel=1e-3)
    assert plan.epsilon(1e-5, survivors=[20, 18]) < plan.epsilon(1e-5, 2)
    assert everybody.rdp(15)[0] == pytest.approx(everybody.rdp()[0] * 20 / 15, rel=1e-3)
    with pytest.raises(ValueError, match=r"survivors\[1\] is 14, .* fewer than 15"):
        plan.epsilon(1e-5, survivors=[15, 14])


@lru_cache
def drawn(kind, sigma):
    table = discrete_gaussian(sigma) if kind == "gaussian" else skellam(sigma**2)
    shape = (400_000,)
    values = jax.jit(lambda key: draw(key, table, shape))(jax.random.key(5))
    return table, np.asarray(values)


def exact(kind, sigma, x):
    """The probabilities by other formulas than the tables': SciPy's, and a sum."""
    if kind == "skellam":
        return special.ive(np.abs(x), sigma**2)
    everywhere = np.arange(-12 * math.ceil(sigma) - 5, 12 * math.ceil(sigma) + 6)
    weights = np.exp(-(everywhere**2) / (2 * sigma**2))
    return np.exp(-(x**2) / (2 * sigma**2)) / weights.sum()


def goodness(values, kind, sigma):
    """The p-value of a chi-square test against the exact probabilities, in about 60 bins."""
    reach = math.ceil(4 * sigma)
    x = np.arange(-reach, reach + 1)
    observed = np.bincount(
        np.clip(values, -reach - 1, reach + 1) + reach + 1, minlength=2 * reach + 3
    )
    p = exact(kind, sigma, x)
    tail = (1 - p.sum()) / 2
    expected = np.concatenate([[tail], p, [tail]]) * len(values)
    edges = np.unique(np.linspace(0, len(expected), 60).astype(int))[:-1]
    observed, expected = (np.add.reduceat(c, edges) for c in (observed, expected))
    enough = expected > 5
    statistic = ((observed - expected) ** 2 / expected)[enough].sum()
    return stats.chi2.sf(statistic, enough.sum() - 1)


@pytest.mark.parametrize("sigma", [0.5, 3.0, 838.25])
@pytest.mark.parametrize("kind", ["gaussian", "skellam"])
def test_draws_have_the_exact_distribution(kind, sigma):
    _, values = drawn(kind, sigma)
    assert goodness(values, kind, sigma) > 1e-3  # fixed seeds: no chance of a failure later
    # The test tells a standard deviation that is 2 % off.
    assert goodness(values, kind, 1.02 * sigma) < 1e-6


@pytest.mark.parametrize("sigma", [0.3, 1.0, 30.0, 838.25])
@pytest.mark.parametrize("kind", ["gaussian", "skellam"])
def test_tables_hold_the_exact_probabilities(kind, sigma):
    table = discrete_gaussian(sigma) if kind == "gaussian" else skellam(sigma**2)
    cumulative = [0, *(int(c) for c in table.cumulative)]
    p = np.array([(b - a) / 2**64 for a, b in pairwise(cumulative)])
    x = np.arange(len(p)) - table.offset
    # Of the recurrence's thousands of steps and of SciPy's Bessel functions.
    np.testing.assert_allclose(p, exact(kind, sigma, x), rtol=2e-11, atol=2.0**-63)
    assert cumulative[-1] == 2**64 - 1 and min(p) >= 0
    assert math.sqrt((p * x**2).sum()) == pytest.approx(table.stddev, rel=1e-12)


def test_shares_of_skellam_noise_sum_to_skellam_noise():
    n, sigma = 8, 5.0
    table = skellam(sigma**2)
    keys = jax.random.split(jax.random.key(1), n)
    total = jax.jit(lambda k: jnp.sum(jax.vmap(lambda k: draw(k, table, (50_000,)))(k), axis=0))
    assert goodness(np.asarray(total(keys)), "skellam", math.sqrt(n) * sigma) > 1e-3


def test_rotation_keeps_norms_spreads_and_returns():
    x = jnp.zeros(1000).at[3].set(2.0)
    number = jnp.int32(4)
    y = jax.jit(rotate)(x, number)
    assert y.shape == (1024,)
    # Forward errors of ten stages of float32 additions.
    np.testing.assert_allclose(np.abs(y), 2 / 32, rtol=2e-6)
    np.testing.assert_allclose(rotate_back(y, number, 1000), x, atol=2e-6)
    mixed = jnp.arange(1000.0)
    one, other = (jax.jit(rotate)(mixed, jnp.int32(i)) for i in (4, 5))
    assert not np.allclose(one, other)


def test_rounding_keeps_the_bound_and_nearly_the_mean():
    dim, norm = 256, 40.0
    x = np.random.default_rng(0).standard_normal(dim).astype(np.float32)
    x *= norm / np.linalg.norm(x)
    bound = rounded_norm_bound(norm, dim, math.exp(-0.5))
    keys = jax.random.split(jax.random.key(0), 4000)
    rounded = np.asarray(
        jax.jit(jax.vmap(lambda k: conditional_round(k, jnp.asarray(x), bound)))(keys), np.float64
    )
    assert np.linalg.norm(rounded, axis=1).max() <= bound
    # Four standard errors of rounding; the condition biases by less than that.
    error = np.abs(rounded.mean(axis=0) - x).max()
    assert error < 4.5 * 0.5 / math.sqrt(len(keys)) + 0.01
    # A bound that rounding up could not keep: towards 0, at once.
    tight = jax.jit(lambda k: conditional_round(k, jnp.full(4, 1.5), 2.1))(keys[0])
    np.testing.assert_array_equal(tight, [1, 1, 1, 1])


SHAPES = {"a": (30, 3), "b": (7,)}
DIM = 128


def updates(n, seed=0):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(0, 0.05, (n, *s)).astype(np.float32) for k, s in SHAPES.items()}


def norms(tree):
    return np.sqrt(
        sum((v.reshape(len(v), -1).astype(np.float64) ** 2).sum(axis=1) for v in tree.values())
    )


@lru_cache
def pipeline(plan, masked=False):
    aggregator = distributed_dp_mean(plan)
    if masked:
        n = plan.num_clients
        aggregator = secure_distributed_dp_mean(
            plan, neighbours=4, dropout=lambda roster: jnp.arange(n) != 2
        )

    @jax.jit
    def run(tree, weight, key):
        state = aggregator.init(jax.tree.map(lambda x: x[0], tree))
        keys = jax.random.split(key, len(weight))
        messages = jax.vmap(lambda u, w, k: aggregator.encode(u, w, state, k))(tree, weight, keys)
        like = jax.tree.map(lambda x: x[0], messages)
        delivery = None
        if masked:
            roster = roster_of(range(len(weight)), capacity=len(weight))
            places = jnp.arange(len(weight))
            seal = jax.vmap(lambda m, p: aggregator.channel.seal(m, p, roster))
            total = jnp.sum(seal(messages, places), axis=0, dtype=jnp.uint32)
            total, delivery = aggregator.channel.open(total, like, roster)
        else:
            total = jax.tree.map(lambda x: jnp.sum(x, axis=0, dtype=x.dtype), messages)
        aggregate, new = aggregator.decode(total, state)
        return aggregate, new, delivery

    return run


def test_with_little_noise_it_is_the_mean_of_the_clipped_updates():
    n = 6
    plan = DistributedDP(n, DIM, 0.6, 1e-3, 20, noise="discrete_gaussian")
    tree = updates(n)
    assert norms(tree).min() < 0.6 - 0.15 or norms(tree).max() > 0.6 - 0.15
    tree["a"][0] *= 4  # this one is clipped
    weight = np.array([5, 1, 3, 2, 0, 7], np.float32)  # and this one left out
    got, state, _ = pipeline(plan)(tree, weight, jax.random.key(0))
    factor = np.minimum(1, 0.6 / norms(tree)) * (weight > 0)
    assert factor[0] < 1 and int(state.num_clients) == 5 and int(state.number) == 1
    for name, x in tree.items():
        want = np.tensordot(factor, x.astype(np.float64), 1) / 5
        # Five standard deviations of noise and of rounding, which has at most half a unit.
        spread = math.hypot(plan.local_stddev, 0.5 / plan.scale) * math.sqrt(n) / 5
        np.testing.assert_allclose(got[name], want, atol=5 * spread + 1e-6)


@pytest.mark.parametrize("noise", ["skellam", "discrete_gaussian"])
def test_the_noise_of_the_sum_is_the_promised_one(noise):
    """And half of it, or a client without noise, would be noticed."""
    n, z, clip = 6, 0.8, 0.5
    plan = DistributedDP(n, DIM, clip, z, 18, noise=noise)
    tree = jax.tree.map(np.zeros_like, updates(n))
    run = pipeline(plan)
    draws = [run(tree, np.ones(n, np.float32), jax.random.key(s))[0] for s in range(40)]
    values = n * np.concatenate([np.concatenate([d["a"].ravel(), d["b"]]) for d in draws])
    # Rounding of zeros adds nothing. Four standard errors of a standard deviation.
    tolerance = 4 * z * clip / math.sqrt(2 * len(values))
    assert abs(values.std() - z * clip) < tolerance
    assert tolerance < (1 - math.sqrt((n - 1) / n)) * z * clip
    assert abs(values.mean()) < 4 * z * clip / math.sqrt(len(values))


def test_masks_change_nothing_but_what_is_dropped():
    n = 6
    plan = DistributedDP(n, DIM, 0.6, 1e-3, 20, min_survivors=4, noise="discrete_gaussian")
    tree, weight = updates(n), np.ones(n, np.float32)
    got, state, delivery = pipeline(plan, masked=True)(tree, weight, jax.random.key(0))
    assert not bool(delivery.rejected) and int(delivery.num_dropped) == 1
    assert int(state.num_clients) == 5
    kept = np.arange(n) != 2
    factor = np.minimum(1, 0.6 / norms(tree))[kept]
    for name, x in tree.items():
        want = np.tensordot(factor, x[kept].astype(np.float64), 1) / 5
        spread = math.hypot(plan.local_stddev, 0.5 / plan.scale) * math.sqrt(n) / 5
        np.testing.assert_allclose(got[name], want, atol=5 * spread + 1e-6)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dim": 100}, "dim must be a power of two, the padded size, got 100"),
        ({"clip": 0.0}, "clip must be positive and finite, got 0.0"),
        ({"noise_multiplier": float("nan")}, "noise_multiplier must be positive and finite"),
        ({"bits": 30}, "bits must be 2 to 24, exact in float32, got 30"),
        ({"bits": 2}, "bits=2 is too few for 10 clients"),
        ({"bits": 4}, r"standard deviation of .* Use more bits"),
        ({"bits": 24, "num_clients": 2}, "allowed are 0.5 to 100000. Use fewer bits"),
        ({"min_survivors": 11}, "min_survivors must be 1 to 10"),
        ({"wrap_probability": 0.0}, "wrap_probability must be between 0 and 1, got 0.0"),
        ({"beta": 1.0}, "beta must be at least 0 and less than 1, got 1.0"),
    ],
)
def test_plans_that_cannot_be(changes, message):
    arguments = {"num_clients": 10, "dim": 128, "clip": 1.0, "noise_multiplier": 1.0, **changes}
    with pytest.raises(ValueError, match=message):
        DistributedDP(**arguments)


def test_the_size_of_the_update_has_to_fit():
    with pytest.raises(ValueError, match="dim must be 128 for an update of 97 numbers, got 256"):
        distributed_dp_mean(DistributedDP(10, 256, 1.0, 1.0)).init(
            {k: jnp.zeros(s) for k, s in SHAPES.items()}
        )
    with pytest.raises(ValueError, match=r"sigma must be in 0.05 to 100000, got 200000.0"):
        discrete_gaussian(2e5)
    with pytest.raises(ValueError, match="root of the variance"):
        skellam(-1.0)
