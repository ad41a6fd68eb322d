"""Building something large a second time instead of keeping it."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array


def after(g: Array, x: Array) -> Array:
    """`x`, but for the compiler a value of its own that needs `g`.

    Otherwise it finds what the forward pass made of `x` and keeps that until it is needed, or builds
    it as soon as it can. Barriers do not help on CPUs, where they are dropped first.

    Args:
      g: what has to be known first; not empty.
      x: floating.

    Returns:
      The values of `x`, in its dtype.
    """
    first = lax.bitcast_convert_type(g[(0,) * g.ndim].astype(jnp.float32), jnp.uint32)
    half = lax.shift_right_logical(first, np.uint32(16))
    zero = lax.shift_right_logical(half, np.uint32(16))  # whatever the bits of `g`
    return x + zero.astype(x.dtype)
