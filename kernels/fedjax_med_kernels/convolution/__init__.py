"""Convolutions that stay fast when every client has weights of its own.

Under `vmap` over clients a library convolution becomes a grouped one, which is slow on GPUs and
far slower on CPUs. Here it becomes batched matrix products, and so do its gradients.
"""

from fedjax_med_kernels.convolution.general_dilated import (
    conv_general_dilated,
    convolution_problem,
)
from fedjax_med_kernels.convolution.library import Library
from fedjax_med_kernels.convolution.pallas_gpu import PallasGpu, Tiles
from fedjax_med_kernels.convolution.patches import Patches
from fedjax_med_kernels.convolution.selection import Choice, Implementation, choose
from fedjax_med_kernels.convolution.shifted import Shifted
from fedjax_med_kernels.convolution.window import Problem, Window
from fedjax_med_kernels.convolution.winograd import Winograd

__all__ = [
    "Choice",
    "Implementation",
    "Library",
    "PallasGpu",
    "Patches",
    "Problem",
    "Shifted",
    "Tiles",
    "Window",
    "Winograd",
    "choose",
    "conv_general_dilated",
    "convolution_problem",
]
