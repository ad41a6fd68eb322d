import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from fedjax_med import datasets
from fedjax_med.data import DataError, check

REPO = Path(__file__).resolve().parents[2]


SURVIVAL = {"ncctg-lung", "tcga-brca", "vaccine-trial"}
REGRESSION = {"diabetes-progression", "flu-ili", "parkinsons-telemonitoring"}
WITH_MISSING_VALUES = {
    "diabetes130",
    "diabetes130-visits",
    "gdsc-ic50",
    "hapmap3",
    "ncctg-lung",
    "synthetic-ehr",
}
# What examples are where they are no table with one outcome each.
SCANS = {"x": np.float32, "mask": np.int32, "spacing": np.float32}
RECORDS = {"codes": np.int32, "labs": np.float32, "visits": np.int32, "static": np.float32}
OTHERS = {
    "diabetes130-visits": RECORDS | {"y": np.int32},
    "gdsc-ic50": {"x": np.float32, "y": np.float32, "measured": np.bool_},
    "mitbih-beats": {"x": np.float32, "y": np.int32},
    "mitbih-rr": {"x": np.float32, "y": np.int32},
    "synthetic-ehr": RECORDS | {"gap": np.float32, "y": np.int32},
    "synthetic-scans": SCANS,
    "synthetic-volumes": SCANS,
    "umls": {"head": np.int32, "relation": np.int32, "tail": np.int32, "client": np.int32},
}
# Those of MedMNIST have files of their own, of which two are here.
IMAGES = {name: {"x": np.uint8, "y": np.int32} for name in ("breast-mnist", "pneumonia-mnist")}
OTHERS |= IMAGES
HERE = [n for n in datasets.DATASETS if not n.endswith("-mnist") or n in IMAGES]


@pytest.mark.parametrize("name", HERE)
def test_every_dataset_is_what_its_entry_says(name, shared_data_dir, request):
    info = datasets.info(name)
    slow_to_read = {"diabetes130": "encounters", "diabetes130-visits": "returns"}
    if name in slow_to_read:
        dataset = request.getfixturevalue(slow_to_read[name])
    else:
        dataset = datasets.load(name, shared_data_dir)
        assert datasets.load(name, shared_data_dir).fingerprint() == dataset.fingerprint()
    check(dataset, allow_missing=name in WITH_MISSING_VALUES)
    assert dataset.name == name
    assert dataset.num_clients == info.clients
    assert sum(arrays.num_examples for arrays in dataset.splits().values()) == info.examples
    assert (dataset.licence, dataset.citation) == (info.licence, info.citation)
    dtypes = {key: leaf.dtype for key, leaf in dataset.train.examples.items()}
    if name in OTHERS:
        assert dtypes == OTHERS[name]
        return
    assert len(dataset.feature_names) == dataset.train.examples["x"].shape[1] or name == "synthetic"
    if name in SURVIVAL:
        assert dtypes == {"x": np.float32, "time": np.float32, "event": np.int32}
    else:
        assert dtypes == {"x": np.float32, "y": np.float32 if name in REGRESSION else np.int32}
    assert np.isnan(dataset.train.examples["x"]).any() == (name in WITH_MISSING_VALUES)


def test_missing_values_are_not_standardised_in_silence(shared_data_dir):
    with pytest.raises(DataError) as error:
        datasets.ncctg_lung(data_dir=shared_data_dir, standardize="global")
    assert str(error.value) == (
        "standardize must be None for ncctg-lung, got 'global': values are missing, first in "
        "column 'ph.ecog', so impute them before."
    )


@pytest.mark.parametrize(
    "name, hint",
    [
        ("heart_disease", " Did you mean 'heart-disease'?"),
        ("Brest-Cancer", " Did you mean 'breast-cancer'?"),
        ("mnist", " Did you mean 'oct-mnist'?"),
        ("cities", ""),
    ],
)
def test_unknown_dataset_names_the_known_ones(name, hint):
    with pytest.raises(DataError) as error:
        datasets.load(name)
    assert str(error.value) == (
        f"unknown dataset {name!r}; the datasets are {', '.join(datasets.DATASETS)}.{hint}"
    )


def test_unknown_option_names_the_known_ones():
    with pytest.raises(DataError) as error:
        datasets.load("breast-cancer", standardise="global")
    assert str(error.value) == (
        "breast-cancer has no option 'standardise'; its options are standardize, validation, "
        "test, seed."
    )
    with pytest.raises(DataError, match="must be 'global', 'per-client' or None, got 'x'"):
        datasets.load("breast-cancer", standardize="x")


