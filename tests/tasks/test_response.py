"""Masked responses: what is hidden is what is asked for, and low rank is found by hospitals together."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_med import algorithms, models, tasks
from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.datasets._gdsc import ask_for_the_others, responses
from fedjax_med.engine import Batch, Variables, epochs, placement, simulate

DRUGS, RANK = 10, 2


def make_dataset(noise=0.1, seed=0):
    """Hospitals with rows of one matrix of rank 2, a fifth of it not measured."""
    rng = np.random.default_rng(seed)
    columns = rng.standard_normal((RANK, DRUGS))

    def rows(n):
        values = rng.standard_normal((n, RANK)) @ columns
        values += noise * rng.standard_normal(values.shape)
        values[rng.random(values.shape) < 0.2] = np.nan
        return values.astype(np.float32)

    sizes = {"North": 40, "South": 11, "West": 25, "East": 17}
    train = {name: rows(n) for name, n in sizes.items()}
    return FederatedDataset.from_clients(
        {name: responses(x, x) for name, x in train.items()},
        test={name: ask_for_the_others(rows(15), 5, 0) for name in sizes},
        name="responses",
    )


DATASET = make_dataset()


def batch_of(examples, key=0):
    size = len(examples["x"])
    examples = jax.tree.map(jnp.asarray, examples)
    return Batch(examples, jnp.ones(size, bool), jnp.float32(size), jax.random.key(key))


def test_the_loss_is_that_of_the_hidden_responses_and_never_sees_them():
    seen = []

    def apply(variables, batch, train):
        seen.append(np.asarray(batch.examples["x"]))
        return jnp.zeros_like(batch.examples["x"]) + variables.params, variables.state

    model = models.Model(lambda key, x: Variables(jnp.float32(0.25)), apply)
    task = tasks.masked_responses(model, DATASET.train.examples, hidden=0.4)
    examples = DATASET.train.client(0)
    losses, _ = task.loss(task.init(0), batch_of(examples))
    (shown,), x = seen, examples["x"]
    hidden = np.isnan(shown) & ~np.isnan(x)
    for i in range(len(x)):
        error = 0.25 - x[i, hidden[i]].astype(np.float64)
        want = 0.5 * (error**2).mean() if hidden[i].any() else 0.0
        np.testing.assert_allclose(losses[i], want, rtol=1e-5)  # ten terms in float32
    # 320 known responses: five standard deviations of a binomial share are 0.14.
    assert abs(hidden.sum() / (~np.isnan(x)).sum() - 0.4) < 0.14
    # Another step hides others, and evaluation hides nothing.
    task.loss(task.init(0), batch_of(examples, 1))
    task.metrics(task.init(0), batch_of(examples))
    assert (np.isnan(seen[1]) != np.isnan(shown)).any()
    np.testing.assert_array_equal(seen[2], x)


def test_metrics_are_of_the_responses_that_are_asked_for():
    model = models.from_function(lambda key, x: jnp.float32(0.5), lambda p, x: 0 * x + p)
    examples = {
        "x": np.zeros((2, 3), np.float32),
        "y": np.array([[1.5, 9, 0.5], [0, 0, 0]], np.float32),
        "measured": np.array([[True, False, True], [False] * 3]),
    }
    task = tasks.masked_responses(model, examples)
    got = task.metrics(task.init(0), batch_of(examples))
    assert [v.tolist() for v in got["mse"]] == [[1.0, 0.0], [2.0, 0.0]]
    assert [v.tolist() for v in got["mae"]] == [[1.0, 0.0], [2.0, 0.0]]


@pytest.mark.parametrize(
    "model, below",
    # The noise has a variance of 0.01. New patients have five known responses: a matrix of rank 2
    # leaves little; the network has to find that by gradient steps.
    [(models.response_factorisation(2, ridge=0.1), 0.1), (models.response_autoencoder(), 0.6)],
    ids=["factorisation", "autoencoder"],
)
def test_new_patients_are_predicted_from_few_responses(model, below):
    task = tasks.masked_responses(model, DATASET.train.examples)
    run = simulate(
        algorithms.fed_avg(task.gradient, optax.adam(0.03)),
        DATASET,
        task=task,
        rounds=40,
        local_work=epochs(1, batch_size=8),
        evaluate_every=40,
    )
    e = DATASET.test.examples
    nothing_learned = (e["y"][e["measured"]] ** 2).mean()
    assert run.evaluations[-1].pooled["mse"] < below * nothing_learned


def test_every_placement_trains_the_same_model():
    task = tasks.masked_responses(
        models.response_factorisation(2, ridge=0.5), DATASET.train.examples
    )
    algorithm = algorithms.fed_avg(task.gradient, optax.sgd(0.1))
    runs = [
        simulate(
            algorithm,
            DATASET,
            task=task,
            rounds=2,
            local_work=epochs(1, batch_size=8),
            placement=place,
        )
        for place in (placement.one_device(), placement.mesh(2, splits=2))
    ]
    for one, other in zip(*(jax.tree.leaves(run.variables) for run in runs), strict=True):
        # About ten dependent steps in float32, in another order of additions.
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
    assert not np.allclose(runs[0].variables.params["columns"], task.init(0).params["columns"])


def test_the_scale_of_a_drug_is_that_of_all_hospitals():
    scale = tasks.drug_scale(DATASET)
    x = np.float64(DATASET.train.examples["x"])
    np.testing.assert_allclose(scale.center, np.nanmean(x, 0), rtol=1e-12)
    np.testing.assert_allclose(scale.scale, np.nanstd(x, 0), rtol=1e-12)
    scaled = scale.apply(DATASET)
    e, raw = scaled.test.examples, DATASET.test.examples
    assert (e["y"][~e["measured"]] == 0).all() and e["x"].dtype == np.float32
    back = scale.invert(np.where(e["measured"], e["y"], np.nan))
    # Rounded to float32 once.
    np.testing.assert_allclose(back[e["measured"]], raw["y"][e["measured"]], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scale.invert(e["x"]), raw["x"], rtol=1e-5, atol=1e-5)


def test_what_cannot_be_learned_from_is_refused():
    model = models.response_factorisation(2)
    with pytest.raises(ValueError, match=r"^hidden must be above 0 and below 1, got 1.0.$"):
        tasks.masked_responses(model, DATASET.train.examples, hidden=1.0)
    with pytest.raises(ValueError, match=r"^examples must have 'measured', got x, y.$"):
        tasks.masked_responses(model, {"x": 0, "y": 0})
    x = DATASET.train.examples["x"].copy()
    for value, words in ((np.nan, "has 0 training responses"), (1.0, "has the same response")):
        x[:, 3] = value
        bad = FederatedDataset.from_clients({"North": responses(x, x)})
        with pytest.raises(DataError, match=f"^drug '3' {words}.*\\.$"):
            tasks.drug_scale(bad)
