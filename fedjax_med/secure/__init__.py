"""Sums that show the server no single client: masks, distributed noise, encryption."""

from fedjax_med.secure.aggregator import secure_mean
from fedjax_med.secure.discrete_noise import NoiseTable, discrete_gaussian, draw, skellam
from fedjax_med.secure.distributed_dp import distributed_dp_mean, secure_distributed_dp_mean
from fedjax_med.secure.distributed_dp_accounting import DistributedDP
from fedjax_med.secure.fixed_point import FixedPoint, fixed_point, fixed_point_mean
from fedjax_med.secure.masking import masked

__all__ = [
    "DistributedDP",
    "FixedPoint",
    "NoiseTable",
    "discrete_gaussian",
    "distributed_dp_mean",
    "draw",
    "fixed_point",
    "fixed_point_mean",
    "masked",
    "secure_distributed_dp_mean",
    "secure_mean",
    "skellam",
]
