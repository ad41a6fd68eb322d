"""A whole study against single runs, and what is said of it."""

import jax
import numpy as np
import optax
import pytest

from fedjax_med import algorithms
from fedjax_med.data import DataError
from fedjax_med.engine import simulate
from fedjax_med.evaluation import corrected_t_test
from fedjax_med.studies import (
    BASELINES,
    METHODS,
    judge_patients,
    run_study,
    settings_for,
    summarise,
)
from fedjax_med.studies.baselines import site_rate
from fedjax_med.studies.judging import over_seeds, predictions, seeds_together, values
from fedjax_med.studies.summary import sentences
from fedjax_med.studies.training import federated, outputs_of
from tests.studies.toy import SIZES, make_hospitals, settings

# A study differs from single runs in the shapes that are compiled, so in the order of sums.
RTOL = 1e-4


@pytest.fixture(scope="module")
def study():
    return run_study(make_hospitals(), settings())


@pytest.fixture(scope="module")
def result(study):
    return summarise(study, judge_patients(study))


def test_a_study_is_what_single_runs_are(study):
    population, seed = study.populations[1], 1
    run = simulate(
        algorithms.fed_avg(study.learner.task.gradient, optax.sgd(study.numbers["fedavg"])),
        population.train,
        task=study.learner.task,
        rounds=study.learner.rounds,
        local_work=study.learner.local_work,
        seed=seed,
    )
    want = outputs_of(
        study.learner.model, jax.tree.map(lambda x: x[None], run.variables), population.test
    )
    np.testing.assert_allclose(study.outputs["fedavg"][1][seed], want[0], rtol=RTOL, atol=1e-5)


def test_personal_models_judge_their_own_hospital(study):
    population, seed = study.populations[0], 1
    run = simulate(
        algorithms.ditto(
            study.learner.task.gradient,
            optax.sgd(study.numbers["ditto"]),
            lam=0.1,
            weighting=algorithms.by_examples,
        ),
        population.train,
        task=study.learner.task,
        rounds=study.learner.rounds,
        local_work=study.learner.local_work,
        seed=seed,
    )
    got = np.split(study.outputs["ditto"][0][seed], population.test.offsets[1:-1])
    for client, mine in enumerate(got):
        params = jax.tree.map(lambda x, c=client: x[c], run.client_states.variables.params)
        x = population.test.client(client)["x"]
        want = x @ np.asarray(params["kernel"]) + np.asarray(params["bias"])
        np.testing.assert_allclose(mine, want, rtol=RTOL, atol=1e-5)


def test_hospitals_alone_and_pooled_are_trained_for_themselves(study):
    population, seed = study.populations[1], 0
    alone = algorithms.local_only(study.learner.task.gradient, optax.sgd(study.numbers["local"]))
    options = {
        "task": study.learner.task,
        "rounds": study.learner.rounds,
        "local_work": study.learner.local_work,
        "seed": seed,
    }
    # The randomness of a client follows its position, which here is that in the union.
    assert len(study.outputs["local"][1][seed]) == population.test.num_examples
    run = simulate(alone, study.populations[0].train, **options)
    models = run.client_states.variables
    x = study.populations[0].test.client(2)["x"]
    want = x @ np.asarray(models.params["kernel"][2]) + np.asarray(models.params["bias"][2])
    start = int(study.populations[0].test.offsets[2])
    np.testing.assert_allclose(study.outputs["local"][0][seed][start:], want, rtol=RTOL, atol=1e-5)
    pooled = algorithms.local_only(study.learner.task.gradient, optax.sgd(study.numbers["pooled"]))
    run = simulate(pooled, study.populations[0].train.pooled(), **options)
    models = jax.tree.map(lambda x: x[:1], run.client_states.variables)
    want = outputs_of(study.learner.model, models, study.populations[0].test)
    np.testing.assert_allclose(study.outputs["pooled"][0][seed], want[0], rtol=RTOL, atol=1e-5)


