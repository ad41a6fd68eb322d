"""Matrix products with a client axis and a group axis, added up in float32 or wider."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array


def accumulation_dtype(*arrays: Array) -> np.dtype:
    """What products of `arrays` are added up in: float64 if one of them is, else float32."""
    double = any(a.dtype == np.float64 for a in arrays)
    return np.dtype(np.float64 if double else np.float32)


def by_weights(
    a: Array, b: Array, precision: lax.PrecisionLike, dtype: DTypeLike | None = None
) -> Array:
    """The product of every client and group, `y[c, m, g, o] = sum_k a[c, m, g, k] b[c, g, k, o]`.

    Args:
      a: `[clients, rows, groups, terms]`.
      b: `[clients, groups, terms, outputs]`.
      precision: as of `lax.dot_general`.
      dtype: of the result; None for that of the sums.

    Returns:
      `[clients, rows, groups, outputs]`.
    """
    clients, rows, groups, terms = a.shape
    if groups == 1:
        y = _dot(a.reshape(clients, rows, terms), b[:, 0], (2, 1), precision)
        return y[:, :, None].astype(dtype or y.dtype)
    y = _dot(a, b, (3, 2), precision, ((0, 2), (0, 1)))
    return y.astype(dtype or y.dtype).transpose(0, 2, 1, 3)


def over_rows(
    a: Array, b: Array, precision: lax.PrecisionLike, dtype: DTypeLike | None = None
) -> Array:
    """The product of every client and group, `w[c, g, k, o] = sum_m a[c, m, g, k] b[c, m, g, o]`.

    Args:
      a: `[clients, rows, groups, terms]`.
      b: `[clients, rows, groups, outputs]`.
      precision: as of `lax.dot_general`.
      dtype: of the result; None for that of the sums.

    Returns:
      `[clients, groups, terms, outputs]`.
    """
    if a.shape[2] == 1:
        w = _dot(a[:, :, 0], b[:, :, 0], (1, 1), precision)[:, None]
    else:
        w = _dot(a, b, (1, 1), precision, ((0, 2), (0, 2)))
    return w.astype(dtype or w.dtype)


def _dot(
    a: Array,
    b: Array,
    contract: tuple[int, int],
    precision: lax.PrecisionLike,
    batch: tuple[tuple[int, ...], tuple[int, ...]] = ((0,), (0,)),
) -> Array:
    sums = accumulation_dtype(a, b)
    common = jnp.promote_types(a.dtype, b.dtype)
    a, b = a.astype(common), b.astype(common)
    one_client = a.shape[0] == 1 and batch == ((0,), (0,))
    if one_client:  # one large matrix: a batch dimension of one keeps some backends from it
        a, b = a[0], b[0]
        contract, batch = (contract[0] - 1, contract[1] - 1), ((), ())
    y = lax.dot_general(
        a,
        b,
        (((contract[0],), (contract[1],)), batch),
        precision=precision,
        preferred_element_type=sums,
    )
    return y[None] if one_client else y
