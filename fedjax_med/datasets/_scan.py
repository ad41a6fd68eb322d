"""A scan read from a file: its values, where they lie, and how it is brought to another grid.

`scipy.ndimage` and `nibabel` take a while to import, and most programs end before they are needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from fedjax_med.data import DataError

# Spacings and places that differ less are those of one grid, written with few digits.
TOLERANCE = 0.01


class Scan(NamedTuple):
    """An image or a volume.

    Attributes:
      path: file or folder that it was read from, for messages.
      values: float32 `[height, width]`, rows and columns as stored, or `[depth, height, width]`, from
        foot to head, back to front, left to right.
      spacing: between centres along the axes of `values` [mm]; None if the file does not say.
      affine: `[4, 4]`, from positions in a volume to mm to the right, front and head of the patient;
        None for a single image.
      patient: whose it is; empty if the file does not say.
    """

    path: Path
    values: np.ndarray
    spacing: tuple[float, ...] | None
    affine: np.ndarray | None = None
    patient: str = ""


def imported(name: str, path: Path) -> ModuleType:
    """A module of the extra `imaging`.

    Raises:
      DataError: if it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise DataError(
            f"reading {path} needs {package}: install it with pip install 'fedjax-med[imaging]'."
        ) from error


def canonical(path: Path, values: np.ndarray, affine: np.ndarray, patient: str = "") -> Scan:
    """A volume with its axes in the order and direction of `Scan`, whichever way it was stored.

    Axes are turned by quarters and flipped, nothing is interpolated, so oblique scans stay oblique.

    Args:
      path: of the file.
      values: `[a, b, c]`, in any order.
      affine: `[4, 4]`, from positions in `values` to mm to the right, front and head.
      patient: whose it is.

    Raises:
      DataError: if the affine is no grid.
    """
    orientations = imported("nibabel.orientations", path)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise DataError(f"{path} has no usable orientation: its axes do not span a space.")
    turn = orientations.io_orientation(affine)
    turned = orientations.apply_orientation(values, turn).transpose(2, 1, 0)
    affine = affine @ orientations.inv_ornt_aff(turn, values.shape)
    affine = affine[:, [2, 1, 0, 3]]
    spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    return Scan(path, np.ascontiguousarray(turned, np.float32), spacing, affine, patient)


def same_grid(one: Scan, other: Scan) -> bool:
    """Whether two scans have the same voxels at the same places."""
    if one.values.shape != other.values.shape:
        return False
    if one.affine is None or other.affine is None or one.spacing is None:
        return one.affine is None and other.affine is None
    return bool(np.abs(one.affine - other.affine).max() <= TOLERANCE * max(one.spacing))


def resampled(scan: Scan, size: Sequence[int], *, is_mask: bool) -> Scan:
    """The same field of view with another number of voxels.

    Linear interpolation, after a blur where voxels become larger; masks keep their classes.

    Args:
      scan: image or volume.
      size: of the result.
      is_mask: whether values are classes, of which the nearest is taken.
    """
    from scipy import ndimage

    old = scan.values.shape
    if tuple(size) == old:
        return scan
    zoom = np.array(size) / np.array(old)
    values = scan.values
    if not is_mask:
        # As in scikit-image: about the standard deviation of the larger voxel.
        values = ndimage.gaussian_filter(values, np.maximum(0, (1 / zoom - 1) / 2), mode="nearest")
    order = 0 if is_mask else 1
    values = ndimage.zoom(values, zoom, order=order, mode="nearest", grid_mode=True)
    spacing = scan.spacing and tuple((np.array(scan.spacing) / zoom).tolist())
    return scan._replace(values=np.asarray(values, np.float32), spacing=spacing, affine=None)


def at_spacing(scan: Scan, spacing: Sequence[float], *, is_mask: bool) -> Scan:
    """The scan with voxels of another size [mm], the field of view rounded to whole voxels.

    Raises:
      DataError: if the file did not say how large its voxels are.
    """
    if scan.spacing is None:
        raise DataError(
            f"{scan.path} does not say how large its pixels are, so it cannot be brought to a spacing "
            f"of {list(spacing)} mm; give a size without a spacing."
        )
    size = [
        max(1, round(n * own / new))
        for n, own, new in zip(scan.values.shape, scan.spacing, spacing, strict=True)
    ]
    scan = resampled(scan, size, is_mask=is_mask)
    return scan._replace(spacing=tuple(float(s) for s in spacing), affine=None)


def cut_or_filled(scan: Scan, size: Sequence[int], fill: float) -> Scan:
    """The scan around its middle, cut where it is larger and filled where it is smaller."""
    values = scan.values
    cut, room = [], []
    for old, new in zip(values.shape, size, strict=True):
        start = max(0, (old - new) // 2)
        cut.append(slice(start, start + min(old, new)))
        missing = max(0, new - old)
        room.append((missing // 2, math.ceil(missing / 2)))
    values = np.pad(values[tuple(cut)], room, constant_values=fill)
    return scan._replace(values=values, affine=None)
