"""Clients under central and local privacy: noise, clipping, sensitivity, and mutants of each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med.engine import cohorts, grid, placement
from fedjax_med.privacy import (
    ClientLevel,
    CyclicPoisson,
    LocalLevel,
    Passes,
    QuantileClipping,
    Relation,
    SimulatedCohort,
    TruncatedPoisson,
    client_plan,
    clip_to_norm,
    correlated_noise,
    poisson,
    sampling,
    uniform,
)
from fedjax_med.privacy.sampling import expected_size
from tests.privacy.world import assert_scale, run

DIM = 20_000
KEY = jax.random.key(7)
# Two and a half times the machine epsilon of a float32 sum of so few squares.
ROUNDING = 1 + 3e-7


def plan_of(population=4, rounds=4, delta=1e-3, **settings):
    settings = {"clip_norm": 2.0, "noise_multiplier": 1.5, **settings}
    return ClientLevel(delta=delta, **settings).plan(population=population, rounds=rounds)


def noise_of_a_run(plan, dim=DIM, clients=4, **options):
    """What a run releases of clients that send nothing."""
    return -run(plan, np.zeros((clients, dim)), **options).variables.params


# --- noise -------------------------------------------------------------------------------------


def check_noise(plan, scale):
    assert_scale(noise_of_a_run(plan), scale)


def test_noise_is_scaled_to_the_clip_bound_and_the_expected_cohort():
    # 1.5 clip bounds of 2 on the sum, over 4 clients.
    check_noise(plan_of(), 1.5 * 2.0 / 4)


@pytest.mark.parametrize("wrong", [2 / 3, 3 / 2])
def test_noise_of_another_scale_is_told_apart(wrong):
    noise = np.random.default_rng(0).normal(0, 0.75, DIM)
    assert_scale(noise, 0.75)
    with pytest.raises(AssertionError):
        assert_scale(noise, 0.75 * wrong)


def test_mutant_with_half_the_noise_is_caught(monkeypatch):
    original = correlated_noise.standard_normal

    def half(key, like):
        return jax.tree.map(lambda z: z / 2, original(key, like))

    monkeypatch.setattr(correlated_noise, "standard_normal", half)
    with pytest.raises(AssertionError):
        check_noise(plan_of(), 0.75)


def test_noise_is_added_once_however_many_devices():
    rows = np.random.default_rng(1).normal(size=(4, 50))
    one, two, three = (
        run(plan_of(), rows, rounds=2, placement=where).variables.params
        for where in (placement.one_device(), placement.pmap(4), placement.mesh(2))
    )
    # Float32 sums of four clients in another order.
    np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(three, one, rtol=1e-5, atol=1e-6)


@pytest.mark.slow  # three compilations
def test_noise_multipliers_side_by_side_are_those_one_by_one():
    from fedjax_med.engine import simulate
    from fedjax_med.privacy import private
    from tests.privacy.world import ONE_STEP, build, dataset_of, task_of

    rows, task = np.ones((4, 30)), task_of(30)

    def algorithm(noise_multiplier):
        return private(build, plan_of(noise_multiplier=noise_multiplier), task=task)

    both = simulate(
        algorithm,
        dataset_of(rows),
        task=task,
        rounds=2,
        local_work=ONE_STEP,
        experiments=grid(seed=[0, 1], noise_multiplier=[0.5, 3.0]),
    )
    for number, (seed, noise) in enumerate([(0, 0.5), (0, 3.0), (1, 0.5), (1, 3.0)]):
        plan = plan_of(noise_multiplier=noise)
        if number in (0, 3):
            alone = run(plan, rows, rounds=2, seed=seed)
            # The noise multiplier is a float32 argument in one and a constant in the other.
            np.testing.assert_allclose(
                both.variables.params[number], alone.variables.params, rtol=1e-5, atol=1e-6
            )
        epsilons = [plan.epsilon_after(r).value for r in (1, 2)]
        np.testing.assert_allclose(both.history["epsilon"][number], epsilons, rtol=1e-4)


def test_local_noise_is_every_clients_own():
    plan = LocalLevel(clip_norm=2.0, noise_multiplier=1.5, delta=1e-3).plan(population=4, rounds=1)
    # The mean of four clients' noises.
    assert_scale(noise_of_a_run(plan), 1.5 * 2.0 / np.sqrt(4))
    # Any two updates are neighbours: a Gaussian with a sensitivity of two clip bounds.
    want = ClientLevel(1.0, 1e-3, 0.75).plan(population=4, rounds=1).epsilon_after(1)
    np.testing.assert_allclose(plan.epsilon_after(1), want, rtol=1e-5)


def test_simulated_cohort_scales_the_noise_and_says_so():
    plan = plan_of(delta=1e-6, simulated_cohort=SimulatedCohort(1000, 10**5))
    assert_scale(noise_of_a_run(plan), 1.5 * 2.0 / 1000)
    large = ClientLevel(1.0, 1e-6, 1.5, sampling=poisson(0.01)).plan(population=10**5, rounds=4)
    assert plan.epsilon_after(4) == large.epsilon_after(4)
    assert plan.statement(4).startswith("NOT PRIVATE")
    assert "NOT PRIVATE" not in large.statement(4)


# --- clipping ----------------------------------------------------------------------------------


@given(
    st.integers(0, 2**31 - 1),
    st.floats(-30, 30),
    st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16]),
)
def test_no_update_is_longer_than_the_bound(seed, exponent, dtype):
    x = np.random.default_rng(seed).normal(size=40) * 2.0**exponent
    with np.errstate(over="ignore"):  # float16 overflows to infinity, which is a case as well
        tree = {"a": jnp.asarray(x[:30], dtype), "b": jnp.asarray(x[30:].reshape(2, 5), dtype)}
    clipped, norm = jax.jit(clip_to_norm)(tree, 1.5)
    flat = np.concatenate([np.ravel(np.float64(leaf)) for leaf in jax.tree.leaves(clipped)])
    given_ = np.concatenate([np.ravel(np.float64(leaf)) for leaf in jax.tree.leaves(tree)])
    assert np.linalg.norm(flat) <= 1.5 * ROUNDING
    if np.isfinite(given_).all():
        np.testing.assert_allclose(norm, np.linalg.norm(given_), rtol=1e-6)
        factor = min(1, 1.5 / max(np.linalg.norm(given_), 1e-30))
        np.testing.assert_allclose(flat, factor * given_, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_becomes_nothing(bad):
    clipped, _ = clip_to_norm({"a": jnp.array([1.0, bad, 2.0])}, 1.0)
    np.testing.assert_array_equal(clipped["a"], 0)


def test_zero_stays_zero():
    clipped, norm = clip_to_norm([jnp.zeros(3)], 1.0)
    assert norm == 0
    np.testing.assert_array_equal(clipped[0], 0)


# --- sensitivity -------------------------------------------------------------------------------


def noiseless(plan, rows):
    """The sum that a run would release but for the noise: it released the mean."""
    released = -run(plan, rows).variables.params
    return np.float64(released) * plan.expected_cohort


ROWS = np.float32(
    [[0.1, 0.2, -0.1], [5.0, -6.0, 7.0], [1e30, -1e30, 1e30], [1.0, 0.5, -1.5], [np.nan, 1.0, 2.0]]
)


def neighbours(rows):
    """(relation, neighbouring rows) by really removing and replacing each client."""
    for i in range(len(rows)):
        for other in ([np.inf, 1.0, 1.0], [-9e20, 9e20, 0.0], [0.0, 0.0, 0.0], [-7.0, 7.0, -7.0]):
            replaced = rows.copy()
            replaced[i] = other
            yield Relation.REPLACE, replaced
        removed = rows.copy()
        removed[i] = np.nan  # excluded before encoding, so it contributes nothing
        yield Relation.ZERO_OUT, removed


def sums(plan, populations):
    """Sums before the noise of many populations, by the plan's own encode, compiled once."""
    aggregator = plan.aggregator
    state = aggregator.init(jnp.zeros(3))

    @jax.jit
    @jax.vmap
    def total(rows):
        # As the engine does it: an update that is not finite is a zero update of weight 0.
        finite = jnp.all(jnp.isfinite(rows), axis=1)
        rows = jnp.where(finite[:, None], rows, 0)
        messages = jax.vmap(aggregator.encode, (0, 0, None, None))(
            rows, finite.astype(jnp.float32), state, KEY
        )
        return jax.tree.map(lambda m: m.sum(axis=0), messages)

    return jax.tree.map(np.float64, total(jnp.asarray(np.stack(populations))))


