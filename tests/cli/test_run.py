import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedjax_med.cli import main
from fedjax_med.engine import checkpoint, simulate
from fedjax_med.engine.callbacks import JsonLines

REPO = Path(__file__).resolve().parents[2]

RUN = ("run", "breast-cancer", "--evaluate-every", "2", "--checkpoint-every", "2", "--quiet")


def snapshot(folder):
    return {p: p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def assert_same_run(got, want):
    assert (got / "metrics.jsonl").read_text() == (want / "metrics.jsonl").read_text()
    a, b = checkpoint.load(got / "checkpoints"), checkpoint.load(want / "checkpoints")
    assert a.round == b.round and a.arrays.keys() == b.arrays.keys()
    for name, array in b.arrays.items():
        np.testing.assert_array_equal(a.arrays[name], array, err_msg=name)
    results = [json.loads((folder / "result.json").read_text()) for folder in (got, want)]
    assert results[0]["final"] == results[1]["final"]
    assert results[0]["curves"] == results[1]["curves"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 6 rounds with everything; not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert main([*RUN, "--rounds", "6", "--output", str(folder), "--tensorboard"]) == 0
    return folder


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    """The same run over 10 rounds, without baselines."""
    folder = tmp_path_factory.mktemp("longer") / "run"
    assert main([*RUN, "--rounds", "10", "--output", str(folder), "--no-baselines"]) == 0
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "copied"))


def test_folder_holds_all_parts(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "config.json",
        "versions.json",
        "preprocessing.json",
        "metrics.jsonl",
        "checkpoints",
        "result.json",
        "report.html",
        "tensorboard",
    }
    config = json.loads((finished / "config.json").read_text())
    assert config["options"]["rounds"] == 6 and config["options"]["client_lr"] == 0.1
    versions = json.loads((finished / "versions.json").read_text())
    assert {"python", "jax", "flax", "optax", "numpy", "fedjax_med", "device"} <= versions.keys()
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [r["round"] for r in lines if "split" not in r] == [1, 2, 3, 4, 5, 6]
    assert [r["round"] for r in lines if "split" in r] == [2, 4, 6]


def test_result_has_every_hospital_and_method(finished):
    result = json.loads((finished / "result.json").read_text())
    methods = ["no_model", "local_only", "best_site", "federated", "pooled"]
    assert list(result["final"]) == methods
    hospitals = [client["name"] for client in result["clients"]]
    assert hospitals == [f"Hospital {letter}" for letter in "ABCDE"]
    for final in result["final"].values():
        assert list(final["per_client"]) == hospitals
        assert 0 <= final["pooled"]["accuracy"] <= 1
        accuracies = {h: final["per_client"][h]["accuracy"] for h in hospitals}
        worst = min(accuracies, key=accuracies.get)
        assert final["worst"]["accuracy"] == {"client": worst, "value": accuracies[worst]}
        assert final["mean"]["accuracy"] == pytest.approx(sum(accuracies.values()) / 5)
    worst_loss = max(m["loss"] for m in result["final"]["federated"]["per_client"].values())
    assert result["final"]["federated"]["worst"]["loss"]["value"] == worst_loss
    assert 0 < result["performance"]["useful_fraction"] <= 1
    assert result["performance"]["timings_s"]["compile_s"] > 0


def test_the_rewrite_is_noted_and_can_be_switched_off(finished, command, tmp_path):
    none = "no convolution or pooling"
    result = json.loads((finished / "result.json").read_text())
    assert result["performance"]["rewritten"] == {"training": none, "evaluation": none}
    off = (*RUN, "--rounds", "1", "--no-baselines", "--no-rewrite", "--output", "off")
    assert command(*off)[0] == 0
    read = lambda name: json.loads((tmp_path / "off" / name).read_text())
    assert read("result.json")["performance"]["rewritten"] == {}
    assert read("config.json")["options"]["rewrite"] is False
    status, _, err = command("run", "breast-cancer", "--output", "off", "--resume", "--rewrite")
    assert status != 0 and "--rewrite was False" in err and "now it is True" in err


