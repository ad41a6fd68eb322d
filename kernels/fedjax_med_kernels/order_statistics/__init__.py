"""Coordinate-wise median and trimmed mean over clients, by sorting networks."""

from fedjax_med_kernels.order_statistics.statistics import (
    coordinate_median,
    default_implementation,
    trimmed_mean,
)

__all__ = ["coordinate_median", "default_implementation", "trimmed_mean"]
