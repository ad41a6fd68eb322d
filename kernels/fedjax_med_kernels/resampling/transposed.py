"""Transposed convolution: the arguments of the library, and which implementation runs."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Shaped

from fedjax_med_kernels.convolution import conv_general_dilated
from fedjax_med_kernels.resampling import shuffle
from fedjax_med_kernels.resampling.geometry import Upsampling, upsampling

DimensionNumbers = tuple[str, str, str] | lax.ConvDimensionNumbers | None
IMPLEMENTATIONS = ("library", "phases", "shuffle")
CHANNELS_LAST = {
    0: ("NC", "IO", "NC"),
    1: ("NHC", "HIO", "NHC"),
    2: ("NHWC", "HWIO", "NHWC"),
    3: ("NHWDC", "HWDIO", "NHWDC"),
}


def choose(problem: Upsampling, dtype) -> tuple[str, str]:
    """Which implementation of a transposed convolution runs by default, and why.

    Times of one step with both gradients inside `scan`, four clients vmapped, phases / shuffle,
    on two busy CPU cores (smallest of 25 times, in turn in one process; GPUs have not been
    measured). The library takes 10 to 60 times longer than either.

    | kernel, stride 2, 64 to 32 channels           | ratio | compilation |
    | --------------------------------------------- | ----- | ----------- |
    | 2 x 2 of `[4, 16, 16, 64]`                    | 1.3   | 3.6         |
    | 3 x 3                                         | 1.3   | 2.7         |
    | 4 x 4                                         | 3     | 5           |
    | 2 x 2 x 2 of `[1, 8, 8, 8, 32]` to 16         | 1.4   | 4           |
    | 3 x 3 x 3                                     | 2.7   | 6           |
    | 2 of `[8, 125, 64]`                           | 1.1   | 2           |
    | 4                                             | 1.2   | 1.7         |

    A kernel that is no multiple of the stride is filled up with zeros by the shuffle, which even
    so is not slower; where the kernel is smaller than the stride, whole phases would be zeros.

    Returns:
      `(name, reason)`.
    """
    reason = shuffle.unsupported(problem, dtype)
    if reason is not None:
        return "phases", reason
    if any(k < s for k, s in zip(problem.kernel_size, problem.strides, strict=True)):
        return "phases", "the kernel is smaller than the stride, so some outputs are zero"
    return "shuffle", "one convolution of stride 1 with the outputs of all phases"


def transposed_convolution(
    lhs: Shaped[Array, "..."],
    rhs: Shaped[Array, "..."],
    padding: Sequence[Sequence[int]],
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: DimensionNumbers = None,
    feature_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    *,
    implementation: str | None = None,
) -> Shaped[Array, "..."]:
    """What `lax.conv_general_dilated` computes with `lhs_dilation` and stride 1.

    With one spatial dimension, channels last, stride `s = lhs_dilation` and taps `t`:

        y[n, o, d] = sum over i, t with i * s = o + t * rhs_dilation - before, and over c, of
                     lhs[n, i, c] * rhs[t, c, d]

    No zeros between the elements of `lhs` are multiplied.

    Args:
      lhs: input of any number of spatial dimensions.
      rhs: kernel.
      padding: `(before, after)` of every spatial dimension, around the dilated `lhs`.
      lhs_dilation: upsampling factor of every spatial dimension.
      rhs_dilation: distance of taps; None is 1.
      dimension_numbers: as in the library; None is channels first.
      feature_group_count: into how many groups the channels are split.
      precision: of the products, as in the library.
      preferred_element_type: dtype of the result; None for that of the operands. Products are
        added in float32 or wider.
      implementation: "shuffle" (one convolution of stride 1 and a pixel shuffle), "phases" (one
        small convolution for every phase of the strides), "library", or None for what `choose`
        says.

    Raises:
      ValueError: if sizes do not fit.
      NotImplementedError: if the implementation is unknown or cannot do it.
    """
    if rhs.ndim != lhs.ndim:
        raise ValueError(f"rhs must have the rank of lhs, {lhs.ndim}, got {rhs.ndim}.")
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    problem = upsampling(
        lhs,
        rhs,
        lhs_dilation,
        padding,
        rhs_dilation,
        numbers,
        feature_group_count,
        precision,
        preferred_element_type,
    )
    name = choose(problem, lhs.dtype)[0] if implementation is None else implementation
    if name not in IMPLEMENTATIONS:
        raise NotImplementedError(
            f"implementation must be one of {list(IMPLEMENTATIONS)} or None, got {name!r}."
        )
    if name == "shuffle":
        if (reason := shuffle.unsupported(problem, lhs.dtype)) is not None:
            raise NotImplementedError(
                f"implementation='shuffle' cannot compute this: {reason}; use 'phases'."
            )
        return shuffle.convolve(lhs, rhs, problem)
    convolve = conv_general_dilated if name == "phases" else lax.conv_general_dilated
    return convolve(
        lhs,
        rhs,
        (1,) * len(problem.strides),
        problem.padding,
        problem.strides,
        problem.kernel_dilation,
        numbers,
        feature_group_count=feature_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


def conv_transpose(
    lhs: Shaped[Array, "..."],
    rhs: Shaped[Array, "..."],
    strides: Sequence[int],
    padding: str | Sequence[Sequence[int]],
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: DimensionNumbers = None,
    transpose_kernel: bool = False,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    *,
    feature_group_count: int = 1,
    implementation: str | None = None,
) -> Shaped[Array, "..."]:
    """Transposed convolution, as `lax.conv_transpose` and Flax's `ConvTranspose`.

    Args:
      lhs: `[batch, *size, channels]`, or in the order of `dimension_numbers`.
      rhs: `[*kernel size, channels, outputs]`, or in that order.
      strides: upsampling factor of every spatial dimension.
      padding: "SAME" (`size * stride` results), "VALID", or the padding of the dilated `lhs`.
      rhs_dilation: distance of taps; None is 1.
      dimension_numbers: as in the library; None is channels last, up to three spatial dimensions.
      transpose_kernel: whether `rhs` is given as that of the convolution whose gradient this is:
        reversed, `[*kernel size, outputs, channels]`.
      precision: see `transposed_convolution`.
      preferred_element_type: see `transposed_convolution`.
      feature_group_count: see `transposed_convolution`.
      implementation: see `transposed_convolution`.

    Raises:
      ValueError: if sizes do not fit.
      NotImplementedError: if the implementation is unknown or cannot do it.
    """
    dims = lhs.ndim - 2
    if rhs.ndim != lhs.ndim or (dimension_numbers is None and dims not in CHANNELS_LAST):
        raise ValueError(
            f"lhs and rhs must be of one rank from 2 to 5, got {lhs.ndim} and {rhs.ndim}; with "
            "more spatial dimensions give dimension_numbers."
        )
    numbers = lax.conv_dimension_numbers(
        lhs.shape, rhs.shape, dimension_numbers or CHANNELS_LAST[dims]
    )
    kernel_size = [rhs.shape[i] for i in numbers.rhs_spec[2:]]
    dilation = (1,) * dims if rhs_dilation is None else tuple(rhs_dilation)
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise ValueError(f"padding must be 'SAME', 'VALID' or pairs, got {padding!r}.")
        if not len(strides) == len(dilation) == dims:
            raise ValueError(
                f"strides and rhs_dilation must have {dims} entries, got {tuple(strides)} and "
                f"{dilation}."
            )
        extents = [(k - 1) * d + 1 for k, d in zip(kernel_size, dilation, strict=True)]
        padding = [_padding(k, s, padding) for k, s in zip(extents, strides, strict=True)]
    if transpose_kernel:
        rhs = jnp.flip(rhs, numbers.rhs_spec[2:]).swapaxes(*numbers.rhs_spec[:2])
    return transposed_convolution(
        lhs,
        rhs,
        padding,
        strides,
        dilation,
        numbers,
        feature_group_count,
        precision,
        preferred_element_type,
        implementation=implementation,
    )


def _padding(extent: int, stride: int, padding: str) -> tuple[int, int]:
    """Padding of the dilated input whose convolution inverts the sizes of a strided one."""
    if padding == "VALID":
        return extent - 1, max(extent, stride) - 1
    total = extent + stride - 2
    before = extent - 1 if stride > extent - 1 else -(-total // 2)
    return before, total - before
