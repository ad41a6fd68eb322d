"""Order statistics on NVIDIA GPUs: the sorting network in registers."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float, Int

from fedjax_med_kernels.order_statistics.network import sort_rows
from fedjax_med_kernels.order_statistics.rows import middle, trimmed_sum

MAX_CLIENTS = 64
"""Most rows: each thread holds one value of every row in registers."""

BLOCK = 128
"""Coordinates of one program, one for each of its threads."""


def pallas_order(
    x: Float[Array, "clients dim"],
    count: Int[Array, ""],
    trim: Int[Array, ""] | None,
    interpret: bool = False,
) -> Float[Array, " dim"]:
    """Median (`trim` None) or trimmed sum of filled rows, float32; `x` is read once.

    Raises:
      NotImplementedError: for more than `MAX_CLIENTS` rows or float64.
    """
    clients, dim = x.shape
    if clients > MAX_CLIENTS or x.dtype != jnp.float32:
        raise NotImplementedError(
            f"implementation 'pallas_gpu' takes up to {MAX_CLIENTS} clients in at most 32 bits, "
            f"got {clients} in {x.dtype}; use 'stages' or 'sort'."
        )
    if dim == 0:
        return jnp.zeros(0, jnp.float32)
    scalars = jnp.stack([count, jnp.int32(0) if trim is None else trim]).astype(jnp.int32)
    return pl.pallas_call(
        functools.partial(_kernel, clients=clients, dim=dim, trimmed=trim is not None),
        grid=(pl.cdiv(dim, BLOCK),),
        out_shape=jax.ShapeDtypeStruct((dim,), jnp.float32),
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
        name="order_statistics",
    )(x.reshape(clients * dim), scalars)


def _kernel(x_ref, scalars_ref, out_ref, *, clients, dim, trimmed):
    first = pl.program_id(0) * BLOCK
    inside = first + jnp.arange(BLOCK) < dim
    rows = sort_rows(
        [
            plgpu.load(x_ref.at[pl.ds(c * dim + first, BLOCK)], mask=inside, other=0)
            for c in range(clients)
        ]
    )
    count = scalars_ref[0]
    result = trimmed_sum(rows, count, scalars_ref[1]) if trimmed else middle(rows, count)
    plgpu.store(out_ref.at[pl.ds(first, BLOCK)], result, mask=inside)
