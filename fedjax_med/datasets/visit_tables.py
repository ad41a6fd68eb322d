"""Reads hospitals' own records of visits from long CSV tables, strictly.

Each hospital has two files, plain or packed with `.gz`. The one of its visits has a row for each code and
each laboratory value:

    patient,visit,date,code,lab,value
    P1,1,2021-03-04,I50,,
    P1,1,2021-03-04,,creatinine,92
    P1,2,2021-06-11,N18,,

and the one of its patients a row for each of them, with the outcome and what does not change:

    patient,outcome,age,female
    P1,0,71,1

Visits of a patient are numbered 1, 2, ... in order of time. A visit at which there was nothing to write
down has one row without code and lab.
"""

from __future__ import annotations

import csv
import datetime
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.datasets._files import UNPACKING_ERRORS, open_text

_VISIT_COLUMNS = ("patient", "visit", "date", "code", "lab", "value")
_NO_CODE = "no code"


class VisitFiles(NamedTuple):
    """The two files of a hospital."""

    visits: str | os.PathLike
    patients: str | os.PathLike


def load_visits(
    hospitals: Mapping[str, VisitFiles],
    *,
    static: Sequence[str] = (),
    codes: Sequence[str] | None = None,
    labs: Sequence[str] | None = None,
    max_visits: int = 12,
    validation: float = 0.0,
    test: float = 0.0,
    seed: int = 0,
    name: str = "visits",
) -> FederatedDataset:
    """Reads the records of hospitals.

    Examples are those of `health_records`: `codes`, `labs` (if there are any), `gap` [days], `visits`,
    `static` (if asked for) and `y`, the outcome; `feature_names` are the codes, the first being the
    padding. As many codes fit into a visit as the fullest one has.

    Args:
      hospitals: by name.
      static: columns of the tables of patients; numbers, or empty where not known.
      codes: those there may be, in their order; if None all that are found, by the alphabet, which
        tells every hospital of the codes of the others.
      labs: the same for laboratory values.
      max_visits: the latest visits of a longer record.
      validation: fraction of the patients of each hospital for validation.
      test: fraction for test.
      seed: of this division.
      name: of the dataset.

    Raises:
      DataError: names the file and row of what is wrong with it.
    """
    if not hospitals:
        raise DataError("hospitals is empty; at least one is needed.")
    if max_visits < 1:
        raise DataError(f"max_visits must be at least 1, got {max_visits}.")
    read = {hospital: _read(VisitFiles(*files), static) for hospital, files in hospitals.items()}
    records = [record for of_hospital in read.values() for record in of_hospital]
    code_at = _places({c for r in records for v in r.visits for c in v.codes}, codes, "code")
    lab_at = _places({c for r in records for v in r.visits for c in v.labs}, labs, "lab")
    width = max([1, *(len(v.codes) for r in records for v in r.visits)])
    clients = {
        hospital: _arrays(of_hospital, code_at, lab_at, width, max_visits, len(static))
        for hospital, of_hospital in read.items()
    }
    dataset = FederatedDataset.from_clients(
        clients, name=name, feature_names=(_NO_CODE, *code_at), label_names=("0", "1")
    )
    return dataset.split(validation=validation, test=test, seed=seed)


class _Visit(NamedTuple):
    day: datetime.date
    codes: dict[str, None]  # in order, each once
    labs: dict[str, float]


class _Record(NamedTuple):
    outcome: int
    static: list[float]
    visits: list[_Visit]


class _Row(NamedTuple):
    """A row of a table, and how to refuse it."""

    path: Path
    number: int
    values: dict[str, str]

    def refused(self, reason: str) -> DataError:
        return DataError(f"row {self.number} of {self.path}: {reason}.")


def _read(files: VisitFiles, static: Sequence[str]) -> list[_Record]:
    patients = _rows(Path(files.patients), ("patient", "outcome", *static))
    records: dict[str, _Record] = {}
    for row in patients:
        patient = row.values["patient"]
        if patient in records:
            raise row.refused(f"patient {patient!r} is there twice")
        outcome = row.values["outcome"]
        if outcome not in ("0", "1"):
            raise row.refused(f"outcome must be 0 or 1, got {outcome!r}")
        values = [_number(row, column, empty=True) for column in static]
        records[patient] = _Record(int(outcome), values, [])
    numbers: dict[str, dict[int, _Visit]] = {patient: {} for patient in records}
    for row in _rows(Path(files.visits), _VISIT_COLUMNS):
        _add(row, numbers, files)
    for patient, visits in numbers.items():
        _check_series(patient, visits, files)
        records[patient].visits.extend(visits[number] for number in sorted(visits))
    return list(records.values())


