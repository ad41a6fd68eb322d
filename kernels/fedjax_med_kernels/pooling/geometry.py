"""Where the windows of a pooling lie: arguments checked, paddings in numbers, sizes of results."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax


class Axis(NamedTuple):
    """The windows along one axis: element `j` of window `i` is at `i * stride + j * spacing`.

    Positions count along the axis after `gap - 1` fill elements have been put between neighbours
    and `low` and `high` of them around (negative numbers cut off instead).

    Attributes:
      size: elements of the operand.
      window: elements of a window.
      stride: distance of neighbouring windows.
      low: fill elements before the first.
      high: fill elements behind the last.
      gap: distance of neighbouring elements of the operand.
      spacing: distance of neighbouring elements of a window.
    """

    size: int
    window: int
    stride: int
    low: int
    high: int
    gap: int
    spacing: int

    @property
    def dilated(self) -> int:
        """Elements of the axis with gaps, before padding."""
        return (self.size - 1) * self.gap + 1 if self.size else 0

    @property
    def outputs(self) -> int:
        """Number of windows, 0 if a window is longer than the padded axis."""
        extent = (self.window - 1) * self.spacing + 1
        padded = self.dilated + self.low + self.high
        return (padded - extent) // self.stride + 1 if padded >= extent else 0

    @property
    def is_identity(self) -> bool:
        """Whether every window is one element, in order."""
        return self.window == self.stride == self.gap == 1 and self.low == self.high == 0

    @property
    def is_tiling(self) -> bool:
        """Whether windows neither overlap nor skip; a single window is a tile."""
        alone = self.outputs == 1 or self.stride == self.window
        return alone and (self.spacing == 1 or self.window == 1)

    def counts(self) -> np.ndarray:
        """Number of the operand's elements in each window, `[outputs]`."""
        steps = np.arange(self.window)[None] * self.spacing
        position = np.arange(self.outputs)[:, None] * self.stride + steps - self.low
        inside = (position >= 0) & (position < self.dilated) & (position % self.gap == 0)
        return inside.sum(axis=1)


def axes_of(
    shape: Sequence[int],
    window_dimensions: Sequence[int],
    window_strides: Sequence[int] | None,
    padding: str | Sequence[Sequence[int]],
    base_dilation: Sequence[int] | None,
    window_dilation: Sequence[int] | None,
) -> tuple[Axis, ...]:
    """Windows along every axis, from the arguments of `lax.reduce_window`.

    Raises:
      ValueError: if an argument has not one entry per axis of the operand or an entry is too
        small, or if `padding` is an unknown name.
    """
    rank = len(shape)
    lengths = {
        "window_dimensions": window_dimensions,
        "window_strides": (1,) * rank if window_strides is None else window_strides,
        "base_dilation": (1,) * rank if base_dilation is None else base_dilation,
        "window_dilation": (1,) * rank if window_dilation is None else window_dilation,
    }
    for name, value in lengths.items():
        if len(value) != rank or any(v < 1 for v in value):
            raise ValueError(
                f"{name} must be one positive integer per axis of the operand "
                f"{tuple(shape)}, got {tuple(value)}."
            )
    window, strides, gaps, spacings = lengths.values()
    if isinstance(padding, str):
        if padding.upper() not in ("VALID", "SAME", "SAME_LOWER"):
            raise ValueError(
                f"padding must be 'VALID', 'SAME', 'SAME_LOWER' or pairs, got {padding!r}."
            )
        extents = [(w - 1) * r + 1 for w, r in zip(window, spacings, strict=True)]
        padding = lax.padtype_to_pads(shape, extents, strides, padding)
    if len(padding) != rank or any(len(pair) != 2 for pair in padding):
        raise ValueError(
            f"padding must be one pair (before, after) per axis of the operand {tuple(shape)}, "
            f"got {tuple(padding)}."
        )
    return tuple(
        Axis(int(n), int(k), int(s), int(low), int(high), int(d), int(r))
        for n, k, s, (low, high), d, r in zip(
            shape, window, strides, padding, gaps, spacings, strict=True
        )
    )


def fill_value(dtype, largest: bool) -> np.ndarray:
    """What no element is below (or above): infinite where `dtype` has infinities."""
    dtype = jnp.dtype(dtype)
    if dtype == jnp.bool_:
        return np.array(not largest)
    if jnp.issubdtype(dtype, jnp.inexact):
        with np.errstate(invalid="ignore"):  # some 8-bit floats have no infinity
            infinite = np.array(-np.inf if largest else np.inf).astype(dtype)
        if np.isinf(infinite):
            return infinite
        limits = jnp.finfo(dtype)
    else:
        limits = jnp.iinfo(dtype)
    return np.array(limits.min if largest else limits.max, dtype)