def check_sensitivity(plan, clip_norm):
    pairs = list(neighbours(ROWS))
    total, count = sums(plan, [ROWS, *(rows for _, rows in pairs)])
    largest = dict.fromkeys(Relation, 0.0)
    for (relation, _), other, counted in zip(pairs, total[1:], count[1:], strict=True):
        distance = np.linalg.norm(other - total[0])
        clips = 2 if relation is Relation.REPLACE else 1
        assert distance <= clips * clip_norm * ROUNDING
        assert abs(counted - count[0]) <= clips / 2
        largest[relation] = max(largest[relation], distance)
    # The bounds are reached, so they are no looser than they have to be.
    assert largest[Relation.ZERO_OUT] > 0.999 * clip_norm
    assert largest[Relation.REPLACE] > 1.9 * clip_norm


def test_neighbours_differ_by_no_more_than_the_clip_bound():
    check_sensitivity(plan_of(population=5), 2.0)


def test_mutant_without_clipping_is_caught(monkeypatch):
    monkeypatch.setattr(client_plan, "clip_to_norm", lambda u, bound: (u, jnp.float32(0)))
    with pytest.raises(AssertionError):
        check_sensitivity(plan_of(population=5), 2.0)


def test_removed_and_padding_clients_in_the_engine():
    """The same sums through lanes: who is removed, or only fills a lane, adds exactly nothing."""
    plan = plan_of(population=5, noise_multiplier=0.0)
    # One is excluded as not finite, and of one the norm overflows.
    counted = np.float64(ROWS[[0, 1, 3]])
    want = sum(row * min(1, 2.0 / np.linalg.norm(row)) for row in counted)
    for lanes in (1, 4):
        released = -run(plan, ROWS, lanes=lanes).variables.params
        np.testing.assert_allclose(released * 5, want, rtol=1e-6, atol=1e-6)
    # The denominator is the plan's and not the size of what came.
    listed = plan_of(population=5, noise_multiplier=0.0, sampling=poisson(0.5))
    result = run(listed, np.tile(np.float32([3.0, 0.0, 0.0]), (5, 1)), rounds=3)
    came = result.history["num_clients"].sum()
    assert 0 < came != 7.5
    np.testing.assert_allclose(-result.variables.params[0], came * 2.0 / 2.5, rtol=1e-6)


