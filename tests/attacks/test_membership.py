"""Membership inference on models that remember, that cannot, and that are private."""

import numpy as np
import optax
import pytest
from scipy import stats

from fedjax_med import algorithms, models
from fedjax_med.attacks import membership
from fedjax_med.attacks.roc import judge_attack
from fedjax_med.attacks.shadows import train_shadows
from fedjax_med.data import DataError
from fedjax_med.engine import epochs, simulate
from tests.attacks.toy import hospitals, task_of, training


@pytest.fixture(scope="module")
def shadows():
    """A linear model with as many inputs as patients: it learns the noise of labels by heart."""
    dataset = hospitals(3, size=8, features=20, noise=3.0)
    task = task_of(dataset)
    return train_shadows(training(30, 0.5).unprotected(), task, dataset, num_models=16), dataset


def test_every_record_is_in_half_of_the_models_and_every_half_is_a_half(shadows):
    found, _ = shadows
    assert found.records.sizes.tolist() == [8, 8, 10]  # of 8, 9 and 10
    np.testing.assert_array_equal(found.is_member.sum(axis=0), 8)
    np.testing.assert_array_equal(found.is_member[0], ~found.is_member[1])
    client = np.repeat(np.arange(3), found.records.sizes)
    for members in found.is_member:
        assert np.bincount(client[members]).tolist() == [4, 4, 5]
    assert len({members.tobytes() for members in found.is_member}) == 16


def test_models_are_trained_on_their_halves(shadows):
    """The shadow of a half is the model that a run on that half alone gives."""
    found, dataset = shadows
    task = task_of(dataset)
    number = 5
    client = np.repeat(np.arange(3), found.records.sizes)
    rows = found.is_member[number]
    half = type(dataset).from_assignment(
        {key: value[rows] for key, value in found.records.examples.items()},
        client[rows],
        dataset.client_names,
    )
    alone = simulate(
        algorithms.fed_avg(task.gradient, optax.sgd(0.5)),
        half,
        task=task,
        rounds=30,
        local_work=epochs(1, batch_size=8),
        seed=number,
    )
    # Sums in another order, over 30 rounds.
    np.testing.assert_allclose(
        found.variables.params["kernel"][number],
        alone.variables.params["kernel"],
        rtol=1e-3,
        atol=1e-4,
    )


def test_a_model_that_learns_by_heart_tells_its_members(shadows):
    found, _ = shadows
    result = membership.infer_membership(models.linear(), "binary", found, num_resamples=50)
    assert result.threshold.area.low > 0.6
    assert result.lira.area.low > 0.6


def halves(rng, models, records):
    """Random halves, each beside its other half."""
    first = np.array([rng.permutation(records) < records // 2 for _ in range(models // 2)])
    return np.stack([first, ~first], axis=1).reshape(models, records)


def test_ratios_use_the_models_of_other_pairs_only():
    """Against the definition, one model and record at a time, in float64."""
    rng = np.random.default_rng(0)
    found = rng.normal(size=(80, 4)) + 5
    is_member = halves(rng, 80, 4)
    got = membership.likelihood_ratios(found, is_member)
    for model, record in ((0, 0), (7, 1), (79, 2)):
        rest = np.arange(80) // 2 != model // 2
        density = []
        for chosen in (is_member[:, record], ~is_member[:, record]):
            values = found[rest & chosen, record]
            scale = values.std(ddof=1) + 1e-6
            density.append(stats.norm.logpdf(found[model, record], values.mean(), scale))
        assert got[model, record] == pytest.approx(density[0] - density[1], rel=1e-9)


def test_models_that_forget_tell_nothing():
    """Confidence that a half moves for all records alike, and the other half the other way."""
    rng = np.random.default_rng(2)
    is_member = halves(rng, 16, 400)
    moved = rng.normal(size=(8, 1)) * rng.choice([-1, 1], (8, 400))
    found = np.stack([moved, -moved], axis=1).reshape(16, 400)
    found += 0.1 * rng.normal(size=found.shape)
    area = judge_attack(membership.likelihood_ratios(found, is_member), is_member).area
    assert area.low < 0.5 < area.high


def test_likelihood_ratio_beats_the_threshold_where_records_differ():
    """Confidences with a shift of one and a half, hidden by how hard each record is."""
    rng = np.random.default_rng(1)
    is_member = halves(rng, 64, 200)
    hardness = 5 * rng.normal(size=200)
    found = hardness + 1.5 * is_member + rng.normal(size=is_member.shape)
    ratios = membership.likelihood_ratios(found, is_member)
    lira = judge_attack(ratios, is_member, num_resamples=20).area
    threshold = judge_attack(found, is_member, num_resamples=20).area
    # The best that can be: Phi(1.5 / sqrt(2)) = 0.856.
    assert 0.82 < lira.value < 0.87
    assert threshold.value < 0.65


def test_confidence_by_hand():
    p = np.array([0.9, 0.2, 1e-9])
    logits = np.log(p / (1 - p))[None]
    got = membership.confidence(logits, {"y": np.array([1, 0, 1])}, "binary")
    np.testing.assert_allclose(got[0], [np.log(9), np.log(4), np.log(1e-9)], rtol=1e-6)
    outputs = np.log([[[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]])
    got = membership.confidence(outputs, {"y": np.array([0, 1])}, "multiclass")
    np.testing.assert_allclose(got[0], [0, np.log(1 / 9)], atol=1e-12)
    # Sure beyond what 1 - p can say.
    outputs = np.array([[[100.0, 0.0]]])
    assert membership.confidence(outputs, {"y": np.array([0])}, "multiclass") == pytest.approx(100)
    got = membership.confidence(np.array([[1.5]]), {"y": np.array([1.0])}, "regression")
    np.testing.assert_allclose(got, -np.log(0.25), rtol=1e-6)


def test_what_cannot_be_attacked_is_refused():
    with pytest.raises(DataError, match="the outcome is survival"):
        membership.confidence(np.zeros((1, 2)), {"y": np.zeros(2)}, "survival")
    dataset = hospitals()
    for number in (3, 7):
        with pytest.raises(ValueError, match=f"even number of at least 4, got {number}"):
            train_shadows(training().unprotected(), task_of(dataset), dataset, num_models=number)
    single = hospitals(2, size=1)
    with pytest.raises(ValueError, match="client 'H0' must have at least 2"):
        train_shadows(training().unprotected(), task_of(single), single, num_models=4)
