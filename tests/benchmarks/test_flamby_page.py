"""The page of FLamby's benchmark says what its results say."""

import json

import numpy as np
import pytest

from benchmarks import records
from benchmarks.flamby import command, judging, table
from benchmarks.flamby.published import PUBLISHED, RERUN


def test_the_page_is_made_from_the_results():
    lines = table.read(records.REPO / table.RESULTS)
    assert (records.REPO / table.PAGE).read_text() == table.document(lines)
    assert not any("/" in line["command"] for line in lines if "command" in line)


def test_what_the_page_says_is_so():
    results = table.Results(table.read(records.REPO / table.RESULTS))
    heart, tcga = "heart-disease", "tcga-brca"
    assert results.few == 20 and results.many >= 100

    def mean(dataset, method, inputs="FLamby's", seeds=None):
        return results.get(dataset, method, inputs, seeds)["mean"]

    for method, other in RERUN[heart].items():
        assert abs(mean(heart, method, seeds=results.many) - other) < 0.02, method
    for method in ("FedAdagrad", "FedAdam", "FedYogi"):
        assert abs(mean(tcga, method) - RERUN[tcga][method]) < 0.02
        gain = results.get(heart, method, "federated")["gain"]
        assert mean(heart, method, "federated") >= 0.80 and gain["low"] > 0
    for method in ("FedAdagrad", "FedAdam", "FedYogi", "Newton"):
        assert mean(tcga, method, "federated") >= 0.82
    assert mean(heart, "Newton", "federated") >= 0.80
    assert (
        mean(heart, "FedAvg", seeds=results.many) < results.get(heart, judging.MAJORITY, "")["mean"]
    )
    # A centre's model that was never handed on has the published pattern, a travelling one not.
    published = np.array(PUBLISHED[heart]["Cyclic"].centres)

    def distance(method):
        ours = results.get(heart, method, "FLamby's", results.many)["centres"]
        return np.abs(np.array(ours) - published).max()

    assert distance("Cyclic, not handed on") < 0.02 < 0.1 < distance("Cyclic")


@pytest.mark.parametrize(
    "main, arguments, words",
    [
        (command.main, ["--seeds", "1"], "at least 2, got '1'"),
        (command.main, ["--data-dir", "nowhere"], "nowhere"),
        (table.main, ["missing.jsonl"], "cannot read missing.jsonl"),
    ],
)
def test_bad_arguments_are_one_sentence(main, arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert words.lower() in message.lower() and message.count("\n") == 1


def test_results_of_something_else_are_refused(tmp_path):
    (tmp_path / "other.jsonl").write_text(json.dumps({"benchmark": "rounds", "command": ""}) + "\n")
    with pytest.raises(ValueError, match=r"no results of benchmarks\.flamby"):
        table.read(tmp_path / "other.jsonl")