def test_examples_do_not_weigh():
    plan = plan_of(population=2, noise_multiplier=0.0, clip_norm=100.0)
    rows = [np.ones((9, 2)), -np.ones((9, 2))]
    rows[1] = rows[1][:3]
    got = -run(plan, rows).variables.params
    # Nine unit steps one way, three the other, each client counting once.
    np.testing.assert_allclose(got, np.full(2, (9 - 3) / 2), rtol=1e-6)


# --- sampling ----------------------------------------------------------------------------------


def check_rate(plan, population, rounds=4000):
    """What was sampled is what is accounted: participations against the rate of the release."""
    drawn = np.zeros(population)
    for r in range(rounds):
        drawn[plan.sampler.draw(population, r, seed=3)] += 1
    rate = plan.release.rate / getattr(plan.release, "every", 1)
    # Within 5 standard errors for every client, and for all of them together.
    assert np.all(np.abs(drawn / rounds - rate) < 5 * np.sqrt(rate / rounds))
    assert abs(drawn.mean() / rounds - rate) < 5 * np.sqrt(rate / rounds / population)


@pytest.mark.parametrize("sampler", [poisson(0.3), CyclicPoisson(0.6, 3)])
def test_clients_are_drawn_as_often_as_accounted(sampler):
    check_rate(plan_of(population=12, sampling=sampler), 12)


