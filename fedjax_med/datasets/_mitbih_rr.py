"""Rhythm alone: sequences of intervals between beats of the MIT-BIH Arrhythmia Database.

What class a beat is of, from nothing but the times of the beats around it, which is what a pulse watch
would have. All 48 records of half an hour have beats labelled by cardiologists. Records 201 and 202 are
of one patient and make one client, so there are 47.
"""

from __future__ import annotations

import csv
import os
from typing import NamedTuple

import numpy as np

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.datasets._ecg_mitbih import (
    CITATION,
    LICENCE,
    RATE,
    SOURCE,
    check_minutes,
    divided,
    local_copies,
)
from fedjax_med.datasets._files import open_text

CLASSES = ("N", "S", "V")
# Of the database's symbols, the AAMI's classes; fusion and paced beats are in none of these three.
_CLASS_OF = {**dict.fromkeys("NLRej", 0), **dict.fromkeys("AaJS", 1), **dict.fromkeys("VE", 2)}
_PACED = (102, 104, 107, 217)
_ONE_PATIENT = {202: 201}
# The longest pause between two beats of these records lasts 5.9 s. What is longer (in record 207 only,
# up to 100 s) is ventricular flutter, in which no beats are marked.
LONGEST = 6.5


class Windows(NamedTuple):
    """Intervals around single beats.

    Attributes:
      intervals: float32 `[N, past + future]` [s], in their order; the last of the `past` ends at the beat.
      beat: int64 `[N]`, which beat each is about.
    """

    intervals: np.ndarray
    beat: np.ndarray


def mitbih_rr(
    *,
    data_dir: str | os.PathLike | None = None,
    past: int = 16,
    future: int = 1,
    minutes: float | None = 20.0,
    validation_minutes: float = 0.0,
    paced: bool = True,
    gaps: str = "leave-out",
) -> FederatedDataset:
    """Intervals before and after a beat, and its class; 47 patients, each a client.

    `x` is float32 `[N, past + future, 1]` [s], `y` is int32 `[N]`, 0 to 2 for N, S and V. Beats of other
    classes (fusion, paced, unclassifiable) end intervals like all others but are not asked about.

    The division is by time: training has the first `minutes` of a record, validation those after them,
    test the rest. Windows of training end before the border; those of later parts may look back over it.

    Args:
      data_dir: folder with a local copy of `beats_all48.csv`; see `FEDJAX_MED_DATA` as well.
      past: intervals up to the beat, at least 1.
      future: intervals after it, 0 or more: so many beats later the answer can be given.
      minutes: of each record that are trained on; None for all of it, without test examples.
      validation_minutes: after these, for validation.
      paced: whether the four records of patients with a pacemaker are among them, with the beats that
        were not paced. The AAMI's recommendation leaves them out.
      gaps: what becomes of windows with a stretch of more than 6.5 s without beats: "leave-out", or
        "refuse" all the data.

    Raises:
      DataError: if the file is missing or damaged, there is a gap and `gaps` is "refuse", or an option
        is not allowed.
    """
    if past < 1 or future < 0:
        raise DataError(
            f"past must be at least 1 and future 0 or more, got {past!r} and {future!r}."
        )
    if gaps not in ("leave-out", "refuse"):
        raise DataError(f"gaps must be 'leave-out' or 'refuse', got {gaps!r}.")
    check_minutes(minutes, validation_minutes)
    path = local_copies("mitbih-rr", ("beats_all48.csv",), data_dir)["beats_all48.csv"]
    with open_text(path) as file:
        rows = list(csv.DictReader(file))
    record = np.array([int(row["record"]) for row in rows])
    sample = np.array([int(row["sample"]) for row in rows])
    label = np.array([_CLASS_OF.get(row["symbol"], -1) for row in rows], np.int32)
    parts: dict[str, dict[str, list[dict[str, np.ndarray]]]] = {}
    for number in np.unique(record).tolist():
        if number in _PACED and not paced:
            continue
        own = np.flatnonzero(record == number)
        cut = interval_windows(
            sample[own] / RATE,
            past=past,
            future=future,
            name=f"record {number}",
            refuse_gaps=gaps == "refuse",
        )
        beat = own[cut.beat]
        known = label[beat] >= 0
        x, beat = cut.intervals[known][..., None], beat[known]
        last = sample[beat + future]
        patient = f"Patient {_ONE_PATIENT.get(number, number)}"
        for part, chosen in divided(sample[beat], last, minutes, validation_minutes).items():
            of_part = parts.setdefault(part, {}).setdefault(patient, [])
            of_part.append({"x": x[chosen], "y": label[beat[chosen]]})
    joined = {
        part: {
            patient: {key: np.concatenate([r[key] for r in records]) for key in ("x", "y")}
            for patient, records in clients.items()
        }
        for part, clients in parts.items()
    }
    return FederatedDataset.from_clients(
        joined.pop("train"),
        **joined,
        name="mitbih-rr",
        label_names=CLASSES,
        licence=LICENCE,
        source=SOURCE,
        citation=CITATION,
    )


def interval_windows(
    time: np.ndarray, *, past: int, future: int, name: str, refuse_gaps: bool = False
) -> Windows:
    """The `past` intervals up to each beat and the `future` ones after it.

    Args:
      time: of the beats `[beats]` [s], rising.
      past: at least 1.
      future: 0 or more.
      name: of the series, for messages.
      refuse_gaps: whether a gap is an error; windows with one are left out otherwise.

    Raises:
      DataError: if times do not rise, or there is a gap and gaps are refused.
    """
    interval = np.diff(time)  # interval[i] ends at beat i + 1
    if (interval <= 0).any():
        beat = int(np.argmax(interval <= 0)) + 1
        raise DataError(
            f"beats of {name} must be later one than the other, but beat {beat + 1} is at "
            f"{time[beat]:.2f} s and the one before it at {time[beat - 1]:.2f} s."
        )
    gap = interval > LONGEST
    if refuse_gaps and gap.any():
        first = int(np.argmax(gap))
        raise DataError(
            f"{name} has no beats for {interval[first]:.1f} s from {time[first]:.1f} s on, "
            f"{gap.sum()} gaps of more than {LONGEST:g} s in all; cut the series there, or leave out "
            "the windows with gaps='leave-out'."
        )
    beat = np.arange(past, len(time) - future)
    rows = beat[:, None] + np.arange(-past, future)
    whole = ~gap[rows].any(axis=1)
    return Windows(interval[rows[whole]].astype(np.float32), beat[whole])