def test_table_and_path_of_the_report_are_printed(command):
    status, out, err = command("run", "breast-cancer", "--rounds", "2", "--no-baselines")
    assert status == 0
    assert "Hospital E" in out and "federated" in out and "all patients" in out
    assert "mean of the hospitals" in out and "worst hospital" in out
    last = out.strip().splitlines()[-1]
    assert last.startswith("Report: runs/breast-cancer-fedavg-")
    assert Path(last.removeprefix("Report: ")).is_file()
    assert "2/2" in err  # the progress bar


def test_every_default_folder_is_new(command, monkeypatch):
    from fedjax_med.cli import run_folder

    monkeypatch.setattr(run_folder.time, "strftime", lambda _: "20260101-000000")
    for number in ("", "-2", "-3"):
        folder = run_folder.default_folder("breast-cancer", "fedavg")
        assert folder == Path(f"runs/breast-cancer-fedavg-20260101-000000{number}")
        folder.mkdir(parents=True)


@pytest.mark.parametrize(
    "options",
    [
        ("--algorithm", "fedprox", "--devices", "2"),
        ("--algorithm", "fedadam", "--model", "mlp", "--hidden", "4", "--cohort", "poisson:0.6"),
        ("--algorithm", "fedsgd", "--precision", "bfloat16", "--aggregator", "median"),
        ("--devices", "2", "--splits", "2", "--local-steps", "3", "--clip-norm", "0.5"),
        ("--algorithm", "fedavgm", "--precision", "float64", "--no-shuffle", "--cohort", "3"),
    ],
    ids=lambda options: " ".join(options),
)
def test_options_are_taken(command, tmp_path, options):
    arguments = (*RUN, "--rounds", "2", "--no-baselines", "--output", "r")
    assert command(*arguments, *options)[0] == 0
    arrays = checkpoint.load(tmp_path / "r" / "checkpoints").arrays
    params = [array for name, array in arrays.items() if "params" in name]
    assert params and all(np.isfinite(p).all() for p in params)
    kind = np.float64 if "float64" in options else np.float32
    assert {p.dtype for p in params} == {np.dtype(kind)}


def test_same_parameters_as_the_library(finished):
    import optax

    from fedjax_med import algorithms, datasets, engine, models, tasks
    from fedjax_med.preprocessing import Preprocessor

    raw = datasets.load("breast-cancer", standardize=None)
    dataset = Preprocessor.fit(raw).apply(raw)
    task = tasks.binary_classification(models.linear(), dataset.train.examples)
    run = simulate(
        algorithms.fed_avg(task.gradient, optax.sgd(0.1)),
        dataset,
        task=task,
        rounds=6,
        local_work=engine.epochs(1, batch_size=16),
    )
    arrays = checkpoint.load(finished / "checkpoints").arrays
    (name,) = [n for n in arrays if n.endswith("params['kernel']")]
    # The command compiles other chunks (evaluations), so sums may be ordered differently.
    np.testing.assert_allclose(arrays[name], run.variables.params["kernel"], rtol=1e-5, atol=1e-7)


def test_early_stopping_ends_and_stays_ended(command, tmp_path):
    # A learning rate at which the loss only grows.
    arguments = (*RUN, "--rounds", "40", "--no-baselines", "--output", "r")
    arguments += ("--client-lr", "50", "--early-stop", "loss/2")
    assert command(*arguments)[0] == 0
    folder = tmp_path / "r"
    before = (folder / "metrics.jsonl").read_text()
    rounds = json.loads((folder / "result.json").read_text())["rounds"]
    assert rounds < 40
    (folder / "result.json").unlink()  # as if killed after the last round
    assert command(*RUN[:2], "--output", "r", "--resume", "--quiet")[0] == 0
    assert json.loads((folder / "result.json").read_text())["rounds"] == rounds
    assert (folder / "metrics.jsonl").read_text() == before


# -- resume ---------------------------------------------------------------------------------


def test_resumed_with_more_rounds_equals_the_longer_run(command, copied, longer):
    arguments = ("--output", copied, "--resume", "--rounds", "10", "--no-baselines")
    assert command(*RUN, *arguments)[0] == 0
    assert json.loads((copied / "config.json").read_text())["options"]["rounds"] == 10
    assert_same_run(copied, longer)


