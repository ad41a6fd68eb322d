"""Cox's partial likelihood and concordant pairs, over the patients of one minibatch."""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Ties = Literal["efron", "breslow", "order"]

# Stands for a log hazard of minus infinity. It is finite because the derivative of
# logaddexp(-inf, -inf) is NaN; next to any real log hazard its exponential is exactly 0.
_NOBODY = -1e30


def cox_losses(
    scores: jax.Array, time: jax.Array, event: jax.Array, mask: jax.Array, ties: Ties
) -> jax.Array:
    """Terms `[batch]` of the negative log partial likelihood; 0 for those without an event.

    With R(t) the sum of `exp(scores)` over the patients of `time >= t`, and for the d tied events
    of a time t the sum D(t) of theirs, event number k = 0, ..., d - 1 of them (in the order of the
    rows) has the term

        efron     log(R(t) - k / d * D(t)) - score
        breslow   log(R(t)) - score
        order     log(sum of exp(scores) up to its own row, longest times first) - score

    so that their sum is the likelihood's. Without events all terms
    and their gradients are exactly 0, and so are those of a patient who is alone at risk.

    Args:
      scores: log hazards `[batch]`.
      time: `[batch]`, finite.
      event: `[batch]`, positive where it was seen.
      mask: bool `[batch]`; what is False belongs to no risk set and has term 0.
      ties: see above.

    References:
      Efron, JASA 72, 1977; Breslow, Biometrics 30, 1974.
    """
    order = jnp.argsort(jnp.where(mask, -time, jnp.inf))  # stable; padding comes last
    seen = ((event > 0) & mask)[order]
    scores = jnp.where(mask, scores, _NOBODY)[order]
    time = jnp.where(mask, time, -jnp.inf)[order]
    log_risk = cumulative_log_sum_exp(scores)
    if ties != "order":
        new_time = jnp.concatenate([jnp.ones_like(mask[:1]), time[1:] != time[:-1]])
        first, last = _ends(new_time)
        log_risk = log_risk[last]
        if ties == "efron":
            # D / R: all of a time have the same R, which no score of theirs exceeds.
            parts = jnp.where(seen, jnp.exp(scores - log_risk), 0)
            group = jnp.cumsum(new_time) - 1
            tied = jax.ops.segment_sum(
                parts, group, num_segments=mask.size, indices_are_sorted=True
            )[group]
            events = jnp.cumsum(seen)
            before = events[first] - seen[first]
            share = (events - 1 - before) / jnp.maximum(events[last] - before, 1)
            # At most (d - 1) / d of at most 1, so 1 / d is left at least.
            share = jnp.where(seen, share, 0).astype(scores.dtype)
            log_risk += jnp.log1p(-share * tied)
    return jnp.where(seen, log_risk - scores, 0)[jnp.argsort(order)]


def comparable_pairs(
    risk: jax.Array, time: jax.Array, event: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """For each patient with an event, concordant and comparable pairs with others `[batch]`.

    A pair counts if the other one was followed longer, or as long without an event; it is
    concordant if the other's risk is lower, half if it is equal. The ratio of the sums is Harrell's
    concordance among these patients.
    """
    seen = (event > 0) & mask
    later = (time[None, :] > time[:, None]) | ((time[None, :] == time[:, None]) & ~seen[None, :])
    later &= seen[:, None] & mask[None, :]
    right = (risk[:, None] > risk[None, :]) + 0.5 * (risk[:, None] == risk[None, :])
    dtype = jnp.result_type(float)
    return (
        jnp.sum(jnp.where(later, right, 0), axis=1).astype(dtype),
        jnp.sum(later, axis=1).astype(dtype),
    )


def cumulative_log_sum_exp(values: jax.Array) -> jax.Array:
    """`log(sum of exp(values[: i + 1]))` for every i, by blocks of about the root of their number.

    Within blocks and over blocks it is a triangle of logsumexp, so every sum is taken relative to a
    largest value of its own: nothing overflows, and nothing small is lost. A scan would need fewer
    additions, but its second derivatives took a minute to compile.
    """
    block = max(1, math.isqrt(values.size - 1) + 1)
    padded = jnp.pad(values, (0, -values.size % block), constant_values=_NOBODY)
    blocks = padded.reshape(-1, block)
    within = _triangle(blocks, 0)
    before = _triangle(within[None, :, -1], -1)[0]
    return jnp.logaddexp(within, before[:, None]).reshape(-1)[: values.size]


def _triangle(rows: jax.Array, diagonal: int) -> jax.Array:
    """Logsumexp of each row `[rows, n]` up to every position, or up to the one before it."""
    size = rows.shape[1]
    allowed = np.tri(size, size, diagonal, dtype=bool)[None]
    return jax.nn.logsumexp(jnp.where(allowed, rows[:, None, :], _NOBODY), axis=-1)


def _ends(new_time: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The first and the last row of the same time, for every row."""
    rows = jnp.arange(new_time.size)
    first = lax.cummax(jnp.where(new_time, rows, 0))
    is_last = jnp.concatenate([new_time[1:], jnp.ones_like(new_time[:1])])
    return first, lax.cummin(jnp.where(is_last, rows, new_time.size), reverse=True)
