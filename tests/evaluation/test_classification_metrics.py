"""Against scikit-learn, with weights, and the edges that scikit-learn leaves to warnings."""

import math

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from fedjax_med.evaluation import calibration as cal
from fedjax_med.evaluation import classification as cl
from fedjax_med.evaluation import metrics, ranking, regression


@pytest.fixture(params=[0, 1, 2], ids=["continuous", "tied", "weighted"])
def cases(request):
    rng = np.random.default_rng(request.param)
    label = rng.integers(2, size=200)
    probability = 1 / (1 + np.exp(-rng.normal(2 * label - 1, 1.5)))
    if request.param == 1:
        probability = np.round(probability, 1)
    weight = rng.integers(4, size=200).astype(float) if request.param == 2 else np.ones(200)
    return probability, label, weight


BINARY = {
    "auroc": (ranking.auroc, lambda p, y, w: sk.roc_auc_score(y, p, sample_weight=w)),
    "auprc": (ranking.auprc, lambda p, y, w: sk.average_precision_score(y, p, sample_weight=w)),
    "accuracy": (cl.accuracy, lambda p, y, w: sk.accuracy_score(y, p > 0.5, sample_weight=w)),
    "balanced_accuracy": (
        cl.balanced_accuracy,
        lambda p, y, w: sk.balanced_accuracy_score(y, p > 0.5, sample_weight=w),
    ),
    "sensitivity": (cl.sensitivity, lambda p, y, w: sk.recall_score(y, p > 0.5, sample_weight=w)),
    "specificity": (
        cl.specificity,
        lambda p, y, w: sk.recall_score(y, p > 0.5, sample_weight=w, pos_label=0),
    ),
    "precision": (cl.precision, lambda p, y, w: sk.precision_score(y, p > 0.5, sample_weight=w)),
    "f1": (cl.f1, lambda p, y, w: sk.f1_score(y, p > 0.5, sample_weight=w)),
    "brier": (cl.brier, lambda p, y, w: sk.brier_score_loss(y, p, sample_weight=w)),
}


@pytest.mark.parametrize("ours, theirs", BINARY.values(), ids=BINARY.keys())
def test_binary_metrics_are_those_of_scikit_learn(cases, ours, theirs):
    np.testing.assert_allclose(ours(*cases), theirs(*cases), rtol=1e-12)


@pytest.mark.parametrize("specificity", [0.0, 0.5, 0.9, 0.95, 1.0])
def test_sensitivity_at_specificity_is_read_off_the_roc_curve(cases, specificity):
    p, y, w = cases
    false_rate, true_rate, _ = sk.roc_curve(y, p, sample_weight=w, drop_intermediate=False)
    want = true_rate[false_rate <= 1 - specificity + 1e-12].max()
    got = ranking.sensitivity_at_specificity(p, y, w, specificity=specificity)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_a_specificity_that_is_just_reached_counts():
    # 1 - 0.9 is 0.09999999999999998, less than 1 of 10.
    label = np.array([0] * 10 + [1])
    score = np.array([0.0] * 9 + [1.0, 0.5])
    assert ranking.sensitivity_at_specificity(score, label, specificity=0.9) == 1


@pytest.mark.parametrize("weighted", [False, True])
def test_multiclass_metrics_are_those_of_scikit_learn(weighted):
    rng = np.random.default_rng(5)
    p, y = rng.dirichlet(np.ones(4), 300), rng.integers(4, size=300)
    w = rng.integers(4, size=300).astype(float) if weighted else None
    called = p.argmax(axis=1)
    pairs = [
        (cl.multiclass_accuracy, sk.accuracy_score(y, called, sample_weight=w)),
        (cl.multiclass_balanced_accuracy, sk.balanced_accuracy_score(y, called, sample_weight=w)),
        (cl.multiclass_f1, sk.f1_score(y, called, average="macro", sample_weight=w)),
        (cl.multiclass_brier, sk.brier_score_loss(y, p, sample_weight=w, scale_by_half=False)),
        (
            cl.one_against_rest(ranking.auroc),
            sk.roc_auc_score(y, p, multi_class="ovr", average="macro", sample_weight=w),
        ),
    ]
    for ours, want in pairs:
        np.testing.assert_allclose(ours(p, y, w), want, rtol=1e-12)


def test_multilabel_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(6)
    p, y = rng.random((100, 5)), rng.integers(2, size=(100, 5))
    np.testing.assert_allclose(cl.over_labels(ranking.auroc)(p, y), sk.roc_auc_score(y, p), 1e-12)
    np.testing.assert_allclose(
        cl.over_labels(cl.f1)(p, y), sk.f1_score(y, p > 0.5, average="macro"), 1e-12
    )


def test_classes_and_labels_without_a_metric_are_left_out_of_the_mean():
    rng = np.random.default_rng(7)
    p, y = rng.dirichlet(np.ones(3), 50), rng.integers(2, size=50)  # class 2 never occurs
    want = (sk.roc_auc_score(y == 0, p[:, 0]) + sk.roc_auc_score(y == 1, p[:, 1])) / 2
    np.testing.assert_allclose(cl.one_against_rest(ranking.auroc)(p, y), want, rtol=1e-12)
    labels = np.stack([y, np.zeros(50, int)], axis=1)
    got = cl.over_labels(ranking.auroc)(p[:, :2], labels)
    np.testing.assert_allclose(got, sk.roc_auc_score(y, p[:, 0]), rtol=1e-12)


