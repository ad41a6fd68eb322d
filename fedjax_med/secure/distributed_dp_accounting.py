"""Differential privacy of noise that clients add in shares, from sizes alone; on the host.

Neighbours are cohorts in which one client sends nothing but its noise (zero-out). Every client may be
in every round: no amplification by sampling is claimed.

References:
  Kairouz, Liu and Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with
  Secure Aggregation", ICML 2021. https://arxiv.org/abs/2102.06387
  Agarwal, Kairouz and Liu, "The Skellam Mechanism for Differentially Private Federated Learning",
  NeurIPS 2021. https://arxiv.org/abs/2110.04995
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats

from fedjax_med.secure.discrete_noise import MAX_STDDEV

ORDERS = (*range(2, 129), 256)
"""Orders of Renyi divergence; whole, as both theorems are for whole ones."""


def rounded_norm_bound(norm: float, dim: int, beta: float) -> float:
    """The L2 norm that conditional stochastic rounding keeps to; `norm` is that before rounding.

        min(norm + sqrt(d), sqrt(norm**2 + d/4 + sqrt(2 log(1/beta)) (norm + sqrt(d)/2)))

    Rounding is repeated while the norm is larger, which happens with probability at most `beta`; with
    `beta=0` never, and the bound is the first of the two.

    References:
      Kairouz et al., theorem 1 and proposition 22.
    """
    always = norm + math.sqrt(dim)
    if beta == 0:
        return always
    spread = math.sqrt(2 * math.log(1 / beta)) * (norm + math.sqrt(dim) / 2)
    return min(always, math.sqrt(norm**2 + dim / 4 + spread))


def epsilon_from_rdp(orders: Sequence[int], rdp: np.ndarray, delta: float) -> float:
    """The smallest epsilon that a Renyi guarantee gives at `delta`.

        min over a of  rdp(a) + log((a - 1) / a) - (log(delta) + log(a)) / (a - 1)

    References:
      Canonne, Kamath and Steinke, NeurIPS 2020, proposition 12. https://arxiv.org/abs/2004.00010
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta must be between 0 and 1, got {delta!r}.")
    a = np.asarray(orders, np.float64)
    epsilon = rdp + np.log1p(-1 / a) - (math.log(delta) + np.log(a)) / (a - 1)
    return max(0.0, float(np.min(epsilon)))


