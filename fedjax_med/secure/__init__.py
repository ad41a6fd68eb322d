"""Sums that show the server no single client: masks, distributed noise, encryption."""

from fedjax_med.secure.aggregator import secure_mean
from fedjax_med.secure.fixed_point import FixedPoint, fixed_point, fixed_point_mean
from fedjax_med.secure.masking import masked

__all__ = ["FixedPoint", "fixed_point", "fixed_point_mean", "masked", "secure_mean"]
