"""Gaussian noise of the rounds of a run: independent, of a binary tree, or banded.

A noise is a pair of functions, like an optimizer: what it remembers between rounds, and the noise
of a round with standard deviation 1 per draw. All of it is drawn inside the compiled round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fedjax_med.privacy.clipping import wide

PyTree = Any


class Noise(NamedTuple):
    """A stream of noise.

    Attributes:
      init: `(like) -> state`.
      draw: `(key, round_index, like, state) -> (noise, state)`; the key is the run's, the same in
        all rounds, and `like` gives shapes and dtypes.
    """

    init: Callable[[PyTree], PyTree]
    draw: Callable[[jax.Array, jax.Array, PyTree, PyTree], tuple[PyTree, PyTree]]


def standard_normal(key: jax.Array, like: PyTree) -> PyTree:
    """A tree of independent N(0, 1), in float32 or wider."""
    leaves, structure = jax.tree.flatten(like)
    return structure.unflatten(
        [
            jax.random.normal(jax.random.fold_in(key, number), leaf.shape, wide(leaf.dtype))
            for number, leaf in enumerate(leaves)
        ]
    )


def independent() -> Noise:
    """New noise every round."""

    def draw(key: jax.Array, round_index: jax.Array, like: PyTree, state: PyTree):
        return standard_normal(jax.random.fold_in(key, round_index), like), state

    return Noise(lambda like: (), draw)


def tree(rounds_per_pass: int) -> Noise:
    """Noise whose sum over the first t rounds of a pass is that of the binary digits of t.

    The sum of the noise over t rounds has variance popcount(t) instead of t. What a round adds is
    the difference of two such sums: the node that closes at t minus the nodes it replaces. Nodes are
    made from their place in the tree, so nothing is remembered between rounds.

    References:
      Kairouz et al., "Practical and Private (Deep) Learning Without Sampling or Shuffling",
      ICML 2021, algorithm 2 (without the variance reduction of Honaker).
      https://arxiv.org/abs/2103.00039
    """

    def draw(key: jax.Array, round_index: jax.Array, like: PyTree, state: PyTree):
        key = jax.random.fold_in(key, round_index // rounds_per_pass)
        t = round_index % rounds_per_pass + 1

        def node(level: jax.Array, number: jax.Array) -> PyTree:
            own = jax.random.fold_in(jax.random.fold_in(key, level), number)
            return standard_normal(own, like)

        level = lax.population_count((t & -t) - 1)  # trailing zeros of t

        def without(j: jax.Array, noise: PyTree) -> PyTree:
            return jax.tree.map(jnp.subtract, noise, node(j, (t - 1) >> j))

        return lax.fori_loop(0, level, without, node(level, t >> level)), state

    return Noise(lambda like: (), draw)


def banded(coefficients: np.ndarray) -> Noise:
    """Noise C^-1 z of a banded lower triangular Toeplitz matrix C, round by round.

        noise[t] = (z[t] - sum_{j=1}^{bands-1} c[j] noise[t - j]) / c[0]

    The last `bands - 1` noises are remembered, whatever the number of rounds.

    Args:
      coefficients: `[bands]`, first column of C, of L2 norm 1.

    References:
      Choquette-Choo et al., "(Amplified) Banded Matrix Factorization", NeurIPS 2023, algorithm 1
      and section 4. https://arxiv.org/abs/2306.08153
    """
    first, rest = float(coefficients[0]), np.asarray(coefficients[1:])

    def init(like: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.zeros((len(rest), *x.shape), wide(x.dtype)), like)

    def draw(key: jax.Array, round_index: jax.Array, like: PyTree, state: PyTree):
        fresh = standard_normal(jax.random.fold_in(key, round_index), like)

        def correlated(z: jax.Array, past: jax.Array) -> jax.Array:
            return (z - jnp.tensordot(jnp.asarray(rest, z.dtype), past, 1)) / first

        noise = jax.tree.map(correlated, fresh, state)
        state = jax.tree.map(
            lambda new, past: jnp.concatenate([new[None], past])[: len(rest)], noise, state
        )
        return noise, state

    return Noise(init, draw)
