"""Batcher's merge-exchange sorting network, generated while tracing."""

from collections.abc import Sequence
from functools import cache

import jax
import jax.numpy as jnp


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
