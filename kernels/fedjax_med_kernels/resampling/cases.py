"""Upsampling in real models and awkward cases, for tests and benchmarks alike."""

from typing import NamedTuple


class TransposedCase(NamedTuple):
    """One transposed convolution, channels last.

    Attributes:
      x: `[batch, *size, channels]`.
      kernel: `[*kernel size, channels / groups, outputs]`.
      strides: per spatial dimension.
      padding: "SAME", "VALID" or pairs.
      dilation: of the kernel, None for 1.
      groups: number of feature groups.
    """

    x: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...] = "SAME"
    dilation: tuple[int, ...] | None = None
    groups: int = 1


class InterpolationCase(NamedTuple):
    """One interpolation.

    Attributes:
      x: shape of the input.
      factors: per axis of `axes`.
      axes: None for 1, 2, ...
    """

    x: tuple[int, ...]
    factors: tuple[int, ...]
    axes: tuple[int, ...] | None = None


MODELS = {
    "unet-2d": TransposedCase((4, 16, 16, 64), (2, 2, 64, 32), (2, 2)),
    "unet-2d-3x3": TransposedCase((4, 16, 16, 64), (3, 3, 64, 32), (2, 2)),
    "dcgan": TransposedCase((4, 16, 16, 64), (4, 4, 64, 32), (2, 2)),
    "unet-3d": TransposedCase((1, 8, 8, 8, 32), (2, 2, 2, 32, 16), (2, 2, 2)),
    "unet-3d-3x3x3": TransposedCase((1, 8, 8, 8, 32), (3, 3, 3, 32, 16), (2, 2, 2)),
    "ecg": TransposedCase((8, 125, 64), (4, 64, 32), (2,)),
}

AWKWARD = {
    "valid": TransposedCase((2, 4, 5, 3), (3, 2, 3, 4), (2, 3), "VALID"),
    "explicit": TransposedCase((2, 5, 4, 3), (3, 4, 3, 2), (2, 2), ((3, 0), (-1, 4))),
    "stride-1": TransposedCase((2, 5, 3), (3, 3, 2), (1,)),
    "stride-3": TransposedCase((2, 4, 3), (5, 3, 2), (3,)),
    "kernel-below-stride": TransposedCase((2, 4, 3), (2, 3, 2), (3,)),
    "one-tap": TransposedCase((2, 3, 3, 2), (1, 1, 2, 3), (2, 2), "VALID"),
    "dilated": TransposedCase((2, 5, 4, 2), (3, 2, 2, 3), (2, 2), "SAME", (2, 3)),
    "grouped": TransposedCase((2, 4, 3, 4), (3, 3, 2, 6), (2, 2), "SAME", None, 2),
    "depthwise": TransposedCase((2, 4, 3, 3), (2, 2, 1, 3), (2, 2), "SAME", None, 3),
    "anisotropic": TransposedCase((1, 3, 4, 4, 2), (1, 2, 2, 2, 3), (1, 2, 2)),
}

TRANSPOSED = MODELS | AWKWARD

INTERPOLATIONS = {
    "unet-2d": InterpolationCase((4, 16, 16, 64), (2, 2)),
    "unet-3d": InterpolationCase((1, 8, 8, 8, 32), (2, 2, 2)),
    "ecg": InterpolationCase((8, 125, 32), (2,)),
    "channels-first": InterpolationCase((2, 8, 7, 6), (2, 3), (2, 3)),
    "anisotropic": InterpolationCase((1, 3, 4, 5, 2), (1, 4, 3)),
    "one-element": InterpolationCase((2, 1, 3), (5,)),
    "last-axis": InterpolationCase((2, 6), (2,), (-1,)),
}
