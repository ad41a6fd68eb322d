"""What clip-and-sum has to compute, written with a clipped copy of the updates."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def clip_and_sum_reference(
    updates: Float[Array, "clients dim"],
    weight: Float[Array, " clients"],
    max_norm: Float[Array, ""],
) -> tuple[Float[Array, " dim"], Float[Array, " clients"], Float[Array, " clients"]]:
    """The definition `clip_and_sum` has to meet, in the dtype it is given.

    Returns:
      The clipped weighted sum, the norm of every client and the factor it was clipped with.
    """
    norm = jnp.sqrt(jnp.sum(updates**2, axis=1))
    finite = jnp.isfinite(norm)
    clipped = jnp.where(norm > max_norm, max_norm / norm, 1)
    factor = jnp.where(finite, clipped, 0)
    # A factor of 0 does not remove a NaN; the content has to go as well.
    kept = jnp.where(finite[:, None], updates, 0)
    return jnp.sum((weight * factor)[:, None] * kept, axis=0), norm, factor
