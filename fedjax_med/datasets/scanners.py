"""Simulated scanners: the same patients, imaged by hospitals with machines of their own.

A scanner has a resolution, a curve from what it measures to grey values, and noise:

    image' = clip(contrast * (blur(image) ** gamma - 1/2) + 1/2 + brightness + noise * normal, 0, 1)

with grey values in [0, 1]. All images of a hospital, whatever their split, come from its scanner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedjax_med.data import ClientArrays, DataError, FederatedDataset


class Scanner(NamedTuple):
    """What a scanner does to an image.

    Attributes:
      blur: standard deviation of its point spread [1/28 of the image's height].
      gamma: exponent of grey values, positive.
      contrast: slope about mid-grey, positive.
      brightness: added to grey values.
      noise: standard deviation of grey values.
    """

    blur: float
    gamma: float
    contrast: float
    brightness: float
    noise: float


def draw_scanners(number: int, shift: float, seed: int = 0) -> tuple[Scanner, ...]:
    """Random scanners, the more different the larger `shift` is; 0 leaves images as they are.

    Gamma and contrast are exp(0.5 shift u) and brightness 0.15 shift u, with u uniform in [-1, 1] for
    each; blur is 0.8 shift v and noise 0.08 shift v, with v uniform in [0, 1].

    Raises:
      DataError: if `shift` is negative or not finite.
    """
    if not 0 <= shift < np.inf:
        raise DataError(f"shift must be finite and not negative, got {shift!r}.")
    scanners = []
    for index in range(number):
        rng = np.random.default_rng([seed, 2, index])  # hospitals do not depend on their number
        gamma, contrast, brightness = shift * rng.uniform(-1, 1, 3)
        blur, noise = shift * rng.uniform(0, 1, 2)
        scanners.append(
            Scanner(
                0.8 * blur,
                float(np.exp(0.5 * gamma)),
                float(np.exp(0.5 * contrast)),
                0.15 * brightness,
                0.08 * noise,
            )
        )
    return tuple(scanners)


def scan(images: np.ndarray, scanner: Scanner, rng: np.random.Generator) -> np.ndarray:
    """Images as another scanner would have them.

    Args:
      images: uint8 `[N, height, width, channels]`.
      scanner: the scanner.
      rng: of the noise.

    Returns:
      uint8 of the same shape.

    Raises:
      DataError: if `images` have another dtype or number of axes.
    """
    if images.dtype != np.uint8 or images.ndim != 4:
        raise DataError(
            "images must be uint8 [N, height, width, channels] for a scanner, got "
            f"{images.dtype} {list(images.shape)}."
        )
    grey = images.astype(np.float32) / 255
    if scanner.blur > 0:
        from scipy.ndimage import gaussian_filter  # takes a while to import

        sigma = scanner.blur * images.shape[1] / 28
        grey = gaussian_filter(grey, (0, sigma, sigma, 0), mode="nearest")
    grey = scanner.contrast * (grey**scanner.gamma - 0.5) + 0.5 + scanner.brightness
    if scanner.noise > 0:
        grey = grey + scanner.noise * rng.standard_normal(grey.shape, np.float32)
    return np.rint(255 * np.clip(grey, 0, 1)).astype(np.uint8)


def scanned(
    dataset: FederatedDataset, scanners: Sequence[Scanner], seed: int = 0
) -> FederatedDataset:
    """The dataset, the images `x` of each client as its scanner would have them.

    Raises:
      DataError: if there is not one scanner for each client, or as of `scan`.
    """
    if len(scanners) != dataset.num_clients:
        raise DataError(
            f"scanners must be one for each of {dataset.num_clients} clients, got {len(scanners)}."
        )
    parts = {}
    for number, (split, arrays) in enumerate(dataset.splits().items()):
        x = np.concatenate(
            [
                scan(arrays.client(i)["x"], scanner, np.random.default_rng([seed, 3, number, i]))
                for i, scanner in enumerate(scanners)
            ]
        )
        parts[split] = ClientArrays({**arrays.examples, "x": x}, arrays.sizes)
    return dataset.replace(**parts)
