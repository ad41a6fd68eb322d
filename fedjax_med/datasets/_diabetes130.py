"""Diabetes 130-US hospitals: is a patient with diabetes readmitted within thirty days?

101,766 encounters of ten years (1999 to 2008) at 130 hospitals. **The file does not say at
which hospital an encounter was**, so no division of it gives those hospitals back. What it has:

- `payer_code`, 17 payers (insurers, public programmes, patients themselves; the file does not spell
  the codes out): the only column that names an organisation which in reality holds records of the
  encounters it pays for, wherever they were. The default. It is not recorded for 40 % of
  encounters, and one code, MC, has more than half of the rest.
- `medical_specialty`, 72 specialties of the admitting physician: departments across hospitals.
  They differ most in patients and in outcome. Not recorded for 49 %.
- `admission_source_id`, 14 ways in (emergency room, referral, transfer): how patients came.
  Nobody holds the data that way; it makes clients of extreme sizes, five of them below 10.

Encounters without an entry form a client "not recorded", which is no organisation: leave it out
with `dataset.select` to judge payers or specialties alone.

References:
  Strack et al., BioMed Research International, 2014. https://doi.org/10.1155/2014/781670
"""

import csv
import os
from collections.abc import Callable

import numpy as np

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.datasets._files import Remote, locate, open_text
from fedjax_med.datasets._patients import split_by_patient
from fedjax_med.datasets._standardized import standardized

LICENCE = "CC BY 4.0 (general terms of the UCI repository)"
SOURCE = "UCI Machine Learning Repository, dataset 296, diabetic_data.csv"
CITATION = (
    "Strack B, DeShazo JP, Gennings C, et al. Impact of HbA1c measurement on hospital "
    "readmission rates: analysis of 70,000 clinical database patient records. BioMed Research "
    "International 2014;2014:781670. doi:10.1155/2014/781670."
)

_FILES = {
    "diabetic_data.csv": Remote(
        "https://archive.ics.uci.edu/ml/machine-learning-databases/00296/dataset_diabetes.zip",
        "0689e7ec031237dc63031b938805c48377748761a3b26acab621567afa24df97",
        member="dataset_diabetes/diabetic_data.csv",
    )
}
_CLIENTS = {
    "payer": "payer_code",
    "specialty": "medical_specialty",
    "admission-source": "admission_source_id",
}
_ADMISSION_SOURCES = {  # of the code book IDs_mapping.csv; the others are not used
    "1": "physician referral",
    "2": "clinic referral",
    "3": "HMO referral",
    "4": "transfer from a hospital",
    "5": "transfer from a nursing facility",
    "6": "transfer from another facility",
    "7": "emergency room",
    "8": "court or police",
    "10": "transfer from a critical access hospital",
    "11": "normal delivery",
    "13": "sick baby",
    "14": "extramural birth",
    "22": "transfer within the hospital",
    "25": "transfer from a surgery centre",
}
_NOT_RECORDED = "not recorded"
_DIED_OR_HOSPICE = {"11", "13", "14", "19", "20", "21"}

COUNTS = (
    "time_in_hospital",
    "num_lab_procedures",
    "num_procedures",
    "num_medications",
    "number_outpatient",
    "number_emergency",
    "number_inpatient",
    "number_diagnoses",
)
# Examide and citoglipton were never given.
_DRUGS = (
    "metformin repaglinide nateglinide chlorpropamide glimepiride acetohexamide glipizide "
    "glyburide tolbutamide pioglitazone rosiglitazone acarbose miglitol troglitazone tolazamide "
    "glyburide-metformin glipizide-metformin glimepiride-pioglitazone metformin-rosiglitazone "
    "metformin-pioglitazone"
).split()
_DIAGNOSES = ("diag_1", "diag_2", "diag_3")
# Strack et al., table 2; half-open ranges of ICD-9 codes, the first that fits.
_ICD9 = {
    "diabetes": [(250, 251)],
    "circulatory": [(390, 460), (785, 786)],
    "respiratory": [(460, 520), (786, 787)],
    "digestive": [(520, 580), (787, 788)],
    "injury": [(800, 1000)],
    "musculoskeletal": [(710, 740)],
    "genitourinary": [(580, 630), (788, 789)],
    "neoplasms": [(140, 240)],
}


