"""Studies of graphs, responses, genotypes and series, from data to report."""

import json

import numpy as np
import pytest
from scipy import stats

from fedjax_med import datasets
from fedjax_med.data import DataError
from fedjax_med.datasets.weekly import HORIZONS
from fedjax_med.reporting.design_figures import design_figures
from fedjax_med.reporting.study_report import render_study_report
from fedjax_med.studies import forecast_training, graphs, scores
from fedjax_med.studies.designs import DESIGNS, run_design
from fedjax_med.studies.forecasts import ForecastSettings, study_forecasts
from fedjax_med.studies.graphs import GraphSettings
from fedjax_med.tasks import modality_of
from fedjax_med.tasks.kinds import LEVELS
from tests.studies.other_worlds import MAKE, QUICK, make_graph, make_responses


def studied_and_shown(dataset, modality, chosen, data_dir=None):
    settings = DESIGNS[modality].choose(dataset.name, chosen)
    studied = run_design(dataset, modality, settings, data_dir=data_dir)
    figures = design_figures(modality, studied)
    page = render_study_report(studied.result, figures=figures, versions={"jax": "0"})
    return studied.result, figures, page


@pytest.mark.parametrize(
    "modality", ["responses", "genotypes", pytest.param("graph", marks=pytest.mark.slow)]
)
def test_every_design_gives_tables_figures_and_a_report(modality):
    dataset = MAKE[modality]()
    assert modality_of(dataset) == modality
    result, figures, page = studied_and_shown(dataset, modality, QUICK[modality])
    json.dumps(result, allow_nan=False)  # NaN has become None
    main = result["main_metric"]
    for name, method in result["methods"].items():
        found = method["metrics"][main]
        assert found["mean"]["value"] is not None, name
        assert set(found["per_hospital"]) == set(dataset.client_names)
    assert not result["methods"][result["chosen"]]["is_baseline"]
    assert {"local", f"{result['chosen'].split('/')[0]}/isolation"} & set(result["comparisons"])
    assert all(svg.startswith("<svg") for svg in figures.values()) and len(figures) >= 3
    for sentence in result["sentences"]:
        assert page.count(sentence.partition("(")[0].strip()[:40]) >= 1
    assert result["about"]["examples"] in page and "Not asked for" not in page


def test_models_that_know_the_answer_are_perfect_and_those_that_know_nothing_middling():
    dataset = make_graph()
    from fedjax_med import tasks

    graph = tasks.graph_of(dataset)
    row = graphs._nothing_known(dataset, graph, 2)
    # All entities are candidates here; the others that are right are left out.
    e = dataset.test.examples
    ranks = []
    for h, r, t in zip(e["head"], e["relation"], e["tail"], strict=True):
        for others in (graph.known[r, :, t], graph.known[r, h]):
            candidates = 12 - others.sum()  # without the answer, which is known as well
            ranks.append(1 + candidates / 2)
    np.testing.assert_allclose(row.pooled["mrr"], np.mean(1 / np.array(ranks)), rtol=1e-6)


def test_a_fifth_is_asked_for_and_the_divisions_differ():
    from fedjax_med.datasets._gdsc import patients_held_out, whole_matrix
    from fedjax_med.studies.response_training import LEFT_OUT, populations

    dataset = make_responses()
    parts = populations(dataset, range(2), seeds_left_out=(0,))
    assert [p.setting for p in parts].count(LEFT_OUT) == 3 and len(parts) == 7
    known = [np.isnan(p.dataset.train.examples["x"]) for p in parts[:2]]
    assert (known[0] != known[1]).any()
    whole = whole_matrix(dataset).train.examples["x"]
    again = whole_matrix(patients_held_out(whole_matrix(dataset), test=0.2, known=5, seed=0))
    assert np.isfinite(whole).sum() == np.isfinite(again.train.examples["x"]).sum()
    np.testing.assert_array_equal(again.train.sizes, dataset.train.sizes)


