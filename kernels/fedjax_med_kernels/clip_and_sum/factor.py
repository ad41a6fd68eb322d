"""The factor that clips a norm, shared by all implementations."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def clip_factor(
    norm: Float[Array, "*clients"], max_norm: Float[Array, ""]
) -> Float[Array, "*clients"]:
    """`min(1, max_norm / norm)`, and 0 where the norm is NaN or infinite.

    Written as a comparison because the formula goes wrong at the edges: `min(1, C / nan)` is 1 in
    most libraries, so that an update of NaN passes unclipped, and `0 / 0` for a client that did
    not move is NaN. A `max_norm` of NaN makes every factor but those of excluded clients and of
    norm 0 NaN, so that it is seen.
    """
    finite = jnp.isfinite(norm)
    passes = norm <= max_norm
    # The inner `where` keeps a norm of 0 or NaN out of the division, and so out of its gradient.
    divisor = jnp.where(finite & ~passes, norm, 1)
    return jnp.where(finite, jnp.where(passes, 1, max_norm / divisor), 0)
