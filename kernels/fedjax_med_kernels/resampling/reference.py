"""What upsampling has to compute, in NumPy and float64."""

from collections.abc import Sequence

import numpy as np


def transposed_convolution(
    x: np.ndarray,
    w: np.ndarray,
    strides: Sequence[int],
    padding: Sequence[Sequence[int]],
    dilation: Sequence[int],
    groups: int = 1,
) -> np.ndarray:
    """Every tap adds every input to the output it meets.

    Input `i` and tap `t` meet at output `i * stride - t * dilation + before`.

    Args:
      x: `[batch, *size, channels]`.
      w: `[*kernel size, channels / groups, outputs]`.
      strides: per spatial dimension.
      padding: `(before, after)` per spatial dimension.
      dilation: of the kernel, per spatial dimension.
      groups: number of feature groups.
    """
    size, kernel_size = x.shape[1:-1], w.shape[: len(strides)]
    reach = [(k - 1) * d for k, d in zip(kernel_size, dilation, strict=True)]
    dilated = [(n - 1) * s + 1 for n, s in zip(size, strides, strict=True)]
    outputs = [
        n + low + high - r for n, (low, high), r in zip(dilated, padding, reach, strict=True)
    ]
    inputs = np.split(np.float64(x), groups, axis=-1)
    kernels = np.split(np.float64(w), groups, axis=-1)
    y = np.zeros((x.shape[0], *outputs, w.shape[-1]))
    parts = np.split(y, groups, axis=-1)
    for i in np.ndindex(size):
        for t in np.ndindex(kernel_size):
            place = tuple(
                a * s - b * d + low
                for a, s, b, d, (low, _) in zip(i, strides, t, dilation, padding, strict=True)
            )
            if all(0 <= o < n for o, n in zip(place, outputs, strict=True)):
                for part, example, kernel in zip(parts, inputs, kernels, strict=True):
                    part[:, *place] += example[:, *i] @ kernel[t]
    return y


def nearest_weights(size: int, factor: int) -> np.ndarray:
    """`[size * factor, size]`: the weight of every element in every result."""
    return np.repeat(np.eye(size), factor, axis=0)


def linear_weights(size: int, factor: int) -> np.ndarray:
    """`[size * factor, size]`: triangles around the centres, normalized where they are cut."""
    position = (np.arange(size * factor)[:, None] + 0.5) / factor - 0.5
    weights = np.maximum(0, 1 - np.abs(position - np.arange(size)[None]))
    return weights / weights.sum(axis=1, keepdims=True)


def along_axes(x: np.ndarray, matrices: Sequence[np.ndarray], axes: Sequence[int]) -> np.ndarray:
    """Multiplies every axis of `axes` with its matrix."""
    y = np.asarray(x, np.float64)
    for matrix, axis in zip(matrices, axes, strict=True):
        y = np.moveaxis(np.tensordot(matrix, y, (1, axis)), 0, axis)
    return y
