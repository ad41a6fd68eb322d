"""Diabetes 130-US hospitals as sequences: is a patient who has been here before readmitted again?

The encounters of `diabetes130`, one sequence for every encounter of a patient whom the same client has
seen before: that encounter and the earlier ones **at this client**, since a client holds no others. The
outcome is that of the encounter itself, readmission within 30 days. Sequences of one patient share
encounters, so patients are divided, not sequences.

Not one sequence per patient that ends with the last encounter in the file: that it is the last one says
that there was no return, at least none that the file has (4.5 % there, 17 % of patients who have been
here before).

The file has an order of encounters and no dates. What is known of the time between two of them, whether
it was up to 30 days, is a code of the later one.

References:
  Strack et al., BioMed Research International, 2014. https://doi.org/10.1155/2014/781670
"""

import os
from typing import NamedTuple

import numpy as np

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.datasets._diabetes130 import (
    CITATION,
    COUNTS,
    LICENCE,
    SOURCE,
    can_return,
    check_clients,
    clients_of,
    encounters,
    features_of,
    readmitted,
)
from fedjax_med.datasets._patients import split_by_patient

_BACK_SOON, _BACK_LATER = "back within 30 days", "back after more than 30 days"
_STATIC = ("age", "female")
# Codes that say that nothing was done or found.
_NOTHING = ("insulin=No", "A1Cresult=None", "max_glu_serum=None")


def diabetes130_visits(
    *,
    data_dir: str | os.PathLike | None = None,
    clients: str = "payer",
    max_visits: int = 6,
    validation: float = 0.0,
    test: float = 0.25,
    seed: int = 0,
) -> FederatedDataset:
    """Loads sequences of two or more encounters of one patient at one client.

    Examples are those of records (see `health_records`): `codes` int32 `[N, max_visits, codes]`
    (diagnoses by groups, first and secondary ones apart, drugs, HbA1c and glucose, how the patient came
    and left, and how long it had been; `feature_names`), `labs` float32 `[N, max_visits, 8]`, which
    here are the eight counts of `diabetes130` (days in hospital, procedures, medications, ...), `visits`,
    `static` (age at the last encounter [years], female) and `y`. Race is not among them.

    Args:
      data_dir: folder with a local copy of `diabetic_data.csv` or `diabetic_data.csv.gz`, as of
        `diabetes130`.
      clients: "payer", "specialty" or "admission-source"; those without such patients vanish.
      max_visits: the latest encounters of a longer sequence, at least 2.
      validation: fraction of the patients for validation.
      test: fraction of the patients for test.
      seed: of the division of the patients.

    Raises:
      DataError: if the file is missing or damaged, or an option is not allowed.
    """
    check_clients(clients)
    if max_visits < 2:
        raise DataError(f"max_visits must be at least 2, got {max_visits}.")
    table = encounters(data_dir)
    features = features_of(table)
    patient = np.array(table["patient_nbr"], np.int64)
    site = clients_of(table, clients)
    history = _histories(patient, site, can_return(table), max_visits)
    back = np.array([{"<30": 1, ">30": 2}.get(when, 0) for when in table["readmitted"]])
    names, codes = _codes(features)
    codes = _visits_of(history, codes)
    # How the patient came back to an encounter is said by the one before it.
    before = np.maximum(history.rows[:, :-1], 0)
    came = np.where(history.rows[:, 1:] >= 0, back[before], 0)
    came = np.pad(np.where(came > 0, len(names) - 1 + came, 0), ((0, 0), (1, 0)))
    codes = np.concatenate([codes, came[:, :, None]], axis=2)
    last = history.rows[np.arange(len(history.rows)), history.visits - 1]
    counts = np.column_stack([features[name] for name in COUNTS])
    static = np.column_stack([features[name] for name in _STATIC])
    labs = np.where(
        (history.rows >= 0)[:, :, None], counts[np.maximum(history.rows, 0)], np.float32(np.nan)
    )
    found, client = np.unique(site[last], return_inverse=True)
    dataset = FederatedDataset.from_assignment(
        {
            "codes": codes.astype(np.int32),
            "labs": labs,
            "visits": history.visits.astype(np.int32),
            "static": static[last],
            "y": readmitted(table)[last],
        },
        client,
        found.tolist(),
        name="diabetes130-visits",
        feature_names=(*names, _BACK_SOON, _BACK_LATER),
        label_names=("not within 30 days", "readmitted"),
        licence=LICENCE,
        source=SOURCE,
        citation=CITATION,
    )
    owner = patient[last][np.argsort(client, kind="stable")]
    return split_by_patient(dataset, owner, validation=validation, test=test, seed=seed)


class _Histories(NamedTuple):
    """Encounters of sequences: rows of the file `[N, max_visits]`, -1 behind the last; their number."""

    rows: np.ndarray
    visits: np.ndarray


def _histories(
    patient: np.ndarray, site: np.ndarray, ends: np.ndarray, max_visits: int
) -> _Histories:
    """A sequence for every encounter of `ends` with one before it of the same patient and client."""
    seen: dict[tuple[int, str], list[int]] = {}
    rows, visits = [], []
    for row, key in enumerate(zip(patient.tolist(), site.tolist(), strict=True)):
        own = seen.setdefault(key, [])
        own.append(row)
        if len(own) > 1 and ends[row]:
            latest = own[-max_visits:]
            visits.append(len(latest))
            rows.append(latest + [-1] * (max_visits - len(latest)))
    if not rows:
        raise DataError("the file has no patient whom a client has seen twice.")
    return _Histories(np.array(rows), np.array(visits))


def _codes(features: dict[str, np.ndarray]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of codes, and those of every encounter, 0 where there are no more."""
    chosen = [
        name
        for name in features
        if name not in (*COUNTS, *_STATIC, *_NOTHING) and not name.startswith("race=")
    ]
    given = np.column_stack([features[name] == 1 for name in chosen])
    width = int(given.sum(axis=1).max())
    order = np.argsort(~given, axis=1, kind="stable")[:, :width]
    codes = np.where(np.take_along_axis(given, order, axis=1), order + 1, 0)
    return ("no code", *chosen), codes


def _visits_of(history: _Histories, values: np.ndarray) -> np.ndarray:
    """Values `[rows, ...]` of the encounters of sequences, 0 behind the last."""
    real = history.rows >= 0
    return np.where(real[:, :, None], values[np.maximum(history.rows, 0)], 0)
