from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jaxtyping import Array, Float

from fedjax_med_kernels.convolution import conv2d, max_pool2d


class ConvolutionCase(NamedTuple):
    """Shapes of one convolution.

    Attributes:
      x: `[batch, height, width, inputs]`.
      kernel: `[height, width, inputs, outputs]`.
      padding: "VALID" or "SAME".
    """

    x: tuple[int, int, int, int]
    kernel: tuple[int, int, int, int]
    padding: Literal["VALID", "SAME"] = "VALID"


class PoolingCase(NamedTuple):
    """Shapes of one max-pooling.

    Attributes:
      x: `[batch, height, width, channels]`.
      window: height and width.
    """

    x: tuple[int, int, int, int]
    window: tuple[int, int] = (2, 2)


CONVOLUTIONS = {
    "cifar-first": ConvolutionCase((10, 32, 32, 3), (3, 3, 3, 32)),
    "cifar-second": ConvolutionCase((10, 30, 30, 32), (3, 3, 32, 64)),
    "femnist-first": ConvolutionCase((20, 28, 28, 1), (3, 3, 1, 32)),
    "same": ConvolutionCase((2, 28, 28, 8), (3, 3, 8, 16), "SAME"),
    "even-kernel-same": ConvolutionCase((1, 9, 7, 3), (2, 4, 3, 5), "SAME"),
    "flat-kernel": ConvolutionCase((3, 5, 11, 2), (1, 7, 2, 4)),
    "kernel-as-large-as-image": ConvolutionCase((2, 4, 6, 3), (4, 6, 3, 2)),
    "one-pixel": ConvolutionCase((1, 1, 1, 1), (3, 3, 1, 1), "SAME"),
}

POOLINGS = {
    "cifar": PoolingCase((10, 28, 28, 64)),
    "ragged-border": PoolingCase((2, 7, 5, 3)),
    "oblong-window": PoolingCase((1, 9, 8, 2), (3, 2)),
    "one-pixel-window": PoolingCase((2, 3, 3, 1), (1, 1)),
}


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


EPS = np.finfo(np.float32).eps
convolutions = pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
poolings = pytest.mark.parametrize("case", POOLINGS.values(), ids=POOLINGS.keys())


def in_float64(fn, *args):
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, fn(*(jnp.asarray(np.float64(a)) for a in args)))


def draw(*shapes):
    rng = np.random.default_rng(sum(map(sum, shapes)))
    return tuple(jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes)


def convolution_and_gradients(fn, case):
    """`(y, gradient by x, gradient by the kernel)` as a function of `(x, kernel, cotangent)`."""

    def both(x, kernel, cotangent):
        convolve = lambda x, kernel: fn(x, kernel, case.padding)
        return (convolve(x, kernel), *gradients(convolve, cotangent, x, kernel))

    return both


def conv_arguments(case):
    x, kernel = draw(case.x, case.kernel)
    out = jax.eval_shape(lambda x, k: conv2d_reference(x, k, case.padding), x, kernel)
    return (x, kernel, *draw(out.shape))


@convolutions
def test_convolution_and_its_gradients_match_float64(case):
    arguments = conv_arguments(case)
    got = jax.jit(convolution_and_gradients(conv2d, case))(*arguments)
    reference = convolution_and_gradients(conv2d_reference, case)
    want = in_float64(reference, *arguments)
    # A float32 sum of n products is off by at most n * eps times the sum of their sizes, and the
    # reference of absolute values is that sum, for the result and both gradients alike.
    sizes = in_float64(reference, *map(np.abs, arguments))
    kernel_height, kernel_width, inputs, outputs = case.kernel
    terms = (
        kernel_height * kernel_width * inputs,
        kernel_height * kernel_width * outputs,
        int(np.prod(want[0].shape[:3])),
    )
    for g, w, size, n in zip(got, want, sizes, terms, strict=True):
        assert g.dtype == np.float32 and w.dtype == np.float64
        np.testing.assert_array_less(np.abs(np.float64(g) - w), n * EPS * size + 1e-300)


@convolutions
def test_a_client_of_a_vmapped_convolution_is_that_client_alone(case):
    arguments = conv_arguments(case)
    clients = [jnp.stack([a, 2 * a, -a]) for a in arguments]
    fn = convolution_and_gradients(conv2d, case)
    got = jax.jit(jax.vmap(fn))(*clients)
    for client in range(3):
        alone = jax.jit(fn)(*(a[client] for a in clients))
        for g, w in zip(got, alone, strict=True):
            # Only the order of the sums may differ; the largest element stands for their sizes.
            np.testing.assert_allclose(g[client], w, rtol=1e-5, atol=1e-5 * float(jnp.abs(w).max()))


@poolings
def test_pooling_and_its_gradient_equal_the_reference(case):
    x = draw(case.x)[0]

    def both(fn, x, cotangent):
        pool = lambda x: fn(x, case.window)
        return pool(x), gradients(pool, cotangent, x)[0]

    out = jax.eval_shape(lambda x: max_pool2d_reference(x, case.window), x)
    # Rounded to halves there are many equal elements, where the gradient has to choose.
    for values in (x, jnp.round(2 * x) / 2):
        cotangent = draw(out.shape)[0]
        got = jax.jit(lambda *args: both(max_pool2d, *args))(values, cotangent)
        want = both(max_pool2d_reference, values, cotangent)
        for g, w in zip(got, want, strict=True):
            np.testing.assert_array_equal(g, w)  # nothing is added up, so nothing is rounded
    several = jnp.stack([x, -x])
    np.testing.assert_array_equal(
        jax.vmap(lambda x: max_pool2d(x, case.window))(several)[1],
        max_pool2d_reference(-x, case.window),
    )


@pytest.mark.parametrize("position", range(4))
def test_pooling_keeps_nan(position):
    x = jnp.arange(4.0).at[position].set(jnp.nan).reshape(1, 2, 2, 1)
    assert np.isnan(max_pool2d(x)).all()


def test_bfloat16_stays_bfloat16():
    x, kernel = (a.astype(jnp.bfloat16) for a in draw((2, 6, 6, 3), (3, 3, 3, 4)))
    y = conv2d(x, kernel)
    assert y.dtype == jnp.bfloat16 and max_pool2d(y).dtype == jnp.bfloat16
    want = in_float64(conv2d_reference, x.astype(jnp.float32), kernel.astype(jnp.float32))
    sizes = in_float64(conv2d_reference, *(jnp.abs(a.astype(jnp.float32)) for a in (x, kernel)))
    # 27 products added up in float32, then one rounding to bfloat16.
    bound = 27 * EPS * sizes + float(jnp.finfo(jnp.bfloat16).eps) * np.abs(want)
    np.testing.assert_array_less(np.abs(np.float64(y) - want), bound)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: conv2d(jnp.zeros((1, 2, 2, 1)), jnp.zeros((3, 3, 1, 1))), "larger than the image"),
        (lambda: max_pool2d(jnp.zeros((1, 1, 4, 1))), "window must be"),
        (lambda: max_pool2d(jnp.zeros((1, 4, 4, 1)), (0, 2)), "window must be"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
