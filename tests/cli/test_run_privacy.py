"""`fedjax-med run` with differential privacy: what is told, and what is refused in one sentence."""

import json

import pytest

RUN = ("run", "breast-cancer", "--rounds", "4", "--no-baselines", "--output", "run")


def result_of(folder):
    return json.loads((folder / "run" / "result.json").read_text())


def test_hospitals(command, tmp_path):
    status, out, err = command(*RUN, "--epsilon", "5", "--delta", "0.01", "--clip-norm", "1")
    assert status == 0, err
    told = result_of(tmp_path)["privacy"]
    assert 4.99 < told["epsilon"] == told["epsilon_pld"] <= 5 < told["epsilon_rdp"]
    assert f"epsilon {told['epsilon']:.4g} for every hospital at delta 0.01" in out
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Protected: each hospital" in report and "by PLD and" in report
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    spent = [json.loads(line)["epsilon"] for line in lines if "epsilon" in line]
    assert len(spent) == 4 and spent == sorted(spent)
    assert spent[-1] == told["epsilon"]
    # All hospitals count alike, and the options are kept for a resume.
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert "equal" in json.dumps(config) and '"unit": "hospital"' in json.dumps(config)


def test_records(command, tmp_path):
    status, _, err = command(
        *RUN, "--unit", "record", "--noise-multiplier", "2", "--clip-norm", "1", "--local-steps", "2"
    )  # fmt: skip
    assert status == 0, err
    told = result_of(tmp_path)["privacy"]
    assert told["unit"] == "record" and 0 < told["epsilon"]
    assert "each record" in told["statement"]


def test_a_budget_ends_the_run(command, tmp_path):
    noise = ("--noise-multiplier", "3", "--clip-norm", "1", "--delta", "0.01")
    assert command(*RUN, *noise, "--epsilon", "0.9")[0] == 0
    result = result_of(tmp_path)
    assert 0 < result["rounds"] < 4 and result["privacy"]["epsilon"] <= 0.9


@pytest.mark.parametrize(
    "options, message",
    [
        (("--epsilon", "5"), "needs --clip-norm"),
        (("--epsilon", "-1", "--clip-norm", "1"), "epsilon must be positive"),
        (("--delta", "0.01"), "--delta 0.01 has no effect without privacy"),
        (("--unit", "record"), "--unit record has no effect without privacy"),
        (("--epsilon", "5", "--clip-norm", "1", "--delta", "0.9"), "delta must be positive and below"),
        (("--epsilon", "5", "--clip-norm", "1", "--aggregator", "median"), "no known accounting"),
        (("--epsilon", "5", "--clip-norm", "1", "--weighting", "examples"), "all hospitals count alike"),
        (
            ("--epsilon", "0.1", "--noise-multiplier", "1", "--clip-norm", "1"),
            "the first round would already spend",
        ),
    ],
)  # fmt: skip
def test_one_sentence_and_nothing_written(command, tmp_path, options, message):
    status, _, err = command(*RUN, *options)
    assert status == 2 and message in err and err.count("\n") <= 2
    assert not (tmp_path / "run").exists()