def test_a_hospitals_own_rate_is_that_of_its_training_patients(study):
    population = study.populations[0]
    output = site_rate(population, "binary")[0]
    probability = 1 / (1 + np.exp(-output[:, 0]))
    labels = np.split(population.raw.train.examples["y"], population.raw.train.offsets[1:-1])
    want = [(y.sum() + 0.5) / (len(y) + 1) for y in labels]
    np.testing.assert_allclose(probability, np.repeat(want, population.test.sizes), rtol=1e-12)
    of_others = site_rate(study.left_out[1], "binary")[0]
    y = study.left_out[1].raw.train.examples["y"]
    np.testing.assert_allclose(of_others, np.log((y.sum() + 0.5) / (len(y) - y.sum() + 0.5)))


def test_the_mean_over_splits_and_its_interval(study, result):
    brier = result["methods"]["fedavg"]["metrics"]["brier"]
    by_split = []
    for population, outputs in zip(study.populations, study.outputs["fedavg"], strict=True):
        y, sizes = population.raw.test.examples["y"], population.test.sizes
        error = (1 / (1 + np.exp(-np.float64(outputs[:, :, 0]))) - y) ** 2  # [seeds, patients]
        parts = np.split(error, np.cumsum(sizes)[:-1], axis=1)
        by_split.append(np.mean([part.mean() for part in parts]))
    raw = study.populations[0].raw
    want = corrected_t_test(
        np.array(by_split), num_train=raw.train.num_examples, num_test=raw.test.num_examples
    )
    assert brier["mean"]["value"] == pytest.approx(np.mean(by_split), rel=1e-12)
    assert brier["mean"]["low"] == pytest.approx(max(0.0, want.low), rel=1e-9)
    assert brier["mean"]["high"] == pytest.approx(min(1.0, want.high), rel=1e-9)
    # The worst hospital is the one furthest from a perfect 0.
    assert brier["worst"]["value"] == max(brier["per_hospital"].values())


def test_seeds_side_by_side_are_judged_as_one_by_one(study):
    population = study.populations[0]
    outputs = study.outputs["fedavg"][:1]
    together = seeds_together(study.judge, outputs, [population])
    metric = study.judge.metrics["brier"]
    weight = np.random.default_rng(0).integers(0, 3, together.num_patients).astype(np.float64)
    each = [predictions(study.judge, o, population) for o in outputs[0]]
    want = np.mean([metric.compute(p.outputs, p.labels, weight) for p in each])
    got = over_seeds(metric).of(together.outputs, together.labels)(weight)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    assert values(study.judge, outputs, [population])["brier"].pooled.shape == (1, 2)


def test_every_method_and_baseline_is_in_the_result(study, result):
    assert list(result["methods"]) == [*BASELINES, "fedavg", "ditto"]
    # Personal models do not exist for a hospital that was left out; nor does its own.
    assert set(result["left_out"]) == {"site_rate", "pooled", "fedavg"}
    assert set(result["details"][study.chosen]["per_hospital"]) == set(SIZES)
    assert result["details"][study.chosen]["subgroups"]["age"]
    assert set(study.best_sites) <= set(SIZES) and len(study.best_sites) == 2
    assert set(study.numbers) == {"local", "pooled", "fedavg", "ditto"}
    assert all(number in (0.03, 0.3) for number in study.numbers.values())


def test_a_call_is_for_one_number_of_hospitals(study):
    with pytest.raises(ValueError, match="one number of hospitals, got 2, 3"):
        federated(
            study.learner,
            METHODS["fedavg"],
            [study.populations[0], study.left_out[0]],
            seeds=[0],
            chosen=[0.1],
        )


def test_the_same_settings_give_the_same_study(study):
    again = run_study(make_hospitals(), settings(methods=("fedavg",), leave_one_out=False))
    for got, want in zip(again.outputs["fedavg"], study.outputs["fedavg"], strict=True):
        np.testing.assert_array_equal(got, want)
    assert again.outputs_left_out == {} and again.left_out == []


def check_other_outcome(kind, method, metric):
    quick = settings(methods=(method,), leave_one_out=False, num_seeds=1, num_resamples=0)
    study = run_study(make_hospitals(kind), quick)
    result = summarise(study, judge_patients(study))
    assert result["main_metric"] == metric
    of = {name: result["methods"][name]["metrics"][metric]["mean"]["value"] for name in study.names}
    return of[method], of["site_rate"]


