"""What the convolution and the pooling have to compute, by the library's own operations."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def conv2d_reference(
    x: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "kernel_height kernel_width inputs outputs"],
    padding: Literal["VALID", "SAME"] = "VALID",
) -> Float[Array, "batch out_height out_width outputs"]:
    """The definition `conv2d` has to meet, in the dtype it is given."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )


def max_pool2d_reference(
    x: Float[Array, "batch height width channels"], window: tuple[int, int] = (2, 2)
) -> Float[Array, "batch out_height out_width channels"]:
    """The definition `max_pool2d` has to meet, in the dtype it is given."""
    size = (1, *window, 1)
    return lax.reduce_window(x, jnp.array(-jnp.inf, x.dtype), lax.max, size, size, "VALID")


def gradients(fn, cotangent: jax.Array, *args: jax.Array) -> tuple[jax.Array, ...]:
    """Gradients of `sum(cotangent * fn(*args))` by every argument."""
    return jax.vjp(fn, *args)[1](cotangent)
