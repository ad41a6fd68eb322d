"""Heart beats of the MIT-BIH Arrhythmia Database: waveforms of ten records, patients as clients.

Half an hour of each patient, every beat labelled by cardiologists and put into the classes of the AAMI
(ANSI/AAMI EC57): N, normal or of a bundle branch block; S, supraventricular ectopic; V, ventricular
ectopic; F, fusion of a ventricular and a normal beat; Q, paced or unclassifiable. Record 104 is of a
patient with a pacemaker (93 % paced beats): it holds all beats of class Q that there are here, and the
AAMI's recommendation leaves paced records out of every comparison. So does this: nine patients, four
classes. Patients differ in their classes as much as can be: 1,382 of the 1,529 beats of class S are one
patient's.

References:
  Moody and Mark, IEEE Engineering in Medicine and Biology 20, 2001. https://doi.org/10.1109/51.932724
  de Chazal, O'Dwyer and Reilly, IEEE Transactions on Biomedical Engineering 51, 2004 (DS1 and DS2).
  https://doi.org/10.1109/TBME.2004.827359
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.datasets._files import DATA_VARIABLE, Remote, locate

LICENCE = "Open Data Commons (PhysioBank); keep the citation"
SOURCE = (
    "MIT-BIH Arrhythmia Database 1.0.0, PhysioNet (https://physionet.org/content/mitdb/1.0.0/), "
    "cut into beats"
)
CITATION = (
    "Moody GB, Mark RG. The impact of the MIT-BIH Arrhythmia Database. IEEE Engineering in Medicine "
    "and Biology Magazine 2001;20(3):45-50. doi:10.1109/51.932724. Goldberger AL, et al. PhysioBank, "
    "PhysioToolkit, and PhysioNet. Circulation 2000;101(23):e215-e220."
)
CLASSES = ("N", "S", "V", "F")
RATE = 360  # samples per second

_PAGE = "https://physionet.org/content/mitdb/1.0.0/"
FILES = {
    "ecg_beats.npz": Remote(
        _PAGE, "de1e3aa6aa909dacc0bf2b64073555ba57a0bff01bca69ac3505e309cfa6b47d"
    ),
    "beats_all48.csv": Remote(
        _PAGE, "1803b7fa393a3bffecc6a58212257bed5e914053087fbd82111f3c45a8325e65"
    ),
}
_PACED = 104
# The division of de Chazal et al. (table I), those of its records that are here.
_PATIENTS = {
    "all": (100, 106, 108, 113, 121, 202, 223, 231, 232),
    "DS1": (106, 108, 223),
    "DS2": (100, 113, 121, 202, 231, 232),
}
_BEFORE, _AFTER = 100, 156  # samples of a window before the beat, and from it on
_BASELINE, _PER_MILLIVOLT = 1024, 200  # of the converter


def mitbih_beats(
    *,
    data_dir: str | os.PathLike | None = None,
    patients: str = "all",
    minutes: float | None = 5.0,
    validation_minutes: float = 0.0,
) -> FederatedDataset:
    """Single beats of nine patients, each a client.

    `x` is float32 `[N, 256, 1]` [mV], the first lead (MLII) from 100 samples before the beat's mark to
    155 after it, 360 a second. `y` is int32 `[N]`, 0 to 3 for N, S, V and F. Nothing is missing.

    The division is by time, for models of a patient's own: training has the first `minutes` of a record
    (five are what the AAMI allows to adapt to a patient), validation those after them, test the rest.
    Beats whose window lies on both sides of a border are left out.

    For patients that nobody has seen, train on one half of de Chazal's patients and judge on the other:

        seen = mitbih_beats(patients="DS1", minutes=None)  # all of their beats
        unseen = mitbih_beats(patients="DS2")  # `test` is comparable with models that adapt on `train`

    Args:
      data_dir: folder with a local copy of `ecg_beats.npz`; see `FEDJAX_MED_DATA` as well.
      patients: "all", or those of "DS1" or "DS2" of whom there are waveforms here.
      minutes: of each record that are trained on; None for all of it, without test examples.
      validation_minutes: after these, for validation.

    Raises:
      DataError: if the file is missing or damaged, or an option is not allowed.
    """
    if patients not in _PATIENTS:
        raise DataError(f"patients must be one of {', '.join(_PATIENTS)}, got {patients!r}.")
    check_minutes(minutes, validation_minutes)
    path = local_copies("mitbih-beats", ("ecg_beats.npz",), data_dir)["ecg_beats.npz"]
    with np.load(path, allow_pickle=False) as file:
        record, sample, label = file["record"], file["sample"].astype(np.int64), file["y"]
        signal = file["X"]
    x = ((signal.astype(np.float32) - _BASELINE) / _PER_MILLIVOLT)[..., None]
    parts: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for number in _PATIENTS[patients]:
        rows = np.flatnonzero(record == number)
        begin, end = sample[rows] - _BEFORE, sample[rows] + _AFTER
        for part, chosen in divided(begin, end, minutes, validation_minutes).items():
            own = rows[chosen]
            parts.setdefault(part, {})[f"Patient {number}"] = {
                "x": x[own],
                "y": label[own].astype(np.int32),
            }
    return FederatedDataset.from_clients(
        parts.pop("train"),
        **parts,
        name="mitbih-beats",
        label_names=CLASSES,
        licence=LICENCE,
        source=SOURCE,
        citation=CITATION,
    )


def divided(
    begin: np.ndarray, end: np.ndarray, minutes: float | None, validation_minutes: float
) -> dict[str, np.ndarray]:
    """Which examples of a record lie wholly in each part, by their first and last-but-one sample."""
    if minutes is None:
        return {"train": np.ones(len(begin), bool)}
    borders = np.array([minutes, minutes + validation_minutes]) * 60 * RATE
    parts = {"train": end <= borders[0]}
    if validation_minutes:
        parts["validation"] = (begin >= borders[0]) & (end <= borders[1])
    return {**parts, "test": begin >= borders[1]}


def check_minutes(minutes: float | None, validation_minutes: float) -> None:
    """Raises DataError if a record of half an hour cannot be divided so."""
    if minutes is None and validation_minutes:
        raise DataError(
            f"validation_minutes must be 0 where minutes is None, got {validation_minutes!r}."
        )
    if minutes is not None and not (
        minutes > 0 and validation_minutes >= 0 and minutes + validation_minutes < 30
    ):
        raise DataError(
            "minutes must be above 0, or None, validation_minutes 0 or more, and both less than the 30 "
            f"of a record together, got {minutes!r} and {validation_minutes!r}."
        )


def local_copies(
    name: str, files: tuple[str, ...], data_dir: str | os.PathLike | None
) -> Mapping[str, Path]:
    """Paths of files of the database, which are made of its records and cannot be downloaded.

    Raises:
      DataError: if one is missing or damaged.
    """
    folder = data_dir or os.environ.get(DATA_VARIABLE)
    if not folder:
        raise DataError(
            f"{name} needs a local copy of {', '.join(files)}, which is made of the records of {_PAGE}; "
            f"pass --data-dir (or data_dir=) or set {DATA_VARIABLE} to a folder that holds it."
        )
    return locate("ecg-mitbih", {file: FILES[file] for file in files}, folder)