def diabetes130(
    *,
    data_dir: str | os.PathLike | None = None,
    clients: str = "payer",
    first_encounters: bool = False,
    standardize: str | None = None,
    validation: float = 0.0,
    test: float = 0.2,
    seed: int = 0,
) -> FederatedDataset:
    """Loads 101,766 encounters of 71,518 patients with diabetes.

    `y` is int32 `[N]`, 1 where the patient was readmitted within 30 days (11 % of encounters).
    `x` is float32 `[N, 91]`, **NaN where a value is missing**:

    - age [years], the middle of its band of ten years; female; eight counts of the stay and of
      the year before it;
    - indicators `column=value` of race, type and source of admission, where the patient went,
      HbA1c and glucose (which "none" means were not measured), insulin, and the groups of Strack
      et al. for the three diagnoses; all indicators of a column are NaN where it is missing;
    - twenty other drugs (1 if given), change of medication, and any diabetes medication.

    Weight (97 % missing), payer and specialty are not among the features.

    Patients recur, at several clients too, so they are divided as patients: all encounters of
    one are in the same part, at all clients. The fractions are met up to chance.

    Args:
      data_dir: folder with a local copy of `diabetic_data.csv` or `diabetic_data.csv.gz`; see
        `FEDJAX_MED_DATA` as well. Without one it is downloaded once (3 MB).
      clients: "payer" (18 clients), "specialty" (73) or "admission-source" (15).
      first_encounters: keep the first encounter of each patient only, and of those the ones
        after which a readmission was possible: not where the patient died or went to a hospice.
        69,973 encounters remain, and some clients vanish.
      standardize: None only: with missing values, impute first.
      validation: fraction of the patients for validation.
      test: fraction of the patients for test.
      seed: of the division of the patients.

    Raises:
      DataError: if the file is missing or damaged, or an option is not allowed.
    """
    check_clients(clients)
    table = encounters(data_dir)
    site = clients_of(table, clients)
    patient = np.array(table["patient_nbr"], np.int64)
    features = features_of(table)
    x = np.column_stack(list(features.values()))
    y = readmitted(table)
    if first_encounters:
        kept = np.zeros(len(x), bool)
        kept[np.unique(patient, return_index=True)[1]] = True
        kept &= can_return(table)
        site, patient, x, y = site[kept], patient[kept], x[kept], y[kept]
    names, client = np.unique(site, return_inverse=True)
    dataset = FederatedDataset.from_assignment(
        {"x": x, "y": y},
        client,
        names.tolist(),
        name="diabetes130",
        feature_names=tuple(features),
        label_names=("not within 30 days", "readmitted"),
        licence=LICENCE,
        source=SOURCE,
        citation=CITATION,
    )
    patient = patient[np.argsort(client, kind="stable")]
    dataset = split_by_patient(dataset, patient, validation=validation, test=test, seed=seed)
    return standardized(dataset, standardize)


def check_clients(clients: str) -> None:
    """Raises DataError unless encounters can be divided by `clients`."""
    if clients not in _CLIENTS:
        raise DataError(
            f"clients must be 'payer', 'specialty' or 'admission-source', got {clients!r}."
        )


def encounters(data_dir: str | os.PathLike | None) -> dict[str, tuple[str, ...]]:
    """The columns of the file as text, encounters in order of time."""
    path = locate("diabetes130", _FILES, data_dir)["diabetic_data.csv"]
    with open_text(path) as file:
        header, *rows = csv.reader(file)
    rows.sort(key=lambda row: int(row[header.index("encounter_id")]))
    return dict(zip(header, zip(*rows, strict=True), strict=True))


def clients_of(table: dict[str, tuple[str, ...]], clients: str) -> np.ndarray:
    """The name of the client of every encounter."""
    return _mapped(table[_CLIENTS[clients]], _client_name(clients))


