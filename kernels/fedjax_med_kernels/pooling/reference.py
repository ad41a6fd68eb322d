"""What pooling has to compute: every window written out in NumPy, in float64."""

from collections.abc import Sequence

import jax
import numpy as np

from fedjax_med_kernels.pooling.geometry import Axis


def windows(
    x: np.ndarray | jax.Array, axes: Sequence[Axis], fill: float
) -> tuple[np.ndarray, np.ndarray]:
    """All windows, and where their elements come from.

    Returns:
      `(values, sources)`, both `[*outputs, elements of a window]` in row-major order. A source
      is an index into `x.ravel()`, or `x.size` for a fill element.
    """
    outside = x.size
    values = np.append(np.float64(x).ravel(), fill)
    sources = np.arange(x.size).reshape(x.shape)
    for dimension, axis in enumerate(axes):
        index = np.full((axis.outputs, axis.window), axis.size)  # one behind the last: outside
        for i, j in np.ndindex(index.shape):
            position, between = divmod(i * axis.stride + j * axis.spacing - axis.low, axis.gap)
            if between == 0 and 0 <= position < axis.size:
                index[i, j] = position
        after = [(0, int(d == dimension)) for d in range(x.ndim)]
        extended = np.pad(sources, after, constant_values=outside)
        sources = np.take(extended, index.ravel(), axis=dimension)
    split = [n for axis in axes for n in (axis.outputs, axis.window)]
    outputs = [axis.outputs for axis in axes]
    order = [*range(0, 2 * len(axes), 2), *range(1, 2 * len(axes), 2)]
    elements = int(np.prod([axis.window for axis in axes]))
    sources = sources.reshape(split).transpose(order).reshape(*outputs, elements)
    return values[sources], sources


def first_extremum(
    x: np.ndarray | jax.Array, axes: Sequence[Axis], largest: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The largest (smallest) elements and the sources of the first of them; NaN comes first."""
    values, sources = windows(x, axes, -np.inf if largest else np.inf)
    place = (np.argmax if largest else np.argmin)(values, axis=-1)[..., None]
    return (
        np.take_along_axis(values, place, -1)[..., 0],
        np.take_along_axis(sources, place, -1)[..., 0],
    )


def scatter(
    cotangent: np.generic | np.ndarray | jax.Array, sources: np.ndarray, shape: Sequence[int]
) -> np.ndarray:
    """Adds cotangents up where their elements come from, `[*shape]`; fill elements take none."""
    gradient = np.zeros(int(np.prod(shape)) + 1)
    np.add.at(gradient, sources, np.float64(cotangent))
    return gradient[:-1].reshape(shape)
