"""The public Walsh-Hadamard transform: padding, scale, choice of implementation."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedjax_med_kernels.walsh_hadamard.stages import butterflies, kronecker, mixed

Implementation = Literal["butterfly", "mixed", "kronecker"]


def default_implementation(platform: str) -> Implementation:
    """The rule behind `implementation=None`.

    On 2 CPU cores, for rows of 2,048 to a million float32, `"kronecker"` takes 1.3 to 4.5 times as
    long as `"mixed"`, `"butterfly"` 1.0 to 1.3 times and stages of radix 2 1.3 to 1.9 times. On
    accelerators matrix products are the cheap operation: `"kronecker"`, not yet measured there.
    """
    return "mixed" if platform == "cpu" else "kronecker"


def padded_size(dim: int) -> int:
    """The power of two that a last axis of `dim` is padded to; 1 for an empty axis."""
    return 1 << max(dim - 1, 0).bit_length()


def walsh_hadamard(
    x: jax.Array,
    *,
    orthonormal: bool = False,
    implementation: Implementation | None = None,
) -> Float[Array, "*batch padded"]:
    """The Walsh-Hadamard transform of the last axis, in natural (Sylvester's) order.

        y[..., j] = sum over i of (-1)**popcount(i & j) * x[..., i]

    An axis that is no power of two is padded with zeros at its end, and the result has the padded
    length: the transform of a shorter vector is no bijection otherwise. The orthonormal transform
    divides by the root of the padded length; it keeps the L2 norm and is its own inverse, so that
    `walsh_hadamard(y, orthonormal=True)[..., :dim]` returns to `x`. Without it, applying the
    transform twice multiplies by the padded length.

    16-bit floats are transformed in float32 and rounded once at the end.

    Args:
      x: floating `[*batch, dim]`.
      orthonormal: divide by the square root of the padded length.
      implementation: `"butterfly"` (reshaped radix-4 stages), `"kronecker"` (products with dense
        factors of up to 128) or `"mixed"` (one dense factor of 32, then butterflies). None for
        `default_implementation` of JAX's default backend.

    Returns:
      `[*batch, padded_size(dim)]` in the dtype of `x`.

    Raises:
      TypeError: if `x` is not floating.
      ValueError: if `x` is a scalar, or for an unknown implementation.

    References:
      Fino and Algazi, IEEE Trans. Computers C-25(11), 1976, for the fast algorithm; Suresh et al.,
      ICML 2017, section 3, for its use as a rotation. https://arxiv.org/abs/1611.00429
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x must be floating, got {x.dtype}.")
    if x.ndim == 0:
        raise ValueError("x must have at least one axis, got a scalar.")
    implementation = implementation or default_implementation(jax.default_backend())
    if implementation not in ("butterfly", "mixed", "kronecker"):
        raise ValueError(
            "implementation must be 'butterfly', 'mixed', 'kronecker' or None, "
            f"got {implementation!r}."
        )
    dim = x.shape[-1]
    padded = padded_size(dim)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    wide = jnp.pad(wide, [(0, 0)] * (x.ndim - 1) + [(0, padded - dim)])
    rows = wide.reshape(wide.size // padded, padded)
    if implementation == "butterfly":
        y = butterflies(rows, 1)
    elif implementation == "mixed":
        y = mixed(rows)
    else:
        y = kronecker(rows)
    if orthonormal:
        y = y * jnp.asarray(padded**-0.5, y.dtype)
    return y.reshape(wide.shape).astype(x.dtype)
