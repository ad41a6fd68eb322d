"""U-Nets for segmentation, in two and three dimensions.

References:
  Ronneberger, Fischer and Brox, "U-Net", MICCAI 2015. https://arxiv.org/abs/1505.04597
  Cicek et al., "3D U-Net", MICCAI 2016. https://arxiv.org/abs/1606.06650
  Wu and He, "Group Normalization", ECCV 2018. https://arxiv.org/abs/1803.08494
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedjax_med.models.adapters import Model, from_linen
from fedjax_med_kernels.resampling import upsample_nearest

Upsampling = Literal["transposed", "nearest"]


class UNet(nn.Module):
    """The network of `unet`; `x` `[batch, *size, channels]` to logits `[batch, *size, outputs]`."""

    num_outputs: int
    features: tuple[int, ...]
    upsampling: Upsampling
    group_size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of every pixel or voxel."""
        size = x.shape[1:-1]
        dims, levels = len(size), len(self.features)
        two = (2,) * dims

        def block(x: jax.Array, features: int) -> jax.Array:
            groups = max(1, features // self.group_size)
            for _ in range(2):
                x = nn.Conv(features, (3,) * dims, use_bias=False)(x)
                x = nn.relu(nn.GroupNorm(num_groups=groups)(x))
            return x

        # Every level halves the size; what is missing for that is repeated from the edge.
        room = [-n % 2 ** (levels - 1) for n in size]
        x = jnp.pad(x, [(0, 0), *((0, n) for n in room), (0, 0)], mode="edge")
        skipped = []
        for features in self.features[:-1]:
            x = block(x, features)
            skipped.append(x)
            x = nn.max_pool(x, two, two)
        x = block(x, self.features[-1])
        for features, skip in zip(self.features[-2::-1], reversed(skipped), strict=True):
            if self.upsampling == "transposed":
                x = nn.ConvTranspose(features, two, two)(x)
            else:
                x = nn.Conv(features, (1,) * dims)(x)  # at the small size, where it costs least
                x = upsample_nearest(x, two)
            x = block(jnp.concatenate([skip, x], axis=-1), features)
        logits = nn.Conv(self.num_outputs, (1,) * dims)(x)
        return logits[:, *(slice(n) for n in size)]


def unet(
    num_outputs: int = 2,
    features: Sequence[int] = (8, 16, 32),
    *,
    upsampling: Upsampling = "transposed",
    group_size: int = 4,
) -> Model:
    """U-Net for images `[batch, height, width, channels]` or volumes `[batch, depth, ...]`.

    Each level has two convolutions of 3 pixels with group normalisation and ReLU; between levels the
    size is halved by max-pooling and doubled again, and what a level had on the way down is joined on
    the way up. Departs from the papers in its normalisation, which neither mixes patients nor has
    running statistics, and in its padding: convolutions keep the size. Where `len(features) - 1`
    halvings do not divide a size, the scan is extended by its edge and the result cut.

    Outputs are logits `[batch, *size, num_outputs]`, in the dtype of `x`.

    Args:
      num_outputs: classes with the background, which is class 0.
      features: channels of every level, from the full size down.
      upsampling: "transposed", by a transposed convolution of 2 pixels, or "nearest", by a
        convolution of 1 pixel whose results are repeated.
      group_size: channels that are normalised together; a level of fewer has one group.

    Raises:
      ValueError: names the argument that does not fit.
    """
    features = tuple(features)
    if num_outputs < 2:
        raise ValueError(f"num_outputs must be at least 2, got {num_outputs}.")
    if len(features) < 2 or min(features) < 1:
        raise ValueError(f"features must be at least 2 positive numbers, got {features}.")
    if upsampling not in ("transposed", "nearest"):
        raise ValueError(f"upsampling must be 'transposed' or 'nearest', got {upsampling!r}.")
    uneven = [n for n in features if n > group_size and n % group_size]
    if group_size < 1 or uneven:
        raise ValueError(f"group_size must divide all features {features}, got {group_size}.")
    return from_linen(UNet(num_outputs, features, upsampling, group_size))
