"""`fedjax-med audit` as its user sees it."""

import json

import pytest

from fedjax_med.cli.app import main
from tests.studies.toy import make_hospitals

RUN = "--rounds 2 --no-baselines --quiet --batch-size 8".split()
QUICK = "--runs 20 --shadows 4 --quiet".split()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    make_hospitals().save(folder / "toy")
    arguments = ["run", str(folder / "toy"), "--output", str(folder / "out"), *RUN]
    assert main(arguments) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def audited(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit") / "output"
    arguments = ["audit", str(run), "--output", str(folder), "--epsilon", "4", *QUICK]
    assert main(arguments) == 0
    return folder


@pytest.mark.slow
def test_folder_holds_claim_bounds_attacks_figures_and_report(audited):
    result = json.loads((audited / "audit.json").read_text())
    assert result["claim"]["epsilon"] <= 4
    assert result["claim"]["epsilon"] == pytest.approx(4, abs=1e-2)
    assert not result["audit"]["refuted"]
    assert set(result["membership"]) == {"without protection", "with protection"}
    seen = {row["seen"]: row["psnr"] for row in result["inversion"]}
    # A linear model gives one patient away exactly; who sees nothing has the mean patient.
    assert seen["gradient of one patient"] > 100 > seen["nothing: the mean patient"]
    assert set(result["shares"]) == {"without protection", "with protection"}
    assert len(list((audited / "figures").glob("*.svg"))) == 4
    page = (audited / "report.html").read_text()
    assert page.count("<svg") == 4
    for words in ("which does not refute it", "each record", "PSNR", "LiRA, with protection"):
        assert words in page
    assert "http" not in page.replace("http://www.w3.org", "") and str(audited) not in page


@pytest.mark.slow
def test_nothing_is_written_over(audited, run, capsys):
    before = (audited / "audit.json").read_bytes()
    assert main(["audit", str(run), "--output", str(audited), *QUICK]) == 2
    assert "is not empty and nothing is written over" in capsys.readouterr().err
    assert (audited / "audit.json").read_bytes() == before


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("--runs 5", "--runs must be at least 20, got 5"),
        ("--shadows 7", "--shadows must be even, got 7"),
        ("--epsilon 0", "--epsilon must be above 0 and finite, got 0.0"),
        ("--delta 0.01", "--delta 0.01 has no effect without --epsilon"),
    ],
)
def test_bad_input_is_one_sentence(words, sentence, tmp_path, capsys):
    output = tmp_path / "output"
    assert main(["audit", str(tmp_path), "--output", str(output), *words.split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not output.exists()


@pytest.mark.slow
def test_a_delta_without_accounting_is_refused(run, tmp_path, capsys):
    output = tmp_path / "output"
    assert (
        main(["audit", str(run), "--output", str(output), "--epsilon", "1", "--delta", "0.5"]) == 2
    )
    error = capsys.readouterr().err
    assert "delta must be positive and below 1/" in error and error.count("\n") == 1
    assert not output.exists()


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main(["audit", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "holds no run (there is no config.json)" in error and error.count("\n") == 1


@pytest.mark.slow
def test_other_data_are_refused(run, tmp_path, capsys):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    config = json.loads((copy / "config.json").read_text())
    config["data_fingerprint"] = "0" * 64
    (copy / "config.json").write_text(json.dumps(config))
    assert main(["audit", str(copy), *QUICK]) == 2
    assert "are not those of the run" in capsys.readouterr().err
    assert not (copy / "audit").exists()