def test_a_number_is_predicted_in_its_own_units():
    found, trivial = check_other_outcome("regression", "fedavg", "rmse")
    # The outcome varies by 28, of which 6 are noise, and a few values are missing.
    assert 4 < found < 20 < trivial < 40


@pytest.mark.slow
@pytest.mark.parametrize("kind, metric", [("regression", "rmse"), ("survival", "c_index")])
def test_exact_fits_of_other_outcomes(kind, metric):
    found, trivial = check_other_outcome(kind, "newton", metric)
    assert (4 < found < 14 and trivial > 20) if kind == "regression" else found > 0.75 > trivial


def test_the_best_site_is_not_the_one_that_is_upside_down():
    hospitals = make_hospitals(upside_down=("North",), missing=0.0)
    study = run_study(hospitals, settings(methods=("fedavg",), leave_one_out=False, rounds=10))
    assert "North" not in study.best_sites


def test_models_that_are_too_large_for_exact_fits_are_refused(monkeypatch):
    monkeypatch.setattr("fedjax_med.studies.study.MOST_PARAMETERS", 3)
    with pytest.raises(DataError, match="parameters, but newton takes at most 3: hospitals would"):
        run_study(make_hospitals(), settings(methods=("fedavg", "newton"), leave_one_out=False))


def test_what_cannot_be_studied():
    with pytest.raises(DataError, match="at least 2 hospitals, toy has 1"):
        run_study(make_hospitals().pooled(), settings())
    with pytest.raises(ValueError, match=r"methods must be among fedavg, .* got 'fedmagic'"):
        settings(methods=("fedmagic",))
    with pytest.raises(ValueError, match="methods must name some, each once"):
        settings(methods=("fedavg", "fedavg"))
    with pytest.raises(ValueError, match="num_splits must be at least 2, got 1"):
        settings(num_splits=1)
    with pytest.raises(ValueError, match=r"test must be above 0 and below 1, got 1\.5"):
        settings(test=1.5)
    with pytest.raises(ValueError, match="learning_rates must be above 0"):
        settings(learning_rates=(0.1, -1.0))
    with pytest.raises(ValueError, match="'newton' with model 'mlp'"):
        settings(methods=("newton",), model="mlp", hidden=(4,))
    with pytest.raises(ValueError, match=r"hidden \[4\] has no effect with model 'linear'"):
        settings(hidden=(4,))
    assert "newton" not in settings_for("tcga-brca", model="mlp").methods
    assert settings_for("tcga-brca").batch_size == 0
    assert settings_for("tcga-brca", batch_size=4).batch_size == 4


def outcome(difference, low, high, metric="auroc", ideal=1.0):
    """A result in which the comparison with local training is as given."""
    estimate = {"value": 0.8, "low": 0.7, "high": 0.9}
    both = {"mean": estimate, "pooled": estimate}
    methods = {n: {"title": n, "metrics": {metric: both}} for n in ("fedavg", "local")}
    found = {"difference": difference, "low": low, "high": high, "p_value": 0.01}
    return {
        "main_metric": metric,
        "chosen": "fedavg",
        "methods": methods,
        "ideal": {metric: ideal},
        "comparisons": {"local": found},
        "comparisons_pooled": {"local": found},
        "left_out": {},
        "about": {"examples": "patients"},
    }


@pytest.mark.parametrize(
    "given, want",
    [
        (outcome(0.1, 0.02, 0.2), "federation helps: +0.100 (+0.020 to +0.200, p = 0.01)."),
        (outcome(-0.1, -0.2, -0.02), "federation is worse: -0.100"),
        (outcome(0.1, -0.02, 0.2), "no difference is shown: +0.100"),
        (outcome(-1.0, -2.0, -0.5, "rmse", 0.0), "federation helps: -1.000"),
        (outcome(1.0, 0.5, 2.0, "rmse", 0.0), "federation is worse: +1.000"),
        (outcome(0.1, None, None), "the difference is +0.100; its interval is not defined."),
        (outcome(None, None, None), "not defined."),
    ],
)
def test_sentences_say_what_the_intervals_support(given, want):
    said = sentences(given)
    assert want in said[1] and want in said[2] and said[2].startswith("Over all patients together")
