"""Convolution with kernels of three taps by Winograd's minimal filtering, F(2, 3).

Two neighbouring results of a three-tap filter share most of their terms. In every dimension, a tile
of four elements gives two results with four multiplications instead of six:

    y = A^T [(G w) * (B^T x)]                                        (Lavin and Gray, equation 6)

so two dimensions take 16 products for 36, three take 64 for 216. The sums over channels are matrix
products, one for each of the 4^d places of a tile, and `B`, `G` and `A` hold 0, 1, -1 and 1/2 only.
Both gradients are the same products with transposed transforms, and save as much.

The transforms are written with reshapes, splits and stacks, one dimension after the other: their
transposes are then stacks and splits again, where indexing would be transposed to padding.

References:
  Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
  https://arxiv.org/abs/1509.09308
  Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep
  Neural Networks", ACM TOMS 2020. https://arxiv.org/abs/1803.10986
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array

from fedjax_med_kernels.convolution import products
from fedjax_med_kernels.convolution.rebuilding import after
from fedjax_med_kernels.convolution.window import Window, padded, unpadded

_RESULTS, _TAPS, _PLACES = 2, 3, 4  # of a tile in one dimension


@dataclasses.dataclass(frozen=True)
class Winograd:
    """Minimal filtering; for kernels of three taps in every dimension and stride 1.

    Sums and products are those of `products.accumulation_dtype`. Rounding errors are a few times
    those of patches: tiles are sums of up to 2^d elements before they are multiplied.

    Nothing is kept between the forward and the backward pass: the tiles, 2^d times the size of the
    lhs, are built again, which costs a few percent.
    """

    name = "winograd"

    def forward(
        self, x: Array, w: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The convolution; arguments and result in the common layout (`window.py`)."""
        even = _even(window)
        wide = products.accumulation_dtype(x, w)
        tiles = _to_tiles(padded(x.astype(wide), even))
        y = products.by_weights(_rows(tiles), _weights(w.astype(wide)), precision)
        y = _from_tiles(y.reshape(*tiles.shape[:-1], -1), _dims(window))
        stop = (*y.shape[:2], *window.output_size, *y.shape[-2:])
        return lax.slice(y, (0,) * y.ndim, stop).astype(dtype)

    def input_gradient(
        self, g: Array, w: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The gradient by the lhs, from the cotangent `g` and the rhs."""
        even = _even(window)
        wide = products.accumulation_dtype(g, w)
        tiles = _cotangent_tiles(g.astype(wide), even)
        gradient = products.by_weights(
            _rows(tiles), _weights(w.astype(wide)).swapaxes(2, 3), precision
        )
        gradient = gradient.reshape(*tiles.shape[:-1], -1)
        shape = (*g.shape[:2], *even.padded_size, *gradient.shape[-2:])
        return unpadded(_transposed(_to_tiles, shape, gradient), even).astype(dtype)

    def weight_gradient(
        self, x: Array, g: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The gradient by the rhs, from the lhs and the cotangent `g`."""
        even = _even(window)
        wide = products.accumulation_dtype(x, g)
        tiles = _to_tiles(padded(after(g, x).astype(wide), even))
        # The compiler finds that the gradient by the lhs needs the same.
        g_tiles = _cotangent_tiles(g.astype(wide), even)
        gradient = products.over_rows(_rows(tiles), _rows(g_tiles), precision)
        shape = (x.shape[0], *window.kernel_size, *gradient.shape[-3:])
        return _transposed(_weights, shape, gradient).astype(dtype)


def supports(window: Window) -> bool:
    """Whether a convolution is one of kernels of three taps that move by one element."""
    ones = (1,) * _dims(window)
    return (
        window.kernel_size == (_TAPS,) * _dims(window)
        and window.strides == window.lhs_dilation == window.rhs_dilation == ones
    )


def _dims(window: Window) -> int:
    return len(window.kernel_size)


def _even(window: Window) -> Window:
    """The window with zeros added at the ends, so that results fill whole tiles.

    Raises:
      NotImplementedError: if kernel or strides are not supported.
    """
    if not supports(window):
        raise NotImplementedError(
            "Winograd() computes kernels of 3 taps per dimension with stride and dilation 1, got "
            f"kernel size {window.kernel_size}, strides {window.strides}, lhs_dilation "
            f"{window.lhs_dilation} and rhs_dilation {window.rhs_dilation}."
        )
    padding = tuple(
        (low, high + size % _RESULTS)
        for (low, high), size in zip(window.padding, window.output_size, strict=True)
    )
    return window._replace(padding=padding)


def _cotangent_tiles(g: Array, even: Window) -> Array:
    """The cotangent of the results as that of tiles."""
    dims = _dims(even)
    missing = [(0, n - m) for m, n in zip(g.shape[2:-2], even.output_size, strict=True)]
    g = jnp.pad(g, [(0, 0), (0, 0), *missing, (0, 0), (0, 0)])
    tiles = [size // _RESULTS for size in even.output_size]
    shape = (g.shape[0] * _PLACES**dims, g.shape[1], *tiles, *g.shape[-2:])
    return _transposed(lambda t: _from_tiles(t, dims), shape, g)


def _transposed(linear: Callable[[Array], Array], shape: Sequence[int], y: Array) -> Array:
    """The transpose of a linear function of an array of this shape, at `y`."""
    (x,) = jax.linear_transpose(linear, jax.ShapeDtypeStruct(tuple(shape), y.dtype))(y)
    return x


def _rows(tiles: Array) -> Array:
    """The tiles of a place as rows: `[clients * places, rows, groups, channels]`."""
    return tiles.reshape(tiles.shape[0], -1, *tiles.shape[-2:])


def _to_tiles(x: Array) -> Array:
    """`B^T x` in every dimension.

    Args:
      x: padded lhs, `[clients, batch, *even size, groups, inputs]`.

    Returns:
      `[clients * places, batch, *tiles, groups, inputs]`; tiles overlap by two elements.
    """
    dims = x.ndim - 4
    for number in range(dims):  # places of the dimensions done so far are axes 1 to number
        axis = 2 + 2 * number
        pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
        even, odd = _unstack(pairs, axis + 1)
        count = even.shape[axis] - 1
        first, second = (lax.slice_in_dim(x, 0, count, axis=axis) for x in (even, odd))
        third, fourth = (lax.slice_in_dim(x, 1, count + 1, axis=axis) for x in (even, odd))
        x = jnp.stack(
            [first - third, second + third, third - second, second - fourth], axis=1 + number
        )
    return x.reshape(-1, *x.shape[1 + dims :])


def _from_tiles(y: Array, dims: int) -> Array:
    """`A^T y` in every dimension.

    Args:
      y: `[clients * places, batch, *tiles, groups, outputs]`.
      dims: spatial dimensions.

    Returns:
      `[clients, batch, *even size, groups, outputs]`.
    """
    y = y.reshape(-1, *(_PLACES,) * dims, *y.shape[1:])
    for number in reversed(range(dims)):
        first, second, third, fourth = _unstack(y, 1 + number)
        axis = 2 + 2 * number  # without the places of this dimension
        y = jnp.stack([first + second + third, second - third - fourth], axis=axis + 1)
        y = y.reshape(*y.shape[:axis], -1, *y.shape[axis + 2 :])
    return y


def _weights(w: Array) -> Array:
    """`G w` in every dimension.

    Args:
      w: rhs, `[clients, *three taps, groups, inputs, outputs]`.

    Returns:
      `[clients * places, groups, inputs, outputs]`.
    """
    for axis in range(1, w.ndim - 3):
        first, second, third = _unstack(w, axis)
        ends = first + third
        w = jnp.stack([first, (ends + second) / 2, (ends - second) / 2, third], axis=axis)
    return w.reshape(-1, *w.shape[-3:])


def _unstack(x: Array, axis: int) -> list[Array]:
    # Split, whose transpose is a concatenation; that of an index is padding and a sum.
    return [lax.squeeze(part, (axis,)) for part in lax.split(x, (1,) * x.shape[axis], axis)]
