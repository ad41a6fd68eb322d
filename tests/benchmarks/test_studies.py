"""The page of all studies is made of their results, and of every table there is one."""

import json
from pathlib import Path

from benchmarks.studies.command import DATASETS, rows
from benchmarks.studies.table import PAGE, RESULTS, render
from benchmarks.studies.text import MEANINGS
from fedjax_med.studies import BASELINES, METHODS

REPO = Path(__file__).resolve().parents[2]


def results():
    return [json.loads(line) for line in (REPO / RESULTS).read_text("utf-8").splitlines()]


def test_the_committed_page_is_that_of_the_committed_results():
    assert (REPO / PAGE).read_text("utf-8") == render(results())


def test_every_table_has_all_baselines_enough_methods_seeds_and_intervals():
    lines = results()
    summaries = {line["dataset"]: line for line in lines if "sentences" in line}
    assert set(summaries) == set(DATASETS) == set(MEANINGS)
    for name, summary in summaries.items():
        of = {
            line["method"]: line for line in lines if line["dataset"] == name and "method" in line
        }
        assert set(of) == {*BASELINES, *METHODS}
        assert summary["settings"]["num_seeds"] >= 5 and summary["settings"]["num_splits"] >= 3
        for method in METHODS:
            assert (
                of[method]["mean"]["low"] < of[method]["mean"]["value"] < of[method]["mean"]["high"]
            )
            if method != "ditto":
                assert of[method]["left_out_mean"]["value"] is not None
        assert "/" not in summary["command"].replace("python -m", "")


def test_lines_of_a_result():
    estimate = {"value": 0.8, "low": 0.7, "high": 0.9}
    found = {
        "mean": estimate,
        "pooled": estimate,
        "over_seeds": 0.0,
        "worst": {},
        "per_hospital": {},
    }
    method = {"title": "FedAvg", "is_baseline": False, "metrics": {"auroc": found, "f1": found}}
    result = {
        "main_metric": "auroc",
        "methods": {"fedavg": method},
        "left_out": {},
        "numbers": {"fedavg": 0.1},
        "comparisons": {},
        "comparisons_pooled": {},
        "chosen": "fedavg",
        "kind": "binary",
        "ideal": {"auroc": 1.0},
        "dataset": {"clients": [{"train": 3}, {"train": 4}]},
        "settings": {},
        "sentences": ["."],
        "coefficients": None,
        "seconds": {},
    }
    of_method, summary = rows(result)
    assert of_method["mean"] == estimate and of_method["left_out_mean"] is None
    assert set(of_method["also"]) == {"auroc"} and of_method["number"] == 0.1
    assert summary["patients"] == 7 and summary["hospitals"] == 2
