"""Clip-and-sum on NVIDIA GPUs, reading the updates from memory once."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from fedjax_med_kernels.clip_and_sum.factor import clip_factor

MAX_DIM = 16_384
"""Longest row: it and its sum are held in the registers of one program."""

PROGRAMS = 264
"""Programs started at most: two for each of the 132 multiprocessors of a Hopper GPU."""


def pallas_sum(
    updates: Float[Array, "clients dim"],
    weight: Float[Array, " clients"],
    max_norm: Float[Array, ""],
    interpret: bool = False,
) -> tuple[Float[Array, " dim"], Float[Array, " clients"]]:
    """Every program takes a run of clients, a row at a time, and keeps its sum in registers.

    A row is used for its norm and for the sum without being read again. The programs write
    `[programs, dim]` partial sums, which are added outside in a fixed order, so that results can
    be repeated bit for bit (atomic additions could not).

    Returns:
      The sum and the norms, float32.

    Raises:
      NotImplementedError: for rows over `MAX_DIM` or anything but 16- and 32-bit floats.
    """
    clients, dim = updates.shape
    if dim > MAX_DIM:
        raise NotImplementedError(
            f"implementation 'pallas_gpu' holds a client's row in registers, up to {MAX_DIM} "
            f"parameters, got {dim}; use 'dot' or 'scan'."
        )
    if weight.dtype != jnp.float32:
        raise NotImplementedError(
            f"implementation 'pallas_gpu' sums in float32, got {updates.dtype}; use 'dot' or 'scan'."
        )
    if clients == 0 or dim == 0:
        return jnp.zeros(dim, jnp.float32), jnp.zeros(clients, jnp.float32)
    block = max(pl.next_power_of_2(dim), 32)
    rows = pl.cdiv(clients, min(clients, PROGRAMS))
    programs = pl.cdiv(clients, rows)
    partial, norm = pl.pallas_call(
        functools.partial(_kernel, clients=clients, dim=dim, rows=rows, block=block),
        grid=(programs,),
        out_shape=(
            jax.ShapeDtypeStruct((programs, dim), jnp.float32),
            jax.ShapeDtypeStruct((clients,), jnp.float32),
        ),
        # 32 elements of the row and 32 of the sum for each thread.
        compiler_params=plgpu.CompilerParams(
            num_warps=max(1, min(16, block // 1024)), num_stages=1
        ),
        interpret=interpret,
        name="clip_and_sum",
    )(updates, weight, max_norm[None])
    return jnp.sum(partial, axis=0), norm


def _kernel(u_ref, weight_ref, max_norm_ref, partial_ref, norm_ref, *, clients, dim, rows, block):
    program = pl.program_id(0)
    inside = jnp.arange(block) < dim
    max_norm = max_norm_ref[0]

    def add(i, total):
        client = program * rows + i
        row = plgpu.load(u_ref.at[client, pl.ds(0, block)], mask=inside, other=0)
        row = row.astype(jnp.float32)
        norm = jnp.sqrt(jnp.sum(row * row))
        norm_ref[client] = norm
        scale = weight_ref[client] * clip_factor(norm, max_norm)
        return total + jnp.where(jnp.isfinite(norm), scale * row, 0)

    count = jnp.minimum(rows, clients - program * rows)
    total = lax.fori_loop(0, count, add, jnp.zeros(block, jnp.float32))
    plgpu.store(partial_ref.at[program, pl.ds(0, block)], total, mask=inside)
