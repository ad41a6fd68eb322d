"""`fedjax-med study` as its user sees it."""

import json

import pytest

from fedjax_med.cli.app import main
from tests.studies.toy import make_hospitals

QUICK = (
    "--methods fedavg --rounds 3 --seeds 1 --splits 2 --resamples 20 --learning-rates 0.1 "
    "--batch-size 8"
).split()


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hospitals") / "toy"
    make_hospitals().save(folder)
    return folder


@pytest.fixture(scope="module")
def studied(hospitals, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "output"
    assert main(["study", str(hospitals), "--output", str(folder), "--quiet", *QUICK]) == 0
    return folder


def test_folder_holds_result_figures_and_report(studied):
    result = json.loads((studied / "result.json").read_text())
    assert result["main_metric"] == "auroc" and result["settings"]["num_seeds"] == 1
    assert {path.suffix for path in (studied / "figures").iterdir()} == {".svg"}
    assert (studied / "figures" / "overview.svg").read_text().startswith("<svg")
    page = (studied / "report.html").read_text()
    for words in (*result["sentences"][:2], "hospital&#x27;s own rate", "North", "age: 40 to 64"):
        assert words in page
    # Self-contained, and without a word of where it was made.
    assert "http" not in page.replace("http://www.w3.org", "") and str(studied) not in page
    assert page.count("<svg") == len(list((studied / "figures").iterdir()))


def test_nothing_is_written_over(studied, hospitals, capsys):
    before = (studied / "result.json").read_bytes()
    assert main(["study", str(hospitals), "--output", str(studied), *QUICK]) == 2
    assert "is not empty and nothing is written over" in capsys.readouterr().err
    assert (studied / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("--methods fedmagic", "methods must be among fedavg,"),
        ("--splits 1", "num_splits must be at least 2, got 1"),
        ("--learning-rates 0.1,fast", "--learning-rates must be numbers separated by commas"),
        ("--learning-rates=-0.1", "learning_rates must be above 0"),
        ("--methods newton --model mlp --hidden 4", "'newton' with model 'mlp'"),
    ],
)
def test_bad_input_is_one_sentence(words, sentence, hospitals, tmp_path, capsys):
    folder = tmp_path / "output"
    assert main(["study", str(hospitals), "--output", str(folder), *words.split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not folder.exists()
