"""Numbers as integers modulo a power of two, with a bound that is checked before anything runs.

A sum of such integers is exact, so it does not depend on the order of clients, lanes or devices.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, UInt32

from fedjax_med.engine.contracts import Aggregator, PyTree

_LARGEST_SUM = 2**31 - 1


class FixedPoint(NamedTuple):
    """Real numbers of `-bound` to `bound` as whole multiples of `2**-fraction_bits`.

    Attributes:
      num_terms: how many of them, weights counted, can be added up without wrapping.
      bound: largest absolute value; larger ones are clipped to it.
      fraction_bits: bits after the point; negative ones leave the lowest places out.
    """

    num_terms: int
    bound: float
    fraction_bits: int

    @property
    def largest(self) -> int:
        """The integer of `bound`."""
        return round(self.bound * 2.0**self.fraction_bits)

    @property
    def error_bound(self) -> float:
        """Largest error of one number that is not clipped; of a mean likewise."""
        return 2.0 ** -(self.fraction_bits + 1)

    def encode(self, x: Float[Array, "*shape"]) -> UInt32[Array, "*shape"]:
        """`round(x * 2**fraction_bits)` in two's complement; ties go to even, NaN becomes 0."""
        x = jnp.clip(jnp.nan_to_num(x.astype(jnp.float32)), -self.bound, self.bound)
        whole = jnp.round(x * jnp.float32(2.0**self.fraction_bits)).astype(jnp.int32)
        # In float32 the bound may be a little larger than it is: the integers decide.
        whole = jnp.clip(whole, -self.largest, self.largest)
        return lax.bitcast_convert_type(whole, jnp.uint32)

    def is_clipped(self, x: Float[Array, "*shape"]) -> Bool[Array, "*shape"]:
        """Whether `encode` has to clip."""
        return ~(jnp.abs(x) <= jnp.asarray(self.bound, x.dtype))

    def decode(self, total: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The number that a sum of encoded ones stands for, float32."""
        whole = lax.bitcast_convert_type(total, jnp.int32)
        return whole.astype(jnp.float32) * jnp.float32(2.0**-self.fraction_bits)


def fixed_point(
    num_clients: int, bound: float, *, max_weight: int = 1, fraction_bits: int | None = None
) -> FixedPoint:
    """The finest fixed-point numbers whose weighted sum over all clients does not wrap.

        num_clients * max_weight * round(bound * 2**fraction_bits) <= 2**31 - 1

    Args:
      num_clients: clients of the largest cohort.
      bound: largest absolute value of one number.
      max_weight: largest whole weight that a number is multiplied by.
      fraction_bits: as many as fit if None.

    Raises:
      ValueError: if an argument is not positive, or for `fraction_bits` whose sum could wrap.
    """
    for name, value in (("num_clients", num_clients), ("bound", bound), ("max_weight", max_weight)):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be positive and finite, got {value!r}.")
    terms = num_clients * max_weight
    if bound >= _LARGEST_SUM / terms:
        raise ValueError(
            f"{num_clients} clients with weights up to {max_weight} and numbers up to {bound:g} sum "
            f"to {terms * bound:g}, which wraps the modulus; allowed is less than {_LARGEST_SUM}."
        )

    def fits(bits: int) -> bool:
        return terms * round(bound * 2.0**bits) <= _LARGEST_SUM

    finest = math.floor(math.log2(_LARGEST_SUM / (terms * bound))) + 1
    while not fits(finest):
        finest -= 1
    if fraction_bits is None:
        fraction_bits = finest
    if not fits(fraction_bits):
        raise ValueError(
            f"fraction_bits must be at most {finest} for {num_clients} clients with weights up to "
            f"{max_weight} and numbers up to {bound:g}, got {fraction_bits}: their sum would wrap "
            "the modulus."
        )
    return FixedPoint(terms, float(bound), fraction_bits)


class FixedPointState(NamedTuple):
    """State of `fixed_point_mean`.

    Attributes:
      num_clipped: int32 `[]`, clients of the last round some of whose numbers were clipped, or
        whose weight was no whole number up to `max_weight` and was rounded.
      like: zeros `[]` in the structure and dtypes of the update, which the integers do not tell.
    """

    num_clipped: jax.Array
    like: PyTree


def fixed_point_mean(
    num_clients: int, *, bound: float, max_weight: int = 1, fraction_bits: int | None = None
) -> Aggregator:
    """The weighted mean of the clients' updates, summed as integers modulo 2**32.

        sum_c w[c] round(update[c] * 2**f) / (2**f sum_c w[c]),   w[c] whole, 0 to max_weight

    Within `2**-(f + 1)` of the mean of the clipped updates, and the same to the last bit for any
    order of the sum. Weights that are no whole numbers are rounded, larger ones lowered to
    `max_weight`; `FixedPointState` counts the clients to whom that, or clipping, happened. An empty
    cohort moves nothing. Updates have to be floating; shapes and dtypes are kept.

    Args:
      num_clients: clients of the largest cohort.
      bound: every number of an update is clipped to `-bound` to `bound` [units of parameters].
      max_weight: largest weight; examples of the largest hospital for weights by examples.
      fraction_bits: `f`; as many as fit if None.

    Raises:
      ValueError: see `fixed_point`.

    References:
      Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning",
      CCS 2017, for sums modulo a number. https://eprint.iacr.org/2017/281
    """
    numbers = fixed_point(num_clients, bound, max_weight=max_weight, fraction_bits=fraction_bits)

    def init(update: PyTree) -> FixedPointState:
        for path, leaf in jax.tree_util.tree_leaves_with_path(update):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise ValueError(
                    f"Fixed-point sums take floating updates; update{jax.tree_util.keystr(path)} "
                    f"is {leaf.dtype}."
                )
        return FixedPointState(jnp.int32(0), jax.tree.map(lambda u: jnp.zeros((), u.dtype), update))

    def encode(update: PyTree, weight: jax.Array, state: PyTree, key: jax.Array) -> PyTree:
        del state, key
        whole = jnp.clip(jnp.round(weight), 0, max_weight)
        clipped = whole != weight
        for leaf in jax.tree.leaves(update):
            clipped |= jnp.any(numbers.is_clipped(leaf))
        w = whole.astype(jnp.uint32)
        words = jax.tree.map(lambda u: w * numbers.encode(u), update)
        return words, w, clipped.astype(jnp.uint32)

    def decode(reduced: PyTree, state: FixedPointState) -> tuple[PyTree, FixedPointState]:
        words, weight, clipped = reduced
        divisor = jnp.maximum(weight, 1).astype(jnp.float32)
        mean = jax.tree.map(
            lambda total, u: (numbers.decode(total) / divisor).astype(u.dtype), words, state.like
        )
        return mean, FixedPointState(clipped.astype(jnp.int32), state.like)

    return Aggregator(init, encode, decode, "sum")
