"""Upsampling that stays fast when every client has weights of its own, as U-Nets need it."""

from fedjax_med_kernels.resampling.interpolation import upsample_linear, upsample_nearest
from fedjax_med_kernels.resampling.transposed import (
    choose,
    conv_transpose,
    transposed_convolution,
)

__all__ = [
    "choose",
    "conv_transpose",
    "transposed_convolution",
    "upsample_linear",
    "upsample_nearest",
]
