"""Forecasts are put back where they belong; the simple rules by definition."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.influenza import judge, page, study
from benchmarks.influenza.__main__ import main
from fedjax_med.datasets import _flu_ili
from fedjax_med.evaluation.forecasting import rmse
from fedjax_med.studies import forecast_training as training
from fedjax_med.tasks.forecasting import LEVELS


@pytest.fixture(scope="module")
def data(shared_data_dir):
    return study.setup("regions", to_tune=False, data_dir=shared_data_dir)


def test_seasons_to_tune_on_come_before_the_test_seasons(data, shared_data_dir):
    to_tune = study.setup("regions", to_tune=True, data_dir=shared_data_dir)
    assert to_tune.parts["test"] == (418, 522) and data.parts == {
        "train": (0, 522),
        "test": (522, 785),
    }
    logs = np.log1p(data.series.counts)
    np.testing.assert_allclose(data.scale.mean, logs[:522].mean(axis=0))
    np.testing.assert_allclose(to_tune.scale.mean, logs[:418].mean(axis=0))


def test_outputs_come_back_as_logarithms(data):
    """A model that says the target itself for all levels gives the truth."""
    target = data.population.test.examples["y"]
    output = np.repeat(target, len(LEVELS), axis=1)[None]
    got = training.logarithms(data, output)
    truth = data.truth("test")
    # The targets are rounded to float32.
    np.testing.assert_allclose(got[0], np.repeat(truth[..., None], 7, axis=-1), atol=1e-5)
    third = target.reshape(10, -1, 6)[2]
    alone = training.logarithms(data, np.repeat(third, len(LEVELS), axis=1)[None], places=[2])
    np.testing.assert_allclose(alone[0, :, 0, :, 0], truth[:, 2], atol=1e-5)
    assert training.pinball(data, output).item() == 0
    assert judge.difference(data, got, got)["value"] == 0


def test_persistence_is_the_present_week(data):
    quantiles = training.persistence(data)
    logs = np.log1p(data.series.counts)
    np.testing.assert_allclose(quantiles[0, :, 0, 3], logs[521])
    np.testing.assert_allclose(quantiles[7, 4, :, 3], np.full(6, logs[528, 4]))
    changes = logs[5:522, 2] - logs[:517, 2]
    np.testing.assert_allclose(quantiles[9, 2, 3, 0] - logs[530, 2], np.quantile(changes, 0.025))
    counts = np.expm1(data.truth("test"))[:, :, 0]
    # Of the counts themselves, one week before.
    want = np.sqrt(np.mean((data.series.counts[521:770] - data.series.counts[522:771]) ** 2))
    np.testing.assert_allclose(rmse(np.expm1(quantiles[:, :, 0, 3]), counts), want)


def test_the_seasonal_rule_knows_training_seasons_only(data):
    quantiles = training.seasonal(data)
    row = data.origins("test")[0] + 1  # week 40 of 2012
    assert (data.series.season[row], data.series.week[row]) == (2012, 40)
    near = [r for r in range(522) if data.series.week[r] in (38, 39, 40, 41, 42)]
    want = np.quantile(np.log1p(data.series.counts[near, 6]), LEVELS)
    np.testing.assert_allclose(quantiles[0, 6, 0], want)


def test_neighbours_are_the_mean_over_borders(data, shared_data_dir):
    near = study.setup("regions", to_tune=False, data_dir=shared_data_dir, neighbours=2)
    assert near.dataset.feature_names[-1] == "neighbours 1 weeks before"
    scaled = data.scale.apply(data.series.counts)
    # Region 2 has borders with regions 1 and 3 only.
    want = scaled[521 - np.arange(2)][:, [0, 2]].mean(axis=1)
    np.testing.assert_allclose(near.dataset.test.client(1)["x"][0, -2:], want, rtol=1e-5)
    assert _flu_ili.CITATION == near.dataset.citation


def test_the_page_has_the_numbers_of_the_results(tmp_path):
    repo = Path(__file__).parents[2]
    results = repo / "benchmarks" / "results" / "influenza-cpu.jsonl"
    told = (repo / "docs" / "influenza.md").read_text()
    copy = tmp_path / "page.md"
    copy.write_text(told.replace("0.1640", "0.9999"))
    main(["--json", str(results), "--page", str(copy)])
    assert copy.read_text() == told
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    with pytest.raises(ValueError, match="sections Regions, States and Alarms"):
        page.updated("# Influenza", lines)
