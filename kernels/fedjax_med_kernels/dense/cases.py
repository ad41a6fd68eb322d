"""Dense layers of real models and awkward ones, for tests and benchmarks alike."""

from typing import NamedTuple


class DenseCase(NamedTuple):
    """A product without batch dimensions.

    Attributes:
      lhs: shape of the activations.
      rhs: shape of the weight.
      contracting: axes of `lhs` and the axes of `rhs` they are summed with.
    """

    lhs: tuple[int, ...]
    rhs: tuple[int, ...]
    contracting: tuple[tuple[int, ...], tuple[int, ...]]


CASES = {
    "table": DenseCase((8, 5), (5, 3), ((1,), (0,))),
    "visits": DenseCase((4, 6, 5), (5, 7), ((2,), (0,))),
    "image": DenseCase((2, 3, 4, 5), (5, 6), ((3,), (0,))),
    "heads-in": DenseCase((3, 5, 8), (8, 2, 4), ((2,), (0,))),
    "heads-out": DenseCase((3, 5, 2, 4), (2, 4, 8), ((2, 3), (0, 1))),
    "swapped-contractions": DenseCase((3, 5, 2, 4), (4, 2, 8), ((3, 2), (0, 1))),
    "weight-transposed": DenseCase((3, 5, 8), (7, 8), ((2,), (1,))),
    "no-free-axis-of-the-weight": DenseCase((3, 5, 8), (8,), ((2,), (0,))),
    "contracts-the-first-axis": DenseCase((5, 3, 4), (5, 6), ((0,), (0,))),
    "one-of-everything": DenseCase((1, 1, 1), (1, 1), ((2,), (0,))),
    "empty": DenseCase((0, 3, 4), (4, 2), ((2,), (0,))),
}

LARGE = {
    "encoder-qkv": DenseCase((32, 48, 64), (64, 4, 16), ((2,), (0,))),
    "encoder-mlp-in": DenseCase((32, 48, 64), (64, 256), ((2,), (0,))),
    "encoder-mlp-out": DenseCase((32, 48, 256), (256, 64), ((2,), (0,))),
}
"""Sizes for benchmarks."""