def test_lines_after_the_checkpoint_are_dropped(command, copied, finished):
    metrics = copied / "metrics.jsonl"
    shutil.rmtree(copied / "checkpoints" / "00000006")
    with metrics.open("a") as file:
        file.write('{"round": 7, "train_lo')
    assert command(*RUN, "--output", copied, "--resume")[0] == 0
    assert_same_run(copied, finished)


def test_resume_of_a_finished_run_writes_the_same_result(command, copied, finished):
    (copied / "report.html").unlink()
    assert command(*RUN, "--output", copied, "--resume")[0] == 0
    assert_same_run(copied, finished)
    assert "No rounds were left to run" in (copied / "report.html").read_text()


def test_other_software_is_told(command, copied):
    versions = json.loads((copied / "versions.json").read_text())
    (copied / "versions.json").write_text(json.dumps({**versions, "jax": "0.0.1"}))
    status, _, err = command(*RUN, "--output", copied, "--resume", "--no-baselines")
    assert status == 0 and "warning: jax changed" in err
    stored = json.loads((copied / "versions.json").read_text())
    assert stored["jax"] == "0.0.1" and stored["resumed_with"][0]["jax"] == versions["jax"]


def test_ctrl_c_says_how_to_go_on_and_that_works(command, tmp_path, monkeypatch, longer):
    write = JsonLines.__call__

    def interrupted(self, progress):
        write(self, progress)
        if progress.round >= 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(JsonLines, "__call__", interrupted)
    arguments = (*RUN, "--rounds", "10", "--no-baselines", "--output", "r")
    status, _, err = command(*arguments)
    assert status == 130
    wanted = "fedjax-med run breast-cancer --output r --resume"
    assert wanted in err and "Traceback" not in err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert main([*wanted.split()[1:], "--quiet"]) == 0
    assert_same_run(tmp_path / "r", longer)


# -- bad input ------------------------------------------------------------------------------


def assert_refused(outcome, *words):
    status, out, err = outcome
    assert status == 2
    assert out == ""
    assert err.startswith("fedjax-med: ") and err.count("\n") == 1, err
    assert "Traceback" not in err
    for word in words:
        assert str(word) in err, err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("run", "brest-cancer"), ("'brest-cancer'", "Did you mean 'breast-cancer'?")),
        (("data", "check", "herat-disease"), ("'herat-disease'", "'heart-disease'")),
        (("run", "breast-cancer", "--round", "5"), ("--round", "Did you mean --rounds?")),
        (("run", "breast-cancer", "--algorithm", "fedsam"), ("fedsam", "fedavg", "fedadagrad")),
        (("run", "breast-cancer", "--rounds", "many"), ("--rounds", "many")),
        (("run", "breast-cancer", "--cohort", "6"), ("--cohort 6", "has 5 clients", "1 to 5")),
        (("run", "breast-cancer", "--devices", "64"), ("64 devices", "this machine has 4")),
        (("run", "breast-cancer", "--devices", "1000"), ("1000 devices", "1 to 256")),
        (("run", "breast-cancer", "--early-stop", "los/3"), ("'los'", "loss, accuracy")),
        (("run", "breast-cancer", "--client-lr", "-1"), ("--client-lr", "-1")),
        (("run", "breast-cancer", "--resume"), ("--resume", "--output")),
        (("run", "breast-cancer", "--resume", "--output", "no"), ("no", "no run to resume")),
        (("run", "heart-disease", "--data-dir", "nowhere"), ("nowhere", "does not exist")),
        (("run", "heart-disease", "--data-dir", "."), ("processed.cleveland.data", "--data-dir")),
        (("run",), ("DATASET",)),
        (("rnu", "breast-cancer"), ("rnu", "Available commands")),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(command, tmp_path, arguments, words):
    assert_refused(command(*arguments), *words)
    assert list(tmp_path.iterdir()) == []


def test_a_used_folder_is_not_written_over(command, copied):
    before = snapshot(copied)
    assert_refused(command(*RUN, "--output", copied), copied, "not empty", "--resume")
    assert snapshot(copied) == before


