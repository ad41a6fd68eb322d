"""Datasets by name: where they come from, under which licence, and how to load them.

What all tables have in common: `examples["x"]` is float32 `[N, features]` in natural units, in
which **NaN is a missing value** and nothing else is. A column of categories is a block of
indicators named `column=category`, all of them NaN where the category is missing. Yes and no are
1 and 0. Labels are `y`, int32 `[N]` for classes and float32 `[N]` for measured outcomes; survival
has `time`, float32 `[N]`, and `event`, int32 `[N]`, 1 where the event was seen and 0 where the
patient was censored. Labels are never missing.

Images are uint8 `[N, height, width, channels]` of grey values or RGB.

Importing this imports neither JAX nor scikit-learn, so listing datasets is quick.
"""

import difflib
import functools
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.datasets import (
    _breast_cancer,
    _diabetes130,
    _diabetes_progression,
    _ecg_mitbih,
    _flu_ili,
    _gdsc,
    _hapmap3,
    _heart_disease,
    _medmnist,
    _ncctg_lung,
    _parkinsons_telemonitoring,
    _tcga_brca,
    _umls,
)
from fedjax_med.datasets._breast_cancer import breast_cancer
from fedjax_med.datasets._diabetes130 import diabetes130
from fedjax_med.datasets._diabetes130_visits import diabetes130_visits
from fedjax_med.datasets._diabetes_progression import diabetes_progression
from fedjax_med.datasets._ecg_mitbih import mitbih_beats
from fedjax_med.datasets._flu_ili import flu_ili, flu_ili_counts
from fedjax_med.datasets._gdsc import gdsc_ic50
from fedjax_med.datasets._hapmap3 import hapmap3, hapmap3_snps
from fedjax_med.datasets._heart_disease import heart_disease
from fedjax_med.datasets._image_folder import is_image_folder
from fedjax_med.datasets._medmnist import medmnist
from fedjax_med.datasets._mitbih_rr import mitbih_rr
from fedjax_med.datasets._ncctg_lung import ncctg_lung
from fedjax_med.datasets._parkinsons_telemonitoring import parkinsons_telemonitoring
from fedjax_med.datasets._schema import Schema, read_schema
from fedjax_med.datasets._tcga_brca import tcga_brca
from fedjax_med.datasets._umls import read_triples, triple_dataset, umls
from fedjax_med.datasets.health_records import (
    HealthRecords,
    draw_health_records,
    health_records,
)
from fedjax_med.datasets.images import load_images
from fedjax_med.datasets.plink import People, Plink, Snps, read_plink, write_plink
from fedjax_med.datasets.scans import SCANNERS, Scanner, synthetic_scans, synthetic_volumes
from fedjax_med.datasets.synthetic import ragged_population
from fedjax_med.datasets.tables import load_tables
from fedjax_med.datasets.vaccine_trial import VaccineTrial, draw_vaccine_trial, vaccine_trial
from fedjax_med.datasets.visit_tables import VisitFiles, load_visits

