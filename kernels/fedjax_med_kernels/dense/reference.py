"""What `dense_product` has to compute: the library's own product."""

from jax import lax
from jaxtyping import Array, Float


def dense_product_reference(
    lhs: Float[Array, "*lhs_axes"],
    rhs: Float[Array, "*rhs_axes"],
    dimension_numbers: lax.DotDimensionNumbers,
) -> Float[Array, "*product_axes"]:
    """The definition, in the dtype it is given."""
    return lax.dot_general(lhs, rhs, dimension_numbers)