def test_a_folder_of_other_things_is_not_written_over(command, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    outcome = command(*RUN, "--output", "mine")
    assert_refused(outcome, "mine", "not empty")
    assert "--resume" not in outcome[2]
    assert_refused(command(*RUN, "--output", "mine/thesis.tex"), "is a file")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("run", "heart-disease"), ("another run", "breast-cancer", "heart-disease")),
        ((*RUN, "--client-lr", "0.5"), ("--client-lr", "0.1", "0.5")),
        ((*RUN, "--rounds", "2"), ("--rounds", "6", "2")),
    ],
    ids=["dataset", "option", "fewer rounds"],
)
def test_resuming_another_run_is_refused(command, copied, arguments, words):
    before = snapshot(copied)
    assert_refused(command(*arguments, "--output", copied, "--resume"), copied, *words)
    assert snapshot(copied) == before


def test_resuming_with_the_checkpoint_of_another_run_is_refused(command, copied):
    other = ("--rounds", "6", "--seed", "7", "--no-baselines", "--output", "other")
    assert command(*RUN, *other)[0] == 0
    shutil.rmtree(copied / "checkpoints")
    shutil.copytree("other/checkpoints", copied / "checkpoints")
    outcome = command(*RUN, "--output", copied, "--resume")
    assert_refused(outcome, "another run", "seeds", "[7]", "[0]")


def test_resuming_with_changed_data_is_refused(command, copied):
    config = json.loads((copied / "config.json").read_text())
    config["data_fingerprint"] = "0" * 64
    (copied / "config.json").write_text(json.dumps(config))
    before = snapshot(copied)
    outcome = command(*RUN, "--output", copied, "--resume")
    assert_refused(outcome, "breast-cancer", "fingerprint was 000000000000")
    assert snapshot(copied) == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"options": {}}'])
def test_a_damaged_configuration_is_refused(command, copied, text):
    (copied / "config.json").write_text(text)
    assert_refused(command(*RUN, "--output", copied, "--resume"), "config.json", "damaged")


def test_a_damaged_checkpoint_is_refused(command, copied):
    newest = copied / "checkpoints" / "00000006"
    for path in newest.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    outcome = command(*RUN, "--output", copied, "--resume")
    assert outcome[0] == 2
    assert "00000006 cannot be read" in outcome[2] and "Traceback" not in outcome[2]


def damaged(kind):
    """A saved dataset with something wrong in it, and the words its refusal needs."""
    from fedjax_med.data import FederatedDataset

    rng = np.random.default_rng(0)
    clients = {
        name: {"x": rng.normal(size=(8, 2)).astype(np.float32), "y": np.arange(8) % 2}
        for name in ("North", "South")
    }
    clients = {n: {**c, "y": c["y"].astype(np.int32)} for n, c in clients.items()}
    if kind in ("missing", "infinite"):
        clients["South"]["x"][3, 1] = np.nan if kind == "missing" else np.inf
        words = ("'South'", "'pressure'", "infinite")
    elif kind == "label":
        clients["North"]["y"][2] = 7
        words = ("label 7", "'North'", "0..1")
    else:
        clients["South"] = {key: leaf[:0] for key, leaf in clients["South"].items()}
        words = ("'South'", "no training examples")
    dataset = FederatedDataset.from_clients(
        clients,
        test={n: clients["North"] for n in clients},
        feature_names=("age", "pressure"),
        label_names=("well", "ill"),
    )
    return dataset, words