@pytest.mark.slow
def test_forecasts_of_influenza_have_intervals_over_weeks(shared_data_dir):
    dataset = datasets.load("flu-ili", shared_data_dir, horizons=HORIZONS, standardize=None)
    assert modality_of(dataset) == "series"
    chosen = {"methods": ("fedavg",), "num_seeds": 1, "rounds": 1, "learning_rates": (1.0,)}
    result, figures, _ = studied_and_shown(dataset, "series", chosen, shared_data_dir)
    json.dumps(result, allow_nan=False)
    found = result["methods"]["persistence"]["metrics"]["wis"]["mean"]
    # The rule needs no training, so this is the value of docs/influenza.md.
    assert found["value"] == pytest.approx(0.2658, abs=5e-5)
    assert found["low"] < found["value"] < found["high"]
    assert "Forecasts 5 weeks ahead" in figures


def test_counts_of_unknown_series_are_asked_for():
    rng = np.random.default_rng(0)
    from fedjax_med.data import FederatedDataset

    examples = {"x": rng.random((8, 4), np.float32), "y": rng.random((8, 2), np.float32)}
    dataset = FederatedDataset.from_clients({"a": examples, "b": examples}, name="own")
    assert modality_of(dataset) == "series"
    with pytest.raises(DataError, match=r"known of flu-ili only, not of own with 2 clients"):
        study_forecasts(dataset, ForecastSettings())


def test_outputs_of_a_perfect_forecast_have_score_zero(shared_data_dir):
    series = datasets.flu_ili_counts(data_dir=shared_data_dir)
    seasons = forecast_training.Seasons(2010, 2012)
    data = forecast_training.setup(series, seasons, to_tune=False, name="flu-ili")
    from fedjax_med.studies.forecasts import _row

    truth = np.repeat(data.truth("test")[None, ..., None], len(LEVELS), axis=-1)
    row = _row("fedavg", data, truth)
    assert row.pooled["wis"].max() == 0 and row.per_hospital["wis"].shape == (249, 10)
    assert row.pooled["share_in_95_%_intervals"].min() == 1
    # One too high on the scale of logarithms: half of it by the median, all of it by each interval.
    assert _row("fedavg", data, truth + 1).pooled["wis"].mean() == pytest.approx(1)


def test_intervals_over_seeds_are_those_of_student():
    values = np.array([0.1, 0.3, 0.2, 0.25])
    found = scores.over_seeds(values)
    want = stats.ttest_1samp(values, 0)
    interval = want.confidence_interval(0.95)
    assert found == pytest.approx((values.mean(), interval.low, interval.high, want.pvalue))
    assert np.isnan(scores.over_seeds(values[:1]).low)
    assert np.isnan(scores.over_seeds(np.ones(3)).p_value)


def test_intervals_over_weeks_see_that_neighbours_are_alike():
    rng = np.random.default_rng(0)
    independent = rng.normal(size=400)
    alike = np.repeat(rng.normal(size=40), 10)
    width = []
    for values in (independent, alike):
        found = scores.over_weeks(10, 500, 0)(values)
        width.append(found.high - found.low)
        assert found.low < values.mean() < found.high
    # Forty values say less than four hundred: wider by the root of ten, give or take the draws.
    assert 2 < width[1] / width[0] < 5
    assert scores.over_weeks(10, 500, 0)(independent + 3).p_value == pytest.approx(2 / 501)


@pytest.mark.parametrize(
    "modality, chosen, sentence",
    [
        ("graph", {"impute": "mean"}, r"impute 'mean' has no effect on toy; .* methods, num_seeds"),
        ("graph", {"methods": ("TransH",)}, "must be among TransE, DistMult, ComplEx, RotatE"),
        ("graph", {"methods": ()}, "methods must name some, each once"),
        ("responses", {"num_seeds": 1}, "num_seeds must be at least 2, got 1"),
        ("responses", {"methods": ("local",)}, "methods must be among fedavg,"),
        ("series", {"model": "resnet"}, "model must be one of autoregression, convolution, gru"),
        ("series", {"learning_rates": (0.0,)}, "learning_rates must be above 0"),
        ("genotypes", {"rounds": 3}, "rounds 3 has no effect on toy"),
        ("genotypes", {"methods": ("ridge", "ridge")}, "each once"),
    ],
)
def test_settings_that_do_not_fit_are_named(modality, chosen, sentence):
    with pytest.raises(ValueError, match=sentence):
        DESIGNS[modality].choose("toy", chosen)


def test_a_single_hospital_is_refused():
    dataset = make_graph().select(["North"])
    with pytest.raises(DataError, match="at least 2 hospitals, toy-graph has 1"):
        graphs.study_graph(dataset, GraphSettings())
