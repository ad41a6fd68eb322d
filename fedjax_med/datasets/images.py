"""A hospital's own images: folders of DICOM and NIfTI files.

data/
  imaging.json        options of `load_images`, may be left out
  North/              a hospital
    labels.csv        columns file and label: classes of scans
    masks/            or, of the same names, the classes of their voxels
    0001.nii.gz       an image or a volume
    0002.dcm          an image
    0003/             the slices of a volume, as DICOM files
  South/
    ...
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_med.data import ClientArrays, DataError, FederatedDataset
from fedjax_med.data.federated_dataset import SPLITS
from fedjax_med.datasets import _scan, dicom, nifti
from fedjax_med.datasets._image_folder import (
    LABELS_FILE,
    Case,
    cases_of,
    have_masks,
    is_hospital,
)
from fedjax_med.datasets._image_options import OPTIONS_FILE, read_options
from fedjax_med.datasets._patients import split_by_patient
from fedjax_med.datasets._scan import Scan


class _Reading(NamedTuple):
    """How scans are read and brought to one grid; see `load_images`."""

    modality: str | None
    window: dicom.Window | None
    spacing: tuple[float, ...] | None
    size: tuple[int, ...] | None
    standardize: bool


def load_images(folder: str | os.PathLike, **options: Any) -> FederatedDataset:
    """Reads the images or volumes of several hospitals, for classification or segmentation.

    Every sub-folder is a hospital, named by it. `x` is float32 `[N, height, width, 1]` or
    `[N, depth, height, width, 1]`. With `masks/` there are `mask`, int32 of the same size, and `spacing`,
    float32 `[N, dims]` [mm] (1 where files do not say); otherwise `y`, int32 `[N]`, from the column
    `label` of `labels.csv`. Volumes run from foot to head, back to front and left to right, whichever way
    they were stored. `labels.csv` may also have a column `patient`, whose scans then stay together in one
    part, and a column `split` with "train", "validation" or "test". In DICOM, the patient is known
    anyway. Names in the column `file` may leave the suffix out.

    Args:
      folder: of the hospitals; its `imaging.json` may give any of the options.
      **options: go before those of `imaging.json`:
        `name` of the dataset, by default of the folder; `licence`, `source`, `citation`;
        `labels`, names of the classes in their order, needed for masks of more than one class;
        `modality` that DICOM files must be of, such as "CT";
        `window`, `[centre, width]` or "file" (DICOM): intensities are cut to it and scaled to 0 to 1;
        `standardize` (true): without a window, every scan is brought to mean 0 and standard deviation 1;
        `spacing` [mm] to which scans are interpolated;
        `size`: with `spacing`, scans are cut or filled around their middle to it, otherwise
        interpolated;
        `validation` (0) and `test` (0.2): shares of the patients, unless `labels.csv` says who is in
        these parts; `seed` of that division.

    Raises:
      DataError: one sentence about the first file or option that cannot be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}.")
    chosen = read_options(folder, options)
    window: Any = chosen["window"]
    reading = _Reading(
        chosen["modality"],
        window if window is None or window == "file" else (float(window[0]), float(window[1])),
        chosen["spacing"] and tuple(float(s) for s in chosen["spacing"]),
        chosen["size"] and tuple(int(n) for n in chosen["size"]),
        chosen["standardize"],
    )
    cases = {p.name: cases_of(p) for p in sorted(folder.iterdir()) if is_hospital(p)}
    if not cases:
        raise DataError(f"{folder} has no sub-folders; every hospital needs one.")
    has_masks = have_masks(cases)
    read = {name: [_read(case, reading) for case in own] for name, own in cases.items()}
    _check_grid([scan for own in read.values() for scan, _ in own], reading)
    everyone = [case for own in cases.values() for case in own]
    scans = [pair for own in read.values() for pair in own]
    examples: dict[str, np.ndarray] = {"x": np.stack([s.values for s, _ in scans])[..., None]}
    if has_masks:
        examples["mask"], label_names = _classes_of_voxels(scans, chosen["labels"])
        dims = examples["x"].ndim - 2
        examples["spacing"] = np.array([s.spacing or (1.0,) * dims for s, _ in scans], np.float32)
    else:
        examples["y"], label_names = _classes(everyone, chosen["labels"])
    dataset = FederatedDataset(
        chosen["name"] or folder.resolve().name,
        tuple(cases),
        ClientArrays(examples, np.array([len(own) for own in cases.values()])),
        label_names=label_names,
        licence=chosen["licence"],
        source=chosen["source"],
        citation=chosen["citation"],
    )
    patients = [
        case.row.get("patient") or scan.patient or case.path.relative_to(folder).as_posix()
        for case, (scan, _) in zip(everyone, scans, strict=True)
    ]
    return _divided(dataset, everyone, patients, chosen)


