"""Predictions of clients that adapt before they are judged, and of all experiments at once."""

import numpy as np
import optax
import pytest

from fedjax_med import models, tasks
from fedjax_med.algorithms import fed_avg, fine_tuned, local_only
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import epochs, grid, simulate
from fedjax_med.evaluation import binary_metrics, judge, predict, predict_experiments

MODEL = models.linear()
WORK = epochs(1, batch_size=4)


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    draw = lambda n: {
        "x": rng.normal(size=(n, 3)).astype(np.float32),
        "y": rng.integers(2, size=n).astype(np.int32),
    }
    sizes = {"a": 9, "b": 5, "c": 12}
    return FederatedDataset.from_clients(
        {name: draw(n) for name, n in sizes.items()},
        test={name: draw(n) for name, n in zip("abc", (7, 0, 11), strict=True)},
    )


@pytest.fixture(scope="module")
def task(dataset):
    return tasks.binary_classification(MODEL, dataset.train.examples)


def accuracies(predictions):
    judged = judge(predictions, {"accuracy": binary_metrics()["accuracy"]}, num_resamples=0)
    return [judged.per_hospital[name].metrics["accuracy"].value for name in "abc"]


def test_adapting_clients_predict_as_the_engine_judges_them(dataset, task):
    algorithm = fine_tuned(
        fed_avg(task.gradient, optax.sgd(0.5)), task.gradient, optax.sgd(0.5), local_work=None
    )
    run = simulate(algorithm, dataset, task=task, rounds=2, local_work=WORK, evaluate_every=2)
    got = predict(run, dataset, MODEL, algorithm=algorithm, local_work=WORK)
    # The engine evaluates through another program: the loss shows more than decisions do.
    p = np.where(got.labels == 1, got.outputs, 1 - got.outputs)
    for name, client in (("a", 0), ("c", 2)):
        want = run.evaluations[-1].per_client["loss"][client]
        np.testing.assert_allclose(-np.log(p[got.client == client]).mean(), want, rtol=1e-5)
        assert accuracies(got)["abc".index(name)] == pytest.approx(
            run.evaluations[-1].per_client["accuracy"][client], rel=1e-6
        )
    assert np.abs(got.outputs - predict(run, dataset, MODEL).outputs).max() > 1e-3
    with pytest.raises(NotImplementedError, match="give the local_work of the run"):
        predict(run, dataset, MODEL, algorithm=algorithm)


def test_experiments_are_predicted_as_each_alone(dataset, task):
    algorithm = local_only(task.gradient, optax.sgd(0.5))
    run = simulate(
        algorithm, dataset, task=task, rounds=2, local_work=WORK, experiments=grid(seed=[0, 1, 2])
    )
    for chosen in (None, algorithm):
        got = predict_experiments(run, dataset, MODEL, algorithm=chosen, batch_size=4)
        assert len(got) == 3
        for index, own in enumerate(got):
            want = predict(run, dataset, MODEL, algorithm=chosen, experiment=index)
            # Batches of another size and the mapped axis change the order of products.
            np.testing.assert_allclose(own.outputs, want.outputs, rtol=1e-5)
            np.testing.assert_array_equal(own.labels, want.labels)
    assert np.abs(got[0].outputs - got[1].outputs).max() > 1e-4  # shuffled by their seeds
    with pytest.raises(ValueError, match=r"has experiments 0, ..., 2; got 3"):
        predict(run, dataset, MODEL, experiment=3)
    alone = simulate(algorithm, dataset, task=task, rounds=1, local_work=WORK)
    with pytest.raises(ValueError, match="run must have experiments"):
        predict_experiments(alone, dataset, MODEL)
    with pytest.raises(ValueError, match="has no experiments; got 0"):
        predict(alone, dataset, MODEL, experiment=0)
