"""Residual networks for images.

References:
  He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. https://arxiv.org/abs/1512.03385
  Wu and He, "Group Normalization", ECCV 2018. https://arxiv.org/abs/1803.08494
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import Batch
from fedjax_med.models.adapters import Model, from_linen
from fedjax_med.models.normalisation import BatchNorm

Norm = Literal["group", "batch"]
NORMS: tuple[Norm, ...] = ("group", "batch")
_GROUP_SIZE = 4  # channels; Wu and He have 2 to 64, and more than 32 groups nowhere
_MOST_GROUPS = 32


def grey_values(images: jax.Array) -> jax.Array:
    """Images of 8 bits as float32 in [-1, 1]; images of floats as they are."""
    if not jnp.issubdtype(images.dtype, jnp.integer):
        return images
    return images.astype(jnp.float32) / 127.5 - 1


class _Normalised(nn.Module):
    """A convolution without bias and the normalisation of what comes out of it."""

    features: int
    kernel: int
    stride: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, batch: Batch | None) -> jax.Array:
        size, strides = (self.kernel,) * 2, (self.stride,) * 2
        x = nn.Conv(self.features, size, strides, use_bias=False, name="Conv")(x)
        if self.norm == "batch":
            return BatchNorm(name="BatchNorm")(x, train, batch)
        groups = min(_MOST_GROUPS, self.features // _GROUP_SIZE)
        return nn.GroupNorm(num_groups=groups, name="GroupNorm")(x)


class ResidualBlock(nn.Module):
    """Two convolutions of 3 x 3 beside a shortcut (He et al., figure 5, left; shortcuts of option B)."""

    features: int
    stride: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, batch: Batch | None) -> jax.Array:
        """Activations `[batch, height / stride, width / stride, features]`."""
        y = _Normalised(self.features, 3, self.stride, self.norm, name="First")(x, train, batch)
        y = _Normalised(self.features, 3, 1, self.norm, name="Second")(nn.relu(y), train, batch)
        if x.shape != y.shape:
            shortcut = _Normalised(self.features, 1, self.stride, self.norm, name="Shortcut")
            x = shortcut(x, train, batch)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A stem, stages of residual blocks, the mean over positions, and a linear layer.

    The parts are called `Stem`, `Stage_1`, `Stage_2`, ... and `Head`; see `resnet` for the attributes.
    """

    num_outputs: int
    widths: Sequence[int]
    blocks: int
    norm: Norm
    stem_kernel: int
    stem_stride: int
    stem_pool: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, batch: Batch | None = None) -> jax.Array:
        """Logits `[batch, num_outputs]`."""
        x = grey_values(x)
        stem = _Normalised(
            self.widths[0], self.stem_kernel, self.stem_stride, self.norm, name="Stem"
        )
        x = nn.relu(stem(x, train, batch))
        if self.stem_pool:
            x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for number, width in enumerate(self.widths):
            stage = _Stage(
                width, self.blocks, 1 if number == 0 else 2, self.norm, name=f"Stage_{number + 1}"
            )
            x = stage(x, train, batch)
        return nn.Dense(self.num_outputs, name="Head")(x.mean(axis=(1, 2)))


class _Stage(nn.Module):
    features: int
    blocks: int
    stride: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, batch: Batch | None) -> jax.Array:
        for number in range(self.blocks):
            stride = self.stride if number == 0 else 1
            block = ResidualBlock(self.features, stride, self.norm, name=f"Block_{number + 1}")
            x = block(x, train, batch)
        return x


def resnet(
    num_outputs: int = 1,
    *,
    widths: Sequence[int] = (8, 16, 32),
    blocks: int = 1,
    norm: Norm = "batch",
    stem_kernel: int = 3,
    stem_stride: int = 2,
    stem_pool: bool = False,
) -> Model:
    """A residual network of any size; by default one that a CPU trains on images of 28 x 28 pixels.

    Takes `x` `[batch, height, width, channels]`, uint8 (scaled to [-1, 1]) or floating (as it is), and
    gives `[batch, num_outputs]`. Every stage but the first halves height and width.

    Args:
      num_outputs: logits.
      widths: channels of each stage, multiples of 4.
      blocks: residual blocks of each stage.
      norm: "batch", whose statistics leave padded rows out. The server averages them, unless
        hospitals keep them (`algorithms.fed_bn`) or estimate them again (`algorithms.re_estimated`),
        which did best where scanners differ and harm where labels do (`docs/imaging.md`). "group" has
        no state, which private gradients of single records ask for.
      stem_kernel: pixels of the first convolution.
      stem_stride: of the first convolution.
      stem_pool: whether maxima over 3 x 3 halve the image once more after it.

    Raises:
      ValueError: if a width is no multiple of 4, a number is below 1, or `norm` is another.
    """
    for width in widths:
        if width < 1 or width % _GROUP_SIZE:
            raise ValueError(f"widths must be multiples of {_GROUP_SIZE}, got {tuple(widths)}.")
    sizes = {
        "num_outputs": num_outputs,
        "blocks": blocks,
        "stem_kernel": stem_kernel,
        "stem_stride": stem_stride,
        "number of widths": len(widths),
    }
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size!r}.")
    if norm not in NORMS:
        raise ValueError(f"norm must be {' or '.join(map(repr, NORMS))}, got {norm!r}.")
    return from_linen(
        ResNet(num_outputs, tuple(widths), blocks, norm, stem_kernel, stem_stride, stem_pool)
    )


def resnet18(num_outputs: int = 1, *, norm: Norm = "batch", large_images: bool = False) -> Model:
    """ResNet-18 (11.2 million parameters), for GPUs.

    Args:
      num_outputs: logits.
      norm: see `resnet`.
      large_images: the stem of He et al. (7 x 7, stride 2, then pooling), for images of some 224
        pixels; otherwise 3 x 3 without stride, as MedMNIST has it for 28 x 28 pixels.

    Raises:
      ValueError: as `resnet`.
    """
    stem = (7, 2, True) if large_images else (3, 1, False)
    kernel, stride, pool = stem
    return resnet(
        num_outputs,
        widths=(64, 128, 256, 512),
        blocks=2,
        norm=norm,
        stem_kernel=kernel,
        stem_stride=stride,
        stem_pool=pool,
    )
