"""The two ways to apply a Hadamard matrix: dense factors, and butterflies."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedjax_med_kernels.walsh_hadamard.reference import hadamard_matrix


def butterflies(x: Float[Array, "batch dim"], stride: int) -> Float[Array, "batch dim"]:
    """Applies `H(dim / stride)` to elements `stride` apart, two stages at a time.

    A radix-4 stage reads and writes everything once where two stages of radix 2 do so twice.
    """
    batch, dim = x.shape
    while stride < dim:
        radix = min(4, dim // stride)
        parts = x.reshape(batch, dim // (radix * stride), radix, stride)
        rows = [parts[:, :, i] for i in range(radix)]
        if radix == 2:
            a, b = rows
            rows = [a + b, a - b]
        else:
            a, b, c, d = rows
            rows = [(a + b) + (c + d), (a - b) + (c - d), (a + b) - (c + d), (a - b) - (c - d)]
        x = jnp.stack(rows, axis=2).reshape(batch, dim)
        stride *= radix
    return x


def dense_factor(x: Float[Array, "batch dim"], size: int, stride: int) -> Float[Array, "batch dim"]:
    """Applies `H(size)` to elements `stride` apart, as a product with the matrix itself."""
    batch, dim = x.shape
    matrix = jnp.asarray(hadamard_matrix(size), x.dtype)
    # Without "highest", float32 products lose 13 bits on GPUs and TPUs.
    if stride == 1:
        parts = x.reshape(batch, dim // size, size)
        y = jnp.matmul(parts, matrix, precision="highest")
    else:
        parts = x.reshape(batch, dim // (size * stride), size, stride)
        y = jnp.einsum("ij,bpjs->bpis", matrix, parts, precision="highest")
    return y.reshape(batch, dim)


def mixed(x: Float[Array, "batch dim"], size: int = 32) -> jax.Array:
    """One dense factor for neighbours, butterflies for the rest.

    Butterflies of strides below a vector register are the slow ones; the product replaces them.
    """
    size = min(size, x.shape[1])
    return butterflies(dense_factor(x, size, 1), size)


def kronecker(x: Float[Array, "batch dim"], largest: int = 128) -> jax.Array:
    """Dense factors only: `H(a * b) = H(a) (x) H(b)`, of sizes as equal as can be."""
    bits = x.shape[1].bit_length() - 1
    count = max(1, -(-bits // (largest.bit_length() - 1)))
    stride = 1
    for factor in range(count):
        size = 1 << (bits // count + (factor < bits % count))
        x = dense_factor(x, size, stride)
        stride *= size
    return x
