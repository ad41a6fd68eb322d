"""Coefficients and their intervals, against formulas in float64 and SciPy."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from fedjax_med import models, tasks
from fedjax_med.data import FederatedDataset
from fedjax_med.data.standardize import Standardizer, fit
from fedjax_med.engine import Variables
from fedjax_med.explanation import coefficients, coefficients_of_runs

SIZES = (40, 0, 25, 55)
EXAMPLE = {"x": np.zeros((1, 3), np.float32), "y": np.zeros(1, np.int32)}
MODEL = models.linear()
LOGISTIC = tasks.binary_classification(MODEL, EXAMPLE).loss
SQUARES = tasks.regression(MODEL, EXAMPLE).loss


def table(y, x, sizes=SIZES, **leaves):
    cut = np.cumsum(sizes)[:-1]
    parts = {n: np.split(v, cut) for n, v in {"x": x, "y": y, **leaves}.items()}
    return FederatedDataset.from_clients(
        {name: {n: v[i] for n, v in parts.items()} for i, name in enumerate("abcd")},
        feature_names=("age", "sex", "dose")[: x.shape[1]],
    )


def draw(seed=0, features=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(sum(SIZES), features)).astype(np.float32) * [10.0, 1.0, 0.1][:features]
    x = (x + [50.0, 0.0, 0.5][:features]).astype(np.float32)
    return rng, x


def with_ones(x):
    return np.concatenate([np.float64(x), np.ones((len(x), 1))], axis=1)


def variables(theta):
    return Variables({"kernel": np.asarray(theta[:-1])[:, None], "bias": np.asarray(theta[-1:])})


def logistic_fit(x, y, ridge=0.0):
    """Newton's method on standardised columns would be better conditioned; 50 steps suffice."""
    x1, theta = with_ones(x), np.zeros(x.shape[1] + 1)
    penalty = ridge * np.append(np.ones(x.shape[1]), 0)
    for _ in range(50):
        p = 1 / (1 + np.exp(-x1 @ theta))
        hessian = (x1 * (p * (1 - p))[:, None]).T @ x1 + np.diag(penalty)
        theta = theta - np.linalg.solve(hessian, x1.T @ (p - y) + penalty * theta)
    p = 1 / (1 + np.exp(-x1 @ theta))
    information = (x1 * (p * (1 - p))[:, None]).T @ x1
    scores = x1 * (p - y)[:, None]
    return theta, information, scores.T @ scores, np.diag(penalty)


@pytest.fixture(scope="module")
def patients():
    rng, x = draw()
    logit = (x - [50, 0, 0.5]) @ [0.08, 1.0, 3.0] - 0.3
    return x, (rng.random(len(x)) < 1 / (1 + np.exp(-logit))).astype(np.int32)


@pytest.mark.parametrize("variance", ["information", "sandwich"])
@pytest.mark.parametrize("ridge", [0.0, 2.0])
def test_logistic_intervals_are_those_of_the_pooled_formula(patients, variance, ridge):
    x, y = patients
    scaler = fit(table(y, x))
    scaled = (np.float64(x) - scaler.mean) / scaler.scale
    theta, information, squares, penalty = logistic_fit(scaled.astype(np.float32), y, ridge)
    got = coefficients(
        LOGISTIC, variables(theta), table(y, scaled.astype(np.float32)),
        variance=variance, standardizer=scaler, ridge=ridge, batch_size=16,
    )  # fmt: skip
    inverse = np.linalg.inv(information + penalty)
    covariance = inverse @ (information if variance == "information" else squares) @ inverse
    natural = np.diag(np.append(1 / scaler.scale, 1))
    natural[-1, :-1] = -scaler.mean / scaler.scale
    covariance, value = natural @ covariance @ natural.T, natural @ theta
    assert got.names == ("age", "sex", "dose", "intercept")
    # Both are float64; the reference rounds only in its sums.
    np.testing.assert_allclose(got.federated.value, value, rtol=1e-10)
    np.testing.assert_allclose(got.covariance, covariance, rtol=1e-8)
    se = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(got.federated.low, value - 1.959963984540054 * se, rtol=1e-8)
    np.testing.assert_allclose(got.federated.p_value, 2 * stats.norm.sf(np.abs(value) / se))
    np.testing.assert_allclose(got.federated.ratios().high, np.exp(got.federated.high))
    assert got.steps_left < 1e-6  # the reference's optimum is one