def readmitted(table: dict[str, tuple[str, ...]]) -> np.ndarray:
    """1 where a patient was readmitted within 30 days, int32."""
    return _mapped(table["readmitted"], lambda when: when == "<30").astype(np.int32)


def can_return(table: dict[str, tuple[str, ...]]) -> np.ndarray:
    """Whether a readmission was possible: not where the patient died or went to a hospice."""
    return _mapped(table["discharge_disposition_id"], _can_return)


def _client_name(clients: str) -> Callable[[str], str]:
    if clients == "admission-source":
        return lambda code: _ADMISSION_SOURCES.get(code, _NOT_RECORDED)
    return lambda code: _NOT_RECORDED if code == "?" else code


def features_of(table: dict[str, tuple[str, ...]]) -> dict[str, np.ndarray]:
    """The columns of `x`, float32, by their names."""

    def number(column: str, of: Callable[[str], float]) -> np.ndarray:
        return _mapped(table[column], of).astype(np.float32)

    features = {
        "age": number("age", lambda band: float(band[1:].split("-")[0]) + 5),  # "[70-80)"
        "female": number("gender", lambda g: {"Female": 1.0, "Male": 0.0}.get(g, np.nan)),
    }
    features |= {column: number(column, float) for column in COUNTS}
    for column, group in _CATEGORIES.items():
        values = sorted({group(code) for code in set(table[column])} - {""})
        position = {value: i for i, value in enumerate(values)}
        chosen = number(column, lambda code, at=position, of=group: at.get(of(code), np.nan))
        for i, value in enumerate(values):
            indicator = np.where(np.isnan(chosen), chosen, chosen == i)
            features[f"{column}={value}"] = indicator.astype(np.float32)
    features |= {drug: number(drug, lambda given: float(given != "No")) for drug in _DRUGS}
    features["change"] = number("change", lambda change: float(change == "Ch"))
    features["diabetesMed"] = number("diabetesMed", lambda given: float(given == "Yes"))
    return features


def _mapped(column: tuple[str, ...], function: Callable[[str], object]) -> np.ndarray:
    """`function` of every value, called once for each that differs."""
    result = {value: function(value) for value in set(column)}
    return np.array(list(map(result.__getitem__, column)))


def _can_return(disposition: str) -> bool:
    return disposition not in _DIED_OR_HOSPICE


# Groups of a code, "" where it says nothing.


def _as_it_is(value: str) -> str:
    return "" if value == "?" else value


def _admission_type(code: str) -> str:
    names = {"1": "emergency", "2": "urgent", "3": "elective", "4": "newborn", "7": "trauma"}
    return names.get(code, "")


def _admission_source(code: str) -> str:
    if code in ("4", "5", "6", "10", "22", "25"):
        return "transfer"
    names = {"1": "referral", "2": "referral", "3": "referral", "7": "emergency room"}
    return names.get(code, "other" if code in _ADMISSION_SOURCES else "")


def _discharge(code: str) -> str:
    if code in ("11", "19", "20", "21"):
        return "died"
    if code in ("18", "25", "26"):
        return ""
    names = {"1": "home", "6": "home care", "8": "home care", "7": "against advice"}
    names |= {"13": "hospice", "14": "hospice"}
    return names.get(code, "facility")


def _diagnosis(code: str) -> str:
    if code == "?":
        return ""
    if code[0] in "EV":  # external causes, and visits for other reasons
        return "other"
    number = float(code)
    for group, ranges in _ICD9.items():
        if any(low <= number < high for low, high in ranges):
            return group
    return "other"


_CATEGORIES: dict[str, Callable[[str], str]] = {
    "race": _as_it_is,
    "admission_type_id": _admission_type,
    "admission_source_id": _admission_source,
    "discharge_disposition_id": _discharge,
    **dict.fromkeys(_DIAGNOSES, _diagnosis),
    "max_glu_serum": _as_it_is,
    "A1Cresult": _as_it_is,
    "insulin": _as_it_is,
}