def test_mutant_that_misreports_the_sampling_rate_is_caught(monkeypatch):
    release_of = sampling.release_of
    monkeypatch.setattr(
        "fedjax_med.privacy.configuration.release_of",
        lambda sampler, *rest: release_of(poisson(sampler.rate / 1.5), *rest),
    )
    with pytest.raises(AssertionError):
        check_rate(plan_of(population=12, sampling=poisson(0.3)), 12)


def test_truncated_samples():
    sampler = TruncatedPoisson(0.5, 6)
    sizes = [len(set(sampler.draw(10, r, 0).tolist())) for r in range(4000)]
    # P(Binomial(10, 1/2) >= 6) = 386 / 1024.
    assert max(sizes) == 6 == sampler.max_size(10)
    assert abs(np.mean(np.equal(sizes, 6)) - 386 / 1024) < 5 * np.sqrt(0.25 / 4000)


def test_nobody_twice_in_a_cycle_or_a_pass():
    for sampler, population, apart in ((CyclicPoisson(0.7, 3), 10, 3), (Passes(3), 10, None)):
        last = np.full(population, -99)
        for r in range(30):
            cohort = sampler.draw(population, r, 5)
            assert len(cohort) <= sampler.max_size(population)
            if apart is None and r % 3 == 0:
                last[:] = -99  # a new pass
            assert np.all(r - last[cohort] >= (apart or 99))
            last[cohort] = r
    assert Passes(3).rounds_per_pass(10) == 3
    assert expected_size(CyclicPoisson(0.6, 3), 10) == 2
    assert expected_size(uniform(3), 10) == 3 == expected_size(cohorts.uniform(3), 10)


# --- the bound that moves ----------------------------------------------------------------------


def test_noise_is_split_between_the_sum_and_the_count():
    np.testing.assert_allclose(
        QuantileClipping(count_noise=5.0).noise_of_sum(1.0, 100.0), 1.00504, rtol=1e-5
    )
    assert QuantileClipping().noise_of_count(100.0) == 5
    plan = plan_of(noise_multiplier=1.0, clipping=QuantileClipping(count_noise=5.0))
    assert_scale(noise_of_a_run(plan), 1.0050378 * 2.0 / 4)
    assert plan.epsilon_after(4) == plan_of(noise_multiplier=1.0).epsilon_after(4)


@pytest.mark.parametrize(
    "quantile, rate, bound, rows, factor",
    [
        (1.0, 1.0, 1.0, [[2.0], [3.0], [0.5]], np.exp(2 / 3)),
        (0.61803, 2.71828, 3.14159, [[5.0], [9.0]], np.exp(1.67998)),
    ],
)
def test_the_bound_follows_the_quantile(quantile, rate, bound, rows, factor):
    """Constants of TensorFlow Federated's tests, without noise."""
    clipping = QuantileClipping(quantile, rate, count_noise=1e-9)
    settings = {"clip_norm": bound, "noise_multiplier": 0.0, "clipping": clipping}
    plan = plan_of(population=len(rows), **settings)
    state = run(plan, rows).state.aggregator_state
    np.testing.assert_allclose(state.bound, bound * factor, rtol=1e-5)
