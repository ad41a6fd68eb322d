"""Where in an image a model finds what it says: integrated gradients and Grad-CAM.

Both are of single patients, and stay in the hospital.

References:
  Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, eq. 1.
  https://arxiv.org/abs/1703.01365
  Selvaraju et al., "Grad-CAM", ICCV 2017, eq. 1 and 2. https://arxiv.org/abs/1610.02391
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.engine import Batch, Variables
from fedjax_med.explanation._rows import BATCH_SIZE, one_output
from fedjax_med.explanation.attribution import integrated_gradients
from fedjax_med.models import Model
from fedjax_med.models.resnet import grey_values

BLACK = -1.0  # of `grey_values`


def image_gradients(
    model: Model,
    variables: Variables,
    images: np.ndarray,
    *,
    baseline: float | np.ndarray = BLACK,
    steps: int = 32,
    output: int = 0,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """The part of each pixel in an output of each image, by integrated gradients.

    The parts of an image add up to `output(image) - output(baseline)`; see `integrated_gradients`.

    Args:
      model: the model that was trained, of logits. It must take floating images as it takes
        `grey_values` of those of 8 bits.
      variables: of the model.
      images: `[N, height, width, channels]`, uint8 or floating.
      baseline: an image that says nothing, `[height, width, channels]`, or one value of all pixels, in
        the scale of `grey_values`.
      steps: points between baseline and image.
      output: which of the model's outputs.
      batch_size: images at once, times `steps`.

    Returns:
      float32 `[N, height, width, channels]`, in units of the output.

    Raises:
      ValueError: if `images` have another number of axes, or as `integrated_gradients`.
    """
    x = _checked(images)
    shape = x.shape[1:]
    flat = np.broadcast_to(np.asarray(baseline, x.dtype), shape).reshape(-1)
    parts = integrated_gradients(
        _of_rows(model, shape),
        variables,
        x.reshape(len(x), -1),
        flat,
        steps=steps,
        output=output,
        batch_size=batch_size,
    )
    return parts.reshape(x.shape)


def grad_cam(
    model: Model,
    variables: Variables,
    images: np.ndarray,
    *,
    layer: str | None = None,
    output: int = 0,
    sign: float = 1.0,
    batch_size: int = 256,
) -> np.ndarray:
    """What speaks for an output in each place of a layer, laid over each image.

        weight[k] = mean over places of d output / d activation[place, k]
        map[place] = max(0, sum_k weight[k] * activation[place, k])

    and the map is stretched to the size of the image by linear interpolation.

    Args:
      model: a model of a Flax Linen module (`models.from_linen`), of logits.
      variables: of the model.
      images: `[N, height, width, channels]`.
      layer: the submodule whose output is asked, by its path, such as "Stage_3" or "Stage_3/Block_1";
        the last one that gives `[N, height, width, channels]` if None.
      output: which of the model's outputs.
      sign: 1 for what speaks for the output, -1 against it: of a single logit, for label 0.
      batch_size: images at once.

    Returns:
      float32 `[N, height, width]`, not negative, in units of the output.

    Raises:
      ValueError: if `images` have another number of axes, or there is no such layer.
    """
    x = _checked(images)
    variables = jax.tree.map(jnp.asarray, variables)
    layer = _layer(model, variables, x[:1], layer)
    toward = jnp.asarray(sign, x.dtype)
    size = max(1, min(batch_size, len(x)))
    maps = []
    for start in range(0, len(x), size):
        rows = np.minimum(np.arange(start, start + size), len(x) - 1)  # one shape for all blocks
        found = _grad_cam(model, variables, jnp.asarray(x[rows]), layer, output, toward)
        maps.append(np.asarray(found)[: len(x) - start])
    return np.concatenate(maps) if maps else np.zeros(x.shape[:3], np.float32)


def _checked(images: np.ndarray) -> np.ndarray:
    if np.ndim(images) != 4:
        raise ValueError(
            f"images must have shape [N, height, width, channels], got {list(np.shape(images))}."
        )
    return np.asarray(grey_values(jnp.asarray(images)))


@lru_cache(maxsize=16)  # the same object for the same model, so that programs are found again
def _of_rows(model: Model, shape: tuple[int, ...]) -> Model:
    """The model of images that are given as rows of their values."""

    def apply(variables: Variables, batch: Batch, train: bool):
        x = batch.examples["x"].reshape(-1, *shape)
        return model.apply(variables, dataclasses.replace(batch, examples={"x": x}), train)

    return Model(model.init, apply)


class _Watch:
    """Adds an offset to what a layer of a Linen module gives, and keeps the sum."""

    def __init__(self, layer: str | None, offset: jax.Array | float = 0.0):
        self.layer = layer
        self.offset = offset
        self.activation: Any = None
        self.maps: dict[str, Any] = {}  # of all layers that give images

    def __call__(self, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        result = call(*args, **kwargs)
        path = "/".join(context.module.path)
        if context.method_name != "__call__" or not path or jnp.ndim(result) != 4:
            return result
        if path == self.layer:
            self.activation = result = result + self.offset
        self.maps[path] = result
        return result


def _watched(
    model: Model, variables: Variables, x: jax.Array, output: int, watch: _Watch
) -> jax.Array:
    import flax.linen as nn

    with nn.intercept_methods(watch):
        return one_output(model, variables, x, output)


def _layer(model: Model, variables: Variables, x: np.ndarray, layer: str | None) -> str:
    """The name of a layer that is there."""
    watch = _Watch(None)
    jax.eval_shape(lambda v, x: _watched(model, v, x, 0, watch), variables, x)
    if not watch.maps or (layer is not None and layer not in watch.maps):
        known = ", ".join(watch.maps) or "none: the model must be of a Flax Linen module"
        raise ValueError(f"layer must be one that gives maps ({known}), got {layer!r}.")
    return layer or list(watch.maps)[-1]


@partial(jax.jit, static_argnames=("model", "layer", "output"))
def _grad_cam(
    model: Model, variables: Variables, x: jax.Array, layer: str, output: int, sign: jax.Array
) -> jax.Array:
    def shape() -> jax.Array:
        watch = _Watch(layer)
        _watched(model, variables, x, output, watch)
        return watch.activation

    def total(offset: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Images do not touch each other, so the gradient of the sum is that of every image.
        watch = _Watch(layer, offset)
        outputs = _watched(model, variables, x, output, watch)
        return outputs.sum(), watch.activation

    like = jax.eval_shape(shape)
    slope, activation = jax.grad(total, has_aux=True)(jnp.zeros(like.shape, like.dtype))
    weight = slope.mean(axis=(1, 2), keepdims=True)
    maps = jax.nn.relu(sign * (weight * activation).sum(axis=-1))
    return jax.image.resize(maps, x.shape[:3], "linear")