def _read(case: Case, reading: _Reading) -> tuple[Scan, np.ndarray | None]:
    """A scan on the grid asked for, and the classes of its voxels."""
    scan = _scan_of(case.path, reading)
    dims = scan.values.ndim
    for name in ("spacing", "size"):
        value = getattr(reading, name)
        if value is not None and len(value) != dims:
            raise DataError(f"{case.path} has {dims} axes, but {name} has {len(value)} numbers.")
    mask = None
    if case.mask is not None:
        mask = _scan_of(case.mask, _Reading(None, None, None, None, False))
        if mask.values.shape != scan.values.shape:
            raise DataError(
                f"the mask {case.mask} has the size {list(mask.values.shape)}, but {case.path} has "
                f"{list(scan.values.shape)}."
            )
        if not _scan.same_grid(scan, mask):
            raise DataError(f"the mask {case.mask} lies elsewhere in the patient than {case.path}.")
        mask = _on_grid(mask._replace(spacing=scan.spacing), reading, is_mask=True)
    scan = _on_grid(scan, reading, is_mask=False)
    if reading.window is None and reading.standardize:
        spread = scan.values.std()
        centred = scan.values - scan.values.mean()
        scan = scan._replace(values=centred / spread if spread > 0 else centred)
    return scan, None if mask is None else mask.values


def _scan_of(path: Path, reading: _Reading) -> Scan:
    how: Any = {"modality": reading.modality, "window": reading.window}
    if path.is_dir():
        return dicom.read_series(path, **how)
    if not path.name.lower().endswith(nifti.SUFFIXES):
        return dicom.read_dicom(path, **how)
    scan = nifti.read_nifti(path)
    if reading.window is None:
        return scan
    if reading.window == "file":
        raise DataError(f"{path} has no window of its own; give its centre and width.")
    centre, width = reading.window
    values = np.clip((scan.values - (centre - width / 2)) / width, 0, 1)
    return scan._replace(values=values.astype(np.float32))


def _on_grid(scan: Scan, reading: _Reading, *, is_mask: bool) -> Scan:
    if reading.spacing is not None:
        scan = _scan.at_spacing(scan, reading.spacing, is_mask=is_mask)
        if reading.size is None:
            return scan
        fill = 0.0 if is_mask else float(scan.values.min())
        return _scan.cut_or_filled(scan, reading.size, fill)
    if reading.size is not None:
        return _scan.resampled(scan, reading.size, is_mask=is_mask)
    return scan


def _check_grid(scans: Sequence[Scan], reading: _Reading) -> None:
    """One size for all, and one spacing unless that was given up for a size."""
    first = scans[0]
    for scan in scans:
        if scan.values.shape != first.values.shape:
            raise DataError(
                f"{scan.path} has the size {list(scan.values.shape)}, but {first.path} has "
                f"{list(first.values.shape)}; give a size in {OPTIONS_FILE}."
            )
        if reading.size is None and not _same_spacing(scan, first):
            raise DataError(
                f"{scan.path} has a spacing of {_mm(scan)}, but {first.path} has {_mm(first)}; give a "
                f"spacing, or a size, in {OPTIONS_FILE}."
            )


def _same_spacing(one: Scan, other: Scan) -> bool:
    if one.spacing is None or other.spacing is None:
        return one.spacing == other.spacing
    return bool(np.allclose(one.spacing, other.spacing, rtol=_scan.TOLERANCE, atol=0))


