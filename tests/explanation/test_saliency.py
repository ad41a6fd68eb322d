"""Integrated gradients and Grad-CAM of images, by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import correlate

from fedjax_med import models
from fedjax_med.engine import Batch, Variables
from fedjax_med.explanation import grad_cam, image_gradients


class Net(nn.Module):
    """A convolution, the mean of its maps over places, and a linear layer."""

    smooth: bool = False

    @nn.compact
    def __call__(self, x):
        maps = nn.Conv(3, (3, 3), padding="SAME", name="Maps")(x)
        maps = jnp.tanh(maps) if self.smooth else maps
        return nn.Dense(2, name="Head")(maps.mean(axis=(1, 2)))


IMAGES = np.random.default_rng(0).integers(256, size=(5, 6, 8, 1)).astype(np.uint8)
FLOATS = (IMAGES / 127.5 - 1).astype(np.float32)


@pytest.fixture(scope="module")
def net():
    model = models.from_linen(Net())
    return model, jax.jit(model.init)(jax.random.key(3), FLOATS[:1])


def maps_by_hand(params, image):
    kernel, bias = (
        np.asarray(params["Maps"]["kernel"], np.float64),
        np.asarray(params["Maps"]["bias"], np.float64),
    )
    return np.stack(
        [
            correlate(np.float64(image[..., 0]), kernel[:, :, 0, k], mode="constant") + bias[k]
            for k in range(3)
        ],
        axis=-1,
    )


@pytest.mark.parametrize("output, sign", [(0, 1.0), (1, -1.0)])
def test_grad_cam_by_hand(net, output, sign):
    model, variables = net
    got = grad_cam(model, variables, IMAGES, layer="Maps", output=output, sign=sign, batch_size=2)
    weight = (
        np.asarray(variables.params["Head"]["kernel"], np.float64)[:, output] / 48
    )  # of a mean of 6 x 8
    for image, found in zip(FLOATS, got, strict=True):
        want = np.maximum(0, sign * (maps_by_hand(variables.params, image) @ weight))
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6)
    assert (got > 0).any() and (got == 0).any()


def test_maps_are_stretched_to_the_image():
    model = models.resnet(widths=(4,), norm="group")
    variables = jax.jit(model.init)(jax.random.key(0), IMAGES[:1])
    last = grad_cam(model, variables, IMAGES[:2])
    assert last.shape == (2, 6, 8) and last.dtype == np.float32
    np.testing.assert_array_equal(last, grad_cam(model, variables, IMAGES[:2], layer="Stage_1"))
    first = grad_cam(model, variables, IMAGES[:2], layer="Stage_1/Block_1/First")
    assert np.abs(first - last).max() > 0


def test_unknown_layers_and_shapes_are_named(net):
    model, variables = net
    with pytest.raises(ValueError, match=r"layer must be one that gives maps \(Maps\), got 'Head'"):
        grad_cam(model, variables, IMAGES, layer="Head")
    plain = models.linear()
    with pytest.raises(ValueError, match="the model must be of a Flax Linen module"):
        grad_cam(
            models.Model(plain.init, lambda v, b, t: (b.examples["x"].mean((1, 2, 3)), ())),
            Variables(()),
            IMAGES,
        )
    for saliency in (grad_cam, image_gradients):
        with pytest.raises(
            ValueError, match=r"images must have shape \[N, height, width, channels"
        ):
            saliency(model, variables, IMAGES[0])


@pytest.mark.parametrize("output", [0, 1])
def test_parts_of_pixels_add_up(output):
    """Completeness; the model is smooth, so 16 points of Gauss and Legendre are exact to rounding."""
    model = models.from_linen(Net(smooth=True))
    variables = jax.jit(model.init)(jax.random.key(3), FLOATS[:1])
    baseline = np.full((6, 8, 1), 0.25, np.float32)
    parts = image_gradients(
        model, variables, IMAGES, baseline=baseline, steps=16, output=output, batch_size=48
    )
    assert parts.shape == IMAGES.shape

    def outputs(x):
        batch = Batch({"x": x}, jnp.ones(len(x), bool), jnp.float32(len(x)), jax.random.key(0))
        return np.asarray(model.apply(variables, batch, False)[0][:, output])

    change = outputs(FLOATS) - outputs(baseline[None])
    np.testing.assert_allclose(parts.sum((1, 2, 3)), change, rtol=1e-4, atol=1e-6)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(parts[:, :3].sum((1, 2, 3)), change, rtol=1e-4, atol=1e-6)


def test_a_pixel_that_nothing_depends_on_has_no_part(net):
    model, variables = net
    kernel = variables.params["Maps"]["kernel"]
    params = {**variables.params, "Maps": {**variables.params["Maps"], "kernel": kernel * 0}}
    assert (image_gradients(model, Variables(params), IMAGES, steps=2) == 0).all()
