"""Bounds on what one client, or one record, adds to a sum."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from fedjax_med_kernels.clip_and_sum.factor import clip_factor

PyTree = Any


def wide(dtype: Any) -> Any:
    """The precision of sums: float32, or float64 where the model has it."""
    return jnp.promote_types(dtype, jnp.float32)


def clip_to_norm(tree: PyTree, max_norm: jax.Array | float) -> tuple[PyTree, jax.Array]:
    """A tree of L2 norm at most `max_norm`, in float32 or wider, and the norm it had.

        tree * min(1, max_norm / norm)

    The bound holds up to the rounding of a float32 sum of squares; what is returned stays wide,
    since rounding to bfloat16 could enlarge it by 0.4 %. A tree with a NaN or an infinity, or whose
    norm overflows, becomes 0.
    """
    tree = jax.tree.map(lambda x: x.astype(wide(x.dtype)), tree)
    dtype = jnp.result_type(*jax.tree.leaves(tree))
    square = sum((jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)), jnp.zeros((), dtype))
    norm = jnp.sqrt(square)
    factor = clip_factor(norm, jnp.asarray(max_norm, dtype))
    # A factor of 0 does not remove a NaN; the content has to go as well.
    finite = jnp.isfinite(norm)
    return jax.tree.map(lambda x: jnp.where(finite, factor.astype(x.dtype) * x, 0), tree), norm


@dataclasses.dataclass(frozen=True)
class QuantileClipping:
    """A clip bound that follows a quantile of the norms of the clients' updates.

        fraction = (sum_c 1[norm_c <= bound] + noise) / cohort
        bound <- bound * exp(-learning_rate * (fraction - quantile))

    The count is noised as well, and the noise of the sum grows so that both together cost what the
    plan's noise multiplier says:  z_sum = (z^-2 - (2 z_count)^-2)^(-1/2).

    Attributes:
      quantile: share of the clients that should not be clipped.
      learning_rate: of the logarithm of the bound.
      count_noise: z_count, standard deviation of the count's noise [clients]; a twentieth of the
        expected cohort if None, as in the paper.

    References:
      Andrew et al., "Differentially Private Learning with Adaptive Clipping", NeurIPS 2021,
      algorithm 1 and theorem 1. https://arxiv.org/abs/1905.03871
    """

    quantile: float = 0.5
    learning_rate: float = 0.2
    count_noise: float | None = None

    def __post_init__(self) -> None:
        """Checks the arguments."""
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile must be from 0 to 1, got {self.quantile!r}.")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate!r}.")
        if self.count_noise is not None and not 0 < self.count_noise < math.inf:
            raise ValueError(f"count_noise must be positive, got {self.count_noise!r}.")

    def noise_of_count(self, expected_cohort: float) -> float:
        """z_count, in clients."""
        return expected_cohort / 20 if self.count_noise is None else self.count_noise

    def noise_of_sum(self, noise_multiplier: Any, expected_cohort: float) -> Any:
        """z_sum, of which the noise of the updates is made; may be traced.

        Raises:
          ValueError: if the count's noise is so small that the count alone costs more than the plan
            allows.
        """
        z_count = self.noise_of_count(expected_cohort)
        traced = isinstance(noise_multiplier, Tracer)
        if not traced and noise_multiplier == 0:
            return 0.0
        if not traced and not 2 * z_count > noise_multiplier:
            raise ValueError(
                f"count_noise {z_count} is too small for a noise multiplier of "
                f"{float(noise_multiplier)}: counting the clipped would cost more than the plan "
                "allows; it must be above half the noise multiplier."
            )
        return (noise_multiplier**-2 - (2 * z_count) ** -2) ** -0.5

    def next_bound(self, bound: jax.Array, fraction: jax.Array) -> jax.Array:
        """The bound of the next round, given the noised fraction that was not clipped."""
        return bound * jnp.exp(-self.learning_rate * (fraction - self.quantile))