def _mm(scan: Scan) -> str:
    return "no known size" if scan.spacing is None else f"{[round(s, 4) for s in scan.spacing]} mm"


def _classes_of_voxels(
    scans: Sequence[tuple[Scan, np.ndarray | None]], labels: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    masks = np.stack([mask for _, mask in scans if mask is not None])
    names = tuple(labels) or ("background", "foreground")
    if set(np.unique(masks).tolist()) <= {0.0, 255.0}:
        masks = masks / 255  # as many programs store black and white
    for (scan, _), mask in zip(scans, masks, strict=True):
        wrong = mask[(mask != np.round(mask)) | (mask < 0) | (mask >= len(names))]
        if wrong.size:
            raise DataError(
                f"the mask of {scan.path} has a voxel of class {wrong[0]:g}; classes are 0 to "
                f"{len(names) - 1}, {', '.join(names)} (labels in {OPTIONS_FILE})."
            )
    return masks.astype(np.int32), names


def _classes(cases: Sequence[Case], labels: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    found = {case.row["label"] for case in cases}
    numbers = all(label.isdecimal() for label in found)
    names = tuple(labels) or tuple(sorted(found, key=lambda x: (int(x) if numbers else 0, x)))
    number = {name: i for i, name in enumerate(names)}
    for case in cases:
        if case.row["label"] not in number:
            raise DataError(
                f"{case.path} has the label {case.row['label']!r}; labels in {OPTIONS_FILE} are "
                f"{', '.join(names)}."
            )
    return np.array([number[case.row["label"]] for case in cases], np.int32), names


def _divided(
    dataset: FederatedDataset,
    cases: Sequence[Case],
    patients: Sequence[str],
    chosen: Mapping[str, Any],
) -> FederatedDataset:
    """Training, validation and test scans, of different patients."""
    given = [case.row.get("split", "") for case in cases]
    if not any(given):
        shares = {part: chosen[part] for part in ("validation", "test")}
        if any(shares.values()):
            _check_patients(dataset, patients)
        return split_by_patient(dataset, patients, **shares, seed=chosen["seed"])
    part_of: dict[str, tuple[str, Path]] = {}
    for case, patient, part in zip(cases, patients, given, strict=True):
        if part not in SPLITS:
            raise DataError(f"{case.path} has the split {part!r}; allowed are {', '.join(SPLITS)}.")
        other, path = part_of.setdefault(patient, (part, case.path))
        if other != part:
            raise DataError(
                f"{case.path} and {path} are of the patient {patient!r}, but one is for {part} and one "
                f"for {other}."
            )
    client = np.repeat(np.arange(dataset.num_clients), dataset.train.sizes)
    parts: dict[str, Any] = {}
    for part in SPLITS:
        rows = np.flatnonzero(np.array(given) == part)
        if len(rows) or part == "train":
            examples = {key: leaf[rows] for key, leaf in dataset.train.examples.items()}
            sizes = np.bincount(client[rows], minlength=dataset.num_clients)
            parts[part] = ClientArrays(examples, sizes)
    dataset = dataset.replace(**parts)
    if "validation" in parts or not chosen["validation"]:
        return dataset
    trained = [p for p, part in zip(patients, given, strict=True) if part == "train"]
    return split_by_patient(dataset, trained, validation=chosen["validation"], seed=chosen["seed"])


def _check_patients(dataset: FederatedDataset, patients: Sequence[str]) -> None:
    """Refuses patients of one name, as programs leave them that make scans anonymous."""
    own = np.split(np.array(patients), dataset.train.offsets[1:-1])
    for name, of_hospital in zip(dataset.client_names, own, strict=True):
        if len(of_hospital) > 1 and (of_hospital == of_hospital[0]).all():
            raise DataError(
                f"all {len(of_hospital)} scans of {name!r} are of one patient, {str(of_hospital[0])!r}, so "
                f"none can be kept apart; give a column patient, or split, in {LABELS_FILE}."
            )
