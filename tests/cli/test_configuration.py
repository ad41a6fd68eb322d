import dataclasses
import json

import pytest

from fedjax_med import datasets
from fedjax_med.cli import configuration
from fedjax_med.cli.configuration import RunConfig, parse_cohort, resolve, resume
from fedjax_med.cli.errors import UsageError
from fedjax_med.cli.options import RunOptions


def test_defaults_depend_on_the_dataset():
    assert resolve("own", RunOptions()).client_lr == 0.03
    assert resolve("breast-cancer", RunOptions()).client_lr == 0.1
    synthetic = resolve("synthetic", RunOptions())
    assert (synthetic.rounds, synthetic.cohort, synthetic.batch_size) == (100, "100", 8)
    assert configuration._OWN_DEFAULTS.keys() <= datasets.DATASETS.keys()


def test_defaults_depend_on_the_kind_of_outcome():
    own = [resolve("own", RunOptions(), kind) for kind in ("binary", "survival")]
    assert [(c.batch_size, c.client_lr) for c in own] == [(16, 0.03), (0, 0.1)]
    # What was found for a dataset comes before what is good for its kind.
    assert resolve("synthetic", RunOptions(), "survival").batch_size == 8
    assert resolve("own", RunOptions(batch_size=4), "survival").batch_size == 4


@pytest.mark.parametrize(
    "model, hidden, impute",
    [
        ("linear", (), "median"),
        ("mlp", (32, 16), "median"),
        ("embeddings", (32, 16), None),
        ("transformer", (), None),
    ],
)
def test_models_that_take_missing_values_are_given_them(model, hidden, impute):
    config = resolve("own", RunOptions(model=model))
    assert (config.hidden, config.impute, config.standardize) == (hidden, impute, "global")


def test_long_runs_do_not_spend_their_time_on_checkpoints():
    every = [resolve("breast-cancer", RunOptions(rounds=n)).checkpoint_every for n in (9, 10_000)]
    assert every == [50, 500]


def test_configuration_survives_json():
    options = RunOptions(model="mlp", hidden="8,4", early_stop="loss/3", clip_norm=1.0)
    config = resolve("breast-cancer", options)
    assert RunConfig.from_json(json.loads(json.dumps(config.as_json()))) == config


@pytest.mark.parametrize(
    "options, want",
    [
        ({"devices": 2}, ("pmap", 2, 1)),
        ({"splits": 2}, ("mesh", None, 2)),
        ({"splits": 2, "devices": 2}, ("mesh", 2, 2)),
        ({}, ("one-device", 1, 1)),
        ({"placement": "pmap"}, ("pmap", None, 1)),
    ],
)
def test_placement_follows_from_devices_and_splits(options, want):
    config = resolve("breast-cancer", RunOptions(**options))
    assert (config.placement, config.devices, config.splits) == want


def test_local_steps_replace_epochs():
    config = resolve("breast-cancer", RunOptions(local_steps=3))
    assert (config.local_epochs, config.local_steps) == (None, 3)


@pytest.mark.parametrize(
    "text, want",
    [("all", ("all", 1)), ("7", ("uniform", 7)), ("poisson:0.5", ("poisson", 0.5))],
)
def test_cohorts(text, want):
    assert parse_cohort(text) == want


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "most", "poisson:0", "poisson:1.1", "a:1"])
def test_other_cohorts_are_refused(text):
    with pytest.raises(UsageError, match="--cohort must be 'all'"):
        parse_cohort(text)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"rounds": 0}, ("--rounds", "at least 1", "0")),
        ({"batch_size": -1}, ("--batch-size", "at least 1", "-1")),
        ({"client_lr": 0.0}, ("--client-lr", "above 0", "0.0")),
        ({"client_lr": float("nan")}, ("--client-lr", "nan")),
        ({"server_lr": float("inf")}, ("--server-lr", "finite", "inf")),
        ({"momentum": 1.0}, ("--momentum", "below 1", "1.0")),
        ({"seed": -1}, ("--seed", "-1")),
        ({"seed": 2**32}, ("--seed", "4294967295")),
        ({"mu": 0.1}, ("--mu", "fedavg", "fedprox")),
        ({"mu": -0.1, "algorithm": "fedprox"}, ("--mu", "0 or more")),
        ({"server_momentum": 0.5}, ("--server-momentum", "fedavgm")),
        ({"server_optimizer": "adam", "algorithm": "fedyogi"}, ("--server-optimizer", "fedyogi")),
        ({"momentum": 0.5, "client_optimizer": "adam"}, ("--momentum", "adam")),
        ({"hidden": "8", "model": "linear"}, ("--hidden", "mlp")),
        ({"hidden": "8", "model": "transformer"}, ("--hidden", "mlp and embeddings")),
        ({"impute": "mean", "model": "transformer"}, ("--impute mean", "takes missing values")),
        ({"hidden": "8,x"}, ("--hidden", "8,x")),
        ({"local_epochs": 1, "local_steps": 1}, ("--local-epochs", "--local-steps")),
        ({"splits": 2, "placement": "pmap"}, ("--splits", "pmap")),
        ({"splits": 3}, ("--splits 3", "16")),
        ({"devices": 2, "placement": "one-device"}, ("--devices 2", "one-device")),
        ({"early_stop": "loss"}, ("--early-stop", "METRIC/PATIENCE", "'loss'")),
        ({"early_stop": "loss/0"}, ("--early-stop", "at least 1")),
        ({"aggregator": "median", "weighting": "examples"}, ("--weighting", "median")),
    ],
)
def test_what_does_not_fit_is_refused_by_name(options, words):
    with pytest.raises(UsageError) as error:
        resolve("breast-cancer", RunOptions(**options))
    for word in words:
        assert word in str(error.value)


STORED = resolve("breast-cancer", RunOptions(algorithm="fedprox", rounds=10, model="mlp"))


def test_resume_keeps_the_stored_options_and_takes_more_rounds():
    assert resume(STORED, "breast-cancer", RunOptions(), "runs/a") == STORED
    longer = resume(STORED, "breast-cancer", RunOptions(rounds=20), "runs/a")
    assert longer == dataclasses.replace(STORED, rounds=20)
    # Evaluations stay where they were, so the longer run is that of a longer run from the start.
    assert longer.evaluate_every == STORED.evaluate_every


def test_resume_accepts_options_that_say_the_same():
    options = RunOptions(mu=0.1, hidden="32,16", batch_size=16, shuffle=True)
    assert resume(STORED, "breast-cancer", options, "runs/a") == STORED


@pytest.mark.parametrize(
    "options, words",
    [
        ({"rounds": 9}, ("--rounds", "10", "9")),
        ({"client_lr": 0.5}, ("--client-lr", "0.1", "0.5")),
        ({"algorithm": "fedavg"}, ("--algorithm", "fedprox", "fedavg")),
        ({"hidden": "8"}, ("--hidden", "32,16", "8")),
        ({"clip_norm": 1.0}, ("--clip-norm", "not set", "1.0")),
        ({"shuffle": False}, ("--shuffle", "True", "False")),
    ],
)
def test_resume_refuses_other_options_with_both_values(options, words):
    with pytest.raises(UsageError) as error:
        resume(STORED, "breast-cancer", RunOptions(**options), "runs/a")
    for word in (*words, "runs/a"):
        assert word in str(error.value)


def test_resume_refuses_another_dataset():
    with pytest.raises(UsageError, match=r"another run.*breast-cancer.*heart-disease"):
        resume(STORED, "heart-disease", RunOptions(), "runs/a")