@dataclasses.dataclass(frozen=True)
class DistributedDP:
    """Clip bound, noise and word size of distributed differential privacy, tied together.

    Each client's share of the noise is such that `min_survivors` of them together give
    `noise_multiplier * clip`; who drops out takes a share away, and a round with fewer survivors is
    rejected, so that what is accounted for holds in every round that counts.

    Attributes:
      num_clients: clients of the largest cohort.
      dim: numbers of an update, padded to a power of two for the rotation.
      clip: L2 norm that updates are clipped to [units of parameters].
      noise_multiplier: standard deviation of the noise of `min_survivors` clients over `clip`.
      bits: sums are modulo `2**bits`.
      min_survivors: `num_clients` if None.
      noise: distribution of a client's share.
      wrap_probability: of a coordinate of the sum to wrap around the modulus, for a rotated sum and
        noise that are Gaussian; sets how finely numbers are rounded.
      beta: see `rounded_norm_bound`.
    """

    num_clients: int
    dim: int
    clip: float
    noise_multiplier: float
    bits: int = 18
    min_survivors: int | None = None
    noise: Literal["skellam", "discrete_gaussian"] = "skellam"
    wrap_probability: float = 1e-4
    beta: float = math.exp(-0.5)

    def __post_init__(self) -> None:
        """Checks the attributes.

        Raises:
          ValueError: names the attribute that is not allowed, or what does not fit the word size.
        """
        for name in ("num_clients", "dim", "clip", "noise_multiplier"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive and finite, got {value!r}.")
        if self.dim & (self.dim - 1):
            raise ValueError(f"dim must be a power of two, the padded size, got {self.dim}.")
        if not 2 <= self.bits <= 24:
            raise ValueError(f"bits must be 2 to 24, exact in float32, got {self.bits}.")
        if not 1 <= self.survivors <= self.num_clients:
            raise ValueError(
                f"min_survivors must be 1 to {self.num_clients} (num_clients), got "
                f"{self.min_survivors}."
            )
        if self.noise not in ("skellam", "discrete_gaussian"):
            raise ValueError(f"noise must be 'skellam' or 'discrete_gaussian', got {self.noise!r}.")
        if not 0 < self.wrap_probability < 1:
            raise ValueError(
                f"wrap_probability must be between 0 and 1, got {self.wrap_probability!r}."
            )
        if not 0 <= self.beta < 1:
            raise ValueError(f"beta must be at least 0 and less than 1, got {self.beta!r}.")
        if 4.0**self.bits <= self.num_clients * self._deviations**2:
            raise ValueError(
                f"bits={self.bits} is too few for {self.num_clients} clients: the rounding errors "
                "alone would wrap the modulus."
            )
        if not 0.5 <= self.scaled_stddev <= MAX_STDDEV:
            raise ValueError(
                f"With bits={self.bits} a client's noise has a standard deviation of "
                f"{self.scaled_stddev:.3g} units; allowed are 0.5 to {MAX_STDDEV:g}. "
                f"Use {'more' if self.scaled_stddev < 0.5 else 'fewer'} bits."
            )

    @property
    def survivors(self) -> int:
        """`min_survivors`, or everybody."""
        return self.num_clients if self.min_survivors is None else self.min_survivors

    @property
    def local_stddev(self) -> float:
        """Standard deviation of one client's noise [units of parameters]."""
        return self.noise_multiplier * self.clip / math.sqrt(self.survivors)

    @property
    def _deviations(self) -> float:
        return float(stats.norm.isf(self.wrap_probability / 2))

    @property
    def scale(self) -> float:
        """Units per unit of parameters: as fine as the modulus allows.

            2**bits = 2 k sqrt(s**2 (c**2 n**2 / d + n sigma**2) + n / 4)

        with k standard deviations for `wrap_probability`, n clients and d numbers (Kairouz et al.,
        section 4.4).
        """
        n, k = self.num_clients, self._deviations
        variance = self.clip**2 * n**2 / self.dim + n * self.local_stddev**2
        return math.sqrt(4.0**self.bits - n * k**2) / (2 * k * math.sqrt(variance))

    @property
    def scaled_stddev(self) -> float:
        """Standard deviation of one client's noise in units."""
        return self.local_stddev * self.scale

    @property
    def norm_bound(self) -> float:
        """L2 norm of a client's whole numbers, in units; the sensitivity of the sum."""
        return rounded_norm_bound(self.clip * self.scale, self.dim, self.beta)

    def rdp(self, survivors: int | None = None, orders: Sequence[int] = ORDERS) -> np.ndarray:
        """Renyi divergence of one round, for each order.

        Discrete Gaussian (Kairouz et al., proposition 14), with r2 = D2 / sqrt(n sigma**2), likewise
        r1, and tau = 10 sum_(k=1)^(n-1) exp(-2 pi**2 sigma**2 k / (k + 1)):

            min(a r2**2 / 2 + tau d, a (r2**2 + 2 r1 tau + tau**2 d) / 2, a (r2 + sqrt(d) tau)**2 / 2)

        Skellam (Agarwal et al., theorem 3.5), with mu = n sigma**2:

            a D2**2 / (2 mu) + min(((2 a - 1) D2**2 + 6 D1) / (4 mu**2), 3 D1 / (2 mu))

        Args:
          survivors: clients whose noise is in the sum; `min_survivors` if None.
          orders: whole, at least 2.
        """
        n = self.survivors if survivors is None else survivors
        a = np.asarray(orders, np.float64)
        d, l2 = self.dim, self.norm_bound
        l1 = l2 * min(math.sqrt(d), l2)  # of whole numbers, none is more than its square
        mu = n * self.scaled_stddev**2
        if self.noise == "skellam":
            extra = np.minimum(((2 * a - 1) * l2**2 + 6 * l1) / (4 * mu**2), 3 * l1 / (2 * mu))
            return a * l2**2 / (2 * mu) + extra
        ratio = np.arange(1, n) / np.arange(2, n + 1)
        tau = 10 * float(np.sum(np.exp(-2 * (math.pi * self.scaled_stddev) ** 2 * ratio)))
        r1, r2 = l1 / math.sqrt(mu), l2 / math.sqrt(mu)
        terms = (
            a * r2**2 / 2 + tau * d,
            a * (r2**2 + 2 * r1 * tau + tau**2 * d) / 2,
            a * (r2 + math.sqrt(d) * tau) ** 2 / 2,
        )
        return np.minimum.reduce(terms)

    def epsilon(
        self, delta: float, rounds: int = 1, *, survivors: Sequence[int] | None = None
    ) -> float:
        """Epsilon at `delta` of all models of a run.

        Args:
          delta: between 0 and 1.
          rounds: rounds that were not rejected, each accounted for with `min_survivors`.
          survivors: clients that handed in, of each round: what a run has really spent, in place of
            `rounds`. Whoever reports it has to accept that it depends on who dropped out.

        Raises:
          ValueError: for fewer survivors than `min_survivors`, or a `delta` out of range.
        """
        if survivors is None:
            return epsilon_from_rdp(ORDERS, rounds * self.rdp(), delta) if rounds else 0.0
        for number, n in enumerate(survivors):
            if n < self.survivors:
                raise ValueError(
                    f"survivors[{number}] is {n}, but rounds of fewer than {self.survivors} "
                    "(min_survivors) are rejected."
                )
        if not len(survivors):
            return 0.0
        counts = {n: sum(s == n for s in survivors) for n in set(survivors)}
        total = np.sum([c * self.rdp(n) for n, c in counts.items()], axis=0)
        return epsilon_from_rdp(ORDERS, total, delta)
