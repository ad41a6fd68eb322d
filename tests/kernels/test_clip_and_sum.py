import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med_kernels.clip_and_sum import clip_and_sum, default_implementation
from fedjax_med_kernels.clip_and_sum.cases import CASES
from fedjax_med_kernels.clip_and_sum.pallas_gpu import MAX_DIM
from fedjax_med_kernels.clip_and_sum.reference import clip_and_sum_reference
from tests.draws import draws

EPS = float(np.finfo(np.float32).eps)
IMPLEMENTATIONS = ("dot", "scan", "pallas_gpu")
implementations = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def run(implementation):
    return functools.partial(clip_and_sum, implementation=implementation, interpret=True)


@functools.lru_cache
def compiled(implementation):
    return jax.jit(run(implementation))


@functools.lru_cache
def compiled_gradients(implementation):
    """Of the sum of the total by updates, weights and bound."""
    return jax.jit(jax.grad(lambda *a: run(implementation)(*a).total.sum(), (0, 1, 2)))


def draw(clients, dim, dtype=np.float32, seed=0):
    """Updates of very different norms, a weight each (one of them 0), and a bound in between."""
    rng = np.random.default_rng(seed)
    updates = rng.standard_normal((clients, dim)) * 4.0 ** rng.integers(-3, 4, (clients, 1))
    updates[clients // 2] *= clients == 1  # a client that did not move
    weight = rng.integers(1, 5, clients).astype(np.float32)
    weight[-1] *= clients == 1
    return jnp.asarray(updates, dtype), jnp.asarray(weight), jnp.float32(np.sqrt(dim))


def reference(updates, weight, max_norm):
    with jax.enable_x64(True):
        arguments = (jnp.asarray(np.float64(a)) for a in (updates, weight, max_norm))
        return tuple(np.asarray(a) for a in jax.jit(clip_and_sum_reference)(*arguments))


def check(got, updates, weight, max_norm):
    total, norm, factor = reference(updates, weight, max_norm)
    clients, dim = updates.shape
    # A float32 sum of n squares is off by a factor of at most 1 + n * eps; the root halves that.
    norm_error = (dim / 2 + 3) * EPS
    np.testing.assert_allclose(got.norm, norm, rtol=norm_error, atol=1e-30)
    np.testing.assert_allclose(got.factor, factor, rtol=norm_error + 3 * EPS, atol=0)
    # Products carry that error, and their sum one of `clients` roundings on top.
    sizes = np.abs(np.float64(weight) * factor) @ np.abs(np.float64(updates))
    bound = (norm_error + (clients + 6) * EPS) * sizes
    assert got.total.dtype == np.float32 and total.dtype == np.float64
    np.testing.assert_array_less(np.abs(np.float64(got.total) - total), bound + 1e-300)
    assert bool(got.finite.all())


@implementations
@cases
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_matches_float64_reference(case, implementation, dtype):
    arguments = draw(*case, dtype=dtype)
    check(compiled(implementation)(*arguments), *arguments)


@implementations
@draws(2, 8)
@given(clients=st.integers(1, 40), dim=st.integers(1, 90), seed=st.integers(0, 99))
def test_matches_float64_reference_for_drawn_shapes(implementation, clients, dim, seed):
    arguments = draw(clients, dim, seed=seed)
    check(compiled(implementation)(*arguments), *arguments)


@pytest.mark.parametrize("implementation", ["dot", "scan"])
def test_float64_is_kept(implementation):
    updates, weight, max_norm = draw(9, 50)
    total, norm, factor = reference(updates, weight, max_norm)
    with jax.enable_x64(True):
        got = run(implementation)(jnp.asarray(np.float64(updates)), weight, float(max_norm))
    assert got.total.dtype == got.norm.dtype == np.float64
    np.testing.assert_allclose(got.total, total, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(got.norm, norm, rtol=1e-13)
    np.testing.assert_allclose(got.factor, factor, rtol=1e-13)


def with_cotangents(fn, total_bar, norm_bar, factor_bar):
    def loss(updates, weight, max_norm):
        total, norm, factor = fn(updates, weight, max_norm)[:3]
        return jnp.vdot(total, total_bar) + jnp.vdot(norm, norm_bar) + jnp.vdot(factor, factor_bar)

    return jax.grad(loss, argnums=(0, 1, 2))


@implementations
@cases
def test_gradients_match_float64(case, implementation):
    updates, weight, max_norm = draw(*case, seed=1)
    updates = updates.at[case.clients // 2].add(0.1)  # the reference has no gradient at norm 0
    rng = np.random.default_rng(2)
    bars = [jnp.asarray(rng.standard_normal(n), np.float32) for n in (case.dim, *2 * case[:1])]
    arguments = (updates, weight, max_norm)
    got = jax.jit(with_cotangents(run(implementation), *bars))(*arguments)
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.float64(a)) for a in (*bars, *arguments)]
        want = jax.jit(with_cotangents(clip_and_sum_reference, *wide[:3]))(*wide[3:])
        want = [np.asarray(w) for w in want]
    g, a, b, u, w, c = (np.abs(np.float64(x)) for x in (*bars, *arguments))
    n = np.linalg.norm(u, axis=1)
    factor = np.minimum(1, c / n)
    inner = u @ g  # sizes of the terms of every scalar product
    pulled = b + w * inner  # of the cotangent of the factor
    sizes = (
        (w * factor)[:, None] * g + ((a + pulled * factor / n) / n)[:, None] * u,
        factor * inner,
        np.sum(pulled / n),
    )
    # Norm (twice), scalar product and the sum over clients, each within length * eps.
    bound = (2 * case.dim + case.clients + 20) * EPS
    for got_leaf, want_leaf, size in zip(got, want, sizes, strict=True):
        assert want_leaf.dtype == np.float64
        error = np.abs(np.float64(got_leaf) - want_leaf)
        np.testing.assert_array_less(error, bound * size + 1e-300)


@implementations
def test_vmap_over_experiments_with_bounds_and_weights_of_their_own(implementation):
    updates, weight, max_norm = (
        jnp.stack(a) for a in zip(*(draw(11, 70, seed=s) for s in range(3)), strict=True)
    )
    max_norm = max_norm * jnp.float32([0.1, 1, 10])
    updates = updates.at[1, 4, 7].set(jnp.nan)  # one experiment leaves the fast route
    got = jax.jit(jax.vmap(run(implementation)))(updates, weight, max_norm)
    gradients = jax.jit(jax.vmap(compiled_gradients(implementation)))(updates, weight, max_norm)
    assert np.isfinite(gradients[0]).all()
    for i in range(3):
        alone = compiled(implementation)(updates[i], weight[i], max_norm[i])
        for g, w in zip(got, alone, strict=True):
            np.testing.assert_allclose(g[i], w, rtol=200 * EPS, atol=1e-4)


@implementations
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e25])
@pytest.mark.parametrize("bad_weight", [0.0, 3.0])
def test_a_client_that_is_not_finite_adds_nothing_and_is_named(implementation, bad, bad_weight):
    updates, weight, max_norm = draw(9, 40)
    spoiled = updates.at[3, 17].set(bad)
    weight = weight.at[3].set(bad_weight)
    got = compiled(implementation)(spoiled, weight, max_norm)
    want = compiled(implementation)(updates, weight.at[3].set(0), max_norm)
    others = np.arange(9) != 3
    np.testing.assert_allclose(got.total, want.total, rtol=20 * EPS, atol=20 * EPS)
    np.testing.assert_array_equal(got.finite, others)
    np.testing.assert_array_equal(got.norm[others], want.norm[others])
    assert not np.isfinite(got.norm[3]) and got.factor[3] == 0
    grads = compiled_gradients(implementation)(spoiled, weight, max_norm)
    assert all(np.isfinite(g).all() for g in grads)
    assert not grads[0][3].any() and grads[1][3] == 0


