import csv
import shutil

import numpy as np
import pytest

from fedjax_med import datasets
from fedjax_med.data import DataError, check

FILES = {
    "Cleveland": "processed.cleveland.data",
    "Hungary": "processed.hungarian.data",
    "Switzerland": "processed.switzerland.data",
    "VA Long Beach": "processed.va.data",
}


@pytest.fixture(scope="module")
def raw(shared_data_dir):
    return datasets.heart_disease(data_dir=shared_data_dir, standardize=None)


def read_patient(line):
    """One line of a raw file, coded by hand: `(features, label)`."""
    columns = [float(value) for value in line.split(",")[:10]]
    age, sex, cp, trestbps, chol, fbs, restecg, thalach, exang, oldpeak = columns
    indicators = [cp == 2, cp == 3, cp == 4, restecg == 1, restecg == 2]
    plain = [age, sex, trestbps, chol, fbs, thalach, exang, oldpeak]
    return np.array(plain + indicators, np.float32), int(float(line.split(",")[13]) > 0)


def test_rows_are_those_of_flamby_in_order(raw, shared_data_dir):
    folder = shared_data_dir / "heart_disease"
    with open(folder / "flamby_split.csv", newline="") as file:
        listed = list(csv.DictReader(file))
    assert len(listed) == 740
    seen = 0
    for center, (name, file_name) in enumerate(FILES.items()):
        assert raw.client_names[center] == name
        lines = (folder / file_name).read_text().splitlines()
        for split in ("train", "test"):
            rows = [
                (int(r["row"]), int(r["label"]))
                for r in listed
                if r["file"] == file_name and r["split"] == split and r["center"] == str(center)
            ]
            patients = [read_patient(lines[row]) for row, _ in rows]
            got = raw.splits()[split].client(center)
            np.testing.assert_array_equal(got["x"], [x for x, _ in patients])
            np.testing.assert_array_equal(got["y"], [y for _, y in patients])
            np.testing.assert_array_equal(got["y"], [label for _, label in rows])
            seen += len(rows)
    assert seen == 740


def test_counts_and_class_balance_are_the_published_ones(raw):
    assert raw.train.sizes.tolist() == [199, 172, 30, 85]
    assert raw.test.sizes.tolist() == [104, 89, 16, 45]
    positives = {
        split: [int(arrays.client(i)["y"].sum()) for i in range(4)]
        for split, arrays in raw.splits().items()
    }
    assert positives == {"train": [91, 65, 30, 66], "test": [48, 33, 15, 35]}
    assert raw.train.examples["x"].dtype == np.float32
    assert raw.train.examples["y"].dtype == np.int32
    check(raw, num_classes=2)


def test_features_are_named_in_flambys_order(raw):
    assert ", ".join(raw.feature_names) == (
        "age, sex, trestbps, chol, fbs, thalach, exang, oldpeak, cp=2, cp=3, cp=4, "
        "restecg=1, restecg=2"
    )
    column = dict(zip(raw.feature_names, raw.train.examples["x"].T, strict=True))
    assert 25 < column["age"].min() < column["age"].max() < 80
    assert 60 <= column["thalach"].min() < column["thalach"].max() <= 202
    assert set(column["sex"]) == {0.0, 1.0}
    switzerland = raw.train.client(raw.client_index("Switzerland"))
    assert not switzerland["x"][:, raw.feature_names.index("chol")].any()  # not measured


def test_global_standardisation_is_the_pooled_one(raw, shared_data_dir):
    got = datasets.heart_disease(data_dir=shared_data_dir)
    x = raw.train.examples["x"].astype(np.float64)
    for split, arrays in raw.splits().items():
        want = (arrays.examples["x"] - x.mean(axis=0)) / x.std(axis=0)
        np.testing.assert_allclose(got.splits()[split].examples["x"], want, rtol=1e-6, atol=1e-6)


def test_per_client_standardisation_is_flambys(raw, shared_data_dir):
    got = datasets.heart_disease(data_dir=shared_data_dir, standardize="per-client")
    for i in range(4):
        x = raw.train.client(i)["x"].astype(np.float64)
        for split, arrays in raw.splits().items():
            want = (arrays.client(i)["x"] - x.mean(axis=0)) / (x.std(axis=0, ddof=1) + 1e-9)
            np.testing.assert_allclose(
                got.splits()[split].client(i)["x"], want, rtol=1e-5, atol=1e-5
            )


def test_validation_comes_out_of_training_before_statistics(raw, shared_data_dir):
    options = {"data_dir": shared_data_dir, "validation": 0.2, "seed": 4}
    divided = datasets.heart_disease(standardize=None, **options)
    assert divided.validation.sizes.tolist() == [40, 34, 6, 17]
    assert (divided.train.sizes + divided.validation.sizes).tolist() == raw.train.sizes.tolist()
    np.testing.assert_array_equal(divided.test.examples["x"], raw.test.examples["x"])
    scaled = datasets.heart_disease(**options).train.examples["x"]
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-5)


def test_damaged_file_is_named(shared_data_dir, tmp_path):
    for file_name in FILES.values():
        shutil.copyfile(shared_data_dir / "heart_disease" / file_name, tmp_path / file_name)
    va = tmp_path / "processed.va.data"
    content = va.read_bytes()
    va.write_bytes(content[:-20])
    with pytest.raises(DataError, match=r"processed\.va\.data is damaged .* expected e7c93d8d0d2a"):
        datasets.heart_disease(data_dir=tmp_path)
    va.write_bytes(content)
    assert datasets.heart_disease(data_dir=tmp_path).train.num_examples == 486
    va.unlink()
    with pytest.raises(DataError, match=r"processed\.va\.data of heart-disease is neither in"):
        datasets.heart_disease(data_dir=tmp_path)
