"""The page of what privacy costs is made of its results, and its table of FLamby of the accounting."""

import pytest

from benchmarks.flamby.privacy import ASKED, CENTRES, row
from benchmarks.privacy_page import FLAMBY, PAGE, RESULTS, read, render
from benchmarks.privacy_tradeoff import SETTINGS
from benchmarks.records import REPO


def test_the_committed_page_is_that_of_the_committed_results():
    assert (REPO / PAGE).read_text("utf-8") == render(read(RESULTS), read(FLAMBY))


def test_results_are_of_all_that_was_asked_for_and_within_their_budgets():
    lines = read(RESULTS)
    for line in lines:
        assert line["dataset"] in SETTINGS and not line["uncommitted_changes"]
        asked = SETTINGS[line["dataset"]]["epsilons"]
        for unit in ("record", "hospital"):
            points = [p for p in line["points"] if p["unit"] == unit]
            assert [p["epsilon"] for p in points] == list(asked)
            assert all(0.99 * p["epsilon"] < p["spent"] <= p["epsilon"] for p in points)
    assert {(r["epsilon"], r["delta"]) for r in read(FLAMBY)} == set(ASKED)
    assert {r["centre"] for r in read(FLAMBY)} == set(CENTRES)


def test_flamby_spends_more_than_it_asks_for():
    for line in read(FLAMBY):
        assert line["epsilon_of_steps"] > line["epsilon"]
        assert line["noise_of_steps"] > line["noise_of_epochs"]


@pytest.mark.slow
def test_a_row_of_flamby_is_made_again():
    line = next(r for r in read(FLAMBY) if r["centre"] == "Switzerland" and r["epsilon"] == 1.0)
    again = row("Switzerland", 1.0, line["delta"])
    for name in ("noise_of_epochs", "epsilon_of_steps", "noise_of_steps"):
        assert again[name] == pytest.approx(line[name], rel=1e-6)