@implementations
def test_padding_clients_change_nothing(implementation):
    updates, weight, max_norm = draw(6, 33)
    padded = jnp.concatenate([updates, jnp.full((2, 33), 7.0), jnp.zeros((1, 33))])
    got = run(implementation)(padded, jnp.concatenate([weight, jnp.zeros(3)]), max_norm)
    want = run(implementation)(updates, weight, max_norm)
    np.testing.assert_allclose(got.total, want.total, rtol=20 * EPS, atol=20 * EPS)
    np.testing.assert_array_equal(got.norm[:6], want.norm)


@implementations
def test_bounds_of_zero_and_infinity(implementation):
    updates, weight, _ = draw(5, 20)
    nothing = run(implementation)(updates, weight, 0.0)
    assert not nothing.total.any()
    np.testing.assert_array_equal(nothing.factor, nothing.norm == 0)  # 0 / 0 counts as unclipped
    everything = run(implementation)(updates, weight, jnp.inf)
    np.testing.assert_array_equal(everything.factor, np.ones(5))
    np.testing.assert_allclose(everything.total, weight @ updates, rtol=1e-4, atol=1e-4)
    assert np.isnan(jax.jit(run(implementation))(updates, weight, jnp.nan).total).all()


@implementations
def test_clipped_norms_keep_the_bound(implementation):
    updates, _, _ = draw(12, 300)
    for client in range(12):
        one = run(implementation)(updates, jnp.zeros(12).at[client].set(1), 0.7)
        assert np.linalg.norm(np.float64(one.total)) <= 0.7 * (1 + (300 / 2 + 6) * EPS)