__all__ = [
    "DATASETS",
    "SCANNERS",
    "DatasetInfo",
    "HealthRecords",
    "People",
    "Plink",
    "Scanner",
    "Schema",
    "Snps",
    "VaccineTrial",
    "VisitFiles",
    "breast_cancer",
    "diabetes130",
    "diabetes130_visits",
    "diabetes_progression",
    "draw_health_records",
    "draw_vaccine_trial",
    "flu_ili",
    "flu_ili_counts",
    "gdsc_ic50",
    "hapmap3",
    "hapmap3_snps",
    "has_option",
    "health_records",
    "heart_disease",
    "info",
    "is_image_folder",
    "load",
    "load_images",
    "load_tables",
    "load_visits",
    "medmnist",
    "mitbih_beats",
    "mitbih_rr",
    "ncctg_lung",
    "parkinsons_telemonitoring",
    "ragged_population",
    "read_plink",
    "read_schema",
    "read_triples",
    "synthetic_scans",
    "synthetic_volumes",
    "tcga_brca",
    "triple_dataset",
    "umls",
    "vaccine_trial",
    "write_plink",
]


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset before it is loaded.

    Attributes:
      title: name for a heading.
      description: one line: what is predicted, from what, and where the clients come from.
      clients: number of clients with the default options.
      examples: number of examples, all splits together, with the default options.
      access: how the files are come by.
      licence: terms of use.
      citation: what to cite.
      load: function with keyword options only; those with files have `data_dir`.
    """

    title: str
    description: str
    clients: int
    examples: int
    access: str
    licence: str
    citation: str
    load: Callable[..., FederatedDataset]


DATASETS: Mapping[str, DatasetInfo] = MappingProxyType(
    {
        "breast-cancer": DatasetInfo(
            title="Breast cancer Wisconsin (diagnostic)",
            description="Malignant or benign, from 30 measurements of cell nuclei; real "
            "patients, five simulated hospitals.",
            clients=5,
            examples=569,
            access="bundled with scikit-learn",
            licence=_breast_cancer.LICENCE,
            citation=_breast_cancer.CITATION,
            load=breast_cancer,
        ),
        "diabetes-progression": DatasetInfo(
            title="Diabetes progression",
            description="Progression within a year (a number), from 10 clinical features; real "
            "patients, five simulated hospitals.",
            clients=5,
            examples=442,
            access="bundled with scikit-learn",
            licence=_diabetes_progression.LICENCE,
            citation=_diabetes_progression.CITATION,
            load=diabetes_progression,
        ),
        "diabetes130": DatasetInfo(
            title="Diabetes 130-US hospitals, 1999-2008",
            description="Readmission within 30 days, from 91 features of an encounter; the file "
            "does not name the hospitals, so clients are payers (or specialties).",
            clients=18,
            examples=101_766,
            access="downloaded once (3 MB), or a local copy",
            licence=_diabetes130.LICENCE,
            citation=_diabetes130.CITATION,
            load=diabetes130,
        ),
        "diabetes130-visits": DatasetInfo(
            title="Diabetes 130-US hospitals, patients who came back",
            description="Readmission within 30 days, from up to six encounters of a patient; clients "
            "are payers (or specialties), each with the encounters that it has itself.",
            clients=17,
            examples=25_666,
            access="downloaded once (3 MB), or a local copy",
            licence=_diabetes130.LICENCE,
            citation=_diabetes130.CITATION,
            load=diabetes130_visits,
        ),
        "flu-ili": DatasetInfo(
            title="Influenza-like illness, US regions",
            description="Patients with influenza-like illness a week ahead, from the last 20 weeks; "
            "ten HHS regions (or 49 states), divided by season.",
            clients=10,
            examples=7_650,
            access="downloaded once (0.1 MB), or a local copy",
            licence=_flu_ili.LICENCE,
            citation=_flu_ili.CITATION,
            load=flu_ili,
        ),
        "gdsc-ic50": DatasetInfo(
            title="GDSC drug response",
            description="Responses of cancer cell lines to 138 drugs, from those that are known; 13 "
            "cancer types, for models of responses only.",
            clients=13,
            examples=1244,
            access="downloaded once (0.7 MB), or a local copy",
            licence=_gdsc.LICENCE,
            citation=_gdsc.CITATION,
            load=gdsc_ic50,
        ),
        "hapmap3": DatasetInfo(
            title="HapMap 3",
            description="Population, from genotypes at 14,389 SNPs with missing ones; 11 real "
            "populations, for principal components and associations.",
            clients=11,
            examples=957,
            access="downloaded once (4 MB), or a local copy",
            licence=_hapmap3.LICENCE,
            citation=_hapmap3.CITATION,
            load=hapmap3,
        ),
        "heart-disease": DatasetInfo(
            title="UCI heart disease",
            description="Coronary artery disease, from 13 clinical features; four real "
            "hospitals, divided as in FLamby.",
            clients=4,
            examples=740,
            access="downloaded once (40 kB), or a local copy",
            licence=_heart_disease.LICENCE,
            citation=_heart_disease.CITATION,
            load=heart_disease,
        ),
        "mitbih-beats": DatasetInfo(
            title="MIT-BIH heart beats",
            description="AAMI class of a heart beat (normal, supraventricular, ventricular, fusion), "
            "from its waveform; nine real patients, each a client, divided in time.",
            clients=9,
            examples=17_800,
            access="a local copy",
            licence=_ecg_mitbih.LICENCE,
            citation=_ecg_mitbih.CITATION,
            load=mitbih_beats,
        ),
        "mitbih-rr": DatasetInfo(
            title="MIT-BIH beat intervals",
            description="Class of a heart beat (normal, supraventricular, ventricular), from the "
            "intervals between beats around it; 47 real patients, each a client, divided in time.",
            clients=47,
            examples=99_797,
            access="a local copy",
            licence=_ecg_mitbih.LICENCE,
            citation=_ecg_mitbih.CITATION,
            load=mitbih_rr,
        ),
        "ncctg-lung": DatasetInfo(
            title="NCCTG lung cancer",
            description="Survival, from 7 features with missing values; 18 real institutions of "
            "2 to 36 patients.",
            clients=18,
            examples=227,
            access="downloaded once (9 kB), or a local copy",
            licence=_ncctg_lung.LICENCE,
            citation=_ncctg_lung.CITATION,
            load=ncctg_lung,
        ),
        "parkinsons-telemonitoring": DatasetInfo(
            title="Parkinson's telemonitoring",
            description="Severity (a UPDRS score), from 16 measures of the voice, age, sex and "
            "time; 42 real patients at home, each a client.",
            clients=42,
            examples=5875,
            access="downloaded once (0.9 MB), or a local copy",
            licence=_parkinsons_telemonitoring.LICENCE,
            citation=_parkinsons_telemonitoring.CITATION,
            load=parkinsons_telemonitoring,
        ),
        "synthetic": DatasetInfo(
            title="Synthetic ragged population",
            description="A binary label, from 8 normal features; clients of 1 to 20 examples, "
            "as many as you like.",
            clients=1000,
            examples=10_813,
            access="generated",
            licence="",
            citation="",
            load=ragged_population,
        ),
        "synthetic-ehr": DatasetInfo(
            title="Synthetic health records",
            description="Readmission within a year, from visits with codes, laboratory values and "
            "gaps, with a risk that is known; ten simulated hospitals.",
            clients=10,
            examples=12_000,
            access="generated",
            licence="",
            citation="",
            load=health_records,
        ),
        "synthetic-scans": DatasetInfo(
            title="Synthetic scans with lesions",
            description="Outlines of lesions in images of 32 x 32 pixels; six hospitals whose scanners "
            "and patients differ as much as you like.",
            clients=6,
            examples=404,
            access="generated",
            licence="",
            citation="",
            load=synthetic_scans,
        ),
        "synthetic-volumes": DatasetInfo(
            title="Synthetic volumes with lesions",
            description="Outlines of lesions in volumes of 16 x 24 x 24 voxels; otherwise as "
            "synthetic-scans.",
            clients=6,
            examples=404,
            access="generated",
            licence="",
            citation="",
            load=synthetic_volumes,
        ),
        "tcga-brca": DatasetInfo(
            title="TCGA-BRCA",
            description="Survival with breast cancer, from 39 clinical features; six regions, "
            "divided as in FLamby (or 40 real tissue source sites).",
            clients=6,
            examples=1088,
            access="downloaded once (0.2 MB), or a local copy",
            licence=_tcga_brca.LICENCE,
            citation=_tcga_brca.CITATION,
            load=tcga_brca,
        ),
        "umls": DatasetInfo(
            title="UMLS knowledge graph",
            description="Links between 135 medical concepts, in 46 relations; five simulated "
            "hospitals with relations of their own, for embeddings of graphs only.",
            clients=5,
            examples=6529,
            access="a local copy",
            licence=_umls.LICENCE,
            citation=_umls.CITATION,
            load=umls,
        ),
        "vaccine-trial": DatasetInfo(
            title="Multi-country vaccine trial",
            description="Time to infection in two arms, with 4 covariates and a vaccine efficacy "
            "that is known; 12 simulated countries.",
            clients=12,
            examples=24_000,
            access="generated",
            licence="",
            citation="",
            load=vaccine_trial,
        ),
        **{
            name: DatasetInfo(
                title=known.title,
                description=f"{known.images}; five simulated hospitals.",
                clients=5,
                examples=sum(known.num_images),
                access="downloaded once, or a local copy",
                licence=_medmnist.LICENCE,
                citation=_medmnist.CITATION,
                load=functools.partial(medmnist, name),
            )
            for name, known in _medmnist.SETS.items()
        },
    }
)


def info(name: str) -> DatasetInfo:
    """What is known of the dataset `name`.

    Raises:
      DataError: if there is no such dataset.
    """
    if name not in DATASETS:
        known = ", ".join(DATASETS)
        near = difflib.get_close_matches(name.lower().replace("_", "-"), DATASETS, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(f"unknown dataset {name!r}; the datasets are {known}.{hint}")
    return DATASETS[name]


def has_option(name: str, option: str) -> bool:
    """Whether the dataset's own function has a keyword option.

    Raises:
      DataError: if there is no such dataset.
    """
    return option in inspect.signature(info(name).load).parameters


def load(name: str, data_dir: str | os.PathLike | None = None, **options: Any) -> FederatedDataset:
    """Loads a dataset by name.

    Args:
      name: a key of `DATASETS`.
      data_dir: folder with local copies; datasets without files do not need it.
      **options: keyword options of the dataset's own function, such as `standardize`.

    Raises:
      DataError: if there is no such dataset or option, or its files cannot be had.
    """
    function = info(name).load
    allowed = inspect.signature(function).parameters
    for option in options:
        if option not in allowed:
            known = ", ".join(parameter for parameter in allowed if parameter != "data_dir")
            raise DataError(f"{name} has no option {option!r}; its options are {known}.")
    if "data_dir" in allowed:
        options["data_dir"] = data_dir
    return function(**options)
