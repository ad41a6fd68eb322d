"""Shapes of real cohorts and awkward ones, for tests and benchmarks alike."""

from typing import NamedTuple


class ClipCase(NamedTuple):
    """Shapes of one clip-and-sum.

    Attributes:
      clients: rows of the updates.
      dim: parameters of one client.
    """

    clients: int
    dim: int


CASES = {
    "one-client": ClipCase(1, 33),
    "one-parameter": ClipCase(7, 1),
    "ragged": ClipCase(13, 777),
    "heart-disease-silos": ClipCase(4, 14),
    "logistic-regression-cohort": ClipCase(100, 785),
}

LARGE = {
    "ehr-mlp": ClipCase(64, 20_000),
    "cifar-cnn": ClipCase(50, 100_000),
    "many-small-clients": ClipCase(2_000, 2_000),
    "unet": ClipCase(20, 2_000_000),
}
"""Sizes for benchmarks, too slow for a quick test in float64."""
