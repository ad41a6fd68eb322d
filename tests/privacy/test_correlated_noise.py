"""Noise of trees and bands, against the matrices they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_med.privacy import (
    Banded,
    ClientLevel,
    CyclicPoisson,
    Passes,
    Tree,
    optimal_banded,
    root_mean_square_error,
    square_root,
)
from fedjax_med.privacy.correlated_noise import banded, independent, standard_normal, tree
from tests.privacy.world import assert_scale, run

KEY = jax.random.key(11)
LIKE = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(4, jnp.bfloat16)}


def stream(noise, rounds, like=LIKE):
    """The noise of all rounds, `[rounds, dim]`, as a compiled loop draws it."""

    def one(state, r):
        drawn, state = noise.draw(KEY, r, like, state)
        return state, drawn

    _, drawn = jax.jit(lambda: jax.lax.scan(one, noise.init(like), jnp.arange(rounds)))()
    return np.concatenate([np.reshape(x, (rounds, -1)) for x in jax.tree.leaves(drawn)], axis=1)


def test_independent_noise_is_new_everywhere():
    drawn = stream(independent(), 50)
    assert drawn.dtype == np.float32 and len(np.unique(drawn)) == drawn.size
    np.testing.assert_array_equal(drawn, stream(independent(), 50))


@pytest.mark.parametrize("bands", [1, 2, 5])
def test_banded_noise_is_the_inverse_matrix_times_independent_noise(bands):
    rounds, c = 12, optimal_banded(bands, 12)
    matrix = sum(np.diag(np.full(rounds - j, c[j]), -j) for j in range(bands))
    want = np.linalg.solve(matrix, np.float64(stream(independent(), rounds)))
    # Float32 recursions of 12 steps.
    np.testing.assert_allclose(stream(banded(c), rounds), want, rtol=1e-4, atol=1e-5)


def test_tree_noise_sums_to_the_nodes_of_the_binary_digits():
    per_pass, rounds = 11, 25
    prefix = np.zeros(10)
    nodes = set()

    @jax.jit
    def node(number_of_pass, level, number):
        key = jax.random.fold_in(KEY, number_of_pass)
        key = jax.random.fold_in(jax.random.fold_in(key, level), number)
        return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(standard_normal(key, LIKE))])

    for r, drawn in enumerate(stream(tree(per_pass), rounds)):
        number_of_pass, place = divmod(r, per_pass)
        if place == 0:
            prefix = np.zeros(10)
        prefix += drawn
        t, want = place + 1, np.zeros(10)
        for level in range(t.bit_length()):
            if t >> level & 1:
                nodes.add((number_of_pass, level, t >> level))
                want += node(number_of_pass, level, t >> level)
        # Sums of up to a dozen float32 normals.
        np.testing.assert_allclose(prefix, want, atol=1e-5)
    # A client of the first round of a pass is in one node per level, and in no other pass.
    assert len([n for n in nodes if n[0] == 0 and (n[2] - 1) << n[1] <= 0]) == 4


def test_variance_of_prefix_sums():
    """popcount(t) for the tree, the rows of A C^-1 for bands, t without correlation."""
    like, rounds = jnp.zeros(20_000), 8
    for noise, variance in (
        (independent(), np.arange(1, 9)),
        (tree(8), np.array([1, 1, 2, 1, 2, 2, 3, 1])),
        (banded(optimal_banded(8, 8)), None),
    ):
        if variance is None:
            c = optimal_banded(8, 8)
            matrix = sum(np.diag(np.full(8 - j, c[j]), -j) for j in range(8))
            rows = np.tril(np.ones((8, 8))) @ np.linalg.inv(matrix)
            variance = np.sum(rows**2, axis=1)
            np.testing.assert_allclose(np.sqrt(variance.mean()), root_mean_square_error(c, 8))
        prefix = np.cumsum(stream(noise, rounds, like), axis=0)
        for t in (3, 6, 8):
            assert_scale(prefix[t - 1], np.sqrt(variance[t - 1]))


@pytest.mark.parametrize(
    "rounds, bands, error",
    [
        (128, 1, 8.0312),
        (128, 4, 4.3641),
        (128, 16, 2.8726),
        (1024, 1, 22.6385),
        (1024, 16, 6.3428),
        (1024, 64, 4.0659),
    ],
)
def test_optimal_bands(rounds, bands, error):
    """The errors that jax-privacy's `optimize_banded_toeplitz` reaches, to the digits given."""
    c = optimal_banded(bands, rounds)
    assert c.shape == (bands,)
    np.testing.assert_allclose(np.linalg.norm(c), 1, rtol=1e-12)
    np.testing.assert_allclose(root_mean_square_error(c, rounds), error, atol=5.1e-5)
    assert root_mean_square_error(square_root(bands), rounds) >= error - 5.1e-5


def test_the_full_square_root_squares_to_prefix_sums():
    c = square_root(6)
    matrix = sum(np.diag(np.full(6 - j, c[j]), -j) for j in range(6)) / c[0]
    np.testing.assert_allclose(matrix @ matrix, np.tril(np.ones((6, 6))), atol=1e-12)


@pytest.mark.parametrize("bands", [0, 9])
def test_impossible_bands(bands):
    with pytest.raises(ValueError, match=f"bands must be from 1 to the 8 rounds, got {bands}"):
        optimal_banded(bands, 8)


@pytest.mark.parametrize(
    "sampler, correlation, variance",
    [
        (Passes(1), Tree(), 1.0),  # popcount(4)
        (CyclicPoisson(1.0, 2), Banded(2), None),
    ],
    ids=["tree", "banded"],
)
def test_correlated_noise_in_whole_runs(sampler, correlation, variance):
    """After four rounds the model holds the prefix sum of the noise, over chunks of a run."""
    config = ClientLevel(2.0, 1e-3, 1.5, sampling=sampler, correlation=correlation)
    plan = config.plan(population=4, rounds=4)
    if variance is None:
        c = optimal_banded(2, 4)
        inverse = np.linalg.inv(np.diag(np.full(4, c[0])) + np.diag(np.full(3, c[1]), -1))
        variance = np.sum(inverse.sum(axis=0) ** 2)
    result = run(plan, np.zeros((4, 20_000)), rounds=4, rounds_per_call=3)
    scale = 1.5 * 2.0 / plan.expected_cohort
    assert_scale(result.variables.params, scale * np.sqrt(variance))
