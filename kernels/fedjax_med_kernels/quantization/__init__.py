"""Stochastic rounding to few levels, and packing of the codes into words."""

from fedjax_med_kernels.quantization.packing import pack, packed_size, unpack
from fedjax_med_kernels.quantization.rounding import dequantize, quantize, stochastic_round

__all__ = ["dequantize", "pack", "packed_size", "quantize", "stochastic_round", "unpack"]
