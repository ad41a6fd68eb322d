"""Wisconsin diagnostic breast cancer: real patients in five simulated hospitals.

The 569 patients were all seen at the University of Wisconsin. The data set does not divide
them into sites, so the five hospitals here are simulated: patients are assigned at random,
in fixed numbers that give hospitals of unequal size and of unequal share of malignant
tumours. They share scanners and protocols, so features differ between hospitals only as far
as the diagnoses do.

References:
  Street, Wolberg, Mangasarian, SPIE 1905, 1993. https://doi.org/10.1117/12.148698
"""

from typing import Any

import numpy as np

from fedjax_med.data import FederatedDataset
from fedjax_med.data._keys import permutation
from fedjax_med.datasets._standardized import standardized

LICENCE = "CC BY 4.0"
SOURCE = (
    "UCI Machine Learning Repository, dataset 17, as bundled with scikit-learn; the division "
    "into five hospitals is simulated"
)
CITATION = (
    "Wolberg W, Mangasarian O, Street N, Street W. Breast Cancer Wisconsin (Diagnostic). UCI "
    "Machine Learning Repository, 1993. doi:10.24432/C5DW2B."
)

_HOSPITALS = {  # name: (benign, malignant); 357 and 212 in all
    "Hospital A": (147, 63),
    "Hospital B": (75, 75),
    "Hospital C": (80, 20),
    "Hospital D": (39, 26),
    "Hospital E": (16, 28),
}


def breast_cancer(
    *,
    standardize: str | None = "global",
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
) -> FederatedDataset:
    """Loads 569 patients in five simulated hospitals; needs no network.

    `x` is float32 `[N, 30]`: mean, standard error and worst value of ten measurements of the
    cell nuclei in a fine needle aspirate. `y` is int32 `[N]`, **1 for malignant** (the other
    way round than in scikit-learn, where malignant is 0), so that the rarer class that must
    not be missed is the positive one.

    Hospitals A to E have 210, 150, 100, 65 and 44 patients, of whom 30, 50, 20, 40 and 64 %
    have a malignant tumour. Which patient is at which hospital is fixed.

    Args:
      standardize: "global" uses the mean and standard deviation over all hospitals'
        training patients, obtained from per-hospital sums; "per-client" each hospital's
        own; None leaves units as they are.
      validation: fraction of each hospital's patients for validation, stratified.
      test: fraction of each hospital's patients for test, stratified.
      seed: of the division into training, validation and test.

    Raises:
      DataError: if an option is not allowed.
    """
    from sklearn.datasets import load_breast_cancer  # slow to import

    table: Any = load_breast_cancer()
    malignant = table.target == 0
    examples = {"x": table.data.astype(np.float32), "y": malignant.astype(np.int32)}
    hospital = np.empty(len(malignant), np.int64)
    for label in (0, 1):
        rows = np.flatnonzero(malignant == label)
        # Keys of our own, so that no version of NumPy moves a patient elsewhere.
        rows = rows[permutation(0, f"breast-cancer {label}", len(rows))]
        hospital[rows] = np.repeat(np.arange(5), [sizes[label] for sizes in _HOSPITALS.values()])
    dataset = FederatedDataset.from_assignment(
        examples,
        hospital,
        tuple(_HOSPITALS),
        name="breast-cancer",
        feature_names=tuple(str(name) for name in table.feature_names),
        label_names=("benign", "malignant"),
        licence=LICENCE,
        source=SOURCE,
        citation=CITATION,
    )
    return standardized(dataset.split(validation=validation, test=test, seed=seed), standardize)
