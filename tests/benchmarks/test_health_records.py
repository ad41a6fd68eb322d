"""The page of health records is made of its results, and says of both datasets what it has to."""

import json
from pathlib import Path

import pytest

from benchmarks.health_records.command import DATASETS, MODELS, make_parser
from benchmarks.health_records.table import PAGE, RESULTS, render
from benchmarks.health_records.text import MEANINGS, TITLES
from fedjax_med.studies import BASELINES

REPO = Path(__file__).resolve().parents[2]
SEQUENCES = ("gru", "transformer")


@pytest.fixture(scope="module")
def results():
    return [json.loads(line) for line in (REPO / RESULTS).read_text("utf-8").splitlines()]


def test_the_committed_page_is_that_of_the_committed_results(results):
    assert (REPO / PAGE).read_text("utf-8") == render(results)
    for figure in ("roc", "codes", "record", "importance"):
        assert f"figures/health_records_{figure}.png" in render(results)
        assert (REPO / "docs" / "figures" / f"health_records_{figure}.png").is_file()


def test_every_dataset_and_sequence_model_has_methods_baselines_seeds_and_intervals(results):
    assert set(MEANINGS) == set(DATASETS) and set(TITLES) == set(MODELS)
    for name in DATASETS:
        own = [line for line in results if line["dataset"] == name]
        for model in MODELS:
            of = {x["method"]: x for x in own if x.get("model") == model and "method" in x}
            summary = next(x for x in own if x.get("model") == model and "sentences" in x)
            federated = set(of) - set(BASELINES)
            assert set(BASELINES) <= set(of)
            assert len(federated) >= (4 if model in SEQUENCES else 1)
            assert summary["settings"]["num_seeds"] >= 5
            assert not summary["uncommitted_changes"]
            for line in of.values():
                found = line["pooled"]
                assert found["low"] < found["value"] < found["high"]
                assert len(line["per_hospital"]) == summary["hospitals"]
        compared = [tuple(line["compared"]) for line in own if "compared" in line]
        assert ("gru", "bag") in compared and ("gru", "last-visit") in compared


def test_nothing_beats_the_risk_that_patients_were_drawn_with(results):
    own = [line for line in results if line["dataset"] == "synthetic-ehr"]
    best = next(line for line in own if line.get("method") == "oracle")["pooled"]["value"]
    for line in own:
        if "method" in line and "model" in line:
            assert line["pooled"]["value"] < best


def test_options_are_checked(capsys):
    a = make_parser().parse_args(["--dataset", "synthetic-ehr", "--seeds", "2"])
    assert (a.dataset, a.seeds, a.rounds) == (["synthetic-ehr"], 2, None)
    with pytest.raises(SystemExit):
        make_parser().parse_args(["--seeds", "0"])
    assert "must be a whole number of at least 1, got '0'" in capsys.readouterr().err
