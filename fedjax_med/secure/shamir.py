"""Shamir's secret sharing over the prime field of 65521, a byte of a secret at a time.

Plain arithmetic on uint32, in NumPy on the host and in JAX inside a compiled round: a product of
two field elements and one more element stay below 2**32.
"""

from __future__ import annotations

from typing import Any

Words = Any  # uint32 arrays of NumPy or JAX

PRIME = 65521
"""The largest prime below 2**16."""

BYTES = 32
"""Bytes of a secret of eight words."""


def share(secret: Words, coefficients: Words, points: Words) -> Words:
    """Values at `points` of random polynomials through `secret` at 0.

        share(x) = secret + sum_k coefficients[k] * x**(k + 1)   modulo 65521

    Any `threshold` shares determine the secret; with uniform coefficients, fewer are uniform
    whatever the secret is.

    Args:
      secret: uint32 `[*batch, m]`, field elements.
      coefficients: uint32 `[threshold - 1, *batch, m]`, uniform field elements.
      points: uint32 `[num_shares]`, distinct, 1 to 65520.

    Returns:
      uint32 `[num_shares, *batch, m]`.

    References:
      Shamir, "How to share a secret", CACM 1979.
    """
    x = points.reshape((-1,) + (1,) * secret.ndim)
    value = 0 * x + 0 * secret[None]
    for coefficient in coefficients[::-1]:  # Horner's rule
        value = (value * x + coefficient[None]) % PRIME
    return (value * x + secret[None]) % PRIME


def recover(points: Words, shares: Words) -> Words:
    """The polynomials' values at 0, by Lagrange's interpolation.

    Args:
      points: uint32 `[*batch, threshold]`, distinct in each batch.
      shares: uint32 `[*batch, threshold, m]`, the shares at these points.

    Returns:
      uint32 `[*batch, m]`; the secret if at least as many shares were given as its threshold.
    """
    threshold = points.shape[-1]
    xp = points.__array_namespace__()
    numerator = denominator = 0 * points + 1
    for j in range(threshold):
        other = points[..., j : j + 1]
        # A point's factor with itself is 1; all others at once.
        itself = (xp.arange(threshold) == j).astype(points.dtype)
        itself = itself.reshape((1,) * (points.ndim - 1) + (threshold,))
        numerator = numerator * (other * (1 - itself) + itself) % PRIME
        difference = (other + PRIME - points) % PRIME
        denominator = denominator * (difference * (1 - itself) + itself) % PRIME
    factor = numerator * _inverse(denominator) % PRIME
    return (shares * factor[..., None] % PRIME).sum(axis=-2, dtype=points.dtype) % PRIME


def _inverse(x: Words) -> Words:
    """x**(PRIME - 2), the inverse by Fermat's little theorem; 0 for 0."""
    result = 0 * x + 1
    for bit in f"{PRIME - 2:b}":
        result = result * result % PRIME
        if bit == "1":
            result = result * x % PRIME
    return result


def to_bytes(words: Words) -> Words:
    """uint32 `[*batch, 8]` as field elements below 256, `[*batch, 32]`, lowest byte first."""
    parts = [(words[..., k // 4] >> (8 * (k % 4))) & 255 for k in range(BYTES)]
    return _stack(parts)


def from_bytes(elements: Words) -> Words:
    """The inverse of `to_bytes`; elements of 256 and more, of a failed recovery, overlap."""
    parts = []
    for word in range(BYTES // 4):
        value = elements[..., 4 * word]
        for k in range(1, 4):
            value = value | (elements[..., 4 * word + k] << (8 * k))
        parts.append(value)
    return _stack(parts)


def _stack(parts: list[Words]) -> Words:
    xp = parts[0].__array_namespace__()
    return xp.stack(parts, axis=-1)