@pytest.mark.parametrize("verb", [("run",), ("data", "check")], ids=["run", "data check"])
@pytest.mark.parametrize("kind", ["infinite", "label", "empty"])
def test_unusable_values_name_client_and_column(command, tmp_path, kind, verb):
    dataset, words = damaged(kind)
    dataset.save(tmp_path / "own")
    assert_refused(command(*verb, "own"), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_missing_values_are_counted_by_check(command, tmp_path):
    damaged("missing")[0].save(tmp_path / "own")
    status, out, _ = command("data", "check", "own")
    assert status == 0
    assert "dataset is sound: 2 clients, 32 examples, 1.6% of the values of x missing" in out


def test_missing_values_are_filled_in_by_what_the_folder_keeps(command, tmp_path):
    from fedjax_med.data import FederatedDataset
    from fedjax_med.preprocessing import Preprocessor

    damaged("missing")[0].save(tmp_path / "own")
    run = ("run", "own", "--output", "r", "--quiet")
    assert command(*run, "--rounds", "2", "--impute", "mean", "--no-baselines")[0] == 0
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert [client["name"] for client in result["clients"]] == ["North", "South"]
    assert result["preprocessing"]["columns"] == 2
    stored = tmp_path / "r" / "preprocessing.json"
    fitted = Preprocessor.load(stored)
    x = FederatedDataset.load(tmp_path / "own").train.examples["x"]
    np.testing.assert_allclose(fitted.imputer.fill, np.nanmean(np.float64(x), axis=0))
    stored.unlink()
    before = snapshot(tmp_path / "r")
    assert_refused(command(*run, "--resume"), "preprocessing.json", "no file")
    assert snapshot(tmp_path / "r") == before


def own_table(kind):
    """Two hospitals with some missing values and outcomes of a kind, in natural units."""
    from fedjax_med.data import FederatedDataset

    rng = np.random.default_rng(0)

    def patients(n, level):
        x = np.float32(rng.normal(60, 10, (n, 2)))
        risk = np.float32((x[:, 0] - 60) / 10)
        x[:: n // 3, 1] = np.nan
        if kind == "survival":
            time = np.float32(rng.exponential(np.exp(-2 * risk)))
            return {"x": x, "time": time, "event": np.int32(rng.random(n) < 0.8)}
        if kind == "multilabel":
            return {"x": x, "y": np.int32(np.stack([risk > 0, risk > 1, risk < 0], axis=1))}
        return {"x": x, "y": np.float32(level + 40 * risk)}

    sizes = {"North": (40, 1000), "South": (20, 1100)}
    return FederatedDataset.from_clients(
        {name: patients(*size) for name, size in sizes.items()},
        test={name: patients(*size) for name, size in sizes.items()},
        feature_names=("age", "pressure"),
    )


@pytest.mark.parametrize(
    "kind, options, metric",
    [
        # A model that has hardly moved predicts the mean of all training patients.
        ("regression", ("--client-lr", "1e-9", "--standardize", "per-client"), "mae"),
        ("survival", ("--model", "embeddings", "--hidden", "4"), "c_index"),
        ("multilabel", ("--combat", "--batch-size", "0", "--no-baselines"), "accuracy"),
    ],
)
def test_every_kind_of_outcome_runs(command, tmp_path, kind, options, metric):
    dataset = own_table(kind)
    dataset.save(tmp_path / "own")
    run = ("run", "own", "--rounds", "2", "--output", "r", *options)
    status, out, err = command(*run)
    assert status == 0 and f"{metric} on test patients" in out, err
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert (result["kind"], result["main_metric"]) == (kind, metric)
    every = ["no_model", "local_only", "best_site", "federated", "pooled"]
    assert list(result["final"]) == (["federated"] if "--no-baselines" in options else every)
    values = [final["pooled"][metric] for final in result["final"].values()]
    assert np.isfinite(values).all()
    used = json.loads((tmp_path / "r" / "config.json").read_text())["options"]
    assert used["batch_size"] == (16 if kind == "regression" else 0)
    assert used["impute"] == (None if kind == "survival" else "median")
    text = (tmp_path / "r" / "report.html").read_text()
    assert "diagnos" not in text and "What left" not in text and "Preprocessing" in text
    if kind == "regression":
        y = dataset.test.examples["y"] - np.mean(dataset.train.examples["y"], dtype=np.float64)
        assert values[3] == pytest.approx(np.abs(y).mean(), rel=1e-5)
        owner = np.repeat([0, 1], dataset.train.sizes)
        own = [dataset.train.client(i)["y"].mean() for i in (0, 1)]
        y = dataset.test.examples["y"] - np.array(own)[owner]
        assert values[0] == pytest.approx(np.abs(y).mean(), rel=1e-5)
        assert result["preprocessing"]["target"]["center"] > 1000
    elif kind == "survival":
        assert values[0] == 0.5
        assert [client["outcome"]["events"] for client in result["clients"]] == [
            sum(int(part.client(i)["event"].sum()) for part in dataset.splits().values())
            for i in (0, 1)
        ]


def test_all_patients_of_a_hospital_at_once():
    from fedjax_med.cli import training
    from fedjax_med.cli.configuration import resolve
    from fedjax_med.cli.options import RunOptions
    from fedjax_med.cli.preparation import Prepared
    from fedjax_med.preprocessing import Preprocessor

    dataset = own_table("multilabel")
    prepared = Prepared(dataset, Preprocessor.fit(dataset), "multilabel", 0.0, 1.0)
    options = RunOptions(model="embeddings", batch_size=0, splits=3)
    work = training.build(resolve("own", options), prepared).local_work
    assert work.batch_size == 42  # the largest hospital has 40, of which each device takes 14


def test_examples_of_no_modality_are_refused(command, tmp_path):
    from fedjax_med.data import FederatedDataset

    numbers = {"x": np.zeros(4, np.float32), "y": np.int32([0, 1, 0, 1])}
    dataset = FederatedDataset.from_clients({"a": numbers}, test={"a": numbers})
    dataset.save(tmp_path / "numbers")
    words = ("x of dataset must have 2 axes", "got shape [4]")
    assert_refused(command("run", "numbers"), *words)
    dataset.map_examples(lambda e: {"x": e["x"]}).save(tmp_path / "unlabelled")
    assert_refused(command("run", "unlabelled"), "must have 'y', or 'time' and 'event'")
    few = {"x": np.ones((3, 2), np.float32), "y": np.int32([0, 1, 0])}
    FederatedDataset.from_clients({"a": few}, test={"a": few}).save(tmp_path / "few")
    assert_refused(command("run", "few"), "no column", "5 training values")
    assert {path.name for path in tmp_path.iterdir()} == {"numbers", "unlabelled", "few"}


def test_a_changed_data_file_is_refused(command, tmp_path, shared_data_dir):
    shutil.copytree(shared_data_dir / "heart_disease", tmp_path / "heart_disease")
    file = tmp_path / "heart_disease" / "processed.va.data"
    file.write_bytes(file.read_bytes().replace(b"63", b"64", 1))
    outcome = command("run", "heart-disease", "--data-dir", tmp_path, "--output", "r")
    assert_refused(outcome, "processed.va.data", "damaged or another version", "SHA-256")
    assert not (tmp_path / "r").exists()


# -- full disk ------------------------------------------------------------------------------


def no_space(*args, **kwargs):
    raise OSError(28, os.strerror(28))


def test_full_disk_at_a_checkpoint(command, monkeypatch, tmp_path, longer):
    real = shutil.disk_usage
    calls = []

    def usage(path):
        calls.append(path)
        found = real(path)
        return found if len(calls) < 3 else found._replace(free=0)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    outcome = command(*RUN, "--rounds", "10", "--no-baselines", "--output", "r")
    assert_refused(outcome, "disk of r is full", "--resume")
    assert sorted(p.name for p in (tmp_path / "r" / "checkpoints").iterdir()) == [
        "00000002",
        "00000004",
    ]
    monkeypatch.setattr(shutil, "disk_usage", real)
    assert command(*RUN, "--output", "r", "--resume")[0] == 0
    assert_same_run(tmp_path / "r", longer)


def test_full_disk_at_the_report_keeps_the_old_one(command, monkeypatch, copied):
    before = snapshot(copied)
    monkeypatch.setattr(os, "fsync", no_space)
    outcome = command(*RUN, "--output", copied, "--resume", "--no-baselines")
    assert_refused(outcome, copied, "full")
    monkeypatch.undo()
    after = snapshot(copied)
    assert after == before


def test_full_disk_at_the_metrics(command, monkeypatch):
    # The operating system's own full file: every write to it fails.
    start = JsonLines.__init__
    monkeypatch.setattr(JsonLines, "__init__", lambda self, path: start(self, "/dev/full"))
    outcome = command(*RUN, "--rounds", "2", "--output", "r")
    assert_refused(outcome, "full")


def test_a_folder_that_cannot_be_made(command, tmp_path):
    (tmp_path / "file").write_text("")
    outcome = command(*RUN, "--output", "file/run")
    assert_refused(outcome, "file/run")


# -- faults of the program ------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, ValueError, KeyError])
def test_faults_keep_their_traceback(command, monkeypatch, error):
    from fedjax_med.cli import run

    def broken(*args, **options):
        raise error("a fault")

    monkeypatch.setattr(run, "check", broken)
    with pytest.raises(error, match="a fault"):
        command("run", "breast-cancer")


def test_the_installed_script():
    command = [Path(sys.executable).parent / "fedjax-med", "run", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("fedjax-med: unknown dataset 'nothing'")
