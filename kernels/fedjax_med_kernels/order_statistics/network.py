"""Sorting networks generated while tracing: unrolled over rows, or stage by stage."""

from collections.abc import Sequence
from functools import cache

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@cache
def comparators(n: int) -> tuple[tuple[int, int], ...]:
    """The comparators `(i, j)`, `i < j`, that sort any `n` values when applied in turn.

    About `n / 4 * log2(n)**2` of them: 63 for 16 values, 543 for 64.

    References:
      Knuth, The Art of Computer Programming, vol. 3, 2nd ed., section 5.2.2, algorithm M; Batcher,
      AFIPS 1968.
    """
    pairs = []
    top = 1 << max(n - 1, 0).bit_length() >> 1
    p = top
    while p > 0:
        q, r, distance = top, 0, p
        while True:
            pairs.extend((i, i + distance) for i in range(n - distance) if i & p == r)
            if q == p:
                break
            distance, q, r = q - p, q // 2, p
        p //= 2
    return tuple(pairs)


def sort_rows(rows: Sequence[jax.Array]) -> list[jax.Array]:
    """Sorts elementwise across arrays of one shape: position 0 gets the smallest.

    Comparators that no used output depends on are dropped by the compiler, so a median pays for a
    selection only. A NaN spreads to everything it is compared with; replace it before.
    """
    rows = list(rows)
    for i, j in comparators(len(rows)):
        rows[i], rows[j] = jnp.minimum(rows[i], rows[j]), jnp.maximum(rows[i], rows[j])
    return rows


def sort_stages(x: Float[Array, "clients dim"]) -> Float[Array, "clients dim"]:
    """Sorts along axis 0 by the bitonic network, every stage one operation on the whole array.

    More comparators than `sort_rows`, and every stage reads and writes all rows; but the program
    grows with `log2(clients)**2 / 2` stages, where an unrolled network whose outputs are all used
    compiles for half a minute at 64 rows. Rows of infinity fill up to a power of two.

    References:
      Batcher, AFIPS 1968, in the form that compares mirrored places first, so that every
      comparator points the same way.
    """
    clients, dim = x.shape
    size = 1 << max(clients - 1, 0).bit_length()
    x = jnp.concatenate([x, jnp.full((size - clients, dim), jnp.inf, x.dtype)])
    merged = 2
    while merged <= size:
        parts = x.reshape(size // merged, 2, merged // 2, dim)
        low, high = parts[:, 0], parts[:, 1, ::-1]
        # The larger half stays mirrored: the stages that follow sort it either way round.
        pair = [jnp.minimum(low, high), jnp.maximum(low, high)]
        x = jnp.stack(pair, axis=1).reshape(size, dim)
        distance = merged // 4
        while distance >= 1:
            parts = x.reshape(size // (2 * distance), 2, distance, dim)
            low, high = parts[:, 0], parts[:, 1]
            pair = [jnp.minimum(low, high), jnp.maximum(low, high)]
            x = jnp.stack(pair, axis=1).reshape(size, dim)
            distance //= 2
        merged *= 2
    return x[:clients]
