"""The linear model of images against a product in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.attacks.updates import whole_batch
from fedjax_med.models.tabular import linear_in_pixels


def test_every_number_of_an_image_has_a_weight():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 4, 3, 2)).astype(np.float32)
    model = linear_in_pixels(2)
    start = model.init(jax.random.key(0), jnp.asarray(x[:1]))
    assert start.params["kernel"].shape == (24, 2)
    params = {"kernel": rng.normal(size=(24, 2)), "bias": rng.normal(size=2)}
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)
    outputs, _ = model.apply(
        start._replace(params=params), whole_batch({"x": jnp.asarray(x)}), False
    )
    expected = x.reshape(5, -1).astype(np.float64) @ np.float64(params["kernel"])
    expected += np.float64(params["bias"])
    # Sums of 24 float32 products of about 1.
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_images_of_8_bits_are_scaled():
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (3, 4, 4, 1)), jnp.uint8)
    model = linear_in_pixels()
    start = model.init(jax.random.key(0), x[:1])
    assert start.params["kernel"].dtype == jnp.float32
    params = {"kernel": jnp.ones((16, 1)), "bias": jnp.zeros(1)}
    outputs, _ = model.apply(start._replace(params=params), whole_batch({"x": x}), False)
    expected = (np.float64(x) / 127.5 - 1).reshape(3, -1).sum(axis=1)
    np.testing.assert_allclose(outputs[:, 0], expected, atol=1e-5)  # sums of 16 numbers up to 1
