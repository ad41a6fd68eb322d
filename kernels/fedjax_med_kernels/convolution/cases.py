"""Shapes of real models and awkward ones, for tests and benchmarks alike."""

from typing import Literal, NamedTuple


class ConvolutionCase(NamedTuple):
    """Shapes of one convolution.

    Attributes:
      x: `[batch, height, width, inputs]`.
      kernel: `[height, width, inputs, outputs]`.
      padding: "VALID" or "SAME".
    """

    x: tuple[int, int, int, int]
    kernel: tuple[int, int, int, int]
    padding: Literal["VALID", "SAME"] = "VALID"


class PoolingCase(NamedTuple):
    """Shapes of one max-pooling.

    Attributes:
      x: `[batch, height, width, channels]`.
      window: height and width.
    """

    x: tuple[int, int, int, int]
    window: tuple[int, int] = (2, 2)


CONVOLUTIONS = {
    "cifar-first": ConvolutionCase((10, 32, 32, 3), (3, 3, 3, 32)),
    "cifar-second": ConvolutionCase((10, 30, 30, 32), (3, 3, 32, 64)),
    "femnist-first": ConvolutionCase((20, 28, 28, 1), (3, 3, 1, 32)),
    "same": ConvolutionCase((2, 28, 28, 8), (3, 3, 8, 16), "SAME"),
    "even-kernel-same": ConvolutionCase((1, 9, 7, 3), (2, 4, 3, 5), "SAME"),
    "flat-kernel": ConvolutionCase((3, 5, 11, 2), (1, 7, 2, 4)),
    "kernel-as-large-as-image": ConvolutionCase((2, 4, 6, 3), (4, 6, 3, 2)),
    "one-pixel": ConvolutionCase((1, 1, 1, 1), (3, 3, 1, 1), "SAME"),
}

POOLINGS = {
    "cifar": PoolingCase((10, 28, 28, 64)),
    "ragged-border": PoolingCase((2, 7, 5, 3)),
    "oblong-window": PoolingCase((1, 9, 8, 2), (3, 2)),
    "one-pixel-window": PoolingCase((2, 3, 3, 1), (1, 1)),
}
