"""Clip-and-sum in two reads (norms, then a matrix-vector product) and in one (a scan)."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fedjax_med_kernels.clip_and_sum.factor import clip_factor


def dot_sum(
    leaves: tuple[Float[Array, "clients _"], ...],
    weight: Float[Array, " clients"],
    max_norm: Float[Array, ""],
) -> tuple[tuple[Array, ...], Float[Array, " clients"]]:
    """Reads the updates twice: norms, then the vector of scaled weights times the matrix.

    A matrix-vector product cannot skip a row of NaN, so a cohort with a client that is not finite
    takes another route, chosen on the device: the sum row by row of `scan_sum`. Under `vmap` that
    choice becomes a selection and both routes run.

    Returns:
      The sums, one for each leaf, and the norms, in the dtype of `weight`.
    """
    squares = [
        jnp.einsum("cd,cd->c", u, u, precision="highest", preferred_element_type=weight.dtype)
        for u in leaves
    ]
    norm = jnp.sqrt(sum(squares, jnp.zeros_like(weight)))
    scale = weight * clip_factor(norm, max_norm)

    def product(leaves):
        return tuple(
            jnp.einsum("c,cd->d", scale, u.astype(scale.dtype), precision="highest") for u in leaves
        )

    def row_by_row(leaves):
        def add(total, row):
            finite, scale, *leaves = row
            return _add(total, leaves, scale, finite), None

        return lax.scan(add, _zeros(leaves, scale.dtype), (jnp.isfinite(norm), scale, *leaves))[0]

    return lax.cond(jnp.all(jnp.isfinite(norm)), product, row_by_row, leaves), norm


def scan_sum(
    leaves: tuple[Float[Array, "clients _"], ...],
    weight: Float[Array, " clients"],
    max_norm: Float[Array, ""],
) -> tuple[tuple[Array, ...], Float[Array, " clients"]]:
    """One client after the other: its norm, then its row is added to the sum.

    The second use of a row comes from the cache while a client's row and the sum fit there; the
    memory is then read once. Larger rows are read twice, and the sum is read and written for
    every client. (Of 16-bit updates XLA's CPU compiler writes a float32 copy before the loop.)

    Returns:
      The sums, one for each leaf, and the norms, in the dtype of `weight`.
    """
    dtype = weight.dtype

    def add(total, row):
        weight, *updates = row
        square = sum((jnp.sum(jnp.square(u.astype(dtype))) for u in updates), jnp.zeros((), dtype))
        norm = jnp.sqrt(square)
        scale = weight * clip_factor(norm, max_norm)
        return _add(total, updates, scale, jnp.isfinite(norm)), norm

    return lax.scan(add, _zeros(leaves, dtype), (weight, *leaves))


def _add(total, leaves, scale: jax.Array, finite: jax.Array) -> tuple[Array, ...]:
    return tuple(
        t + jnp.where(finite, scale * u.astype(t.dtype), 0)
        for t, u in zip(total, leaves, strict=True)
    )


def _zeros(leaves, dtype) -> tuple[Array, ...]:
    return tuple(jnp.zeros(u.shape[1], dtype) for u in leaves)
