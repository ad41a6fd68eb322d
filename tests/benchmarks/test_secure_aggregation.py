"""The benchmark of secure aggregation, and that the page shows its results."""

import json
from pathlib import Path

import pytest

from benchmarks import secure_aggregation

REPO = Path(__file__).resolve().parents[2]
RESULTS = REPO / "benchmarks" / "results" / "secure_aggregation-cpu.jsonl"


def results():
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def test_the_page_shows_the_results():
    page = (REPO / "docs" / "secure_aggregation.md").read_text()
    assert secure_aggregation.table(results()) in page


def test_results_are_of_a_commit_and_say_what_the_page_says():
    rows = results()
    assert not any(r["uncommitted_changes"] for r in rows)
    assert len({(r["dim"], r["num_clients"], r["method"]) for r in rows}) == len(rows)
    for r in rows:
        # A masked number is a word; a ciphertext is more than ten times as large.
        assert (r["client_bytes"] > 50 * r["dim"]) == (r["method"] == "ckks")
        assert r["max_error"] < 1e-6


@pytest.mark.parametrize("method", secure_aggregation.METHODS)
def test_a_small_case(method, capsys):
    options = ["--dims", "20", "--clients", "4", "--repeats", "1", "--method", method]
    secure_aggregation.main(options)
    (line,) = [json.loads(x) for x in capsys.readouterr().out.splitlines()]
    assert line["client_cpu_s"] >= 0 and line["max_error"] < 1e-6
    assert secure_aggregation.table([line]).count("\n") == 2


def test_bad_arguments_are_one_sentence(capsys):
    with pytest.raises(SystemExit):
        secure_aggregation.main(["--clients", "3"])
    assert "at least 4, got '3'" in capsys.readouterr().err
