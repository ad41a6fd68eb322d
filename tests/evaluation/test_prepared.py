"""Metrics that are prepared once for many weights give what they give for each weight alone."""

import numpy as np
import pytest
from scipy.special import expit

from fedjax_med.evaluation import Predictions, binary_metrics, bootstrap, judge, over_hospitals
from fedjax_med.evaluation._logistic import Fits
from fedjax_med.evaluation.intervals import jackknife_acceleration, within_hospitals

METRICS = binary_metrics()


def patients(num, seed=0):
    rng = np.random.default_rng(seed)
    logit = rng.normal(-0.5, 1.0, num)
    logit[: num // 2] = logit[: num // 2].round(1)  # ties
    label = (rng.random(num) < expit(0.8 * logit)).astype(int)
    client = np.sort(rng.integers(3, size=num))
    return rng, Predictions(expit(logit), label, client, ("a", "b", "c"))


@pytest.mark.parametrize("with_slope", [False, True])
@pytest.mark.parametrize("num", [30, 400, 3000])
def test_fits_of_resamples_are_those_of_each_alone(num, with_slope):
    rng, case = patients(num)
    x = np.log(case.outputs / (1 - case.outputs))
    weight = within_hospitals.draw(case.client, 40, rng)
    weight[0] = 1
    weight[1, ::3] = 7  # far from the others
    fits = Fits(x, case.labels == 1, with_slope)
    got = np.stack(fits(weight))
    want = np.concatenate([np.stack(fits(w[None])) for w in weight], axis=1)
    # The series leaves 1e-11; Newton's last step of at most 1e-7 leaves its square.
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-10)
    # At the solution the weighted errors sum to 0, also against the variable.
    error = weight * (expit(got[0][:, None] + got[1][:, None] * x) - case.labels)
    np.testing.assert_allclose(error.sum(-1), 0, atol=1e-8 * num)
    if with_slope:
        np.testing.assert_allclose(error @ x, 0, atol=1e-8 * num)


def test_the_series_serves_resamples_of_many_patients_and_refuses_what_is_far():
    rng, case = patients(20_000)
    x = np.log(case.outputs / (1 - case.outputs))
    fits = Fits(x, case.labels == 1, True)
    left_out = 1.0 - np.eye(5, 20_000)
    fits(left_out)
    series = fits._series
    assert series is not None and series.solve(left_out)[1].all()
    assert series.solve(within_hospitals.draw(case.client, 20, rng))[1].all()
    far = np.where((x > 0) == (case.labels == 1), 5.0, 0.01)[None]
    assert not series.solve(far)[1].any()


@pytest.mark.parametrize("name", METRICS)
def test_a_prepared_metric_is_the_metric(name):
    rng, case = patients(60, seed=1)
    metric = METRICS[name]
    weight = rng.integers(3, size=(2, 5, 60)).astype(float)
    weight[0, 0] = 0
    got = metric.of(case.outputs, case.labels)(weight)
    want = [[metric.compute(case.outputs, case.labels, w) for w in row] for row in weight]
    np.testing.assert_allclose(got, np.array(want), rtol=1e-9, atol=1e-10)


def test_a_judgement_has_the_intervals_of_single_bootstraps():
    _, case = patients(90, seed=2)
    names = ("auroc", "calibration_slope", "sensitivity_at_0.9")
    metrics = {name: METRICS[name] for name in names}
    got = judge(case, metrics, num_resamples=60, seed=4)
    for name in names:
        want = bootstrap(over_hospitals(metrics[name]), case, num_resamples=60, seed=4)
        # Patients are summed in another order.
        np.testing.assert_allclose(got.mean[name], want, rtol=1e-8)
    part = case.take(case.client == 1)
    statistic = over_hospitals(metrics["auroc"])
    np.testing.assert_allclose(
        jackknife_acceleration(statistic, part),
        jackknife_acceleration(statistic, part.take(np.arange(part.num_patients)[::-1])),
        rtol=1e-9,
    )


def test_weights_that_are_no_counts_are_refused():
    _, case = patients(10)
    compute = METRICS["auroc"].of(case.outputs, case.labels)
    for bad in (np.nan, np.inf, -1.0):
        weight = np.ones(10)
        weight[3] = bad
        with pytest.raises(ValueError, match="weight must be finite and not negative"):
            compute(weight)
