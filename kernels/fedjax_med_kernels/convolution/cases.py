"""Convolutions of real models and awkward ones, for tests and benchmarks alike."""

from typing import Any, NamedTuple

import jax
import numpy as np


class ConvolutionCase(NamedTuple):
    """Shapes and arguments of one convolution of one client.

    Attributes:
      batch: examples.
      size: spatial size of the lhs in benchmarks.
      test_size: spatial size of the lhs in tests, small but with the same borders.
      kernel: number of taps in each spatial dimension.
      inputs: channels of the lhs.
      outputs: channels of the result.
      strides: of the window; None is 1.
      padding: as of `conv_general_dilated`.
      lhs_dilation: None is 1.
      rhs_dilation: None is 1.
      groups: feature groups.
      layout: of lhs, rhs and result; None for channels last.
    """

    batch: int
    size: tuple[int, ...]
    test_size: tuple[int, ...]
    kernel: tuple[int, ...]
    inputs: int
    outputs: int
    strides: tuple[int, ...] | None = None
    padding: str | tuple[tuple[int, int], ...] = "SAME"
    lhs_dilation: tuple[int, ...] | None = None
    rhs_dilation: tuple[int, ...] | None = None
    groups: int = 1
    layout: tuple[str, str, str] | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """All arguments of `conv_general_dilated` but the two arrays."""
        return {
            "window_strides": self.strides or (1,) * len(self.size),
            "padding": self.padding,
            "lhs_dilation": self.lhs_dilation,
            "rhs_dilation": self.rhs_dilation,
            "dimension_numbers": self._layout,
            "feature_group_count": self.groups,
        }

    def for_test(self) -> "ConvolutionCase":
        """The case with few channels, examples and places."""
        most = lambda channels: min(channels, 4)
        groups = self.groups
        inputs, outputs = most(self.inputs // groups), most(self.outputs // groups)
        groups = min(groups, 3)
        return self._replace(
            batch=min(self.batch, 2),
            size=self.test_size,
            inputs=inputs * groups,
            outputs=outputs * groups,
            groups=groups,
        )

    def shapes(self, dtype: Any = np.float32) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        """Of lhs and rhs."""
        spatial = _SPATIAL[len(self.size)]
        sizes = dict(zip(spatial, self.size, strict=True)) | {"N": self.batch, "C": self.inputs}
        taps = dict(zip(spatial, self.kernel, strict=True))
        taps |= {"I": self.inputs // self.groups, "O": self.outputs}
        lhs, rhs, _ = self._layout
        return (
            jax.ShapeDtypeStruct(tuple(sizes[axis] for axis in lhs), dtype),
            jax.ShapeDtypeStruct(tuple(taps[axis] for axis in rhs), dtype),
        )

    @property
    def _layout(self) -> tuple[str, str, str]:
        spatial = _SPATIAL[len(self.size)]
        return self.layout or (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")


_SPATIAL = {0: "", 1: "W", 2: "HW", 3: "DHW"}
_CHANNELS_FIRST = ("NCHW", "OIHW", "NCHW")

REAL_CASES = {
    "cifar-first": ConvolutionCase(10, (32, 32), (6, 5), (3, 3), 3, 32, padding="VALID"),
    "cifar-second": ConvolutionCase(10, (30, 30), (5, 6), (3, 3), 32, 64, padding="VALID"),
    "femnist-first": ConvolutionCase(20, (28, 28), (5, 5), (3, 3), 1, 32, padding="VALID"),
    "femnist-second": ConvolutionCase(20, (26, 26), (5, 4), (3, 3), 32, 64, padding="VALID"),
    "resnet-stem": ConvolutionCase(
        8, (224, 224), (11, 8), (7, 7), 3, 64, (2, 2), ((3, 3), (3, 3)), layout=_CHANNELS_FIRST
    ),
    "resnet-3x3": ConvolutionCase(8, (56, 56), (5, 4), (3, 3), 64, 64),
    "resnet-3x3-strided": ConvolutionCase(8, (56, 56), (6, 5), (3, 3), 64, 128, (2, 2)),
    "resnet-1x1-strided": ConvolutionCase(8, (56, 56), (5, 4), (1, 1), 64, 128, (2, 2)),
    "resnet-1x1": ConvolutionCase(8, (14, 14), (3, 4), (1, 1), 256, 64),
    "unet-2d": ConvolutionCase(4, (128, 128), (5, 6), (3, 3), 32, 32),
    "unet-2d-up": ConvolutionCase(
        4, (64, 64), (3, 4), (2, 2), 64, 32, None, ((1, 1), (1, 1)), lhs_dilation=(2, 2)
    ),
    "unet-3d": ConvolutionCase(1, (48, 48, 48), (4, 3, 3), (3, 3, 3), 16, 16),
    "unet-3d-strided": ConvolutionCase(1, (48, 48, 48), (4, 5, 3), (3, 3, 3), 16, 32, (2, 2, 2)),
    "unet-3d-up": ConvolutionCase(
        1, (24, 24, 24), (2, 3, 2), (2, 2, 2), 32, 16, None, ((1, 1),) * 3, lhs_dilation=(2, 2, 2)
    ),
    "ecg-stem": ConvolutionCase(16, (1000,), (40,), (15,), 12, 64, (2,)),
    "ecg-block": ConvolutionCase(16, (500,), (20,), (9,), 64, 64),
    "depthwise-2d": ConvolutionCase(8, (56, 56), (6, 5), (3, 3), 64, 64, groups=64),
    "depthwise-1d": ConvolutionCase(16, (500,), (11,), (5,), 64, 64, (2,), groups=64),
    "aspp-dilated": ConvolutionCase(4, (32, 32), (7, 6), (3, 3), 64, 64, rhs_dilation=(2, 2)),
}

AWKWARD_CASES = {
    "even-kernel-lower": ConvolutionCase(1, (9, 7), (9, 7), (2, 4), 3, 5, (2, 1), "SAME_LOWER"),
    "kernel-as-large-as-image": ConvolutionCase(2, (4, 6), (4, 6), (4, 6), 3, 2, padding="VALID"),
    "one-pixel": ConvolutionCase(1, (1, 1), (1, 1), (3, 3), 1, 1),
    "stride-over-kernel": ConvolutionCase(2, (11, 7), (11, 7), (2, 1), 2, 3, (3, 4), "VALID"),
    "stride-and-dilation": ConvolutionCase(
        2, (15, 13), (15, 13), (3, 2), 2, 3, (4, 2), ((2, 0), (1, 3)), rhs_dilation=(2, 3)
    ),
    "negative-padding": ConvolutionCase(
        1, (9, 8), (9, 8), (3, 2), 2, 3, (2, 1), ((-1, -2), (2, -3))
    ),
    "grouped": ConvolutionCase(2, (6, 5), (6, 5), (3, 2), 6, 9, (1, 2), groups=3),
    "depthwise-multiplier": ConvolutionCase(2, (6, 5), (6, 5), (3, 3), 3, 6, groups=3),
    "transposed-dilated": ConvolutionCase(
        1, (4, 3), (4, 3), (3, 2), 2, 3, None, ((5, 1), (0, 2)), (3, 2), (2, 1)
    ),
    "transposed-grouped": ConvolutionCase(
        1, (5,), (5,), (4,), 4, 6, None, ((-1, 2),), (2,), groups=2
    ),
    "transposed-and-strided": ConvolutionCase(
        1, (5, 4), (5, 4), (3, 2), 2, 3, (2, 1), ((1, 1), (1, 0)), (3, 2)
    ),
    "mixed-layout": ConvolutionCase(
        2, (5, 4), (5, 4), (3, 2), 2, 3, layout=("HNCW", "WOIH", "CWNH")
    ),
    "no-space": ConvolutionCase(3, (), (), (), 4, 5),
}

CASES = REAL_CASES | AWKWARD_CASES