def _add(row: _Row, numbers: dict[str, dict[int, _Visit]], files: VisitFiles) -> None:
    """Adds what a row says to the visits of its patient."""
    patient, code, lab = (row.values[column] for column in ("patient", "code", "lab"))
    if patient not in numbers:
        raise row.refused(f"patient {patient!r} is not in {files.patients}")
    try:
        number = int(row.values["visit"])
    except ValueError:
        number = 0
    if number < 1:
        raise row.refused(f"visit must be a whole number from 1, got {row.values['visit']!r}")
    try:
        day = datetime.date.fromisoformat(row.values["date"])
    except ValueError:
        raise row.refused(
            f"date must be written like 2021-03-04, got {row.values['date']!r}"
        ) from None
    visit = numbers[patient].setdefault(number, _Visit(day, {}, {}))
    if visit.day != day:
        raise row.refused(f"visit {number} of {patient!r} was on {visit.day} above, here on {day}")
    if code and lab:
        raise row.refused(f"a row has a code or a lab, got {code!r} and {lab!r}")
    if bool(row.values["value"]) != bool(lab):
        raise row.refused(f"lab and value go together, got {lab!r} and {row.values['value']!r}")
    if code:
        visit.codes[code] = None
    elif lab:
        if lab in visit.labs:
            raise row.refused(f"{lab!r} is there twice in visit {number} of {patient!r}")
        visit.labs[lab] = _number(row, "value")


def _check_series(patient: str, visits: Mapping[int, _Visit], files: VisitFiles) -> None:
    if not visits:
        raise DataError(f"patient {patient!r} of {files.patients} has no visit in {files.visits}.")
    if max(visits) != len(visits):
        lost = next(n for n in range(1, len(visits) + 1) if n not in visits)
        raise DataError(
            f"visits of patient {patient!r} in {files.visits} must be numbered 1 to "
            f"{max(visits)} without a gap, but visit {lost} is missing."
        )
    for number in range(2, len(visits) + 1):
        if visits[number].day < visits[number - 1].day:
            raise DataError(
                f"visit {number} of patient {patient!r} in {files.visits} was on "
                f"{visits[number].day}, before visit {number - 1} on {visits[number - 1].day}."
            )


def _arrays(
    records: Sequence[_Record],
    code_at: Mapping[str, int],
    lab_at: Mapping[str, int],
    width: int,
    max_visits: int,
    num_static: int,
) -> dict[str, np.ndarray]:
    num = len(records)
    codes = np.zeros((num, max_visits, width), np.int32)
    labs = np.full((num, max_visits, len(lab_at)), np.nan, np.float32)
    gap = np.zeros((num, max_visits), np.float32)
    for row, record in enumerate(records):
        latest = record.visits[-max_visits:]
        for place, visit in enumerate(latest):
            codes[row, place, : len(visit.codes)] = [code_at[c] + 1 for c in visit.codes]
            for lab, value in visit.labs.items():
                labs[row, place, lab_at[lab]] = value
            if place:
                gap[row, place] = (visit.day - latest[place - 1].day).days
    arrays = {
        "codes": codes,
        "gap": gap,
        "visits": np.array([min(len(r.visits), max_visits) for r in records], np.int32),
        "y": np.array([r.outcome for r in records], np.int32),
    }
    if lab_at:
        arrays["labs"] = labs
    if num_static:
        arrays["static"] = np.array([r.static for r in records], np.float32)
    return arrays


def _places(found: set[str], allowed: Sequence[str] | None, what: str) -> dict[str, int]:
    if allowed is not None:
        unknown = sorted(found - set(allowed))
        if unknown:
            raise DataError(f"{what} {unknown[0]!r} is not among the {what}s that there may be.")
    return {name: place for place, name in enumerate(sorted(found) if allowed is None else allowed)}


def _number(row: _Row, column: str, *, empty: bool = False) -> float:
    text = row.values[column]
    if empty and not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise row.refused(f"{column} must be a number, got {text!r}")
    return value


def _rows(path: Path, columns: Sequence[str]) -> list[_Row]:
    """The rows of a table, with these columns of it."""
    try:
        with open_text(path, "utf-8-sig") as file:
            header, *lines = list(csv.reader(file, strict=True)) or [[]]
    except (UnicodeError, csv.Error, *UNPACKING_ERRORS) as error:
        raise DataError(f"{path} cannot be read as CSV in UTF-8 ({error}).") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    header = [name.strip() for name in header]
    for name in columns:
        if header.count(name) != 1:
            shown = ", ".join(map(repr, header)) or "none"
            raise DataError(f"{path} must have one column {name!r}; its columns are {shown}.")
    place = {name: header.index(name) for name in columns}
    rows = []
    for number, line in enumerate(lines, 2):
        if not line:
            continue
        if len(line) != len(header):
            raise DataError(
                f"row {number} of {path} has {len(line)} values, but the header names {len(header)} "
                "columns."
            )
        rows.append(_Row(path, number, {name: line[at].strip() for name, at in place.items()}))
    if not rows:
        raise DataError(f"{path} has no rows; at least one is needed.")
    return rows
