"""Masks for secure aggregation: keystreams, their signed sums, and addition modulo 2**bits."""

import operator
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, UInt32

from fedjax_med_kernels.masks.chacha20 import WORDS, block_words
from fedjax_med_kernels.masks.pallas_gpu import pallas_sum

Implementation = Literal["xla", "pallas_gpu"]


def keystream(
    key: jax.Array,
    nonce: jax.Array,
    num_words: int,
    *,
    counter: int | jax.Array = 0,
) -> UInt32[Array, " num_words"]:
    """The ChaCha20 keystream as little-endian words.

    Word `16 * b + w` is word `w` of the block numbered `counter + b`. A key and nonce must never
    serve twice: put the round into the nonce, or derive a new key. `vmap` over keys for many.

    Args:
      key: uint32 `[8]`, 256 bits, byte 0 of the key lowest in word 0.
      nonce: uint32 `[3]`, 96 bits, likewise.
      num_words: words wanted, of 32 bits each.
      counter: number of the first block; may be traced, in which case it wraps after `2**32`.

    Raises:
      TypeError: if `key` or `nonce` are not uint32.
      ValueError: for other shapes, a negative `num_words`, or blocks numbered beyond `2**32`.

    References:
      RFC 8439, sections 2.3 (block function) and 2.4. https://www.rfc-editor.org/rfc/rfc8439
    """
    _check_words("key", key, (8,))
    num_blocks, counter = _check_stream(nonce, num_words, counter)
    blocks = counter + jnp.arange(num_blocks, dtype=jnp.uint32)
    words = block_words(list(key), list(nonce), blocks)
    return jnp.stack(words, axis=1).reshape(num_blocks * WORDS)[:num_words]


def default_implementation() -> Implementation:
    """The rule behind `implementation=None`: `"xla"`, since the Pallas kernel is not measured."""
    return "xla"


def sum_of_masks(
    keys: jax.Array,
    coefficient: jax.Array,
    nonce: jax.Array,
    num_words: int,
    *,
    counter: int | jax.Array = 0,
    bits: int = 32,
    implementation: Implementation | None = None,
    interpret: bool = False,
) -> UInt32[Array, " num_words"]:
    """The signed sum of many keystreams, without holding more than one of them.

        total = sum over k of coefficient[k] * keystream(keys[k])   modulo 2**bits

    With coefficients of +1 and -1 for the two ends of a pair this is the mask of one client in
    secure aggregation (Bonawitz et al.); 0 leaves a key out, such as that of a client that
    dropped. Integer sums are exact: they do not depend on the order of the keys.

    Args:
      keys: uint32 `[keys, 8]`, each as for `keystream`.
      coefficient: integers `[keys]`; multiplied modulo `2**bits`.
      nonce: uint32 `[3]`, shared by all keys.
      num_words: words of the sum.
      counter: number of the first block.
      bits: 1 to 32; sums are reduced modulo `2**bits` and returned in uint32.
      implementation: `"xla"` loops over keys for all blocks; `"pallas_gpu"` loops over keys in
        the registers of every group of 128 blocks. None for `default_implementation`.
      interpret: run the Pallas kernel in its interpreter, on any device.

    Raises:
      TypeError: if keys or nonce are not uint32, or coefficients no integers of 32 bits or less.
      ValueError: for shapes that do not fit, `bits` outside 1 to 32, blocks numbered beyond
        `2**32`, or an unknown implementation.

    References:
      Bonawitz et al., CCS 2017, section 4. https://eprint.iacr.org/2017/281
    """
    _check_words("keys", keys, (keys.shape[0], 8))
    if not jnp.issubdtype(coefficient.dtype, jnp.integer) or coefficient.dtype.itemsize > 4:
        raise TypeError(
            f"coefficient must hold integers of 32 bits or less, got {coefficient.dtype}."
        )
    if coefficient.shape != keys.shape[:1]:
        raise ValueError(f"coefficient.shape must be {keys.shape[:1]}, got {coefficient.shape}.")
    _check_bits(bits)
    num_blocks, counter = _check_stream(nonce, num_words, counter)
    implementation = implementation or default_implementation()
    # Two's complement: -1 becomes 2**32 - 1, which is -1 modulo 2**32.
    coefficient = coefficient.astype(jnp.uint32)
    if implementation == "pallas_gpu":
        total = pallas_sum(keys, coefficient, nonce, counter, num_blocks, interpret)
    elif implementation == "xla":
        blocks = counter + jnp.arange(num_blocks, dtype=jnp.uint32)

        def add(total, one):
            key, c = one
            words = block_words(list(key), list(nonce), blocks)
            return tuple(t + c * w for t, w in zip(total, words, strict=True)), None

        zeros = tuple(jnp.zeros(num_blocks, jnp.uint32) for _ in range(WORDS))
        # One vector for each of the 16 words; they are interleaved once, after the last key.
        total = jnp.stack(lax.scan(add, zeros, (keys, coefficient))[0])
    else:
        raise ValueError(
            f"implementation must be 'xla', 'pallas_gpu' or None, got {implementation!r}."
        )
    return _reduce(total.T.reshape(num_blocks * WORDS)[:num_words], bits)


def add_mask(message: jax.Array, mask: jax.Array, bits: int = 32) -> UInt32[Array, "*shape"]:
    """`message + mask` modulo `2**bits`, both uint32 of one shape.

    Reduction modulo a power of two keeps the lower bits only, so a mask of 32 bits serves every
    smaller modulus; its lower bits are as uniform as the rest.

    Raises:
      TypeError: if one of them is not uint32.
      ValueError: if shapes differ or `bits` is outside 1 to 32.
    """
    return _combine(operator.add, message, mask, bits)


def subtract_mask(message: jax.Array, mask: jax.Array, bits: int = 32) -> UInt32[Array, "*shape"]:
    """`message - mask` modulo `2**bits`: undoes `add_mask` of a message below `2**bits`.

    Raises:
      TypeError: if one of them is not uint32.
      ValueError: if shapes differ or `bits` is outside 1 to 32.
    """
    return _combine(operator.sub, message, mask, bits)


def _combine(operation, message: jax.Array, mask: jax.Array, bits: int) -> jax.Array:
    _check_words("message", message, message.shape)
    _check_words("mask", mask, message.shape)
    _check_bits(bits)
    return _reduce(operation(message, mask), bits)


def _reduce(words: jax.Array, bits: int) -> jax.Array:
    return words if bits == 32 else words & jnp.uint32(2**bits - 1)


def _check_words(name: str, words: jax.Array, shape: tuple[int, ...]):
    if words.dtype != jnp.uint32:
        raise TypeError(f"{name} must be uint32, got {words.dtype}.")
    if words.shape != shape:
        raise ValueError(f"{name}.shape must be {shape}, got {words.shape}.")


def _check_bits(bits: int):
    if not 1 <= bits <= 32:
        raise ValueError(f"bits must be 1 to 32, got {bits}.")


def _check_stream(nonce: jax.Array, num_words: int, counter) -> tuple[int, jax.Array]:
    _check_words("nonce", nonce, (3,))
    if num_words < 0:
        raise ValueError(f"num_words must be at least 0, got {num_words}.")
    num_blocks = -(-num_words // WORDS)
    if isinstance(counter, int) and not 0 <= counter <= 2**32 - num_blocks:
        raise ValueError(
            f"counter must be 0 to {2**32 - num_blocks} for {num_words} words, got {counter}; "
            "beyond, blocks would repeat."
        )
    return num_blocks, jnp.asarray(counter, jnp.uint32)
