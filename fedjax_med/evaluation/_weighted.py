"""The form of every metric: a function of cases and of how often each of them counts.

A weight `[..., N]` says how often each case counts. Ones give the metric itself, zeros leave a
hospital out, the counts of a bootstrap resample give the metric of that resample, and leading
axes hold many resamples at once: so the estimate and its interval cannot disagree about a
definition, and a thousand resamples are a few matrix products.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# A metric of given cases: `(weight [..., N], ones if None) -> values [...]`.
Weighted = Callable[[np.ndarray | None], np.ndarray]


class Cases(NamedTuple):
    """Checked arguments of a metric.

    Attributes:
      outputs: float64 `[N, ...]`, finite; 0 where the model gave NaN or infinity.
      labels: `[N, ...]`.
      weight: float64 `[..., N]`.
      broken: bool `[...]`, where a case that counts has an output that is not finite.
    """

    outputs: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    broken: np.ndarray

    def where_defined(self, value: Any) -> np.ndarray:
        """`value` `[..., *extra]`, NaN where an output that counts is not finite."""
        value = np.asarray(value, np.float64)
        broken = self.broken.reshape(self.broken.shape + (1,) * (value.ndim - self.broken.ndim))
        return np.where(broken, np.nan, value)


class Checked(NamedTuple):
    """Outputs and labels that are checked once and given many weights.

    Attributes:
      outputs: as of `Cases`.
      labels: as of `Cases`.
      bad: numbers of the cases with an output that is not finite.
    """

    outputs: np.ndarray
    labels: np.ndarray
    bad: np.ndarray

    def weighted(self, weight: np.ndarray | None) -> Cases:
        """The cases, of which each counts as its weight `[..., N]` says.

        Raises:
          ValueError: if a weight is negative or not finite, or their number is not that of cases.
        """
        num = len(self.labels)
        weight = np.ones(num) if weight is None else np.asarray(weight, np.float64)
        if weight.ndim == 0 or weight.shape[-1] != num:
            raise ValueError(f"weight must have shape [..., {num}], got {list(weight.shape)}.")
        # Two passes that allocate nothing; NaN fails the comparisons as well.
        if weight.size and not (weight.min() >= 0 and weight.max() < np.inf):
            raise ValueError("weight must be finite and not negative.")
        broken = np.asarray((weight[..., self.bad] > 0).any(-1))
        return Cases(self.outputs, self.labels, weight, broken)


def checked(outputs: np.ndarray, labels: np.ndarray, name: str = "outputs") -> Checked:
    """Checks lengths, and finds outputs that are not finite.

    Raises:
      ValueError: if lengths differ, or a label is missing.
    """
    outputs, labels = np.asarray(outputs, np.float64), np.asarray(labels)
    num = len(labels)
    if len(outputs) != num:
        raise ValueError(f"{name} has {len(outputs)} rows, but labels has {num}; they must agree.")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        row = int(np.flatnonzero(~np.isfinite(labels).reshape(num, -1).all(axis=1))[0])
        raise ValueError(f"labels must be finite, got {labels[row].tolist()} in row {row}.")
    finite = np.isfinite(outputs)
    bad = ~finite.reshape(num, int(np.prod(outputs.shape[1:]))).all(axis=1)
    return Checked(np.where(finite, outputs, 0.0), labels, np.flatnonzero(bad))


def checked_binary(probability: np.ndarray, label: np.ndarray) -> Checked:
    """`checked` with labels as booleans.

    Raises:
      ValueError: if a label is neither 0 nor 1, or an array has more than one axis.
    """
    label = np.asarray(label)
    if label.ndim != 1 or np.ndim(probability) != 1:
        raise ValueError(
            "probability and label must have one axis, got shapes "
            f"{list(np.shape(probability))} and {list(label.shape)}."
        )
    wrong = np.flatnonzero((label != 0) & (label != 1))
    if wrong.size:
        raise ValueError(f"label must be 0 or 1, got {label[wrong[0]]} in row {wrong[0]}.")
    return checked(probability, label == 1, "probability")


def cases(
    outputs: np.ndarray, labels: np.ndarray, weight: np.ndarray | None, name: str = "outputs"
) -> Cases:
    """Checks everything, and fills in weights of one.

    Raises:
      ValueError: as `checked` and `Checked.weighted`.
    """
    return checked(outputs, labels, name).weighted(weight)


def binary_cases(probability: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> Cases:
    """`cases` with labels as booleans.

    Raises:
      ValueError: as `checked_binary` and `Checked.weighted`.
    """
    return checked_binary(probability, label).weighted(weight)


def check_probability(probability: np.ndarray) -> None:
    """Raises ValueError if a finite value lies outside of [0, 1]."""
    outside = np.argwhere((probability < 0) | (probability > 1))
    if outside.size:
        place = tuple(outside[0])
        raise ValueError(
            f"probability must be in [0, 1], got {probability[place]} in row {place[0]}; "
            "turn logits into probabilities first."
        )


def ratio(top: Any, bottom: Any) -> np.ndarray:
    """`top / bottom`, NaN where `bottom` is not positive."""
    top, bottom = np.broadcast_arrays(np.float64(top), np.float64(bottom))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without NaN; NaN where all are."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(-1), defined.sum(-1))


def as_slice(index: np.ndarray) -> np.ndarray | slice:
    """The slice that an index is, if it is one: then its columns need not be copied."""
    if index.size and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def columns(weight: np.ndarray, index: np.ndarray | slice) -> np.ndarray:
    """`weight[..., index]`, without a copy where it is a slice."""
    return weight[..., index] if isinstance(index, slice) else weight.take(index, axis=-1)


class Tied(NamedTuple):
    """Rows in the order of a score, and where each stretch of equal scores begins."""

    order: np.ndarray
    begins: np.ndarray

    def sums(self, weight: np.ndarray) -> np.ndarray:
        """Sums `[..., stretches]` of `[..., N]` over each stretch."""
        if not self.order.size:
            return weight[..., :0]
        return np.add.reduceat(weight[..., self.order], self.begins, axis=-1)


def tied(score: np.ndarray) -> Tied:
    """Groups equal values, in ascending order."""
    order = np.argsort(score, kind="stable")
    begins = np.flatnonzero(np.diff(score[order], prepend=np.nan) != 0)
    return Tied(order, begins)
