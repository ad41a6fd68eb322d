"""The arguments of a transposed convolution: checked, and with paddings in numbers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import lax
from jax.typing import DTypeLike


class Upsampling(NamedTuple):
    """A convolution of stride 1 over an input with zeros between its elements.

    Attributes:
      strides: distances the elements of the input are pulled to, per spatial dimension.
      padding: zeros before and after the pulled input; negative numbers cut off.
      kernel_size: taps.
      kernel_dilation: distances of taps.
      input_size: elements of the input.
      numbers: where batch, channels and spatial dimensions are.
      groups: number of feature groups.
      precision: of the products.
      dtype: of the result, None for that of the operands.
    """

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    kernel_size: tuple[int, ...]
    kernel_dilation: tuple[int, ...]
    input_size: tuple[int, ...]
    numbers: lax.ConvDimensionNumbers
    groups: int
    precision: Any
    dtype: DTypeLike | None

    @property
    def taps_per_phase(self) -> tuple[int, ...]:
        """Taps that one output sees at most, per spatial dimension, without kernel dilation."""
        return tuple(-(-k // s) for k, s in zip(self.kernel_size, self.strides, strict=True))

    @property
    def output_size(self) -> tuple[int, ...]:
        """Elements of the result, per spatial dimension."""
        return tuple(
            (n - 1) * s + 1 + low + high - (k - 1) * d
            for n, s, (low, high), k, d in zip(
                self.input_size,
                self.strides,
                self.padding,
                self.kernel_size,
                self.kernel_dilation,
                strict=True,
            )
        )


def upsampling(
    lhs: Any,
    rhs: Any,
    strides: Sequence[int],
    padding: Sequence[Sequence[int]],
    kernel_dilation: Sequence[int] | None,
    numbers: lax.ConvDimensionNumbers,
    groups: int,
    precision: Any,
    dtype: DTypeLike | None,
) -> Upsampling:
    """Checks the arguments of a transposed convolution.

    Raises:
      ValueError: if sizes do not fit or an argument has not one entry per spatial dimension.
    """
    dims = lhs.ndim - 2
    if rhs.ndim != lhs.ndim:
        raise ValueError(f"rhs must have the rank of lhs, {lhs.ndim}, got {rhs.ndim}.")
    dilation = (1,) * dims if kernel_dilation is None else tuple(kernel_dilation)
    for name, values in (("strides", strides), ("kernel_dilation", dilation)):
        if len(values) != dims or any(v < 1 for v in values):
            raise ValueError(
                f"{name} must be {dims} positive integers, one per spatial dimension, "
                f"got {tuple(values)}."
            )
    if len(padding) != dims or any(len(pair) != 2 for pair in padding):
        raise ValueError(
            f"padding must be 'SAME', 'VALID' or {dims} pairs, one per spatial dimension, "
            f"got {padding!r}."
        )
    channels, inputs = lhs.shape[numbers.lhs_spec[1]], rhs.shape[numbers.rhs_spec[1]]
    outputs = rhs.shape[numbers.rhs_spec[0]]
    if groups < 1 or outputs % groups or channels != inputs * groups:
        raise ValueError(
            f"rhs must take {channels} / groups channels and give a multiple of groups, "
            f"got {inputs} and {outputs} with {groups} groups."
        )
    problem = Upsampling(
        tuple(int(s) for s in strides),
        tuple((int(low), int(high)) for low, high in padding),
        tuple(np.take(rhs.shape, numbers.rhs_spec[2:]).tolist()),
        tuple(int(d) for d in dilation),
        tuple(np.take(lhs.shape, numbers.lhs_spec[2:]).tolist()),
        numbers,
        groups,
        precision,
        dtype,
    )
    if min(problem.output_size, default=1) < 1:
        raise ValueError(
            f"rhs {problem.kernel_size} is larger than the padded and dilated lhs; the result "
            f"would have size {problem.output_size}."
        )
    return problem
