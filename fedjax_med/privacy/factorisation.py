"""Banded Toeplitz factorisations of prefix sums: which noise leaves the least error in a model.

A server that adds up noisy updates holds prefix sums `A x`, A all ones below the diagonal. With a
lower triangular C of columns of norm 1, noise `C^-1 z` on the updates is as private as z on
contributions that are at least `bands` rounds apart, and its prefix sums `A C^-1 z` can be far
smaller than `A z`.
"""

from __future__ import annotations

import functools

import numpy as np
from scipy import optimize, signal


def _weights(rounds: int) -> np.ndarray:
    """Share of the rounds in whose prefix sum the j-th coefficient of A C^-1 appears."""
    return 1 - np.arange(rounds) / rounds


def root_mean_square_error(coefficients: np.ndarray, rounds: int) -> float:
    """Of the prefix sums of noise, per unit of noise multiplier times clip bound.

        |c| * sqrt(mean_t sum_{j <= t} w[j]^2),   w the series of 1 / ((1 - x) c(x))

    Args:
      coefficients: `[bands]`, first column of C, of any norm.
      rounds: rounds of the run.
    """
    w = signal.lfilter([1.0], coefficients, np.ones(rounds))
    norm = np.linalg.norm(coefficients)
    return float(norm * np.sqrt(np.sum(_weights(rounds) * np.square(w))))


def square_root(bands: int) -> np.ndarray:
    """The first coefficients of 1 / sqrt(1 - x), `[bands]`, scaled to norm 1.

    With as many bands as rounds, C is the square root of A (Fichtenberger, Henzinger and Upadhyay,
    ICML 2023, https://arxiv.org/abs/2202.11205).
    """
    j = np.arange(1, bands)
    c = np.concatenate([[1.0], np.cumprod((2 * j - 1) / (2 * j))])
    return c / np.linalg.norm(c)


@functools.lru_cache(maxsize=64)
def _optimal(bands: int, rounds: int) -> tuple[float, ...]:
    share = _weights(rounds)

    def logarithm(tail: np.ndarray) -> tuple[float, np.ndarray]:
        """Log of the mean squared error and its gradient, as a function of c[1:] at c[0] = 1."""
        c = np.concatenate([[1.0], tail])
        w = np.asarray(signal.lfilter([1.0], c, np.ones(rounds)))
        error, square = np.sum(share * np.square(w)), np.sum(np.square(c))
        # c * w = 1 gives dw = -c^-1 * (dc * w); its transpose filters backwards in time.
        back = np.asarray(signal.lfilter([1.0], c, (2 * share * w)[::-1]))[::-1]
        slope = np.array([-back[k:] @ w[: rounds - k] for k in range(1, bands)])
        return float(np.log(error * square)), slope / error + 2 * tail / square

    start = square_root(bands)
    found = optimize.minimize(logarithm, start[1:] / start[0], jac=True, method="L-BFGS-B")
    c = np.concatenate([[1.0], found.x])
    return tuple(c / np.linalg.norm(c))


def optimal_banded(bands: int, rounds: int) -> np.ndarray:
    """The first column `[bands]`, of norm 1, of the banded C with the least error of prefix sums.

    L-BFGS from the banded square root; a float64 computation on the host.

    Raises:
      ValueError: unless `1 <= bands <= rounds`.

    References:
      Choquette-Choo et al., NeurIPS 2023, section 4. https://arxiv.org/abs/2306.08153;
      McKenna, "Scaling up the Banded Matrix Factorization Mechanism", 2024, section 4.
      https://arxiv.org/abs/2405.15913
    """
    if not 1 <= bands <= rounds:
        raise ValueError(f"bands must be from 1 to the {rounds} rounds, got {bands}.")
    if bands == 1:
        return np.ones(1)
    return np.array(_optimal(bands, rounds))
