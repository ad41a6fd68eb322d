"""Median and trimmed mean of rows that are sorted, for any traced number of valid ones."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def fill_for_median(valid: Bool[Array, " clients"]) -> Float[Array, " clients"]:
    """What to put in place of invalid rows so that the median stays in the middle.

    Half of them sort to the front and half to the back (the larger half, if odd), so that the
    middle rows of all are those of the valid ones however many there are: which outputs of the
    network are needed is known before the number of valid clients is.
    """
    invalid = ~valid
    before = jnp.cumsum(invalid, dtype=jnp.int32)  # among the invalid, from 1
    return jnp.where(before <= jnp.sum(invalid, dtype=jnp.int32) // 2, -jnp.inf, jnp.inf)


def middle(rows: Sequence[jax.Array] | jax.Array, count: Int[Array, ""]) -> jax.Array:
    """The median of `count` valid rows among sorted `rows` filled with `fill_for_median`.

    Of an odd number the middle one, of an even number the mean of the two. Where the number of
    rows and of valid ones are both even or both odd, that is the middle of all rows; otherwise
    one invalid row more has gone to the back, and the middle lies half a place lower.
    """
    n = len(rows)
    if n % 2:
        lower, middle = rows[max(n // 2 - 1, 0)], rows[n // 2]
        return jnp.where(count % 2 == 1, middle, _mean(lower, middle))
    lower, upper = rows[n // 2 - 1], rows[n // 2]
    return jnp.where(count % 2 == 1, lower, _mean(lower, upper))


def trimmed_sum(
    rows: Sequence[jax.Array], count: Int[Array, ""], trim: Int[Array, ""]
) -> jax.Array:
    """The sum of rows `trim` to `count - trim - 1` of sorted rows, invalid ones at the back."""
    total = jnp.zeros_like(rows[0])
    for rank, row in enumerate(rows):
        total = total + jnp.where((rank >= trim) & (rank < count - trim), row, 0)
    return total


def _mean(a: jax.Array, b: jax.Array) -> jax.Array:
    # Halved before, so that large values do not overflow; -inf and inf together give NaN.
    return a / 2 + b / 2
