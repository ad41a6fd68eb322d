"""Numbers of masks and words of real rounds and awkward ones, for tests and benchmarks alike."""

from typing import NamedTuple


class MaskCase(NamedTuple):
    """Sizes of one sum of masks.

    Attributes:
      keys: masks added up by one client: one for every neighbour and one of its own.
      words: words of every mask, one for each parameter.
    """

    keys: int
    words: int


CASES = {
    "one-word": MaskCase(1, 1),
    "one-block": MaskCase(2, 16),
    "ragged": MaskCase(3, 67),
    "no-neighbours": MaskCase(0, 5),
    "heart-disease-silos": MaskCase(4, 14),
}

LARGE = {
    "logistic-regression-ring-of-10": MaskCase(11, 785),
    "ehr-mlp-ring-of-10": MaskCase(11, 20_000),
    "cifar-cnn-ring-of-10": MaskCase(11, 1_000_000),
    "one-long-mask": MaskCase(1, 1 << 22),
}
"""Sizes for benchmarks; the reference in plain Python would take minutes."""
