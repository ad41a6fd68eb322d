"""What lies in the folders of hospitals' images, before any of them is read."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fedjax_med.data import DataError
from fedjax_med.datasets import nifti
from fedjax_med.datasets._image_options import OPTIONS_FILE

LABELS_FILE = "labels.csv"
MASKS_FOLDER = "masks"
_SUFFIXES = (*nifti.SUFFIXES, ".dcm")
_TEXTS = (".csv", ".json", ".md", ".txt")


class Case(NamedTuple):
    """A scan of a hospital.

    Attributes:
      path: file, or folder of a series.
      mask: the same of its mask, None if there are none.
      row: of `labels.csv`, empty if there is none.
    """

    path: Path
    mask: Path | None
    row: Mapping[str, str]


def is_image_folder(folder: str | os.PathLike) -> bool:
    """Whether a folder looks like those of `load_images`: options, or scans in its sub-folders."""
    folder = Path(folder)
    if (folder / OPTIONS_FILE).is_file():
        return True
    hospitals = [path for path in folder.iterdir() if is_hospital(path)]
    return any(
        _is_scan(path)
        for hospital in hospitals
        for path in (*hospital.iterdir(), *_deeper(hospital))
    )


def is_hospital(path: Path) -> bool:
    """Whether it is a folder that is not hidden."""
    return path.is_dir() and not path.name.startswith(".")


def _is_scan(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(_SUFFIXES)


def _deeper(hospital: Path) -> list[Path]:
    """Files of the folders in a hospital's, which may be series."""
    return [path for inner in hospital.iterdir() if is_hospital(inner) for path in inner.iterdir()]


def _stem(path: Path) -> str:
    name = path.name
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _scans_in(folder: Path) -> dict[str, Path]:
    """Files and folders of scans by their names without suffix."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == MASKS_FOLDER:
            continue
        if path.is_file() and path.suffix.lower() in _TEXTS:
            continue
        # DICOM files often have no suffix.
        if path.is_file() and path.suffix and not path.name.lower().endswith(_SUFFIXES):
            if not path.suffix[1:].isdigit():
                raise DataError(
                    f"{path} is neither a DICOM (.dcm) nor a NIfTI (.nii, .nii.gz) file."
                )
        name = _stem(path)
        if name in found:
            raise DataError(f"{path} and {found[name]} have one name; names of scans must differ.")
        found[name] = path
    return found


def cases_of(hospital: Path) -> list[Case]:
    """The scans of a hospital, by name, with the mask and the row that belong to each.

    Raises:
      DataError: if something belongs to nothing, or is missing for one of them only.
    """
    scans = _scans_in(hospital)
    if not scans:
        raise DataError(f"{hospital} has no scans; every hospital needs at least one.")
    folder = hospital / MASKS_FOLDER
    masks = _scans_in(folder) if folder.is_dir() else {}
    rows = _rows(hospital / LABELS_FILE, scans)
    for name, path in masks.items():
        if name not in scans:
            raise DataError(f"{path} is a mask without a scan {name!r} in {hospital}.")
    for name, path in scans.items():
        if masks and name not in masks:
            raise DataError(f"{path} has no mask {name!r} in {folder}.")
        if rows and name not in rows:
            raise DataError(f"{path} is not in {hospital / LABELS_FILE}; every scan needs a row.")
    return [Case(path, masks.get(name), rows.get(name, {})) for name, path in scans.items()]


def _rows(path: Path, scans: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Rows of `labels.csv` by the name of the scan."""
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV in UTF-8 ({error}).") from error
    rows: dict[str, dict[str, str]] = {}
    for number, row in enumerate(table, start=2):
        if "file" not in row or None in row or None in row.values():
            raise DataError(
                f"row {number} of {path} must have as many values as there are columns, and a column "
                "file."
            )
        row = {key.strip(): value.strip() for key, value in row.items()}
        name = _stem(Path(row["file"]))
        if name not in scans:
            raise DataError(f"row {number} of {path} names {row['file']!r}, which is not there.")
        if name in rows:
            raise DataError(f"row {number} of {path} names {row['file']!r} again.")
        rows[name] = row
    return rows


def have_masks(cases: Mapping[str, list[Case]]) -> bool:
    """Whether all hospitals have masks, rather than all labels.

    Raises:
      DataError: if they differ, or have both or neither.
    """
    has = {name: (own[0].mask is not None, "label" in own[0].row) for name, own in cases.items()}
    first, (masks, labels) = next(iter(has.items()))
    for name, found in has.items():
        if found != (masks, labels):
            raise DataError(
                f"the hospitals {first!r} and {name!r} must both have a folder {MASKS_FOLDER}, or both a "
                f"column label in {LABELS_FILE}."
            )
    if masks == labels:
        what = "both" if masks else "neither"
        raise DataError(
            f"the hospital {first!r} has {what}, a folder {MASKS_FOLDER} and a column label in "
            f"{LABELS_FILE}; exactly one of them says what is to be learned."
        )
    return masks
