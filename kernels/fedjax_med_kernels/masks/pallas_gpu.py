"""The sum of keystreams on NVIDIA GPUs: states and sums stay in registers."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, UInt32

from fedjax_med_kernels.masks.chacha20 import WORDS, block_words

BLOCKS = 128
"""ChaCha20 blocks of one program, one for each of its threads."""


def pallas_sum(
    keys: UInt32[Array, "keys 8"],
    coefficient: UInt32[Array, " keys"],
    nonce: UInt32[Array, " 3"],
    counter: UInt32[Array, ""],
    num_blocks: int,
    interpret: bool = False,
) -> UInt32[Array, "16 blocks"]:
    """A program loops over the keys for its blocks and writes their sum once.

    Returns:
      Word `w` of the sum for block `b` at `[w, b]`.
    """
    if keys.shape[0] == 0 or num_blocks == 0:
        return jnp.zeros((WORDS, num_blocks), jnp.uint32)
    padded = pl.cdiv(num_blocks, BLOCKS) * BLOCKS
    total = pl.pallas_call(
        functools.partial(_kernel, num_keys=keys.shape[0]),
        grid=(padded // BLOCKS,),
        out_shape=jax.ShapeDtypeStruct((WORDS, padded), jnp.uint32),
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
        name="chacha20_sum",
    )(keys, coefficient, nonce, counter[None])
    return total[:, :num_blocks]


def _kernel(keys_ref, coefficient_ref, nonce_ref, counter_ref, total_ref, *, num_keys):
    first = pl.program_id(0) * BLOCKS
    blocks = counter_ref[0] + (first + jnp.arange(BLOCKS)).astype(jnp.uint32)
    nonce = [nonce_ref[i] for i in range(3)]

    def add(k, total):
        words = block_words([keys_ref[k, i] for i in range(8)], nonce, blocks)
        return tuple(t + coefficient_ref[k] * w for t, w in zip(total, words, strict=True))

    zeros = tuple(jnp.zeros(BLOCKS, jnp.uint32) for _ in range(WORDS))
    for word, total in enumerate(lax.fori_loop(0, num_keys, add, zeros)):
        total_ref[word, pl.ds(first, BLOCKS)] = total
