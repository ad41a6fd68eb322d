"""Images in DICOM files, and volumes in folders of them.

References:
  NEMA PS3.3, "DICOM: information object definitions", sections C.7.6.2 (places and spacing), C.11.1
  (modality LUT) and C.11.2.1.3.2 (the window function LINEAR_EXACT).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from fedjax_med.data import DataError
from fedjax_med.datasets._scan import TOLERANCE, Scan, canonical, imported

# Centre and width, or those of the file.
Window = tuple[float, float] | Literal["file"]


class _Slice(NamedTuple):
    """A file with one image: its header and its values after the modality LUT and the window."""

    path: Path
    header: Any
    values: np.ndarray


def read_dicom(
    path: str | os.PathLike, *, modality: str | None = None, window: Window | None = None
) -> Scan:
    """Reads the one image of a DICOM file, rows and columns as stored.

    Values are those after rescale slope and intercept, or the modality LUT: Hounsfield units in CT.
    Images in which low values are bright (MONOCHROME1) are inverted.

    Args:
      path: of the file.
      modality: that the file must say it is of, such as "CT", "MR", "DX"; None for any.
      window: centre and width, or "file" for the first window of the file; values are then cut to it
        and scaled to 0 to 1.

    Raises:
      DataError: if it is not a DICOM file with one grey image of the modality, or cannot be decoded.
    """
    one = _read(Path(path), modality, window)
    spacing = one.header.get("PixelSpacing") or one.header.get("ImagerPixelSpacing")
    return Scan(
        one.path,
        one.values,
        tuple(float(s) for s in spacing) if spacing else None,
        patient=str(one.header.get("PatientID", "")),
    )


def read_series(
    folder: str | os.PathLike, *, modality: str | None = None, window: Window | None = None
) -> Scan:
    """Reads the volume whose slices are the files of a folder, in the order of their places.

    Args:
      folder: with the files of one series, and no others but hidden ones and `DICOMDIR`.
      modality: as `read_dicom`.
      window: as `read_dicom`.

    Raises:
      DataError: as `read_dicom`, or if slices are of several series, differ in size, spacing or
        direction, have no place, share one, or if one is missing between others.
    """
    folder = Path(folder)
    paths = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and path.name != "DICOMDIR"
    ]
    if not paths:
        raise DataError(f"{folder} has no files; the slices of a series are needed.")
    slices = [_read(path, modality, window) for path in paths]
    first = slices[0]
    for one in slices[1:]:
        for what, name in (
            ("series", "SeriesInstanceUID"),
            ("number of rows", "Rows"),
            ("number of columns", "Columns"),
            ("spacing", "PixelSpacing"),
            ("direction", "ImageOrientationPatient"),
        ):
            found, expected = one.header.get(name), first.header.get(name)
            if not _equal(found, expected):
                raise DataError(
                    f"{one.path} has another {what} ({_words(found)}) than {first.path} "
                    f"({_words(expected)}); all slices of a folder must be of one series."
                )
    along = _numbers(first, "ImageOrientationPatient", 6).reshape(2, 3)
    rows_mm, columns_mm = _numbers(first, "PixelSpacing", 2)
    normal = np.cross(along[0], along[1])
    places = np.stack([_numbers(one, "ImagePositionPatient", 3) for one in slices])
    order = np.argsort(places @ normal, kind="stable")
    slices, places = [slices[i] for i in order], places[order]
    step = _step(slices, places @ normal)
    # From [slice, row, column] to mm in DICOM's directions: left, back, head.
    affine = np.eye(4)
    affine[:3, 0] = (
        (places[-1] - places[0]) / (len(slices) - 1) if len(slices) > 1 else step * normal
    )
    affine[:3, 1] = along[1] * rows_mm
    affine[:3, 2] = along[0] * columns_mm
    affine[:3, 3] = places[0]
    affine[:2] *= -1
    volume = np.stack([one.values for one in slices])
    return canonical(folder, volume, affine, str(first.header.get("PatientID", "")))


def _read(path: Path, modality: str | None, window: Window | None) -> _Slice:
    pydicom = imported("pydicom", path)
    try:
        header = pydicom.dcmread(path)
    except pydicom.errors.InvalidDicomError as error:
        raise DataError(f"{path} is not a DICOM file.") from error
    except (EOFError, OSError, ValueError, KeyError, AttributeError, NotImplementedError) as error:
        raise DataError(f"{path} cannot be read as DICOM; it may be damaged.") from error
    found = str(header.get("Modality", "")) or "none"
    if modality is not None and found != modality:
        raise DataError(f"{path} has the modality {found}, but {modality} is asked for.")
    if "PixelData" not in header:
        raise DataError(f"{path} is a DICOM file without an image (its modality is {found}).")
    frames = int(header.get("NumberOfFrames", 1) or 1)
    if frames != 1:
        raise DataError(
            f"{path} holds {frames} frames; only files of one image can be read, so save the frames as "
            "the files of a folder."
        )
    meaning = str(header.get("PhotometricInterpretation", "none"))
    if meaning not in ("MONOCHROME1", "MONOCHROME2"):
        raise DataError(
            f"{path} is an image of {meaning}; only grey images, MONOCHROME1 and MONOCHROME2, can be "
            "read."
        )
    try:
        stored = header.pixel_array
        bits, signed = int(header.BitsStored), bool(header.PixelRepresentation)
        ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
        rescale = pydicom.pixels.apply_modality_lut
        values, ends = (np.asarray(rescale(x, header), np.float32) for x in (stored, ends))
    except (AttributeError, ValueError, RuntimeError, NotImplementedError, KeyError) as error:
        syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
        how = syntax.name if syntax is not None else "unknown"
        raise DataError(
            f"the image of {path} cannot be decoded ({how}): it is damaged, or compressed in a way for "
            "which a plugin of pydicom has to be installed."
        ) from error
    if not np.isfinite(values).all():
        raise DataError(
            f"{path} has values that are NaN or infinite; only finite ones can be used."
        )
    if window is not None:
        values = _windowed(path, header, values, window)
        ends = np.array([0.0, 1.0], np.float32)
    if meaning == "MONOCHROME1":
        values = ends[0] + ends[1] - values
    return _Slice(path, header, values)


def _windowed(path: Path, header: Any, values: np.ndarray, window: Window) -> np.ndarray:
    if window == "file":
        try:
            centre, width = (
                float(np.atleast_1d(np.asarray(header[name].value, np.float64))[0])
                for name in ("WindowCenter", "WindowWidth")
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} has no window of its own; give its centre and width."
            ) from error
    else:
        centre, width = window
    if not width > 0:
        raise DataError(f"the window of {path} must have a width above 0, got {width}.")
    return np.clip((values - (centre - width / 2)) / width, 0, 1).astype(np.float32)


def _step(slices: Sequence[_Slice], place: np.ndarray) -> float:
    """Distance of neighbouring slices [mm]; refuses what is not evenly spaced."""
    if len(slices) == 1:
        header = slices[0].header
        return float(header.get("SpacingBetweenSlices") or header.get("SliceThickness") or 1.0)
    steps = np.diff(place)
    usual = float(np.median(steps))
    for step, (one, other) in zip(steps, itertools.pairwise(slices), strict=True):
        if step <= TOLERANCE * usual or step <= 0:
            raise DataError(f"{one.path} and {other.path} are slices at the same place.")
        if abs(step - usual) > TOLERANCE * usual:
            raise DataError(
                f"{one.path} and {other.path} are {step:g} mm apart, but the other slices of the folder "
                f"{usual:g} mm; a slice may be missing."
            )
    return usual


def _numbers(one: _Slice, name: str, count: int) -> np.ndarray:
    value = one.header.get(name)
    if value is None or len(value) != count:
        raise DataError(
            f"{one.path} has no {name} of {count} numbers, without which slices have no place in a "
            "volume."
        )
    return np.array([float(v) for v in value])


def _equal(one: Any, other: Any) -> bool:
    if one is None or other is None or isinstance(one, str | int):
        return one == other
    # Directions are written with few digits.
    return len(one) == len(other) and bool(
        np.allclose(np.float64(one), np.float64(other), atol=1e-3)
    )


def _words(value: Any) -> str:
    if value is None:
        return "none"
    return str(value) if isinstance(value, str | int) else str([float(v) for v in value])
