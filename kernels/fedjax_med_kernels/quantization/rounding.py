"""Unbiased stochastic rounding, to whole numbers and to evenly spaced levels."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def stochastic_round(
    key: jax.Array, x: jax.Array, scale: ArrayLike = 1.0, dtype: jnp.dtype | type = jnp.int32
) -> jax.Array:
    """Rounds `x / scale` to one of its two neighbouring whole numbers, unbiased.

        q = sign(x) * (floor(r) + [u < r - floor(r)])   with r = |x| / scale, u uniform in [0, 1)

    so that `scale * q` has mean `x`. The two neighbours lie less than 1 away, whole numbers stay
    as they are, and a tie goes either way with probability 1/2. `u` has 32 bits and is compared
    as an integer: the probability is exact where `r - floor(r)` is a multiple of 2**-32, which
    in float32 it is from 2**-8 on, and at most 2**-32 too small elsewhere (`jax.random.uniform`
    would be off by up to 2**-23). The division rounds to half a unit in the last place of float32
    (float64 for float64); for a `scale` that is a power of two it is exact.

    Values beyond the range of `dtype` become its nearest end, negative ones 0 for unsigned types:
    there the mean is off, so choose the scale for the range. Integers cannot hold NaN: it becomes
    0, and clients that are not finite have to be excluded before.

    Args:
      key: a key for this call alone.
      x: floating, any shape; 16-bit floats are widened to float32.
      scale: positive, a scalar or of a shape that broadcasts to that of `x`.
      dtype: an integer type of up to 32 bits.

    Returns:
      Whole numbers of `dtype`, of the shape of `x`.

    Raises:
      TypeError: if `x` is not floating or `dtype` no integer type of up to 32 bits.

    References:
      Gupta et al., ICML 2015, section 3.1. https://arxiv.org/abs/1502.02551
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x must be floating, got {x.dtype}.")
    dtype = jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.integer) or dtype.itemsize > 4:
        raise TypeError(f"dtype must be an integer type of up to 32 bits, got {dtype}.")
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    scale = jnp.broadcast_to(jnp.asarray(scale, wide.dtype), x.shape)
    return _to_integer(_round(key, wide / scale), dtype)


def quantize(
    key: jax.Array, x: jax.Array, low: ArrayLike, high: ArrayLike, levels: int
) -> jax.Array:
    """Rounds every value to one of `levels` levels from `low` to `high`, unbiased in between.

        code = stochastic round of (x - low) / (high - low) * (levels - 1)

    `low` gets code 0 and `high` code `levels - 1`, always; values outside are clipped to them. Of
    a range of width 0 all codes are 0. NaN becomes code 0.

    Args:
      key: a key for this call alone.
      x: floating, any shape.
      low: lowest level, a scalar or of a shape that broadcasts to that of `x`.
      high: highest level, likewise; at least `low`.
      levels: 2 to 65,536; `2**b` of them need `b` bits.

    Returns:
      Codes of the shape of `x`: uint8 up to 256 levels, else uint16.

    Raises:
      TypeError: if `x` is not floating.
      ValueError: for `levels` outside 2 to 65,536.

    References:
      Suresh et al., ICML 2017, section 2.2 (k-level quantization). https://arxiv.org/abs/1611.00429
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x must be floating, got {x.dtype}.")
    _check_levels(levels)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    low = jnp.broadcast_to(jnp.asarray(low, wide.dtype), x.shape)
    width = jnp.broadcast_to(jnp.asarray(high, wide.dtype), x.shape) - low
    # Dividing by the width first makes the highest level exactly 1.
    share = jnp.clip((wide - low) / jnp.where(width > 0, width, 1), 0, 1)
    steps = jnp.where(width > 0, share, 0) * (levels - 1)
    return _to_integer(_round(key, steps), jnp.dtype(jnp.uint8 if levels <= 256 else jnp.uint16))


def dequantize(
    codes: jax.Array,
    low: ArrayLike,
    high: ArrayLike,
    levels: int,
    dtype: jnp.dtype | type = jnp.float32,
) -> jax.Array:
    """The level of every code: `low + (high - low) * codes / (levels - 1)`, both ends exact.

    Args:
      codes: integers 0 to `levels - 1`, any shape.
      low: lowest level, as for `quantize`.
      high: highest level, as for `quantize`.
      levels: as for `quantize`.
      dtype: of the result.

    Raises:
      ValueError: for `levels` outside 2 to 65,536.
    """
    _check_levels(levels)
    wide = jnp.promote_types(dtype, jnp.float32)
    share = codes.astype(wide) / (levels - 1)
    low = jnp.broadcast_to(jnp.asarray(low, wide), codes.shape)
    high = jnp.broadcast_to(jnp.asarray(high, wide), codes.shape)
    return (low * (1 - share) + high * share).astype(dtype)


def _round(key: jax.Array, x: jax.Array) -> jax.Array:
    """Whole numbers in the floating dtype of `x`; infinities and NaN stay."""
    size = jnp.abs(x)
    lower = jnp.floor(size)
    # On sizes, the fraction is exact; of a tiny negative number, x - floor(x) would round to 1.
    fraction = jnp.where(jnp.isfinite(size), size - lower, 0)
    threshold = (fraction * 2.0**32).astype(jnp.uint32)
    away = jax.random.bits(key, x.shape, jnp.uint32) < threshold
    return jnp.sign(x) * (lower + away.astype(x.dtype))


def _to_integer(whole: jax.Array, dtype: jnp.dtype) -> jax.Array:
    low, high = int(jnp.iinfo(dtype).min), int(jnp.iinfo(dtype).max)
    # The largest number of the floating type that the integer type can hold: 2**31 - 1 itself is
    # rounded up to 2**31 in float32.
    mantissa = jnp.finfo(whole.dtype).nmant + 1
    top = float(high - high % 2 ** max(0, high.bit_length() - mantissa))
    inside = jnp.clip(jnp.nan_to_num(whole, nan=0.0), float(low), top).astype(dtype)
    return jnp.where(whole > top, np.asarray(high, dtype), inside)


def _check_levels(levels: int):
    if not 2 <= levels <= 65_536 or math.floor(levels) != levels:
        raise ValueError(f"levels must be a whole number from 2 to 65536, got {levels}.")
