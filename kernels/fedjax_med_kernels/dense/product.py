"""`dot_general` that flattens the axes it does not sum over."""

from __future__ import annotations

import math
from typing import Any

import jax
from jax import lax
from jax.typing import DTypeLike


def dense_product(
    lhs: jax.Array,
    rhs: jax.Array,
    dimension_numbers: lax.DotDimensionNumbers,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    *,
    out_sharding: Any = None,
) -> jax.Array:
    """`lax.dot_general` whose gradients stay fast for activations with several leading axes.

    For activations `[batch, time, inputs]` the derivative of `dot_general` by its weight sums over
    two axes at once, and XLA puts the operands of that product in an order that its CPU backend
    computes at 25 to 45 GFLOP/s on a core that reaches 80 to 90 GFLOP/s for the same product over
    one axis. With `[batch * time, inputs]` there is one axis to sum over from the beginning:

        lhs [*leading, *inputs], rhs [*inputs, *outputs] → [prod(leading), prod(inputs)]
            @ [prod(inputs), prod(outputs)] → [*leading, *outputs]

    Only reshapes and, where the weight is stored in another order, a transposition of the weight
    are added, so that values differ from `dot_general` by the order of a sum at most, and all
    derivatives are those of these operations. Anything else is passed on as it is: products with
    batch dimensions, products that do not sum over the last axes of `lhs`, and those with less
    than two leading axes.

    The signature is that of `lax.dot_general`, so Flax layers take it:
    `nn.Dense(64, dot_general=dense_product)`,
    `nn.MultiHeadDotProductAttention(4, qkv_dot_general=..., out_dot_general=...)`.

    Args:
      lhs: activations.
      rhs: weight.
      dimension_numbers: as for `lax.dot_general`: contracting axes, then batch axes.
      precision: as for `lax.dot_general`.
      preferred_element_type: as for `lax.dot_general`.
      out_sharding: must be None; there for the signature.

    Returns:
      The product `[*leading, *outputs]`.

    Raises:
      NotImplementedError: for an `out_sharding`.
      TypeError: as `lax.dot_general`, for shapes that do not fit.
    """
    if out_sharding is not None:
        raise NotImplementedError(f"out_sharding must be None, got {out_sharding!r}.")
    (lhs_axes, rhs_axes), (lhs_batch, _) = dimension_numbers
    num_leading = lhs.ndim - len(lhs_axes)
    fits = tuple(lhs.shape[i] for i in lhs_axes) == tuple(rhs.shape[i] for i in rhs_axes)
    last = sorted(lhs_axes) == list(range(num_leading, lhs.ndim))
    if lhs_batch or num_leading < 2 or not last or not fits:
        return lax.dot_general(lhs, rhs, dimension_numbers, precision, preferred_element_type)
    rhs_axes = [axis for _, axis in sorted(zip(lhs_axes, rhs_axes, strict=True))]
    output_axes = [axis for axis in range(rhs.ndim) if axis not in rhs_axes]
    leading, inputs = lhs.shape[:num_leading], math.prod(lhs.shape[num_leading:])
    outputs = tuple(rhs.shape[axis] for axis in output_axes)
    weight = lax.transpose(rhs, (*rhs_axes, *output_axes)).reshape(inputs, math.prod(outputs))
    product = lax.dot_general(
        lhs.reshape(math.prod(leading), inputs),
        weight,
        (((1,), (0,)), ((), ())),
        precision,
        preferred_element_type,
    )
    return product.reshape(*leading, *outputs)
