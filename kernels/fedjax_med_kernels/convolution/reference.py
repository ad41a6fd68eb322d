"""The definition of the convolution and its gradients, in NumPy and in the dtype it is given.

Written with nothing but slices and sums over the taps, so that the library's own convolution is
checked as well as ours.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jax import lax

from fedjax_med_kernels.convolution.window import explicit_padding


class Reference(NamedTuple):
    """Result and gradients.

    Attributes:
      result: of the convolution.
      lhs_gradient: of `sum(cotangent * result)` by the lhs.
      rhs_gradient: of `sum(cotangent * result)` by the rhs.
    """

    result: np.ndarray
    lhs_gradient: np.ndarray
    rhs_gradient: np.ndarray


def convolution_reference(
    lhs: np.ndarray, rhs: np.ndarray, cotangent: np.ndarray | None = None, **arguments: Any
) -> Reference:
    """What `conv_general_dilated` and its gradients have to meet, for arguments that fit.

    Args:
      lhs: as of `conv_general_dilated`.
      rhs: as of `conv_general_dilated`.
      cotangent: of the shape of the result; None for ones.
      **arguments: `window_strides`, `padding`, `lhs_dilation`, `rhs_dilation`,
        `dimension_numbers` and `feature_group_count`, all of them.
    """
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, arguments["dimension_numbers"])
    x = lhs.transpose(numbers.lhs_spec)  # [batch, channels, *size]
    w = rhs.transpose(numbers.rhs_spec)  # [outputs, channels / groups, *kernel size]
    groups, strides = arguments["feature_group_count"], arguments["window_strides"]
    spread = arguments["lhs_dilation"] or (1,) * len(strides)
    steps = arguments["rhs_dilation"] or (1,) * len(strides)
    pads = explicit_padding(arguments["padding"], x.shape[2:], w.shape[2:], strides, steps)

    x, inside = _padded(x, spread, pads)
    covered = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], steps, strict=True)]
    size = [(n - c) // s + 1 for n, c, s in zip(x.shape[2:], covered, strides, strict=True)]
    x = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
    w = w.reshape(groups, -1, *w.shape[1:])
    y = np.zeros((x.shape[0], groups, w.shape[1], *size), lhs.dtype)
    for tap, met in _taps(w.shape[3:], steps, strides, size):
        y += np.einsum("ngc...,goc->ngo...", x[met], w[tap])
    y_grouped = y.reshape(y.shape[0], -1, *size)

    back = np.argsort(numbers.out_spec)
    result = y_grouped.transpose(back)
    g = np.ones_like(result) if cotangent is None else cotangent
    g = g.transpose(numbers.out_spec).reshape(y.shape)
    places = lambda a: a.reshape(*a.shape[:3], -1)
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for tap, met in _taps(w.shape[3:], steps, strides, size):
        dx[met] += np.einsum("ngo...,goc->ngc...", g, w[tap])
        dw[tap] = np.einsum("ngop,ngcp->goc", places(g), places(x[met]))
    dx = dx.reshape(dx.shape[0], -1, *dx.shape[3:])
    dw = dw.reshape(-1, *dw.shape[2:])
    return Reference(
        result,
        _inside(dx, inside).transpose(np.argsort(numbers.lhs_spec)),
        dw.transpose(np.argsort(numbers.rhs_spec)),
    )


def _taps(kernel_size, steps, strides, size) -> Iterator[tuple[Any, Any]]:
    """Of every tap, its index in the rhs and that of the elements of the lhs it meets."""
    for tap in np.ndindex(*kernel_size):
        met = (
            slice(t * d, t * d + s * (m - 1) + 1, s)
            for t, d, s, m in zip(tap, steps, strides, size, strict=True)
        )
        yield (..., *tap), (slice(None), slice(None), slice(None), *met)


def _padded(x: np.ndarray, dilation, padding) -> tuple[np.ndarray, list[range]]:
    """Dilated and padded `x`, and for each axis where its elements are (maybe outside)."""
    inside = [
        range(low, low + d * n, d)
        for n, d, (low, _) in zip(x.shape[2:], dilation, padding, strict=True)
    ]
    size = [
        d * (n - 1) + 1 + low + high
        for n, d, (low, high) in zip(x.shape[2:], dilation, padding, strict=True)
    ]
    out = np.zeros((*x.shape[:2], *size), x.dtype)
    for index in np.ndindex(*x.shape[2:]):
        place = tuple(places[i] for places, i in zip(inside, index, strict=True))
        if all(0 <= p < n for p, n in zip(place, size, strict=True)):
            out[(..., *place)] = x[(..., *index)]
    return out, inside


def _inside(x: np.ndarray, inside: list[range]) -> np.ndarray:
    """The transpose of `_padded`."""
    out = np.zeros((*x.shape[:2], *map(len, inside)), x.dtype)
    for index in np.ndindex(*out.shape[2:]):
        place = tuple(places[i] for places, i in zip(inside, index, strict=True))
        if all(0 <= p < n for p, n in zip(place, x.shape[2:], strict=True)):
            out[(..., *index)] = x[(..., *place)]
    return out
