"""How well a score orders patients: AUROC, average precision, sensitivity at fixed specificity.

All take a score `[N]` (a probability or any increasing function of it), labels `[N]` of 0 and 1 and
a weight `[..., N]` (ones if None), and give values `[...]`: NaN where all cases that count have one
label, none counts, or the score of one is not finite.
"""

from typing import NamedTuple

import numpy as np

from fedjax_med.evaluation._weighted import (
    Checked,
    Weighted,
    as_slice,
    checked_binary,
    columns,
    ratio,
    tied,
)


def auroc(score: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve: how often a positive scores above a negative, ties counting half.

    Examples:
      >>> float(auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])))
      0.75
    """
    return prepare_auroc(score, label)(weight)


def prepare_auroc(score: np.ndarray, label: np.ndarray) -> Weighted:
    """`auroc` of these cases for any weights: they are sorted once."""
    cases = checked_binary(score, label)
    order = _ordered(cases)
    ties = bool((order.above != order.not_below).any())

    def values(weight: np.ndarray | None) -> np.ndarray:
        case = cases.weighted(weight)
        positive, negative = order.sides(case.weight)
        count = _cumulative(negative)
        wrong = count.take(order.above, axis=-1)
        if ties:
            wrong = (wrong + count.take(order.not_below, axis=-1)) / 2
        pairs = positive.sum(-1) * count[..., -1]
        return case.where_defined(ratio(pairs - _dot(positive, wrong), pairs))

    return values


def rank_probability(
    score: np.ndarray, upper_weight: np.ndarray, lower_weight: np.ndarray
) -> np.ndarray:
    """P(score of an upper case > score of a lower case), ties counting half.

    Args:
      score: `[N]`, finite.
      upper_weight: `[..., N]`, how much each case counts as one that should score high.
      lower_weight: the same for those that should score low.

    Returns:
      `[...]`; NaN where either weight is 0 throughout.
    """
    groups = tied(score)
    upper, lower = groups.sums(upper_weight), groups.sums(lower_weight)
    below = np.cumsum(lower, axis=-1) - 0.5 * lower
    return ratio((upper * below).sum(-1), upper.sum(-1) * lower.sum(-1))


def auprc(score: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Area under the precision-recall curve, as average precision.

        sum_t (recall[t] - recall[t - 1]) precision[t],  thresholds t in descending order

    No interpolation, which would be too optimistic. A useless score gives the prevalence.

    References:
      Davis and Goadrich, ICML 2006. https://doi.org/10.1145/1143844.1143874
    """
    return prepare_auprc(score, label)(weight)


def prepare_auprc(score: np.ndarray, label: np.ndarray) -> Weighted:
    """`auprc` of these cases for any weights: they are sorted once."""
    cases = checked_binary(score, label)
    order = _ordered(cases)

    def values(weight: np.ndarray | None) -> np.ndarray:
        case = cases.weighted(weight)
        gained, found, false_alarms, negative = order.at_thresholds(case.weight)
        called = found + false_alarms
        # Nothing called adds nothing.
        precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
        value = ratio(_dot(gained, precision), gained.sum(-1))
        return case.where_defined(np.where(negative > 0, value, np.nan))

    return values


def sensitivity_at_specificity(
    score: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    specificity: float = 0.9,
) -> np.ndarray:
    """The largest sensitivity of any threshold whose specificity is at least `specificity`.

    0 where only the threshold above all scores is that specific.

    Raises:
      ValueError: if `specificity` is not in [0, 1].
    """
    return prepare_sensitivity_at_specificity(score, label, specificity=specificity)(weight)


def prepare_sensitivity_at_specificity(
    score: np.ndarray, label: np.ndarray, *, specificity: float = 0.9
) -> Weighted:
    """`sensitivity_at_specificity` of these cases for any weights: they are sorted once."""
    if not 0 <= specificity <= 1:
        raise ValueError(f"specificity must be in [0, 1], got {specificity!r}.")
    cases = checked_binary(score, label)
    order = _ordered(cases)

    def values(weight: np.ndarray | None) -> np.ndarray:
        case = cases.weighted(weight)
        gained, _, false_alarms, negative = order.at_thresholds(case.weight)
        # The share of false alarms is a rounded quotient; 1e-12 keeps 9 of 10 at 0.9.
        allowed = (1 - specificity + 1e-12) * negative
        # False alarms only grow from threshold to threshold, so what is allowed is the first ones.
        within = _dot(gained, 1.0 * (false_alarms <= allowed[..., None]))
        value = ratio(within, gained.sum(-1))
        return case.where_defined(np.where(negative > 0, value, np.nan))

    return values


class _Ordered(NamedTuple):
    """Positives and negatives, each from the highest score to the lowest.

    Attributes:
      positive: which cases `[P]`, or the slice that they are.
      negative: `[M]` likewise.
      above: negatives with a higher score than each positive `[P]`.
      not_below: negatives with a score at least as high.
      begins: where each stretch of equal scores begins among the positives.
    """

    positive: np.ndarray | slice
    negative: np.ndarray | slice
    above: np.ndarray
    not_below: np.ndarray
    begins: np.ndarray

    def sides(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights `[..., P]` of the positives and `[..., M]` of the negatives."""
        return columns(weight, self.positive), columns(weight, self.negative)

    def at_thresholds(
        self, weight: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """For each distinct score of a positive as threshold, highest first, `[..., T]`.

        Positives gained at it, true positives, false positives; and the weight of negatives `[...]`.
        """
        gained, negative = self.sides(weight)
        if len(self.begins) < gained.shape[-1]:
            gained = np.add.reduceat(gained, self.begins, axis=-1)
        count = _cumulative(negative)
        false_alarms = count.take(self.not_below[self.begins], axis=-1)
        return gained, np.cumsum(gained, axis=-1), false_alarms, count[..., -1]


def _ordered(cases: Checked) -> _Ordered:
    key = -cases.outputs
    positive, negative = (
        side[np.argsort(key[side], kind="stable")]
        for side in (np.flatnonzero(cases.labels), np.flatnonzero(~cases.labels))
    )
    above = np.searchsorted(key[negative], key[positive], side="left")
    not_below = np.searchsorted(key[negative], key[positive], side="right")
    begins = np.flatnonzero(np.diff(key[positive], prepend=np.nan) != 0)
    return _Ordered(as_slice(positive), as_slice(negative), above, not_below, begins)


def _cumulative(weight: np.ndarray) -> np.ndarray:
    """Sums `[..., M + 1]` of the first 0, 1, ... of `[..., M]`."""
    sums = np.zeros((*weight.shape[:-1], weight.shape[-1] + 1))
    np.cumsum(weight, axis=-1, out=sums[..., 1:])
    return sums


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("...n,...n->...", a, b))
