"""Right and wrong decisions, and the squared error of probabilities.

Binary metrics take the probability of label 1 `[N]` and labels `[N]` of 0 and 1; multi-class ones
probabilities `[N, classes]` and labels 0, 1, ...; multi-label ones probabilities and labels
`[N, labels]`. All take a weight `[..., N]` (ones if None) and give values `[...]`, NaN where the
metric is not defined: its denominator is 0, or a probability that counts is not finite.
"""

from collections.abc import Callable

import numpy as np

from fedjax_med.evaluation._weighted import (
    Cases,
    binary_cases,
    cases,
    check_probability,
    mean_of_defined,
    ratio,
)


def accuracy(
    probability: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    threshold: float = 0.5,
) -> np.ndarray:
    """Share of right decisions; positive is what lies above `threshold`."""
    case = binary_cases(probability, label, weight)
    right = (case.outputs > threshold) == case.labels
    return case.where_defined(ratio(case.weight @ right, case.weight.sum(-1)))


def sensitivity(
    probability: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    threshold: float = 0.5,
) -> np.ndarray:
    """Share of the positives above `threshold`; NaN without positives."""
    case = binary_cases(probability, label, weight)
    found = (case.outputs > threshold) & case.labels
    return case.where_defined(ratio(case.weight @ found, case.weight @ case.labels))


def specificity(
    probability: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    threshold: float = 0.5,
) -> np.ndarray:
    """Share of the negatives not above `threshold`; NaN without negatives."""
    case = binary_cases(probability, label, weight)
    spared = (case.outputs <= threshold) & ~case.labels
    return case.where_defined(ratio(case.weight @ spared, case.weight @ ~case.labels))


def precision(
    probability: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    threshold: float = 0.5,
) -> np.ndarray:
    """Share of those above `threshold` that are positive (PPV); NaN if nobody is."""
    case = binary_cases(probability, label, weight)
    called = case.outputs > threshold
    return case.where_defined(ratio(case.weight @ (called & case.labels), case.weight @ called))


def balanced_accuracy(
    probability: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    threshold: float = 0.5,
) -> np.ndarray:
    """Mean of sensitivity and specificity; NaN where one of them is."""
    arguments = (probability, label, weight)
    found = sensitivity(*arguments, threshold=threshold)
    return np.asarray((found + specificity(*arguments, threshold=threshold)) / 2)


def f1(
    probability: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    threshold: float = 0.5,
) -> np.ndarray:
    """Harmonic mean of sensitivity and precision; NaN where nothing is or is called positive.

    2 true positives / (2 true positives + false positives + false negatives)
    """
    case = binary_cases(probability, label, weight)
    called = case.outputs > threshold
    both = 2 * (case.weight @ (called & case.labels))
    return case.where_defined(ratio(both, both + case.weight @ (called != case.labels)))


def brier(
    probability: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """Mean squared difference of probability and label; 0 is perfect, 0.25 is always 0.5."""
    case = binary_cases(probability, label, weight)
    check_probability(case.outputs)
    squares = (case.outputs - case.labels) ** 2
    return case.where_defined(ratio(case.weight @ squares, case.weight.sum(-1)))


def multiclass_accuracy(
    probability: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """Share of cases whose own class is the most probable; of equal ones the first."""
    case = _multiclass(probability, label, weight)
    right = case.outputs.argmax(axis=1) == case.labels
    return case.where_defined(ratio(case.weight @ right, case.weight.sum(-1)))


def multiclass_balanced_accuracy(
    probability: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """Mean over the classes that occur of the share found; NaN if fewer than two occur."""
    case = _multiclass(probability, label, weight)
    own = _one_hot(case)
    found = own * (case.outputs.argmax(axis=1) == case.labels)[:, None]
    recall = ratio(case.weight @ found, case.weight @ own)
    several = (~np.isnan(recall)).sum(-1) >= 2
    return case.where_defined(np.where(several, mean_of_defined(recall), np.nan))


def multiclass_brier(
    probability: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """Mean over cases of the squared differences, summed over classes: from 0 to 2.

    References:
      Brier, Monthly Weather Review 78, 1950. For two classes it is twice `brier`.
    """
    case = _multiclass(probability, label, weight)
    check_probability(case.outputs)
    squares = ((case.outputs - _one_hot(case)) ** 2).sum(axis=1)
    return case.where_defined(ratio(case.weight @ squares, case.weight.sum(-1)))


def one_against_rest(
    metric: Callable[..., np.ndarray],
) -> Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]:
    """A multi-class metric: the mean of a binary one of every class against the rest.

    Every class counts once; those for which the binary metric is not defined are left out.
    """

    def averaged(
        probability: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None
    ) -> np.ndarray:
        case = _multiclass(probability, label, weight)
        return _column_mean(metric, np.asarray(probability), _one_hot(case), weight)

    return averaged


def over_labels(
    metric: Callable[..., np.ndarray],
) -> Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]:
    """A multi-label metric: the mean of a binary one over the labels where it is defined."""

    def averaged(
        probability: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None
    ) -> np.ndarray:
        if np.ndim(label) != 2 or np.shape(label) != np.shape(probability):
            raise ValueError(
                "probability and label must both have shape [N, labels], got "
                f"{list(np.shape(probability))} and {list(np.shape(label))}."
            )
        return _column_mean(metric, np.asarray(probability), np.asarray(label), weight)

    return averaged


def called_class(probability: np.ndarray) -> np.ndarray:
    """Probabilities of 1 for the most probable class and 0 for the others `[N, classes]`."""
    called = np.zeros_like(probability)
    called[np.arange(len(called)), probability.argmax(axis=1)] = 1
    finite = np.isfinite(probability).all(axis=1, keepdims=True)
    return np.where(finite, called, np.nan)


def multiclass_f1(
    probability: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """Mean over classes of F1 of the most probable class; without those neither had nor called."""
    called = called_class(np.asarray(probability, np.float64))
    return one_against_rest(f1)(called, label, weight)


def of_class(
    metric: Callable[..., np.ndarray], number: int
) -> Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]:
    """A multi-class metric: a binary one of class `number`, called where it is the most probable."""

    def of_one(
        probability: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None
    ) -> np.ndarray:
        called = called_class(np.asarray(probability, np.float64))
        case = _multiclass(called, label, weight)
        return metric(called[:, number], case.labels == number, weight)

    return of_one


def _column_mean(
    metric: Callable[..., np.ndarray],
    probability: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray | None,
) -> np.ndarray:
    columns = range(probability.shape[1])
    values = [metric(probability[:, k], label[:, k], weight) for k in columns]
    return mean_of_defined(np.stack(values, axis=-1))


def _multiclass(probability: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> Cases:
    label = np.asarray(label)
    if np.ndim(probability) != 2 or label.ndim != 1:
        raise ValueError(
            "probability must have shape [N, classes] and label [N], got "
            f"{list(np.shape(probability))} and {list(label.shape)}."
        )
    classes = np.shape(probability)[1]
    wrong = np.flatnonzero(~np.isin(label, np.arange(classes)))
    if wrong.size:
        raise ValueError(
            f"label must be one of 0, ..., {classes - 1}, got {label[wrong[0]]} in row {wrong[0]}."
        )
    return cases(probability, label.astype(np.int64), weight, "probability")


def _one_hot(case: Cases) -> np.ndarray:
    return case.labels[:, None] == np.arange(case.outputs.shape[1])
