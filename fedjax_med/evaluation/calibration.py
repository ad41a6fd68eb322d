"""Whether a predicted risk of 20 % means 20 of 100 patients; and recalibration per hospital.

The calibration metrics take probabilities of label 1 `[N]`, labels `[N]` of 0 and 1 and a weight
`[..., N]` (ones if None), and give values `[...]`, NaN where they are not defined.

References:
  Van Calster et al., "Calibration: the Achilles heel of predictive analytics", BMC Medicine 17,
  2019. https://doi.org/10.1186/s12916-019-1466-7
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit

from fedjax_med.evaluation._logistic import Fits
from fedjax_med.evaluation._weighted import (
    Cases,
    Weighted,
    binary_cases,
    check_probability,
    checked_binary,
    ratio,
)

_SMALLEST = 1e-12  # probabilities of 0 and 1 have no finite logit


def expected_calibration_error(
    probability: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    num_bins: int = 10,
) -> np.ndarray:
    """Mean distance of predicted from observed risk, over bins of equal width.

        sum_b weight[b] / weight |mean probability[b] - share of positives[b]|

    A bin holds what is above its lower edge up to its upper one, 0 being in the first.
    NaN where no case counts.

    Raises:
      ValueError: if a probability is outside of [0, 1], or `num_bins` is below 1.

    References:
      Naeini, Cooper and Hauskrecht, AAAI 2015. Their estimate for a perfect model is not 0 but
      falls with the number of cases, so compare hospitals of different size by intervals.
    """
    case = _probabilities(probability, label, weight)
    inside = _bins(case.outputs, _equal_edges(num_bins))
    gap = case.weight @ (inside * (case.outputs - case.labels)[:, None])
    return case.where_defined(ratio(np.abs(gap).sum(-1), case.weight.sum(-1)))


def calibration_intercept(
    probability: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """Calibration in the large: what has to be added to the logits; 0 is perfect.

    The `a` of a logistic regression with logit P = a + logit(probability). Above 0, risks were
    estimated too low. NaN where all cases that count have one label (`a` would be infinite).
    """
    return prepare_calibration_intercept(probability, label)(weight)


def calibration_slope(
    probability: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """The `b` of a logistic regression with logit P = a + b logit(probability); 1 is perfect.

    Below 1, risks are too extreme, as after overfitting. NaN where the regression has no finite
    solution: all cases that count have one label, or a threshold parts the labels.
    """
    return prepare_calibration_slope(probability, label)(weight)


def prepare_calibration_intercept(probability: np.ndarray, label: np.ndarray) -> Weighted:
    """`calibration_intercept` of these cases for any weights."""
    fit = _prepare_fit(probability, label, with_slope=False)
    return lambda weight: fit(weight)[0]


def prepare_calibration_slope(probability: np.ndarray, label: np.ndarray) -> Weighted:
    """`calibration_slope` of these cases for any weights."""
    fit = _prepare_fit(probability, label, with_slope=True)
    return lambda weight: fit(weight)[1]


class ReliabilityCurve(NamedTuple):
    """Predicted against observed risk, bin by bin.

    Attributes:
      edges: `[bins + 1]`.
      predicted: mean probability `[..., bins]`, NaN in empty bins.
      observed: share of positives `[..., bins]`, NaN in empty bins.
      count: weight of the cases `[..., bins]`.
    """

    edges: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray
    count: np.ndarray


def reliability_curve(
    probability: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    num_bins: int = 10,
    quantiles: bool = False,
) -> ReliabilityCurve:
    """The points of a calibration plot.

    Args:
      probability: `[N]`.
      label: `[N]`.
      weight: `[..., N]`.
      num_bins: number of bins.
      quantiles: bins of about equal numbers of cases (by their number, not their weight) instead
        of equal width; fewer where probabilities repeat.

    Raises:
      ValueError: if a probability is outside of [0, 1], or `num_bins` is below 1.
    """
    case = _probabilities(probability, label, weight)
    edges = _equal_edges(num_bins)
    if quantiles and case.outputs.size:
        edges = np.unique(np.quantile(case.outputs, edges))
        if len(edges) == 1:  # all probabilities are equal: one bin, of width 0
            edges = np.repeat(edges, 2)
    inside = _bins(case.outputs, edges)
    count = case.weight @ inside
    predicted = case.where_defined(ratio(case.weight @ (inside * case.outputs[:, None]), count))
    observed = case.where_defined(ratio(case.weight @ (inside * case.labels[:, None]), count))
    return ReliabilityCurve(edges, predicted, observed, count)


class Recalibration(NamedTuple):
    """A correction of logits per hospital: `intercept + slope * logit(probability)`.

    Attributes:
      intercept: `[clients]`.
      slope: `[clients]`.
      fitted: bool `[clients]`; False where there was no finite fit, and so no correction.
    """

    intercept: np.ndarray
    slope: np.ndarray
    fitted: np.ndarray

    def apply(self, probability: np.ndarray, client: np.ndarray) -> np.ndarray:
        """Corrected probabilities `[N]`, from those `[N]` of the given clients."""
        corrected = expit(self.intercept[client] + self.slope[client] * _logit(probability))
        return np.where(self.fitted[client], corrected, probability)


def recalibrate(
    probability: np.ndarray,
    label: np.ndarray,
    client: np.ndarray,
    num_clients: int,
    *,
    with_slope: bool = False,
) -> Recalibration:
    """Fits a correction for each hospital, to be applied to other patients of the same hospital.

    Fit it on validation examples: on test examples it would be judged on what it was fitted to.
    A hospital without both labels, or with `with_slope` one whose labels a threshold parts, has no
    finite fit; its probabilities stay as they are and `fitted` says so.

    Args:
      probability: of label 1 `[N]`.
      label: 0 or 1 `[N]`.
      client: hospital of each case `[N]`.
      num_clients: number of hospitals.
      with_slope: correct the slope as well as the intercept; needs more patients.
    """
    own = np.arange(num_clients)[:, None] == np.asarray(client)[None, :]
    intercept, slope = _prepare_fit(probability, label, with_slope)(own)
    fitted = ~np.isnan(intercept)
    return Recalibration(np.where(fitted, intercept, 0.0), np.where(fitted, slope, 1.0), fitted)


def _probabilities(probability: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> Cases:
    case = binary_cases(probability, label, weight)
    check_probability(case.outputs)
    return case


def _prepare_fit(
    probability: np.ndarray, label: np.ndarray, with_slope: bool
) -> Callable[[np.ndarray | None], tuple[np.ndarray, np.ndarray]]:
    """Intercept and slope `[...]` of the regressions of any weights; NaN without a fit."""
    cases = checked_binary(probability, label)
    check_probability(cases.outputs)
    fits = Fits(_logit(cases.outputs), cases.labels, with_slope)

    def fit(weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        case = cases.weighted(weight)
        shape, num = case.weight.shape[:-1], len(cases.labels)
        both = fits(case.weight.reshape(int(np.prod(shape)), num))
        intercept, slope = (case.where_defined(x.reshape(shape)) for x in both)
        return intercept, slope

    return fit


def _equal_edges(num_bins: int) -> np.ndarray:
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins!r}.")
    return np.linspace(0.0, 1.0, num_bins + 1)


def _bins(probability: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Bool `[N, bins]`: which bin each probability lies in."""
    number = np.searchsorted(edges[1:-1], probability)
    return number[:, None] == np.arange(len(edges) - 1)


def _logit(probability: np.ndarray) -> np.ndarray:
    return logit(np.clip(probability, _SMALLEST, 1 - _SMALLEST))
