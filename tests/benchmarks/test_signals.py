"""Numbers of signals against scikit-learn and by hand; the page is made of its results."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from benchmarks.signals import judge, stream, table
from benchmarks.signals.command import NAMES, make_parser
from benchmarks.signals.figures import chosen_beats
from fedjax_med.evaluation import class_metrics, multiclass_metrics, regression_metrics

REPO = Path(__file__).resolve().parents[2]
CLASSES = ("N", "S", "V")


def judging(seed=0, num=300, patients=5):
    rng = np.random.default_rng(seed)
    general = multiclass_metrics()
    metrics = {"f1": general["f1"], "accuracy": general["accuracy"]}
    return judge.Judging(
        lambda logits: logits,
        {**metrics, **class_metrics(CLASSES, ("S",))},
        rng.choice(3, num, p=[0.7, 0.2, 0.1]),
        np.sort(rng.integers(patients, size=num)),
        tuple("ABCDE"[:patients]),
    )


def outputs(seed, num=300):
    return np.random.default_rng(seed).dirichlet(np.ones(3), num)


def test_equal_rows_counted_once_change_no_value():
    of, made = judging(), np.stack([outputs(1), outputs(2)])
    found = judge.judged(of, made)
    called = made.argmax(axis=2)
    want = np.mean([sk.f1_score(of.labels, c, average="macro") for c in called])
    np.testing.assert_allclose(found["pooled"]["f1"]["value"], want)
    recall = np.mean([sk.recall_score(of.labels == 1, c == 1) for c in called])
    np.testing.assert_allclose(found["pooled"]["sensitivity_of_S"]["value"], recall)
    own = [
        np.mean(
            [
                sk.f1_score(of.labels[of.client == p], c[of.client == p], average="macro")
                for c in called
            ]
        )
        for p in range(5)
    ]
    np.testing.assert_allclose([*found["per_patient"].values()], own)
    np.testing.assert_allclose(found["mean"]["f1"]["value"], np.mean(own))
    assert found["worst"]["patient"] == "ABCDE"[int(np.argmin(own))]
    for where in ("pooled", "mean"):
        f1 = found[where]["f1"]
        assert f1["low"] < f1["value"] < f1["high"]


def test_intervals_are_those_of_whole_patients_drawn_again():
    of, made = judging(), outputs(3)[None]
    found = judge.judged(of, made)["pooled"]["accuracy"]
    rng, right = np.random.default_rng(7), made[0].argmax(axis=1) == of.labels
    sums = np.array([[right[of.client == p].sum(), (of.client == p).sum()] for p in range(5)])
    drawn = sums[rng.integers(5, size=(4000, 5))].sum(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    # Two draws of thousands of resamples of the same five patients.
    np.testing.assert_allclose([found["low"], found["high"]], [low, high], atol=0.01)


def test_a_method_does_not_differ_from_itself():
    of, made = judging(), outputs(4)[None]
    same = judge.difference(of, made, made)
    assert same["pooled"] == {"value": 0.0, "low": 0.0, "high": 0.0} == same["mean"]
    better = np.eye(3)[of.labels][None]
    found = judge.difference(of, better, made)["pooled"]
    assert found["low"] > 0.2 and abs(found["value"] - (1 - judge.main_value(of, made[0]))) < 1e-12


def test_a_model_that_diverged_has_no_value():
    of, made = judging(), outputs(5)
    made[10] = np.nan
    found = judge.judged(of, made[None])
    assert found["pooled"]["f1"] == {"value": None, "low": None, "high": None}
    owner = "ABCDE"[of.client[10]]
    assert found["per_patient"][owner] is None and found["mean"]["f1"]["value"] is not None


def test_numbers_are_judged_as_they_are():
    rng = np.random.default_rng(6)
    truth = rng.normal(size=40)
    of = judge.Judging(
        lambda y: y[:, 0], regression_metrics(), truth, np.repeat([0, 1], 20), ("A", "B")
    )
    made = truth[None, :, None] + rng.normal(size=(3, 40, 1))
    found = judge.judged(of, made)["pooled"]["rmse"]["value"]
    want = np.mean([np.sqrt(sk.mean_squared_error(truth, m[:, 0])) for m in made])
    np.testing.assert_allclose(found, want)


def test_simulated_streams_turn_one_coefficient():
    drifting = stream.simulated(0, 3)
    assert drifting.num_periods == stream.LENGTH and drifting.dataset.num_clients == stream.CLIENTS
    quiet = stream.simulated(0, 0)
    changed = [
        (a["y"] != b["y"]).reshape(stream.LENGTH, -1).any(axis=1)
        for a, b in (
            (drifting.dataset.train.client(c), quiet.dataset.train.client(c))
            for c in range(stream.CLIENTS)
        )
    ]
    assert not np.array(changed)[:, : stream.CHANGE].any()
    assert np.array(changed)[:3, stream.CHANGE :].all() and not np.array(changed)[3:].any()


def test_the_most_certain_beats_are_chosen():
    probability = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3], [0.1, 0.9]])
    label = np.array([0, 0, 0, 1, 1])
    assert chosen_beats(probability, label) == [0, 2, 4, 3]


def test_commands_say_what_is_wrong_and_end_with_status_2():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.signals", "--case", "heart"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "heart" in done.stderr
    with pytest.raises(SystemExit):
        make_parser().parse_args(["--seeds", "0"])


def results():
    return [json.loads(line) for line in (REPO / table.RESULTS).read_text("utf-8").splitlines()]


def test_the_committed_page_is_that_of_the_committed_results():
    page = (REPO / table.PAGE).read_text("utf-8")
    assert page == table.render(results())
    for figure in re.findall(r"\]\((figures/[^)]+)\)", page):
        assert (REPO / "docs" / figure).is_file()


def test_every_comparison_has_methods_baselines_seeds_and_intervals():
    lines = results()
    summaries = {line["case"]: line for line in lines if "command" in line}
    assert set(summaries) <= set(NAMES)
    for name in set(table.CASES) & set(summaries):
        of = {line["method"]: line for line in lines if line["case"] == name and "method" in line}
        assert {"local", "pooled", "fine-tuned", "fedavg"} <= set(of)
        assert sum(not line["is_trivial"] for line in of.values()) >= 7
        assert any(line["is_trivial"] for line in of.values())
        assert summaries[name]["seeds"] >= 5
        assert "/" not in summaries[name]["command"].replace("python -m", "")
        for line in of.values():
            assert len(line["per_patient"]) == summaries[name]["judged"]["patients"]