def test_listing_datasets_imports_nothing_heavy():
    code = (
        "import sys, fedjax_med.datasets as d; print(len(d.DATASETS));"
        "print([m for m in ('jax', 'sklearn', 'pooch', 'pyarrow', 'scipy', 'requests') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == [str(len(datasets.DATASETS)), "[]"]


def test_breast_cancer_has_every_patient_once_in_unequal_hospitals():
    dataset = datasets.breast_cancer(standardize=None)
    table = load_breast_cancer()
    parts = dataset.splits().values()
    rows = np.concatenate([arrays.examples["x"] for arrays in parts])
    labels = np.concatenate([arrays.examples["y"] for arrays in parts])
    got = np.column_stack([rows, labels])
    want = np.column_stack([table.data.astype(np.float32), table.target == 0])
    order = np.lexsort(got.T), np.lexsort(want.T)
    np.testing.assert_array_equal(got[order[0]], want[order[1]])
    counts = {row["name"]: row["label_counts"] for row in dataset.summary()}
    assert counts == {
        "Hospital A": {"benign": 147, "malignant": 63},
        "Hospital B": {"benign": 75, "malignant": 75},
        "Hospital C": {"benign": 80, "malignant": 20},
        "Hospital D": {"benign": 39, "malignant": 26},
        "Hospital E": {"benign": 16, "malignant": 28},
    }
    assert dataset.feature_names == tuple(table.feature_names)
    assert dataset.feature_names[0] == "mean radius"
    assert "simulated" in dataset.source


def test_breast_cancer_splits_every_hospital_in_proportion():
    dataset = datasets.breast_cancer()
    assert dataset.train.sizes.tolist() == [126, 90, 60, 39, 26]
    assert dataset.validation.sizes.tolist() == [42, 30, 20, 13, 9]
    assert dataset.test.sizes.tolist() == [42, 30, 20, 13, 9]
    for i, share in enumerate([0.3, 0.5, 0.2, 0.4, 28 / 44]):
        for arrays in dataset.splits().values():
            y = arrays.client(i)["y"]
            assert abs(y.sum() - share * len(y)) <= 1.5


def test_breast_cancer_is_standardised_over_all_training_patients():
    x = datasets.breast_cancer().train.examples["x"].astype(np.float64)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(x.std(axis=0), 1, rtol=1e-5)


def test_malignant_tumours_are_larger():
    dataset = datasets.breast_cancer()
    radius, y = dataset.train.examples["x"][:, 0], dataset.train.examples["y"]
    assert radius[y == 1].mean() > radius[y == 0].mean() + 1


def test_ragged_population_is_what_it_says():
    dataset = datasets.ragged_population(20_000, num_features=3, min_size=2, max_size=5, seed=1)
    sizes = dataset.train.sizes
    assert set(sizes) == {2, 3, 4, 5}
    # Mean of 20,000 uniform sizes: standard deviation 1.12 / 141 = 0.008; five of them.
    assert abs(sizes.mean() - 3.5) < 0.04
    x, y = dataset.train.examples["x"], dataset.train.examples["y"]
    assert x.shape == (sizes.sum(), 3)
    assert np.abs(x.mean(axis=0)).max() < 0.02
    assert np.abs(x.std(axis=0) - 1).max() < 0.02
    assert set(y) == {0, 1}
    # The labels follow a linear teacher: the mean difference of the classes points along it.
    direction = x[y == 1].mean(axis=0) - x[y == 0].mean(axis=0)
    score = x @ direction
    assert score[y == 1].mean() - score[y == 0].mean() > 0.5 * score.std()
    other = datasets.ragged_population(20_000, num_features=3, min_size=2, max_size=5, seed=2)
    assert other.fingerprint() != dataset.fingerprint()


def test_ragged_population_labels_are_logistic():
    # One feature, one teacher w: the slope of a logistic regression of y on x given the
    # client shifts (normal, variance 1) is about w / sqrt(1 + 0.346) (the usual attenuation).
    dataset = datasets.ragged_population(100_000, num_features=1, seed=3)
    rng = np.random.default_rng(3)
    rng.integers(1, 20, 100_000, np.int64, endpoint=True)
    teacher = float(rng.standard_normal(1, np.float32)[0])
    x, y = dataset.train.examples["x"][:, 0].astype(np.float64), dataset.train.examples["y"]
    slope = 0.0
    for _ in range(20):  # Newton's method for the one-parameter logistic regression
        p = 1 / (1 + np.exp(-slope * x))
        slope += (x * (y - p)).sum() / (x * x * p * (1 - p)).sum()
    assert slope == pytest.approx(teacher / np.sqrt(1.346), rel=0.05)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"num_clients": 0}, "num_clients must be at least 1, got 0"),
        ({"num_features": 0}, "num_features must be at least 1"),
        ({"min_size": 0}, "1 <= min_size <= max_size, got 0 and 20"),
        ({"min_size": 30}, "1 <= min_size <= max_size, got 30 and 20"),
    ],
)
def test_ragged_population_refuses(options, sentence):
    with pytest.raises(DataError, match=sentence):
        datasets.ragged_population(**options)
