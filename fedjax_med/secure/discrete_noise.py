"""Whole-numbered noise, drawn exactly: discrete Gaussian and Skellam from tables.

`jax.random.poisson` computes in float32 and is measurably wrong at the rates that noise of this
kind needs, so a difference of two of its draws is no Skellam variable. Here a draw is a search for 64
random bits in a table of the distribution function, computed once on the host.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int32
from scipy import special

MAX_STDDEV = 1e5
"""Beyond it tables would take megabytes and more."""

_TAIL_STDDEVS = 10  # both distributions have less than 2**-70 of their mass outside


class NoiseTable(NamedTuple):
    """A distribution over whole numbers, symmetric around 0.

    Value `i - offset` has the probability `(cumulative[i] - cumulative[i - 1]) / 2**64`. It is the
    exact one up to 2**-64 and 2e-11 of itself; values beyond ten standard deviations, which have
    less than 1e-20 of the mass, are never drawn.

    Attributes:
      high: uint32 `[values]`, upper halves of `cumulative`.
      low: uint32 `[values]`, lower halves; the last entry is `2**64 - 1`, and its draws are its own.
      offset: Python int.
      stddev: the standard deviation of the exact distribution.
    """

    high: np.ndarray
    low: np.ndarray
    offset: int
    stddev: float

    @property
    def cumulative(self) -> np.ndarray:
        """Below how many of 2**64 a value or a lower one is drawn, uint64 `[values]`."""
        return (self.high.astype(np.uint64) << np.uint64(32)) | self.low


def discrete_gaussian(sigma: float) -> NoiseTable:
    """The table of P(x) proportional to `exp(-x**2 / (2 sigma**2))` over the whole numbers.

    Raises:
      ValueError: for a `sigma` that is not in 0.05 to 100,000.

    References:
      Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020.
      https://arxiv.org/abs/2004.00010
    """
    _check("sigma", sigma)
    return _gaussian_table(float(sigma))


def skellam(variance: float) -> NoiseTable:
    """The table of the difference of two Poisson variables of rate `variance / 2` each.

        P(x) = exp(-variance) I_x(variance),   I the modified Bessel function

    A sum of n independent ones is Skellam again, with n times the variance.

    Raises:
      ValueError: for a variance whose root is not in 0.05 to 100,000.

    References:
      Agarwal, Kairouz and Liu, "The Skellam Mechanism for Differentially Private Federated
      Learning", NeurIPS 2021. https://arxiv.org/abs/2110.04995
    """
    _check("the root of the variance", math.sqrt(variance) if variance > 0 else variance)
    return _skellam_table(float(variance))


def draw(key: jax.Array, table: NoiseTable, shape: tuple[int, ...]) -> Int32[Array, "*shape"]:
    """Independent draws from a table: 64 random bits each, and a binary search of fixed length."""
    high, low = jax.random.bits(key, (2, *shape), jnp.uint32)
    table_high, table_low = jnp.asarray(table.high), jnp.asarray(table.low)
    size = len(table.high)

    def halve(_, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """The wanted entry is the first that is larger than the bits; it lies in first..last."""
        first, last = bounds
        middle = (first + last) // 2
        h, lo = table_high[middle], table_low[middle]
        beyond = (h > high) | ((h == high) & (lo > low))
        return jnp.where(beyond, first, middle + 1), jnp.where(beyond, middle, last)

    start = jnp.zeros(shape, jnp.int32), jnp.full(shape, size - 1, jnp.int32)
    # The interval of size + 1 places halves each time; ends that have met stay.
    first, _ = lax.fori_loop(0, size.bit_length() + 1, halve, start)
    return jnp.minimum(first, size - 1) - table.offset


def _check(name: str, stddev: float) -> None:
    if not 0.05 <= stddev <= MAX_STDDEV:
        raise ValueError(f"{name} must be in 0.05 to {MAX_STDDEV:g}, got {stddev!r}.")


@functools.lru_cache(maxsize=16)
def _gaussian_table(sigma: float) -> NoiseTable:
    x = np.arange(-_reach(sigma), 1, dtype=np.float64)
    half = np.exp(-(x**2) / (2 * sigma**2))
    total = 2 * math.fsum(half[:-1]) + 1
    variance = 2 * math.fsum(x**2 * half) / total
    return _table(half / total, math.sqrt(variance))


@functools.lru_cache(maxsize=16)
def _skellam_table(variance: float) -> NoiseTable:
    # Skellam tails are a little heavier than Gaussian ones where the variance is small.
    x = np.arange(-_reach(max(1.0, math.sqrt(variance))) - 20, 1, dtype=np.float64)
    return _table(_skellam_half(-x, variance), math.sqrt(variance))


def _skellam_half(order: np.ndarray, variance: float) -> np.ndarray:
    """`exp(-v) I_x(v)` for x = order, descending to 0.

    Miller's backward recurrence of the ratios r_x = I_x / I_(x - 1), which is stable:
    1 / r_x = 2 x / v + r_(x + 1); scaled by the value at 0, which SciPy has to full accuracy.
    """
    ratios = np.empty(len(order))
    # Begun far enough outside, the unknown first ratio does not matter.
    ratio = 0.0
    for x in range(int(order[0]) + 50, 0, -1):
        ratio = 1 / (2 * x / variance + ratio)
        if x <= order[0]:
            ratios[len(order) - 1 - x] = ratio
    at_zero = special.ive(0, variance)
    logs = np.log(ratios[:-1])
    return np.append(at_zero * np.exp(np.cumsum(logs[::-1])[::-1]), at_zero)


def _reach(stddev: float) -> int:
    return math.ceil(_TAIL_STDDEVS * stddev) + 2


def _table(half: np.ndarray, stddev: float) -> NoiseTable:
    """The table from the probabilities of the values up to 0; the others mirror them."""
    # Whole numbers from here on: a running sum of floats would blur every single probability.
    counts = [round(p) for p in (half[:-1] * 2.0**64).tolist()]
    counts = [*counts, 2**64 - 2 * sum(counts), *reversed(counts)]
    # The last value has one draw of 2**64 less than its due, so that all bounds fit 64 bits.
    values = np.array([min(c, 2**64 - 1) for c in itertools.accumulate(counts)], np.uint64)
    high = (values >> np.uint64(32)).astype(np.uint32)
    return NoiseTable(high, values.astype(np.uint32), len(half) - 1, stddev)
