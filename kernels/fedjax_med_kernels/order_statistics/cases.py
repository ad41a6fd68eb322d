"""Shapes of real cohorts and awkward ones, for tests and benchmarks alike."""

from typing import NamedTuple


class OrderCase(NamedTuple):
    """Shapes of one order statistic.

    Attributes:
      clients: rows, of which any number may be valid.
      dim: parameters of one client.
    """

    clients: int
    dim: int


CASES = {
    "one-client": OrderCase(1, 5),
    "two-clients": OrderCase(2, 3),
    "heart-disease-silos": OrderCase(4, 14),
    "odd": OrderCase(7, 130),
    "power": OrderCase(16, 33),
    "one-above-a-power": OrderCase(17, 20),
}

LARGE = {
    "twenty-hospitals": OrderCase(20, 100_000),
    "ehr-mlp": OrderCase(64, 20_000),
    "cifar-cnn": OrderCase(50, 100_000),
    "many-clients": OrderCase(128, 20_000),
}
"""Sizes for benchmarks."""
