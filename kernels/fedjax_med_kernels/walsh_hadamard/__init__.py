"""The fast Walsh-Hadamard transform: the rotation in front of quantization."""

from fedjax_med_kernels.walsh_hadamard.transform import (
    default_implementation,
    padded_size,
    walsh_hadamard,
)

__all__ = ["default_implementation", "padded_size", "walsh_hadamard"]
