"""The page of medical images is made of its results, and its judging is right."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.imaging.measure import Said, estimates, in_official_order, trivial
from benchmarks.imaging.setting import DIVISIONS, Division, joined, populations
from benchmarks.imaging.table import PAGE, RESULTS, render

REPO = Path(__file__).resolve().parents[2]


def results():
    return [json.loads(line) for line in (REPO / RESULTS).read_text("utf-8").splitlines()]


def test_the_committed_page_is_that_of_the_committed_results():
    assert (REPO / PAGE).read_text("utf-8") == render(results())


def test_results_are_of_clean_code_and_enough_seeds():
    for line in results():
        assert line["seeds"] >= (10 if line["case"] == "scanners" else 5)
        assert not line["uncommitted_changes"] and "/" not in line["command"]
        for metric in ("auroc", "accuracy"):
            found = line[metric]
            assert found["low"] < found["mean"] < found["high"]
            assert found["mean"] == pytest.approx(np.mean(found["by_seed"]), abs=1e-12)


def test_outputs_are_put_in_the_official_order(shared_data_dir):
    parts = populations("breast-mnist", str(shared_data_dir), DIVISIONS[1:2], 2)
    names = joined(parts).client_names
    assert names[5] == "1: Hospital 1" and len(names) == 10
    rows = [part.dataset.test.examples["row"] / 1000 for part in parts]
    said = in_official_order(parts, rows)
    np.testing.assert_array_equal(said.probability, np.tile(np.arange(156) / 1000, (2, 1)))
    with np.load(shared_data_dir / "medmnist_breast" / "breastmnist.npz") as archive:
        assert said.labels.sum() == archive["test_labels"].sum()
    for part, own, share in zip(parts, said.hospital, trivial(parts), strict=True):
        assert np.bincount(own, minlength=5).tolist() == part.dataset.test.sizes.tolist()
        first = part.dataset.train.client(0)["y"].mean()
        assert (share[: part.dataset.test.sizes[0]] == first).all()
    assert [d.title for d in (Division("iid"), DIVISIONS[2])] == ["IID", "Dirichlet 0.1"]


def test_estimates_by_hand():
    labels = np.array([0, 0, 1, 1, 0, 1, 1, 1])
    right = np.where(labels == 1, 0.9, 0.1)
    wrong = right.copy()
    wrong[[0, 2]] = wrong[[2, 0]]
    hospital = np.array([[0, 0, 0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 1, 1, 1, 2]])
    said = Said(np.stack([right, wrong]), hospital, labels)
    found = estimates(said, Said(np.stack([right, right]), hospital, labels))
    # Of 15 pairs, 4 + 2 touch the two that are exchanged: 1 is reversed and 6 are ties.
    assert found["auroc"]["by_seed"] == [1.0, pytest.approx((15 - 1 - 6 + 3) / 15)]
    assert found["accuracy"]["mean"] == pytest.approx((1 + 6 / 8) / 2)
    assert found["accuracy"]["minus"] == pytest.approx(-1 / 8)
    assert found["auroc"]["hospitals_judged"] == 2.0
    # Within the first hospital 1 of 4 pairs is reversed and 2 are ties.
    assert found["auroc"]["hospitals_mean"] == pytest.approx((1 + (2 / 4 + 1) / 2) / 2)
    assert found["auroc"]["hospitals_worst"] == pytest.approx((1 + 2 / 4) / 2)
