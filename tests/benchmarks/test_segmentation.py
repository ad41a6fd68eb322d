"""The page of segmentation is made of its results."""

import json
from pathlib import Path

import pytest

from benchmarks.segmentation.command import CASES, METRICS, main, rows
from benchmarks.segmentation.table import PAGE, RESULTS, render
from benchmarks.segmentation.text import MEANINGS
from fedjax_med.studies import BASELINES

REPO = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"cpu_count": 2, "processor": "a processor", "jax": "0", "command": "python -m x"}


def results():
    return [json.loads(line) for line in (REPO / RESULTS).read_text("utf-8").splitlines()]


def test_the_committed_page_is_that_of_the_committed_results():
    assert (REPO / PAGE).read_text("utf-8") == render(results())


def test_results_have_baselines_enough_methods_seeds_and_intervals():
    lines = results()
    summaries = {line["case"]: line for line in lines if "sentences" in line}
    assert set(summaries) <= set(CASES) == set(MEANINGS)
    for case, summary in summaries.items():
        assert MEANINGS[case] and not summary["uncommitted_changes"]
        of = {line["method"]: line for line in lines if line["case"] == case and "method" in line}
        federated = set(of) - set(BASELINES)
        assert set(of) >= set(BASELINES)
        assert len(federated) >= (4 if case == "2-D" else 1)
        assert summary["settings"]["num_seeds"] >= (5 if case == "2-D" else 2)
        for name in federated:
            dice = of[name]["dice"]["mean"]
            assert 0 < dice["low"] < dice["value"] < dice["high"] < 1
        for part in ("outlines", "dice"):
            assert (REPO / "docs" / "figures" / f"segmentation-{case}-{part}.png").is_file()


def of_method(value, title, is_baseline):
    found = {
        "mean": {"value": value, "low": value - 0.1, "high": value + 0.1},
        "pooled": {"value": value, "low": None, "high": None},
        "over_seeds": 0.01,
        "worst": {"hospital": "B", "value": value - 0.2},
        "per_hospital": {"A": value, "B": value - 0.2},
    }
    metrics = dict.fromkeys(METRICS, found)
    return {"title": title, "is_baseline": is_baseline, "metrics": metrics}


def test_lines_of_a_result_and_their_table():
    result = {
        "methods": {
            "local": of_method(0.4, "local only", True),
            "fedavg": of_method(0.5, "FedAvg", False),
        },
        "numbers": {"local": 0.01, "fedavg": 0.003},
        "comparisons": {"local": {"difference": 0.1, "low": 0.05, "high": 0.15}},
        "chosen": "fedavg",
        "best_sites": ["A"],
        "dataset": {"clients": [{"name": "A", "train": 3}, {"name": "B", "train": 4}]},
        "settings": {
            "model": "unet",
            "num_seeds": 5,
            "rounds": 2,
            "local_epochs": 1,
            "batch_size": 4,
        },
        "sentences": ["It helps."],
        "seconds": {},
    }
    *lines, summary = rows(result)
    assert [line["method"] for line in lines] == ["local", "fedavg"]
    assert lines[0]["learning_rate"] == 0.01 and set(METRICS) < set(lines[0])
    case = {"case": "2-D", "dataset": "synthetic-scans"}
    page = render([*(case | line for line in lines), case | summary | ENVIRONMENT])
    assert (
        "| local only | 0.400 (0.300 to 0.500) | +0.100 (+0.050 to +0.150) | 0.4 (0.3 to 0.5) | "
        "0.40 (0.30 to 0.50) | 0.200 (B) | 0.200 | 0.010 |"
    ) in page
    assert "| **FedAvg** | 0.500 | 0.300 |" in page
    assert "Scans of training, validation and test: A 3, B 4." in page and "It helps." in page


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--case", "4-D"], "Argument --case: invalid choice: '4-D'"),
        (["--figures", "nowhere"], "--figures nowhere is no folder"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err
