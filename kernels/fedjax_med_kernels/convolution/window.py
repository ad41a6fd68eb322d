"""Geometry of a convolution: sizes, padding, and the layout every implementation works on.

All implementations compute on one layout, whatever the caller's dimension numbers are:

    lhs     [clients, batch, *input size, groups, inputs]
    rhs     [clients, *kernel size, groups, inputs, outputs]
    result  [clients, batch, *output size, groups, outputs]

`inputs` and `outputs` are channels per feature group. `vmap` over clients only makes `clients`
larger, so an implementation never meets a batching rule.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax import lax
from jaxtyping import Array


class Window(NamedTuple):
    """The spatial side of a convolution; every field has one entry per spatial dimension.

    Attributes:
      input_size: size of the lhs, before dilation and padding.
      kernel_size: number of taps.
      strides: steps of the window, in elements of the padded lhs.
      padding: zeros before and after, of either sign; negative padding cuts elements off.
      lhs_dilation: distance of the elements of the lhs after dilation; 1 is none.
      rhs_dilation: distance of the taps; 1 is none.
    """

    input_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]

    @property
    def padded_size(self) -> tuple[int, ...]:
        """Size of the lhs after dilation and padding."""
        return tuple(
            dilated(n, d) + low + high
            for n, d, (low, high) in zip(
                self.input_size, self.lhs_dilation, self.padding, strict=True
            )
        )

    @property
    def output_size(self) -> tuple[int, ...]:
        """Number of places of the window, 0 where it does not fit."""
        return tuple(
            max(0, (n - dilated(k, d)) // s + 1)
            for n, k, d, s in zip(
                self.padded_size, self.kernel_size, self.rhs_dilation, self.strides, strict=True
            )
        )

    @property
    def taps(self) -> tuple[tuple[int, ...], ...]:
        """Index of every tap of the kernel, last dimension fastest."""
        return tuple(np.ndindex(self.kernel_size))


class Problem(NamedTuple):
    """All that the choice of an implementation, a benchmark or a roofline needs to know.

    Attributes:
      clients: how many convolutions with weights of their own.
      batch: examples of a client.
      groups: feature groups.
      inputs: channels of the lhs per group.
      outputs: channels of the result per group.
      window: spatial geometry.
      dtype: of lhs and rhs, as in `jax.Array.dtype`.
    """

    clients: int
    batch: int
    groups: int
    inputs: int
    outputs: int
    window: Window
    dtype: np.dtype

    @property
    def flops(self) -> int:
        """Multiplications and additions of the forward pass; each gradient takes as many."""
        places = self.clients * self.batch * math.prod(self.window.output_size)
        terms = math.prod(self.window.kernel_size) * self.inputs
        return 2 * places * terms * self.groups * self.outputs

    @property
    def patch_bytes(self) -> int:
        """Size of the patches of all clients together [bytes]."""
        places = self.clients * self.batch * math.prod(self.window.output_size)
        terms = math.prod(self.window.kernel_size) * self.inputs
        return places * terms * self.groups * self.dtype.itemsize

    @property
    def bytes(self) -> int:
        """Size of lhs, rhs and result together [bytes]: the least a forward pass has to move."""
        window = self.window
        lhs = self.batch * math.prod(window.input_size) * self.inputs
        rhs = math.prod(window.kernel_size) * self.inputs * self.outputs
        out = self.batch * math.prod(window.output_size) * self.outputs
        return self.clients * self.groups * (lhs + rhs + out) * self.dtype.itemsize

    @property
    def depthwise(self) -> bool:
        """Whether every group has a single input channel, and there are several groups."""
        return self.inputs == 1 and self.groups > 1

    @property
    def pointwise(self) -> bool:
        """Whether the kernel has a single tap."""
        return math.prod(self.window.kernel_size) == 1


def dilated(size: int, dilation: int) -> int:
    """Size of `size` elements that lie `dilation` apart."""
    return dilation * (size - 1) + 1 if size > 0 else 0


def explicit_padding(
    padding: str | Sequence[tuple[int, int]],
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    strides: Sequence[int],
    rhs_dilation: Sequence[int],
) -> tuple[tuple[int, int], ...]:
    """Zeros before and after every spatial dimension, as in `lax.conv_general_dilated`.

    Raises:
      ValueError: if `padding` is a string other than "SAME", "SAME_LOWER" and "VALID", or not
        one pair of integers per spatial dimension.
    """
    if isinstance(padding, str):
        if padding.upper() == "VALID":
            return ((0, 0),) * len(strides)
        if padding.upper() not in ("SAME", "SAME_LOWER"):
            raise ValueError(
                "padding must be 'SAME', 'SAME_LOWER', 'VALID' or one (low, high) pair for each "
                f"spatial dimension, got {padding!r}."
            )
        pads = []
        for n, k, s, d in zip(input_size, kernel_size, strides, rhs_dilation, strict=True):
            total = max(0, (-(-n // s) - 1) * s + dilated(k, d) - n)
            less, more = total // 2, total - total // 2
            pads.append((less, more) if padding.upper() == "SAME" else (more, less))
        return tuple(pads)
    pads = tuple(tuple(int(p) for p in pair) for pair in padding)
    if len(pads) != len(strides) or any(len(pair) != 2 for pair in pads):
        raise ValueError(
            f"padding must have one (low, high) pair for each of the {len(strides)} spatial "
            f"dimensions, got {padding!r}."
        )
    return tuple((low, high) for low, high in pads)


def padded(x: Array, window: Window) -> Array:
    """Dilates and pads the spatial dimensions of a lhs in the common layout."""
    return lax.pad(x, np.zeros((), x.dtype), _pad_config(window))


def unpadded(x: Array, window: Window) -> Array:
    """The transpose of `padded`: takes the elements of the lhs out of the padded array."""
    like = (*x.shape[:2], *window.input_size, *x.shape[-2:])
    for axis, (n, d, (low, high)) in enumerate(
        zip(window.input_size, window.lhs_dilation, window.padding, strict=True), start=2
    ):
        # Elements that negative padding cut off have gradient zero.
        x = lax.pad(x, np.zeros((), x.dtype), _one_axis(x.ndim, axis, (-low, -high, 0)))
        x = lax.slice_in_dim(x, 0, dilated(n, d), d, axis)
    assert x.shape == like
    return x


def tap_slice(x: Array, window: Window, tap: tuple[int, ...]) -> Array:
    """Elements of the padded lhs that one tap of the kernel meets.

    Args:
      x: padded lhs, `[clients, batch, *padded size, groups, inputs]`.
      window: spatial geometry.
      tap: index of the tap.

    Returns:
      `[clients, batch, *output size, groups, inputs]`.
    """
    start = [t * d for t, d in zip(tap, window.rhs_dilation, strict=True)]
    stop = [
        a + s * (m - 1) + 1
        for a, s, m in zip(start, window.strides, window.output_size, strict=True)
    ]
    return lax.slice(
        x,
        (0, 0, *start, 0, 0),
        (*x.shape[:2], *stop, *x.shape[-2:]),
        (1, 1, *window.strides, 1, 1),
    )


def place_tap(y: Array, window: Window, tap: tuple[int, ...]) -> Array:
    """The transpose of `tap_slice`: puts its elements back into zeros of the padded size."""
    config = [(0, 0, 0)] * 2
    for t, d, s, n, m in zip(
        tap,
        window.rhs_dilation,
        window.strides,
        window.padded_size,
        window.output_size,
        strict=True,
    ):
        config.append((t * d, n - t * d - dilated(m, s), s - 1))
    return lax.pad(y, np.zeros((), y.dtype), [*config, (0, 0, 0), (0, 0, 0)])


def _pad_config(window: Window) -> list[tuple[int, int, int]]:
    spatial = [
        (low, high, d - 1)
        for (low, high), d in zip(window.padding, window.lhs_dilation, strict=True)
    ]
    return [(0, 0, 0), (0, 0, 0), *spatial, (0, 0, 0), (0, 0, 0)]


def _one_axis(ndim: int, axis: int, config: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    return [config if i == axis else (0, 0, 0) for i in range(ndim)]