@pytest.mark.parametrize("constant", [0, 1])
def test_a_hospital_with_one_class_has_the_metrics_that_exist(constant):
    p, y = np.array([0.2, 0.7, 0.9]), np.full(3, constant)
    for undefined in (
        ranking.auroc,
        ranking.auprc,
        ranking.sensitivity_at_specificity,
        cl.balanced_accuracy,
        (cl.sensitivity, cl.specificity)[constant],
        cal.calibration_intercept,
        cal.calibration_slope,
    ):
        assert np.isnan(undefined(p, y)), undefined
    assert cl.accuracy(p, y) == (1 / 3, 2 / 3)[constant]
    np.testing.assert_allclose(cl.brier(p, y), ((p - constant) ** 2).mean(), rtol=1e-12)
    assert cl.f1(p, y) == (0, 4 / 5)[constant]
    np.testing.assert_allclose(cal.expected_calibration_error(p, y), np.abs(p - y).mean(), 1e-12)


def test_f1_of_nobody_positive_is_undefined():
    assert math.isnan(cl.f1(np.array([0.1, 0.2]), np.array([0, 0])))


def test_calibration_error_is_that_of_scikit_learns_curve(cases):
    p, y, w = cases
    p, y = np.repeat(p, w.astype(int)), np.repeat(y, w.astype(int))
    observed, predicted = calibration_curve(y, p, n_bins=10)
    curve = cal.reliability_curve(p, y)
    filled = curve.count > 0
    np.testing.assert_allclose(curve.observed[filled], observed, rtol=1e-12)
    np.testing.assert_allclose(curve.predicted[filled], predicted, rtol=1e-12)
    assert np.isnan(curve.observed[~filled]).all()
    want = (curve.count[filled] * np.abs(observed - predicted)).sum() / len(y)
    np.testing.assert_allclose(cal.expected_calibration_error(p, y), want, rtol=1e-12)


def test_quantile_bins_are_those_of_scikit_learn():
    rng = np.random.default_rng(11)
    p, y = rng.random(100), rng.integers(2, size=100)
    observed, predicted = calibration_curve(y, p, n_bins=7, strategy="quantile")
    curve = cal.reliability_curve(p, y, num_bins=7, quantiles=True)
    np.testing.assert_allclose(curve.observed, observed, rtol=1e-12)
    np.testing.assert_allclose(curve.predicted, predicted, rtol=1e-12)


def test_equal_probabilities_are_one_quantile_bin():
    curve = cal.reliability_curve(np.full(4, 0.3), np.array([0, 1, 1, 1]), quantiles=True)
    np.testing.assert_allclose([curve.predicted, curve.observed], [[0.3], [0.75]])


def test_calibration_slope_and_intercept_are_an_unpenalised_logistic_regression(cases):
    p, y, w = cases
    if p.min() == 0 or p.max() == 1:
        p = np.clip(p, 0.05, 0.95)
    logit = np.log(p / (1 - p))
    fit = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000, solver="newton-cholesky")
    fit.fit(logit[:, None], y, sample_weight=w)
    np.testing.assert_allclose(cal.calibration_slope(p, y, w), fit.coef_[0, 0], rtol=1e-7)
    a = cal.calibration_intercept(p, y, w)
    # The likelihood equation: predicted and observed positives are equal in number.
    expected = (w / (1 + np.exp(-(logit + a)))).sum()
    np.testing.assert_allclose(expected, (w * y).sum(), rtol=1e-10)


def test_a_slope_and_an_intercept_are_found_again():
    rng = np.random.default_rng(8)
    logit = rng.normal(size=200_000)
    y = (rng.random(200_000) < 1 / (1 + np.exp(-(0.5 + 0.7 * logit)))).astype(int)
    p = 1 / (1 + np.exp(-logit))
    # Standard error about 0.006.
    np.testing.assert_allclose(cal.calibration_slope(p, y), 0.7, atol=0.025)


def test_parted_labels_have_an_intercept_but_no_slope():
    p, y = np.array([0.1, 0.2, 0.2, 0.8]), np.array([0, 0, 1, 1])  # 0.2 is on both sides
    assert np.isnan(cal.calibration_slope(p, y))
    assert np.isfinite(cal.calibration_intercept(p, y))
    assert np.isfinite(cal.calibration_slope(np.array([0.1, 0.3, 0.2, 0.8]), y))
    assert np.isnan(cal.calibration_slope(np.full(4, 0.3), y))


def test_probabilities_of_0_and_1_are_calibrated_too():
    p = np.array([0.0, 0.0, 1.0, 1.0, 0.5, 0.5])
    y = np.array([0, 1, 1, 0, 0, 1])
    assert np.isfinite(cal.calibration_slope(p, y))
    np.testing.assert_allclose(cal.calibration_intercept(p, y), 0, atol=1e-6)


