"""Datasets by name: where they come from, under which licence, and how to load them.

Importing this imports neither JAX nor scikit-learn, so listing datasets is quick.
"""

import difflib
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.datasets import _breast_cancer, _heart_disease
from fedjax_med.datasets._breast_cancer import breast_cancer
from fedjax_med.datasets._heart_disease import heart_disease
from fedjax_med.datasets.synthetic import ragged_population

__all__ = [
    "DATASETS",
    "DatasetInfo",
    "breast_cancer",
    "heart_disease",
    "info",
    "load",
    "ragged_population",
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
