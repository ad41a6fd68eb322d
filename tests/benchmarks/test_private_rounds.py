"""What a private round costs: the table of the guide is that of the results, every way runs."""

import json
from pathlib import Path

import pytest

from benchmarks import private_rounds

REPO = Path(__file__).parents[2]
RESULTS = REPO / "benchmarks/results/private_rounds-cpu.jsonl"


def test_the_guide_has_the_table_of_the_results():
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    assert private_rounds.table(lines) in (REPO / "docs/privacy.md").read_text()
    assert {(line["workload"], line["way"]) for line in lines} == {
        (name, way) for name in private_rounds.WORKLOADS for way in private_rounds.WAYS
    }
    assert not any(line["uncommitted_changes"] for line in lines)


@pytest.mark.slow
def test_every_way_runs(tmp_path):
    path = tmp_path / "out.jsonl"
    arguments = ["--workload", "tabular-logreg", "--rounds", "4", "--turns", "1"]
    private_rounds.main([*arguments, "--json", str(path)])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["way"] for line in lines] == list(private_rounds.WAYS)
    assert all(line["seconds_per_round"] > 0 for line in lines)


@pytest.mark.parametrize("option", [["--turns", "0"], ["--way", "trust"]])
def test_bad_arguments_are_one_sentence(option, capsys):
    with pytest.raises(SystemExit) as error:
        private_rounds.main(option)
    assert error.value.code == 2
    assert option[1] in capsys.readouterr().err