def test_recalibration_makes_the_rate_of_every_hospital_right():
    rng = np.random.default_rng(9)
    client = np.repeat([0, 1, 2], [300, 200, 5])
    shift = np.array([1.0, -0.5, 0.0])[client]
    logit = rng.normal(size=505)
    y = (rng.random(505) < 1 / (1 + np.exp(-(logit + shift)))).astype(int)
    y[client == 2] = 1  # a hospital with one class
    p = 1 / (1 + np.exp(-logit))
    for with_slope in (False, True):
        fit = cal.recalibrate(p, y, client, 4, with_slope=with_slope)
        assert fit.fitted.tolist() == [True, True, False, False]
        corrected = fit.apply(p, client)
        for hospital in (0, 1):
            rows = client == hospital
            np.testing.assert_allclose(corrected[rows].sum(), y[rows].sum(), rtol=1e-8)
            assert abs(cal.calibration_intercept(corrected[rows], y[rows])) < 1e-8
        np.testing.assert_array_equal(corrected[client == 2], p[client == 2])
    np.testing.assert_allclose(cal.calibration_slope(corrected[client == 0], y[client == 0]), 1)


@pytest.mark.parametrize("weighted", [False, True])
def test_regression_metrics_are_those_of_scikit_learn(weighted):
    rng = np.random.default_rng(10)
    y = rng.normal(30, 8, 150)
    prediction = y + rng.normal(1, 4, 150)
    w = rng.integers(4, size=150).astype(float) if weighted else None
    want = sk.root_mean_squared_error(y, prediction, sample_weight=w)
    np.testing.assert_allclose(regression.rmse(prediction, y, w), want, rtol=1e-12)
    want = sk.mean_absolute_error(y, prediction, sample_weight=w)
    np.testing.assert_allclose(regression.mae(prediction, y, w), want, rtol=1e-12)
    want = sk.r2_score(y, prediction, sample_weight=w)
    np.testing.assert_allclose(regression.r2(prediction, y, w), want, rtol=1e-10)


def test_r2_of_equal_labels_is_undefined():
    prediction = np.array([1.0, 2.0, 3.0])
    assert np.isnan(regression.r2(prediction, np.full(3, 0.1)))
    assert np.isnan(regression.r2(prediction[:1], np.array([5.0])))
    assert regression.rmse(prediction[:1], np.array([5.0])) == 4


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: cl.brier(np.array([0.5, 1.5]), np.array([0, 1])), "probability must be in .* 1.5"),
        (
            lambda: ranking.auroc(np.array([0.5]), np.array([2])),
            "label must be 0 or 1, got .*2.*row",
        ),
        (lambda: ranking.auroc(np.array([0.5]), np.array([0, 1])), "1 rows, but labels has 2"),
        (
            lambda: ranking.auroc(np.array([0.5]), np.array([1]), np.array([-1.0])),
            "weight must be finite and not negative",
        ),
        (
            lambda: ranking.auroc(np.array([0.5]), np.array([1]), np.ones(3)),
            r"weight must have shape \[..., 1\]",
        ),
        (lambda: regression.mae(np.zeros(2), np.array([1.0, np.nan])), "finite, got nan in row 1"),
        (lambda: cl.multiclass_accuracy(np.ones((2, 3)), np.array([0, 3])), "got 3 in row 1"),
        (
            lambda: ranking.sensitivity_at_specificity(
                np.zeros(1), np.zeros(1, int), specificity=1.2
            ),
            r"specificity must be in \[0, 1\], got 1.2",
        ),
        (
            lambda: cal.expected_calibration_error(np.zeros(1), np.zeros(1, int), num_bins=0),
            "num_bins must be at least 1, got 0",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_metrics_of_single_classes_are_those_of_scikit_learn():
    rng = np.random.default_rng(4)
    p, y, w = rng.dirichlet(np.ones(3), 120), rng.integers(3, size=120), rng.integers(4, size=120)
    called, names = p.argmax(axis=1), ("N", "S", "V")
    found = metrics.class_metrics(names)
    assert list(found)[:3] == ["sensitivity_of_N", "precision_of_N", "sensitivity_of_S"]
    assert metrics.metric_title("precision_of_S") == "Precision of S"
    for title, theirs in (("sensitivity", sk.recall_score), ("precision", sk.precision_score)):
        want = theirs(y, called, average=None, sample_weight=w)
        got = [found[f"{title}_of_{n}"].compute(p, y, w.astype(float)) for n in names]
        np.testing.assert_allclose(got, want, rtol=1e-12)
    only = metrics.class_metrics(names, ("V",))
    assert set(only) == {"sensitivity_of_V", "precision_of_V"}
    never = np.eye(3)[np.zeros(5, int)]
    assert np.isnan(only["precision_of_V"].compute(never, y[:5] % 2, np.ones(5)))
    assert np.isnan(only["sensitivity_of_V"].compute(never, y[:5] % 2, np.ones(5)))
    with pytest.raises(ValueError, match="classes must be among N, S, V, got 'F'"):
        metrics.class_metrics(names, ("F",))
