"""The Walsh-Hadamard transform by its recursive definition, as a dense matrix."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def hadamard_matrix(n: int) -> np.ndarray:
    """Sylvester's matrix of size `n`, a power of two: `H(2n) = [[H(n), H(n)], [H(n), -H(n)]]`.

    Returns:
      `[n, n]` of +1 and -1, float64.
    """
    matrix = np.ones((1, 1))
    while len(matrix) < n:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def walsh_hadamard_reference(
    x: Float[Array, "*batch dim"], orthonormal: bool = False
) -> Float[Array, "*batch padded"]:
    """The definition `walsh_hadamard` has to meet, in the dtype it is given."""
    dim = x.shape[-1]
    padded = 1 << max(dim - 1, 0).bit_length()
    matrix = jnp.asarray(hadamard_matrix(padded)[:dim], x.dtype)
    y = jnp.matmul(x, matrix, precision="highest")
    return y / jnp.sqrt(jnp.asarray(padded, x.dtype)) if orthonormal else y