def test_natural_units_are_those_of_a_fit_in_natural_units(patients):
    x, y = patients
    scaler = fit(table(y, x))
    scaled = ((np.float64(x) - scaler.mean) / scaler.scale).astype(np.float32)
    centred = x - np.float32(50)  # a fit of raw ages is too ill-conditioned a reference
    scaler = Standardizer(scaler.mean - 50, scaler.scale)
    raw = coefficients(LOGISTIC, variables(logistic_fit(centred, y)[0]), table(y, centred))
    got = coefficients(
        LOGISTIC, variables(logistic_fit(scaled, y)[0]), table(y, scaled), standardizer=scaler
    )
    # `scaled` is rounded to float32.
    np.testing.assert_allclose(got.federated.value, raw.federated.value, rtol=2e-5)
    np.testing.assert_allclose(got.federated.se, raw.federated.se, rtol=2e-5)


def test_least_squares_are_those_of_scipy_in_every_hospital():
    rng, x = draw(1, features=1)
    y = (3 + 0.2 * x[:, 0] + rng.normal(size=len(x))).astype(np.float32)
    want = stats.linregress(np.float64(x[:, 0]), np.float64(y))
    theta = np.array([want.slope, want.intercept])
    got = coefficients(SQUARES, variables(theta), table(y, x), estimate_dispersion=True)
    np.testing.assert_allclose(got.federated.se, [want.stderr, want.intercept_stderr], rtol=1e-9)
    np.testing.assert_allclose(got.federated.p_value[0], want.pvalue, rtol=1e-8)
    half = stats.t.ppf(0.975, len(x) - 2) * want.stderr
    np.testing.assert_allclose(got.federated.high[0], want.slope + half, rtol=1e-9)
    # A quadratic loss is at its optimum after one Newton step.
    start = 0
    for name, size in zip("abcd", SIZES, strict=True):
        own = got.per_hospital[name]
        rows = slice(start, start + size)
        start += size
        if not size:
            assert np.isnan(own.value).all() and np.isnan(own.se).all()
            continue
        alone = stats.linregress(np.float64(x[rows, 0]), np.float64(y[rows]))
        np.testing.assert_allclose(own.value, [alone.slope, alone.intercept], rtol=1e-7)
    residual = y - x[:, 0] * want.slope - want.intercept
    x1 = with_ones(x)
    inverse = np.linalg.inv(x1.T @ x1)
    hc0 = inverse @ (x1.T * residual**2) @ x1 @ inverse  # MacKinnon and White, 1985, HC0
    robust = coefficients(SQUARES, variables(theta), table(y, x), variance="sandwich")
    np.testing.assert_allclose(robust.covariance, hc0, rtol=1e-8)


def test_a_model_short_of_its_optimum_is_noticed():
    rng, x = draw(2, features=1)
    y = (0.2 * x[:, 0] + rng.normal(size=len(x))).astype(np.float32)
    fitted = stats.linregress(np.float64(x[:, 0]), np.float64(y))
    at = np.array([fitted.slope, fitted.intercept])
    best = coefficients(SQUARES, variables(at), table(y, x))
    assert best.steps_left < 1e-6
    # The longest step is the intercept's, as the slope is where it should be.
    away = at + np.array([0, 0.5 * best.federated.se[1]])
    moved = coefficients(SQUARES, variables(away), table(y, x))
    np.testing.assert_allclose(moved.steps_left, 0.5, rtol=1e-6)


