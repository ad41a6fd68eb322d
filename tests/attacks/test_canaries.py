"""Canaries: what they are, and audits that pass on right code and fail on mutants."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from fedjax_med.attacks import canaries
from fedjax_med.attacks.canaries import CANARY, audit, canary_scores
from fedjax_med.attacks.protection import Protection
from fedjax_med.attacks.updates import gradient_of
from fedjax_med.privacy import RecordLevel
from tests.attacks.toy import flat, hospitals, protection, task_of, training

DELTA = 1e-5
# Epsilon at DELTA of one Gaussian release with noise multiplier 1.
CLAIM = 4.377178


@pytest.fixture(scope="module")
def dataset():
    return hospitals()


def scores_of(dataset, num_runs=150, **mechanism):
    train = training().protected(protection(**mechanism))
    return canary_scores(train, task_of(dataset), dataset, unit="client", num_runs=num_runs)


def test_direction_has_norm_one_and_equal_entries(dataset):
    direction = np.asarray(flat(canaries.random_direction(task_of(dataset).init(0).params, 3)))
    assert np.linalg.norm(direction) == pytest.approx(1, rel=1e-6)
    np.testing.assert_allclose(np.abs(direction), np.abs(direction[0]))


@pytest.mark.parametrize("unit", ["record", "client"])
def test_gradient_of_a_canary_is_its_direction_and_of_an_absent_one_nothing(dataset, unit):
    task = task_of(dataset)
    direction = canaries.random_direction(task.init(0).params, 0)
    made = canaries.canary_task(task, direction, 50.0)
    audited, (included, excluded) = canaries._with_canary(dataset, unit)
    sizes = dataset.train.sizes if unit == "client" else dataset.train.sizes[:1]
    assert audited.train.sizes[included].tolist() == sizes.tolist()
    assert audited.train.sizes[excluded].tolist() == sizes.tolist()

    def of_canaries(client):
        examples = audited.train.client(int(client))
        kind = examples[CANARY]
        patients = {key: value for key, value in examples.items() if key != CANARY}
        variables = task.init(0)
        found = flat(gradient_of(made, variables, examples))
        keep = np.flatnonzero(kind == 0)
        without = {key: value[keep] for key, value in patients.items()}
        rest = (
            np.asarray(flat(gradient_of(task, variables, without))) * len(keep)
            if keep.size
            else 0.0
        )
        return np.asarray(found) * len(kind) - rest, int((kind != 0).sum())

    change, count = of_canaries(included[0])  # the smallest hospital is the first
    assert count == (12 if unit == "client" else 1)
    np.testing.assert_allclose(change, 50 * count * np.asarray(flat(direction)), rtol=1e-4)
    change, _ = of_canaries(excluded[0])
    # Float32 sums of a dozen gradients of about 1.
    np.testing.assert_allclose(change, 0, atol=1e-5)


@pytest.fixture(scope="module")
def right(dataset):
    return scores_of(dataset)


def test_right_code_passes_and_the_bound_is_close(right):
    found = audit(right, delta=DELTA, claimed=CLAIM)
    assert not found.is_refuted
    # 150 canaries on either side: the bound of 1000 is 3.3, see `test_lower_bounds`.
    assert found.gdp > 1.0
    assert found.rates <= found.gdp


@pytest.mark.parametrize(
    "mutant",
    [
        {"noise_multiplier": 0.5},
        {"bound": 1e6},
        # One release of everybody, claimed as one of a tenth: epsilon 0.3 instead of 4.4.
        {"rate": 1.0, "claimed": 0.3},
    ],
    ids=["noise halved", "clip off", "sampling rate misreported"],
)
def test_mutants_are_caught(dataset, mutant):
    changed = {name: value for name, value in mutant.items() if name != "claimed"}
    scores = scores_of(dataset, **changed)
    found = audit(scores, delta=DELTA, claimed=mutant.get("claimed", CLAIM))
    assert found.is_refuted


def test_scores_of_a_release_are_those_of_the_mechanism(right, dataset):
    """Mean 1 / clients with the canary, 0 without; standard deviation noise / clients."""
    clients = dataset.num_clients
    difference = (right.included.mean() - right.excluded.mean()) * clients
    spread = np.std(right.excluded, ddof=1) * clients
    # Four standard errors of 150 trainings each: sqrt(2 / 150) of a difference, 1 / sqrt(300) of a deviation.
    assert abs(difference - 1) < 4 * 0.116
    assert abs(spread - 1) < 4 * 0.058


@pytest.mark.slow
def test_records_of_a_plan_that_is_kept_and_of_one_with_a_quarter_of_its_noise(dataset):
    settings = RecordLevel(
        clip_norm=1.0, noise_multiplier=1.0, delta=DELTA, batch_size=12, steps=2, largest_batch=20
    )
    right = Protection(settings)
    claimed = right.plan(dataset.train.sizes[:1], 2).epsilon_after(2).value
    for noise, is_refuted in ((1.0, False), (0.25, True)):
        run = Protection(dataclasses.replace(settings, noise_multiplier=noise))
        scores = canary_scores(
            training(2).protected(run), task_of(dataset), dataset, unit="record", num_runs=150
        )
        found = audit(scores, delta=DELTA, claimed=claimed)
        assert found.is_refuted == is_refuted
        assert found.gdp > 0.5


@pytest.mark.slow
def test_without_noise_nothing_is_hidden(dataset):
    train = training(2).unprotected()
    scores = canary_scores(train, task_of(dataset), dataset, unit="record", num_runs=30)
    found = audit(scores, delta=DELTA)
    assert not found.is_refuted  # nothing was claimed
    assert scores.included.min() > scores.excluded.max()
    assert found.gdp > 5


def test_a_training_that_diverges_is_refused(dataset):
    def train(task, dataset, experiments):
        start = task.init(0).params
        params = jax.tree.map(lambda x: np.full((len(experiments), *x.shape), np.nan), start)
        return SimpleNamespace(variables=SimpleNamespace(params=params))

    with pytest.raises(ValueError, match="diverges with the canary"):
        canary_scores(train, task_of(dataset), dataset, unit="client", num_runs=10)
