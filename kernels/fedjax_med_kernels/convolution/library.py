"""The library's own convolution, in the common layout: clients become feature groups."""

import dataclasses
import functools

import jax
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array

from fedjax_med_kernels.convolution import products
from fedjax_med_kernels.convolution.window import Window


@dataclasses.dataclass(frozen=True)
class Library:
    """`jax.lax.conv_general_dilated`; the best choice for a single client on an accelerator."""

    name = "library"

    def forward(
        self, x: Array, w: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The convolution; arguments and result in the common layout (`window.py`)."""
        clients, batch = x.shape[:2]
        groups, inputs, outputs = w.shape[-3:]
        dims = len(window.strides)
        common = jax.numpy.promote_types(x.dtype, w.dtype)
        x = x.reshape(clients, batch, *window.input_size, groups * inputs)
        lhs = jax.numpy.moveaxis(x, 0, -2).reshape(batch, *window.input_size, -1)
        rhs = jax.numpy.moveaxis(w, (0, -3), (-3, -2))
        rhs = rhs.reshape(*window.kernel_size, inputs, clients * groups * outputs)
        spatial = tuple(range(1, dims + 1))
        numbers = lax.ConvDimensionNumbers(
            lhs_spec=(0, dims + 1, *spatial),
            rhs_spec=(dims + 1, dims, *range(dims)),
            out_spec=(0, dims + 1, *spatial),
        )
        y = lax.conv_general_dilated(
            lhs.astype(common),
            rhs.astype(common),
            window.strides,
            window.padding,
            window.lhs_dilation,
            window.rhs_dilation,
            numbers,
            feature_group_count=clients * groups,
            precision=precision,
            preferred_element_type=products.accumulation_dtype(x, w),
        )
        y = y.reshape(batch, *window.output_size, clients, groups, outputs)
        return jax.numpy.moveaxis(y, -3, 0).astype(dtype)

    def input_gradient(
        self, g: Array, w: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The gradient by the lhs, from the cotangent `g` and the rhs."""
        sums = products.accumulation_dtype(g, w)
        shape = (*g.shape[:2], *window.input_size, *w.shape[-3:-1])
        forward = lambda x: self.forward(x, w.astype(sums), window, precision, sums)
        transpose = jax.linear_transpose(forward, jax.ShapeDtypeStruct(shape, sums))
        return transpose(g.astype(sums))[0].astype(dtype)

    def weight_gradient(
        self, x: Array, g: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The gradient by the rhs, from the lhs and the cotangent `g`."""
        sums = products.accumulation_dtype(x, g)
        shape = (x.shape[0], *window.kernel_size, *x.shape[-2:], g.shape[-1])
        forward = functools.partial(
            self.forward, x.astype(sums), window=window, precision=precision, dtype=sums
        )
        transpose = jax.linear_transpose(lambda w: forward(w), jax.ShapeDtypeStruct(shape, sums))
        return transpose(g.astype(sums))[0].astype(dtype)
