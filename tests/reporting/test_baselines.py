import math

import jax
import numpy as np
import optax
import pytest

from fedjax_med import datasets, models, tasks
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import Variables, epochs
from fedjax_med.engine.evaluate import evaluate
from fedjax_med.reporting.baselines import (
    _every_model,
    best_site_baseline,
    local_only_baseline,
    pooled_baseline,
    train_alone,
    wilson_interval,
)


@pytest.mark.parametrize("share, count", [(0.0, 7), (0.3, 10), (0.8, 254), (1.0, 9)])
def test_wilson_interval_solves_its_equation(share, count):
    # The bounds are the p whose score test just accepts the observed share.
    for bound in wilson_interval(share, count):
        variance = bound * (1 - bound) / count
        np.testing.assert_allclose((share - bound) ** 2, 1.959964**2 * variance, 1e-5, 1e-12)
    low, high = wilson_interval(share, count)
    assert low <= share <= high


def test_wilson_interval_of_nothing_is_undefined():
    assert all(math.isnan(bound) for bound in wilson_interval(math.nan, 0))


@pytest.fixture(scope="module")
def setting():
    dataset = datasets.load("breast-cancer")
    return dataset, tasks.binary_classification(models.linear(), dataset.train.examples)


WORK = epochs(1, batch_size=64, shuffle=False)


def sgd(x, y, rounds, learning_rate, batch_size):
    """Logistic regression by plain SGD, in float64."""
    w, b = np.zeros(x.shape[1]), 0.0
    for _ in range(rounds):
        for start in range(0, len(x), batch_size):
            xs, ys = x[start : start + batch_size], y[start : start + batch_size]
            error = 1 / (1 + np.exp(-(xs @ w + b))) - ys
            w, b = (
                w - learning_rate * xs.T @ error / len(xs),
                b - learning_rate * error.mean(),
            )
    return w, b


def test_local_only_is_plain_sgd_of_every_client(setting):
    dataset, task = setting
    alone = train_alone(dataset, task, optax.sgd(0.1), rounds=3, local_work=WORK)
    got = local_only_baseline(alone)
    for i in range(dataset.num_clients):
        own, test = dataset.train.client(i), dataset.test.client(i)
        w, b = sgd(np.float64(own["x"]), own["y"], 3, 0.1, 64)
        right = ((test["x"] @ w + b) > 0) == (test["y"] > 0)
        np.testing.assert_allclose(got.per_client["accuracy"][i], right.mean(), rtol=1e-6)


def test_pooled_is_plain_sgd_of_everybody(setting):
    dataset, task = setting
    got = pooled_baseline(dataset, task, optax.sgd(0.1), rounds=3, local_work=WORK)
    everyone = dataset.train.examples
    w, b = sgd(np.float64(everyone["x"]), everyone["y"], 3, 0.1, 64)
    for i in range(dataset.num_clients):
        test = dataset.test.client(i)
        logits = test["x"] @ w + b
        signs = np.where(test["y"] > 0, 1, -1)
        loss = np.logaddexp(0, -signs * logits).mean()
        np.testing.assert_allclose(got.per_client["loss"][i], loss, rtol=1e-4)
    everything = dataset.test.examples
    right = ((everything["x"] @ w + b) > 0) == (everything["y"] > 0)
    np.testing.assert_allclose(got.pooled["accuracy"], right.mean(), rtol=1e-6)


@pytest.mark.parametrize("batch_size", [50, 1000])
@pytest.mark.parametrize("metric", [None, "loss"])
def test_the_best_site_is_the_one_whose_model_is_best_for_all(
    setting, metric, batch_size, monkeypatch
):
    monkeypatch.setattr("fedjax_med.reporting.baselines._BATCH_SIZE", batch_size)
    dataset, task = setting
    alone = train_alone(dataset, task, optax.sgd(0.1), rounds=1, local_work=WORK)
    got = best_site_baseline(alone, dataset, task, metric=metric)
    means, models = [], []
    for i in range(dataset.num_clients):
        own = dataset.train.client(i)
        w, b = sgd(np.float64(own["x"]), own["y"], 1, 0.1, 64)
        values = []
        for j in range(dataset.num_clients):
            other = dataset.train.client(j)
            logits, signs = other["x"] @ w + b, np.where(other["y"] > 0, 1, -1)
            value = -np.logaddexp(0, -signs * logits) if metric else (logits * signs > 0)
            values.append(value.mean())
        means.append(np.mean(values))
        models.append((w, b))
    assert np.ptp(means) > 1e-3  # so that the choice means something
    best = int(np.argmax(means))
    assert got.client == dataset.client_names[best]
    test = dataset.test.client(2)
    right = ((test["x"] @ models[best][0] + models[best][1]) > 0) == (test["y"] > 0)
    np.testing.assert_allclose(got.evaluation.per_client["accuracy"][2], right.mean(), rtol=1e-6)


def test_every_model_is_judged_as_in_an_evaluation_of_survival():
    # Risks are compared within minibatches, so these must be of one client, as evaluations have them.
    rng = np.random.default_rng(0)

    def patients(n):
        return {
            "x": rng.normal(size=(n, 2)).astype(np.float32),
            "time": rng.exponential(size=n).astype(np.float32),
            "event": rng.integers(0, 2, n).astype(np.int32),
        }

    dataset = FederatedDataset.from_clients({"a": patients(150), "b": patients(9)})
    task = tasks.cox(models.linear(), dataset.train.examples)
    kernels = np.float32([[0.5, -1.0], [2.0, 0.1]])
    own = [Variables({"kernel": k[:, None], "bias": np.zeros(1, np.float32)}) for k in kernels]
    got = _every_model(jax.tree.map(lambda *x: np.stack(x), *own), dataset, task, "train")
    for number, variables in enumerate(own):
        want = evaluate(variables, dataset, task=task, split="train").per_client
        for name in ("loss", "c_index"):
            np.testing.assert_allclose(got[name][number], want[name], rtol=1e-5)
    assert np.ptp(got["c_index"]) > 0.05


def test_the_best_site_needs_a_metric_of_the_task_and_examples(setting, monkeypatch):
    dataset, task = setting
    alone = train_alone(dataset, task, optax.sgd(0.1), rounds=1, local_work=WORK)
    with pytest.raises(ValueError, match=r"metric must be one of loss, accuracy, .* got 'auc'"):
        best_site_baseline(alone, dataset, task, metric="auc")
    lacking = dataset.replace(validation=None)
    with pytest.raises(ValueError, match=r"choose_on must have examples, .* no 'validation'"):
        best_site_baseline(alone, lacking, task, choose_on="validation")
    monkeypatch.setattr("fedjax_med.reporting.baselines.MAX_SITES", 4)
    with pytest.raises(ValueError, match=r"at most 4 clients .* got 5"):
        best_site_baseline(alone, dataset, task)


def test_evaluation_refuses_a_missing_split(setting):
    dataset, task = setting
    with pytest.raises(ValueError, match="no 'validation'"):
        evaluate(task.init(0), dataset.replace(validation=None), task=task, split="validation")
