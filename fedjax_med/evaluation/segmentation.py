"""How well outlines agree with the true ones, scan by scan.

| scan | `dice_of_scans` | `hausdorff_of_scans` | counts for |
| --- | --- | --- | --- |
| with the structure, something marked | overlap, 0 to 1 | distance [mm] | both |
| with the structure, nothing marked | 0 | diagonal of the scan [mm] | both |
| without the structure | NaN | NaN | `false_alarm_rate` |

So a scan in which there is nothing to find is never worth a Dice of 1, which would make a hospital of
healthy patients look well served, and whether it is left alone is told separately. The diagonal as the
worst distance that there can be is what the BraTS challenge takes too (373 mm for its scans).

References:
  Maier-Hein et al., "Metrics reloaded", Nature Methods 21, 2024.
  https://doi.org/10.1038/s41592-023-02151-z
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fedjax_med.evaluation._weighted import Weighted, ratio
from fedjax_med.evaluation.metrics import Metric

# What `called_classes` gives for a scan with an output that is not finite.
BROKEN = -1


class SegmentationTruth(NamedTuple):
    """What is true of each scan.

    Attributes:
      mask: class of every voxel `[N, *size]`, whole numbers; 0 is background.
      spacing: size of a voxel [mm] `[N, dims]`.
    """

    mask: np.ndarray
    spacing: np.ndarray


def true_outlines(examples: Any) -> SegmentationTruth:
    """`examples["mask"]` and `examples["spacing"]`; distances are in voxels where there is none."""
    mask = np.asarray(examples["mask"])
    spacing = examples.get("spacing")
    if spacing is None:
        spacing = np.ones((len(mask), mask.ndim - 1), np.float32)
    return SegmentationTruth(mask, np.asarray(spacing))


def called_classes(logits: np.ndarray) -> np.ndarray:
    """The likeliest class of every voxel, int16 `[N, *size]`, from logits `[N, *size, classes]`."""
    logits = np.asarray(logits)
    called = logits.argmax(axis=-1).astype(np.int16)
    called[~np.isfinite(logits).reshape(len(logits), -1).all(axis=1)] = BROKEN
    return called


def dice_of_scans(called: np.ndarray, mask: np.ndarray, label: int = 1) -> np.ndarray:
    """`2 |P and G| / (|P| + |G|)` of voxels P called a class and those G that are of it `[N]`.

    Args:
      called: classes `[N, *size]`.
      mask: true classes `[N, *size]`.
      label: the class.

    Raises:
      ValueError: if shapes differ.
    """
    found, true = _flat(called, mask, label)
    sizes = found.sum(1) + true.sum(1)
    return np.where(true.any(1), 2 * (found & true).sum(1) / np.maximum(sizes, 1), np.nan)


def hausdorff_of_scans(
    called: np.ndarray,
    mask: np.ndarray,
    spacing: np.ndarray,
    label: int = 1,
    *,
    percentile: float = 95.0,
) -> np.ndarray:
    """Robust Hausdorff distance between surfaces [mm], `[N]`.

        max(percentile of d(p, surface of G) over p, percentile of d(g, surface of P) over g)

    over the surface voxels p of what is called a class and those g of what is of it: voxels with a
    neighbour along an axis outside of it, or at the edge of the scan. Distances are between centres.

    Args:
      called: classes `[N, *size]`.
      mask: true classes `[N, *size]`.
      spacing: size of a voxel [mm] `[N, dims]`.
      label: the class.
      percentile: 95 leaves a few stray voxels out; 100 is the Hausdorff distance itself.

    Raises:
      ValueError: if shapes differ.
    """
    found, true = _flat(called, mask, label)
    size = mask.shape[1:]
    if spacing.shape != (len(mask), len(size)):
        raise ValueError(
            f"spacing must have shape {[len(mask), len(size)]}, got {list(spacing.shape)}."
        )
    distances = np.full(len(mask), np.nan)
    for i in np.flatnonzero(true.any(1)):
        if found[i].any():
            distances[i] = _hausdorff(
                found[i].reshape(size), true[i].reshape(size), spacing[i], percentile
            )
        else:
            distances[i] = np.linalg.norm(spacing[i] * np.array(size))
    return distances


def segmentation_metrics(label_names: Sequence[str] = ()) -> dict[str, Metric]:
    """Metrics of classes `[N, *size]`, for labels `SegmentationTruth`.

    `dice` and `hd95` [mm] of a scan are means over the classes that are in it, and of several scans
    over those in which one is; `false_alarm_rate` is the share of the others in which something is
    marked. None is defined where no scan counts for it, or a scan that does has a broken output.

    Args:
      label_names: of the classes, the background first; with more than one besides, there are
        `dice_<class>` and `hd95_<class>`.
    """

    def hausdorff(called: np.ndarray, truth: SegmentationTruth, label: int) -> np.ndarray:
        return hausdorff_of_scans(called, truth.mask, truth.spacing, label)

    def dice(called: np.ndarray, truth: SegmentationTruth, label: int) -> np.ndarray:
        return dice_of_scans(called, truth.mask, label)

    metrics = {
        "dice": _metric(partial(_over_classes, dice), 1.0),
        "hd95": _metric(partial(_over_classes, hausdorff), 0.0),
        "false_alarm_rate": _metric(_false_alarms, 0.0),
    }
    if len(label_names) > 2:
        for label, name in enumerate(label_names[1:], start=1):
            metrics[f"dice_{name}"] = _metric(partial(dice, label=label), 1.0)
            metrics[f"hd95_{name}"] = _metric(partial(hausdorff, label=label), 0.0)
    return metrics


def _metric(of_scans: Callable[[Any, Any], np.ndarray], ideal: float) -> Metric:
    """The mean over scans of what a function gives for each, those with NaN left out."""

    def prepare(called: np.ndarray, truth: SegmentationTruth) -> Weighted:
        called = np.asarray(called)
        if called.shape != truth.mask.shape:
            raise ValueError(
                f"outputs must be classes of shape {list(truth.mask.shape)}, got {list(called.shape)}."
            )
        broken = (called == BROKEN).reshape(len(called), -1).any(axis=1)
        values = of_scans(called, truth)
        counts = ~np.isnan(values)
        values = np.where(counts, values, 0.0)

        def compute(weight: np.ndarray | None) -> np.ndarray:
            weight = np.asarray(np.ones(len(values)) if weight is None else weight, np.float64)
            mean = ratio(weight @ values, weight @ counts.astype(np.float64))
            return np.where((weight[..., broken & counts] > 0).any(-1), np.nan, mean)

        return compute

    return Metric(
        lambda called, truth, weight: prepare(called, truth)(weight), ideal, True, prepare
    )


def _over_classes(
    of_class: Callable[..., np.ndarray], called: np.ndarray, truth: SegmentationTruth
) -> np.ndarray:
    """The mean of a value `[N]` of every class over those that are in a scan."""
    labels = [label for label in np.unique(truth.mask).tolist() if label]
    each = np.stack([np.full(len(called), np.nan), *(of_class(called, truth, k) for k in labels)])
    defined = ~np.isnan(each)
    return ratio(np.where(defined, each, 0.0).sum(0), defined.sum(0))


def _false_alarms(called: np.ndarray, truth: SegmentationTruth) -> np.ndarray:
    marked, true = ((x.reshape(len(x), -1) != 0).any(axis=1) for x in (called, truth.mask))
    return np.where(true, np.nan, marked)


def _flat(called: np.ndarray, mask: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
    if called.shape != mask.shape:
        raise ValueError(
            f"called and mask must have one shape, got {list(called.shape)} and {list(mask.shape)}."
        )
    found, true = (np.asarray(x).reshape(len(x), -1) == label for x in (called, mask))
    return found, true


def _hausdorff(
    found: np.ndarray, true: np.ndarray, spacing: np.ndarray, percentile: float
) -> float:
    from scipy import ndimage  # takes a while to import

    # Only what lies between the two matters: cut to the box around both.
    box = ndimage.find_objects((found | true).astype(np.int8))[0]
    surfaces = [x[box] & (ndimage.binary_erosion(x[box]) == 0) for x in (found, true)]
    directed = []
    for one, other in (surfaces, surfaces[::-1]):
        distance = ndimage.distance_transform_edt(~other, sampling=spacing)
        directed.append(np.percentile(np.asarray(distance)[one], percentile))
    return float(max(directed))
