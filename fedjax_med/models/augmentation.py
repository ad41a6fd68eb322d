"""Augmentation of images, drawn anew for every example of every local step, inside the compiled round.

    model = augmented(resnet(1), affine(shift=0.07, degrees=10.0, flip=True), intensity(contrast=0.1))

Draws follow from the key of the local step and an example's place in the minibatch, so they are the
same on every placement. In evaluation nothing is drawn. Padded rows are changed like others, and
counted nowhere as before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_med.engine.contracts import Batch, Variables
from fedjax_med.models.adapters import Model
from fedjax_med.models.resnet import grey_values

_STREAM = 0x6175676D  # apart from the layers of dropout, which are small numbers


class Augmentation(NamedTuple):
    """A random change of images.

    Attributes:
      num_draws: uniform numbers that it needs for each image.
      change: `(images, draws) -> images`, from floats `[batch, height, width, channels]` and draws
        in [0, 1), `[batch, num_draws]`.
    """

    num_draws: int
    change: Callable[[jax.Array, jax.Array], jax.Array]


def augmented(model: Model, *augmentations: Augmentation) -> Model:
    """`model`, whose `x` is changed by each of `augmentations` in turn while it is trained.

    `x` is `[batch, height, width, channels]`, uint8 (the model is given `grey_values` of it) or floating.
    """

    def apply(variables: Variables, batch: Batch, train: bool):
        if train:
            x = grey_values(batch.examples["x"])
            for place, augmentation in enumerate(augmentations):
                draws = _draws(batch, _STREAM + place, augmentation.num_draws)
                x = augmentation.change(x, draws.astype(x.dtype))
            batch = dataclasses.replace(batch, examples={**batch.examples, "x": x})
        return model.apply(variables, batch, train)

    return Model(model.init, apply)


def affine(
    *, shift: float = 0.0, degrees: float = 0.0, zoom: float = 0.0, flip: bool = False
) -> Augmentation:
    """Moves, turns, stretches and mirrors images about their middle, by linear interpolation.

    What comes in from outside repeats the edge.

    Args:
      shift: moved by up to this share of height and of width, either way.
      degrees: turned by up to so much, either way.
      zoom: stretched by up to a factor of 1 + `zoom`, or shrunk by as much.
      flip: mirrored left to right with probability 1/2; not for organs on one side of the body.

    Raises:
      ValueError: if a number is negative, or not finite.
    """
    for name, value in (("shift", shift), ("degrees", degrees), ("zoom", zoom)):
        _check(name, value)

    def change(images: jax.Array, draws: jax.Array) -> jax.Array:
        down, right, turn, stretch = (2 * draws[:, i] - 1 for i in range(4))
        angle = jnp.deg2rad(degrees) * turn
        factor = (1 + zoom) ** -stretch
        mirror = jnp.where(draws[:, 4] < 0.5, -1, 1) if flip else jnp.ones_like(angle)
        cos, sin = factor * jnp.cos(angle), factor * jnp.sin(angle)
        # Rows: where the row and the column come from that is seen at (row, column).
        matrix = jnp.stack(
            [jnp.stack([cos, -sin * mirror], -1), jnp.stack([sin, cos * mirror], -1)], axis=-2
        )
        return _resampled(images, matrix, shift * jnp.stack([down, right], -1))

    return Augmentation(5, change)


def intensity(*, contrast: float = 0.0, brightness: float = 0.0) -> Augmentation:
    """Changes grey values in [-1, 1] to `a * x + b`, for each image its own.

    Args:
      contrast: `a` is up to 1 + `contrast`, or down to its inverse.
      brightness: `b` is up to so much, either way.

    Raises:
      ValueError: if a number is negative, or not finite.
    """
    for name, value in (("contrast", contrast), ("brightness", brightness)):
        _check(name, value)

    def change(images: jax.Array, draws: jax.Array) -> jax.Array:
        slope, offset = (2 * draws[:, i, None, None, None] - 1 for i in range(2))
        return (1 + contrast) ** slope * images + brightness * offset

    return Augmentation(2, change)


def _check(name: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be finite and not negative, got {value!r}.")


def _draws(batch: Batch, stream: int, number: int) -> jax.Array:
    """Uniform numbers `[batch, number]` that do not depend on how the minibatch is split."""
    key = jax.random.fold_in(batch.key, stream)
    size = batch.mask.shape[0]
    draws = jax.random.uniform(key, (size * batch.num_splits, number))
    if batch.split_axis is None:
        return draws
    return lax.dynamic_slice_in_dim(draws, lax.axis_index(batch.split_axis) * size, size)


def _resampled(images: jax.Array, matrix: jax.Array, shift: jax.Array) -> jax.Array:
    """Images seen through affine maps about their middle.

    Args:
      images: float `[batch, height, width, channels]`.
      matrix: `[batch, 2, 2]`, from where something is seen to where it is.
      shift: `[batch, 2]`, in shares of height and width.
    """
    count, height, width, channels = images.shape
    size = jnp.array([height, width], images.dtype)
    middle = (size - 1) / 2
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    seen = jnp.stack([rows, columns], -1).reshape(-1, 2).astype(images.dtype) - middle[None]
    # Written out, as a matrix product may round places on accelerators.
    source = sum(seen[None, :, j, None] * matrix[:, None, :, j] for j in range(2))
    source = source + (middle[None] + shift * size[None])[:, None]
    edge = (size - 1)[None, None]
    source = jnp.clip(source, 0, edge)
    low = jnp.minimum(jnp.floor(source), edge - 1)  # so that its neighbour is in the image
    part = source - low
    corner = low.astype(jnp.int32)
    flat = images.reshape(count, height * width, channels)

    def at(down: int, right: int) -> jax.Array:
        place = (corner[..., 0] + down) * width + corner[..., 1] + right
        values = jnp.take_along_axis(flat, place[..., None], axis=1, mode="promise_in_bounds")
        share = jnp.abs(1 - down - part[..., 0]) * jnp.abs(1 - right - part[..., 1])
        return share[..., None] * values

    mixed = at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)
    return mixed.reshape(images.shape)
