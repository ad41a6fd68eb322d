"""Federated Newton against fits of the pooled patients in float64."""

import jax
import numpy as np
import pytest
from scipy import optimize, stats
from sklearn.linear_model import LogisticRegression

from fedjax_med import algorithms, datasets, models, tasks
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import epochs, simulate
from fedjax_med.evaluation import Outcome, concordance
from tests.tasks.survival_oracles import partial_likelihood

SIZES = (9, 30, 17)
LARGEST = max(SIZES)


def hospitals(outcome):
    """Three hospitals with three columns, in float64; `outcome(rng, x)` makes the other leaves."""
    rng = np.random.default_rng(4)

    def one(n):
        x = rng.standard_normal((n, 3)) + 0.5 * rng.standard_normal(3)
        return {"x": x, **outcome(rng, x)}

    return FederatedDataset.from_clients({f"hospital {i}": one(n) for i, n in enumerate(SIZES)})


def fit(dataset, task, *, rounds, batch_size, **options):
    with jax.enable_x64(True):
        return simulate(
            algorithms.newton(task.loss, **options),
            dataset,
            task=task,
            rounds=rounds,
            local_work=epochs(1, batch_size=batch_size),
            seed=1,
        )


def logistic(rng, x):
    return {"y": (x[:, 0] - x[:, 1] + rng.logistic(size=len(x)) > 0).astype(np.int32)}


def survival(rng, x):
    time = np.ceil(5 * rng.exponential(np.exp(-x[:, 0])))  # with ties
    return {"time": time, "event": (rng.random(len(x)) < 0.7).astype(np.int32)}


def test_logistic_regression_is_that_of_the_pooled_patients():
    dataset, ridge = hospitals(logistic), 2.0
    task = tasks.binary_classification(models.linear(), dataset.train.examples)
    run = fit(dataset, task, rounds=8, batch_size=8, ridge=ridge)  # minibatches change nothing
    x, y = (dataset.train.examples[leaf] for leaf in ("x", "y"))
    want = LogisticRegression(C=1 / ridge, solver="newton-cholesky", tol=1e-12).fit(x, y)
    params = run.variables.params
    np.testing.assert_allclose(params["kernel"][:, 0], want.coef_[0], atol=1e-8)
    np.testing.assert_allclose(params["bias"], want.intercept_, atol=1e-8)
    design = np.column_stack([np.ones(len(x)), x])  # "bias" comes before "kernel"
    p = want.predict_proba(x)[:, 1]
    information = design.T @ (design * (p * (1 - p))[:, None])
    np.testing.assert_allclose(run.state.information, information, rtol=1e-6)

    wald = algorithms.wald_intervals(params, run.state.information, level=0.9)
    se = np.sqrt(np.diag(np.linalg.inv(information)))
    value = np.array([*want.intercept_, *want.coef_[0]])
    np.testing.assert_allclose(wald.se, se, rtol=1e-6)
    np.testing.assert_allclose(wald.high - value, stats.norm.ppf(0.95) * se, rtol=1e-5)
    np.testing.assert_allclose(wald.low + wald.high, 2 * value, atol=1e-7)
    np.testing.assert_allclose(wald.p_value, 2 * stats.norm.sf(np.abs(value / se)), rtol=1e-5)


def test_a_cox_model_is_the_one_stratified_by_hospital():
    dataset, ridge, ties = hospitals(survival), 0.5, "efron"
    task = tasks.cox(models.linear(), dataset.train.examples, ties=ties)
    run = fit(dataset, task, rounds=7, batch_size=LARGEST, ridge=ridge)
    clients = [dataset.train.client(i) for i in range(3)]

    def objective(beta):
        terms = [partial_likelihood(c["x"] @ beta, c["time"], c["event"], ties) for c in clients]
        return sum(terms) + ridge / 2 * beta @ beta

    want = optimize.minimize(objective, np.zeros(3), method="BFGS", options={"gtol": 1e-6})
    beta = np.asarray(run.variables.params["kernel"])[:, 0]
    # Nearer than the reference, whose gradient comes from differences.
    np.testing.assert_allclose(beta, want.x, atol=1e-5)
    assert objective(beta) <= want.fun + 1e-9
    # The bias has no say: it stays, and has no interval.
    assert run.variables.params["bias"] == 0
    wald = algorithms.wald_intervals(run.variables.params, run.state.information)
    assert np.isnan(wald.se[0]) and np.isfinite(wald.se[1:]).all()
    total = len(dataset.train.examples["x"])
    unpenalised = objective(beta) - ridge / 2 * beta @ beta
    np.testing.assert_allclose(run.history["train_loss"][-1] * total, unpenalised, rtol=1e-8)


