"""2-D convolution and max-pooling that stay fast when every client has weights of its own.

Under `vmap` over clients a library convolution becomes a grouped one, which is slow on GPUs and
far slower on CPUs. As patches and a matrix product it becomes a batched matrix product, and so
do its gradients.
"""

from fedjax_med_kernels.convolution.patches import conv2d, max_pool2d

__all__ = ["conv2d", "max_pool2d"]
