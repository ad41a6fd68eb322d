"""Clipping of every client's update and the weighted sum of what is left, without a copy."""

from fedjax_med_kernels.clip_and_sum.clipping import (
    ClippedSum,
    clip_and_sum,
    default_implementation,
)

__all__ = ["ClippedSum", "clip_and_sum", "default_implementation"]
