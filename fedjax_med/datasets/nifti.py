"""Scans in NIfTI files."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np

from fedjax_med.data import DataError
from fedjax_med.datasets._scan import Scan, canonical, imported

SUFFIXES = (".nii", ".nii.gz")
_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1e3, "micron": 1e-3}


def read_nifti(path: str | os.PathLike) -> Scan:
    """Reads a volume, or an image: a volume of which one axis has a single voxel.

    Scale factors of the header are applied, and axes put into the order of `Scan`.

    Raises:
      DataError: if it is not a NIfTI file, damaged, not grey, no image or volume, or not finite.
    """
    path = Path(path)
    nibabel = imported("nibabel", path)
    broken = (
        nibabel.filebasedimages.ImageFileError,
        nibabel.spatialimages.HeaderDataError,
        nibabel.wrapstruct.WrapStructError,
        EOFError,
        OSError,
        ValueError,
        zlib.error,
    )
    if not path.is_file():
        raise DataError(f"there is no file {path}.")
    try:
        image = nibabel.load(path)
    except broken as error:
        raise DataError(f"{path} is not a NIfTI file, or it is damaged.") from error
    shape, dtype = image.shape, image.get_data_dtype()
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (2, 3) or 0 in shape:
        raise DataError(
            f"{path} has {len(shape)} axes, {list(shape)}; only images and volumes can be read, so "
            "save a series of volumes one by one."
        )
    if dtype.kind not in "biuf":
        raise DataError(
            f"{path} holds {dtype} values; only grey values, real numbers, can be read."
        )
    try:
        values = image.get_fdata(dtype=np.float32).reshape(*shape, *(1,) * (3 - len(shape)))
    except broken as error:
        raise DataError(f"{path} is cut short or damaged.") from error
    if not np.isfinite(values).all():
        raise DataError(
            f"{path} has values that are NaN or infinite; only finite ones can be used."
        )
    affine = np.array(image.affine, np.float64)
    affine[:3] *= _MM.get(image.header.get_xyzt_units()[0], 1.0)
    scan = canonical(path, values, affine)
    thin = [axis for axis, n in enumerate(scan.values.shape) if n == 1]
    if not thin or scan.spacing is None:
        return scan
    kept = [axis for axis in range(3) if axis != thin[0]]
    spacing = tuple(scan.spacing[axis] for axis in kept)
    return Scan(path, scan.values.squeeze(thin[0]), spacing)
