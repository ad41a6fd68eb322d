"""Batch statistics estimated again, against those of the images themselves."""

from functools import lru_cache

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from fedjax_med import algorithms, models, tasks
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import epochs, simulate
from fedjax_med.evaluation import predict
from fedjax_med.evaluation._personal import models_of_clients


class Ours(nn.Module):
    """Its first layer normalises the columns themselves, so their statistics are known."""

    @nn.compact
    def __call__(self, x, train: bool = False, batch=None):
        x = models.BatchNorm(momentum=0.8)(x, train, batch)
        x = models.BatchNorm()(nn.relu(nn.Dense(3)(x)), train, batch)
        return nn.Dense(1)(x)


class OfFlax(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.8)(x)
        return nn.Dense(1)(x)


MODELS = {"ours": models.from_linen(Ours()), "flax": models.from_linen(OfFlax())}
SIZES = {"North": 10, "South": 23, "West": 16}


def make_dataset():
    rng = np.random.default_rng(0)

    def client(place, n):
        x = rng.standard_normal((n, 4)) * (1 + place) + 3 * place
        return {"x": x.astype(np.float32), "y": rng.integers(2, size=n).astype(np.int32)}

    clients = {name: client(i, n) for i, (name, n) in enumerate(SIZES.items())}
    return FederatedDataset.from_clients(clients, test=clients)


DATASET = make_dataset()


@lru_cache
def trained(name):
    task = tasks.binary_classification(MODELS[name], DATASET.train.examples)
    algorithm = algorithms.fed_avg(task.gradient, optax.sgd(0.1))
    run = simulate(
        algorithm, DATASET, task=task, rounds=2, local_work=epochs(1, batch_size=8), lanes=1
    )
    return task, algorithm, run


def statistics(name, work):
    task, algorithm, run = trained(name)
    again = algorithms.re_estimated(algorithm, task.loss, local_work=work)
    own = models_of_clients(again, DATASET.train, None)(run.state, run.client_states)
    return own, own.state["batch_stats"]["BatchNorm_0"]


def test_everyone_has_the_statistics_of_its_own_rows():
    """Of whole hospitals at once, and of padded minibatches, whose variances are averaged."""
    _, whole = statistics("ours", epochs(1, batch_size=32, shuffle=False))
    own, pieces = statistics("ours", epochs(1, batch_size=8, shuffle=False))
    for i, name in enumerate(SIZES):
        x = np.float64(DATASET.train.client(i)["x"])
        np.testing.assert_allclose(whole["mean"][i], x.mean(0), rtol=1e-5, atol=1e-5)
        # Momentum is found from two numbers of the size of the statistics, at most 50 here.
        np.testing.assert_allclose(whole["var"][i], x.var(0), rtol=1e-4, err_msg=name)
        batches = [x[start : start + 8] for start in range(0, len(x), 8)]
        variance = sum(len(b) * b.var(0) for b in batches) / len(x)
        np.testing.assert_allclose(pieces["mean"][i], x.mean(0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(pieces["var"][i], variance, rtol=1e-4)
    _, _, run = trained("ours")
    for leaf, shared in zip(
        jax.tree.leaves(own.params), jax.tree.leaves(run.variables.params), strict=True
    ):
        np.testing.assert_array_equal(leaf, np.stack([shared] * 3))


def test_deeper_layers_see_what_the_layers_before_them_make():
    own, _ = statistics("ours", epochs(1, batch_size=32, shuffle=False))
    params = jax.tree.map(np.float64, trained("ours")[2].variables.params)
    for i in range(3):
        x = np.float64(DATASET.train.client(i)["x"])
        z = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
        z = z * params["BatchNorm_0"]["scale"] + params["BatchNorm_0"]["bias"]
        hidden = np.maximum(z @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], 0)
        found = own.state["batch_stats"]["BatchNorm_1"]
        np.testing.assert_allclose(found["mean"][i], hidden.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["var"][i], hidden.var(0), rtol=1e-3, atol=1e-5)


def test_statistics_of_flax_are_found_without_knowing_its_momentum():
    """Its layer knows of no padding, so minibatches are full ones here."""
    _, found = statistics("flax", epochs(1, batch_size=1, shuffle=False))
    for i in range(3):
        x = np.float64(DATASET.train.client(i)["x"])
        np.testing.assert_allclose(found["mean"][i], x.mean(0), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found["var"][i], 0, atol=1e-3)


def test_training_is_what_it_is_without_and_predictions_are_not():
    task, algorithm, run = trained("ours")
    again = algorithms.re_estimated(algorithm, task.loss)
    work = epochs(1, batch_size=8)
    other = simulate(
        again, DATASET, task=task, rounds=2, local_work=work, lanes=1, evaluate_every=2
    )
    jax.tree.map(np.testing.assert_array_equal, other.variables, run.variables)
    shared = predict(run, DATASET, MODELS["ours"])
    own = predict(other, DATASET, MODELS["ours"], algorithm=again, local_work=work)
    assert np.abs(shared.outputs - own.outputs).max() > 0.01
    right = (own.outputs > 0.5) == own.labels
    assert other.evaluations[-1].pooled["accuracy"] == pytest.approx(right.mean(), abs=1e-6)


def test_what_has_no_statistics_is_refused():
    task = tasks.binary_classification(models.linear(), DATASET.train.examples)
    algorithm = algorithms.re_estimated(
        algorithms.fed_avg(task.gradient, optax.sgd(0.1)), task.loss
    )
    with pytest.raises(
        ValueError, match="must have floating statistics to estimate again, got none"
    ):
        simulate(
            algorithm,
            DATASET,
            task=task,
            rounds=1,
            local_work=epochs(1, batch_size=8),
            evaluate_every=1,
        )
    with pytest.raises(ValueError, match="must have no adaptation of its own"):
        algorithms.re_estimated(algorithm, task.loss)