def quadratic(variables, batch):
    """A loss of known derivatives; the last weight has no part in it."""
    residual = batch.examples["x"] @ variables.params["w"] + variables.params["bias"]
    return 0.5 * (residual - batch.examples["y"]) ** 2, variables.state


@pytest.mark.parametrize("penalise_bias", [False, True])
def test_one_step_solves_a_ridge_regression(penalise_bias):
    dataset = hospitals(lambda rng, x: {"y": x @ np.array([1.0, 2.0, 0.0]) + 3})
    dataset.train.examples["x"][:, 2] = 0  # a column that says nothing
    start = {"w": np.array([0.3, -0.2, 0.7]), "bias": np.array(0.5)}
    model = models.from_function(lambda key, x: start, lambda params, x: x @ params["w"])
    task = tasks.regression(model, dataset.train.examples)._replace(loss=quadratic)
    run = fit(dataset, task, rounds=1, batch_size=8, ridge=4.0, penalise_bias=penalise_bias)
    x, y = dataset.train.examples["x"][:, :2], dataset.train.examples["y"]
    design = np.column_stack([np.ones(len(x)), x])
    penalty = np.diag([4.0 * penalise_bias, 4.0, 4.0])
    want = np.linalg.solve(design.T @ design + penalty, design.T @ y)
    got = run.variables.params
    np.testing.assert_allclose([got["bias"], *got["w"][:2]], want, rtol=1e-10)
    assert abs(got["w"][2]) < 1e-12  # only the penalty knows of it


def test_what_nobody_knows_of_stays():
    dataset = hospitals(logistic)
    dataset.train.examples["x"][:, 2] = 0
    task = tasks.binary_classification(models.linear(), dataset.train.examples)
    start = jax.tree.map(lambda v: np.full(v.shape, 0.1), task.init(0))
    run = fit(dataset, task._replace(init=lambda seed: start), rounds=6, batch_size=LARGEST)
    kernel = run.variables.params["kernel"][:, 0]
    assert kernel[2] == pytest.approx(0.1, abs=0) and np.abs(kernel[:2]).min() > 0.2


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="ridge must be 0 or more, got -1"):
        algorithms.newton(quadratic, ridge=-1.0)
    one = np.ones(1)
    with pytest.raises(ValueError, match=r"level must be between 0 and 1, got 1\.0"):
        algorithms.wald_intervals(one, np.eye(1), level=1.0)
    with pytest.raises(ValueError, match=r"shape \[1, 1\].*got \[2, 2\]"):
        algorithms.wald_intervals(one, np.eye(2))
    with pytest.raises(ValueError, match="positive definite"):
        algorithms.wald_intervals(np.ones(2), np.ones((2, 2)))


def test_the_regions_of_tcga_brca(shared_data_dir):
    """A stratified Cox model of 39 columns, fitted in six rounds."""
    dataset = datasets.tcga_brca(data_dir=shared_data_dir / "tcga_brca", standardize="global")
    task = tasks.cox(models.linear(), dataset.train.examples)
    run = simulate(
        algorithms.newton(task.loss, ridge=10.0),
        dataset,
        task=task,
        rounds=6,
        local_work=epochs(1, batch_size=int(dataset.train.sizes.max())),
    )
    losses = run.history["train_loss"]
    assert losses[0] - losses[3] > 0.05 and abs(losses[5] - losses[4]) < 1e-6  # converged
    kernel = np.float64(run.variables.params["kernel"][:, 0])

    def c_index(examples):
        outcome = Outcome(examples["time"], examples["event"])
        return float(concordance.c_index(examples["x"] @ kernel, outcome))

    test = dataset.test
    regions = [c_index(test.client(i)) for i in range(dataset.num_clients)]
    # Measured; one pair of patients the other way round is 0.003 in the mean over regions.
    assert np.mean(regions) == pytest.approx(0.8208, abs=1e-4)
    assert c_index(test.examples) == pytest.approx(0.8498, abs=1e-4)