def test_cox_information_is_stratified_by_hospital_and_the_bias_undetermined():
    rng, x = draw(3)
    time = rng.permutation(len(x)).astype(np.float32)
    event = (rng.random(len(x)) < 0.7).astype(np.int32)
    beta = np.array([0.02, -0.5, 1.0])
    dataset = table(np.zeros(len(x), np.int32), x, time=time, event=event)
    loss = tasks.cox(MODEL, EXAMPLE).loss  # no ties here, where Efron and Breslow differ
    got = coefficients(loss, variables([*beta, 0.0]), dataset, whole_hospitals=True, batch_size=7)
    information = np.zeros((3, 3))
    client = np.repeat(range(4), SIZES)
    for i in np.flatnonzero(event):
        at_risk = (time >= time[i]) & (client == client[i])
        w = np.exp(np.float64(x[at_risk]) @ beta)
        w /= w.sum()
        d = x[at_risk] - w @ x[at_risk]
        information += (d.T * w) @ d
    want = np.sqrt(np.diag(np.linalg.inv(information)))
    np.testing.assert_allclose(got.federated.se[:3], want, rtol=1e-7)
    assert np.isnan(got.federated.se[3]) and got.is_intercept.tolist() == [False] * 3 + [True]


def test_columns_that_repeat_others_have_no_standard_error():
    rng, x = draw(4)
    x[:, 2] = x[:, 1]
    y = rng.integers(2, size=len(x)).astype(np.int32)
    got = coefficients(LOGISTIC, variables(np.zeros(4)), table(y, x))
    assert np.isnan(got.federated.se).tolist() == [False, True, True, False]
    text = json.dumps(got.as_dict(), allow_nan=False)
    assert json.loads(text)["federated"]["se"][1] is None


def test_runs_give_quantiles():
    values = np.random.default_rng(5).normal(size=(200, 3))
    runs = Variables({"kernel": values[:, :2, None], "bias": values[:, 2:]})
    scaler = Standardizer(np.array([1.0, -2.0]), np.array([2.0, 0.5]))
    got = coefficients_of_runs(runs, ("a", "b"), standardizer=scaler, level=0.9)
    natural = values[:, :2] / scaler.scale
    natural = np.column_stack([natural, values[:, 2] - natural @ scaler.mean])
    np.testing.assert_allclose(got.federated.value, natural.mean(0))
    np.testing.assert_allclose(got.federated.low, np.quantile(natural, 0.05, axis=0))
    np.testing.assert_allclose(got.federated.se, natural.std(0, ddof=1))
    assert got.names == ("a", "b", "intercept") and math.isnan(got.steps_left)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"level": 1.5}, "level must be between 0 and 1, got 1.5"),
        ({"ridge": -1.0}, "ridge must not be negative, got -1.0"),
        ({"split": "test"}, "no 'test'"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (
            {"standardizer": Standardizer(np.zeros((4, 3)), np.ones((4, 3)))},
            r"one for all hospitals with 3 features, got statistics of shape \[4, 3\]",
        ),
        (
            {"variables": Variables({"a": np.zeros((3, 2)), "b": np.zeros((2, 1))})},
            "must be of a linear model",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_named(patients, change, message):
    x, y = patients
    arguments = {"loss": LOGISTIC, "variables": variables(np.zeros(4)), "dataset": table(y, x)}
    with pytest.raises(ValueError, match=message):
        coefficients(**{**arguments, **change})


def test_missing_values_are_refused(patients):
    x, y = patients
    x = np.where(np.arange(len(x))[:, None] == 5, np.float32("nan"), x)
    with pytest.raises(ValueError, match="x must have no missing values"):
        coefficients(LOGISTIC, variables(np.zeros(4)), table(y, x))


def test_one_run_has_no_spread():
    with pytest.raises(ValueError, match="at least two runs"):
        coefficients_of_runs(Variables({"kernel": np.zeros((1, 3, 1))}))