@pytest.mark.parametrize("implementation", ["dot", "scan"])
def test_the_norm_of_a_tree_runs_over_all_its_leaves(implementation):
    updates, weight, max_norm = draw(8, 30)
    tree = {"a": updates[:, :24].reshape(8, 2, 3, 4), "b": [updates[:, 24], updates[:, 25:]]}
    got = run(implementation)(tree, weight, max_norm)
    want = run(implementation)(updates, weight, max_norm)
    assert jax.tree.map(jnp.shape, got.total) == {"a": (2, 3, 4), "b": [(), (5,)]}
    np.testing.assert_allclose(got.factor, want.factor, rtol=30 * EPS)
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(got.total)])
    np.testing.assert_allclose(flat, want.total, rtol=1e-4, atol=1e-4)
    mixed = {"a": tree["a"].astype(jnp.bfloat16), "b": tree["b"]}
    assert all(
        t.dtype == jnp.float32 for t in jax.tree.leaves(clip_and_sum(mixed, weight, 1).total)
    )


@pytest.mark.parametrize("implementation", ["dot", "scan"])
def test_no_copy_of_the_updates_is_written(implementation):
    clients, dim, dtype = 64, 10_000, jnp.float32
    shapes = (
        jax.ShapeDtypeStruct(s, d) for s, d in [((clients, dim), dtype), ((clients,), jnp.float32)]
    )
    compiled = jax.jit(run(implementation)).lower(*shapes, 1.0).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    # A few rows, not the cohort.
    assert analysis.temp_size_in_bytes <= 4 * dim * 4 < clients * dim * 4 / 4


def test_the_default_depends_on_the_stored_dtype():
    assert default_implementation(jnp.dtype(jnp.float32)) == "dot"
    assert default_implementation(jnp.dtype(jnp.bfloat16)) == "scan"


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("clients, dim", [(3, 10), (1_000, 785), (50, MAX_DIM)])
def test_the_pallas_kernel_lowers_for_cuda(clients, dim, dtype):
    shapes = (
        jax.ShapeDtypeStruct(s, d) for s, d in [((clients, dim), dtype), ((clients,), jnp.float32)]
    )
    fn = jax.jit(functools.partial(clip_and_sum, implementation="pallas_gpu"))
    text = fn.trace(*shapes, 1.0).lower(lowering_platforms=("cuda",)).as_text()
    assert "triton" in text


def test_empty_cohorts_and_empty_updates():
    for implementation in IMPLEMENTATIONS:
        none = run(implementation)(jnp.zeros((0, 4)), jnp.zeros(0), 1.0)
        np.testing.assert_array_equal(none.total, np.zeros(4))
        empty = run(implementation)(jnp.zeros((3, 0)), jnp.ones(3), 1.0)
        assert empty.total.shape == (0,) and not empty.norm.any()


def test_bad_input_is_refused_by_name():
    updates, weight, _ = draw(4, 6)
    with pytest.raises(ValueError, match=r"updates\['a'\].shape must begin with the 3 clients"):
        clip_and_sum({"a": updates}, weight[:3], 1.0)
    with pytest.raises(TypeError, match="updates must be floating, got int32"):
        clip_and_sum(jnp.ones((4, 6), jnp.int32), weight, 1.0)
    with pytest.raises(ValueError, match="at least one leaf"):
        clip_and_sum({}, weight, 1.0)
    for bad in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="max_norm must be at least 0"):
            clip_and_sum(updates, weight, bad)
    with pytest.raises(ValueError, match="max_norm must be a scalar"):
        clip_and_sum(updates, weight, jnp.ones(4))
    with pytest.raises(NotImplementedError, match="takes one leaf, got 2"):
        clip_and_sum([updates, updates], weight, 1.0, implementation="pallas_gpu")
    with pytest.raises(NotImplementedError, match="16384 parameters, got 16385"):
        clip_and_sum(jnp.ones((4, MAX_DIM + 1)), weight, 1.0, implementation="pallas_gpu")
