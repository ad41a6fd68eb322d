"""Messages as vectors of words: what masks are added to."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, UInt32

from fedjax_med.engine.contracts import PyTree
from fedjax_med.secure.fixed_point import FixedPoint


class Words(NamedTuple):
    """Turns messages into words modulo `2**bits` and sums of words into sums of messages.

    Integers of 32 bits are words as they are. Floating numbers, which aggregators add to the
    update (control variates, statistics of clipping), become fixed-point numbers.

    Attributes:
      bits: of the modulus.
      extras: how floating numbers are encoded; None refuses them.
    """

    bits: int
    extras: FixedPoint | None

    def flatten(self, message: PyTree) -> UInt32[Array, " words"]:
        """All leaves back to back.

        Raises:
          ValueError: for a leaf that cannot be encoded.
        """
        parts = [
            self._encode(path, leaf).reshape(leaf.size)
            for path, leaf in jax.tree_util.tree_leaves_with_path(message)
        ]
        return jnp.concatenate(parts) if parts else jnp.zeros(0, jnp.uint32)

    def unflatten(self, words: UInt32[Array, " words"], like: PyTree) -> PyTree:
        """The sum of messages of the shapes and dtypes of `like`, from the sum of their words."""
        leaves, structure = jax.tree.flatten(like)
        out, start = [], 0
        for leaf in leaves:
            size = math.prod(leaf.shape)
            out.append(self._decode(words[start : start + size], leaf.dtype).reshape(leaf.shape))
            start += size
        return jax.tree.unflatten(structure, out)

    def _encode(self, path: tuple, leaf: jax.Array) -> jax.Array:
        if leaf.dtype == jnp.uint32:
            return leaf
        if leaf.dtype == jnp.int32:
            return lax.bitcast_convert_type(leaf, jnp.uint32)
        if jnp.issubdtype(leaf.dtype, jnp.floating) and self.extras is not None and self.bits == 32:
            return self.extras.encode(leaf)
        raise ValueError(
            f"message{jax.tree_util.keystr(path)} is {leaf.dtype}, but masks are added to integers "
            f"of 32 bits; give extras_bound, the largest size of one such number of a client, to "
            "have floating numbers encoded in fixed point (with a modulus of 32 bits)."
        )

    def _decode(self, words: jax.Array, dtype) -> jax.Array:
        if dtype == jnp.uint32:
            return words
        if dtype == jnp.int32:
            return lax.bitcast_convert_type(words, jnp.int32)
        assert self.extras is not None
        return self.extras.decode(words).astype(dtype)
