"""How well scores tell members from others: ROC curves, their area, and the rate at few false alarms."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fedjax_med.evaluation import Estimate


class Roc(NamedTuple):
    """A receiver operating characteristic.

    Attributes:
      false_alarms: `[points]`, share of the others that are called members, rising from 0 to 1.
      hits: `[points]`, share of the members that are.
    """

    false_alarms: np.ndarray
    hits: np.ndarray

    @property
    def area(self) -> float:
        """Probability that a member scores above another, ties counted half."""
        return float(np.trapezoid(self.hits, self.false_alarms))

    def hits_at(self, false_alarm: float) -> float:
        """Share of the members found at a rate of false alarms, by interpolation."""
        return float(np.interp(false_alarm, *_last_at_each(self)))


def roc(scores: Any, is_member: Any, weight: Any = None) -> Roc:
    """The curve of scores, higher for members.

    Args:
      scores: float `[N]`.
      is_member: bool `[N]`.
      weight: float `[N]`, how often each counts; once if None.

    Raises:
      ValueError: if there are no members, or nobody else.
    """
    is_member = np.asarray(is_member, bool)
    weight = np.ones(len(is_member)) if weight is None else np.asarray(weight, np.float64)
    if not (weight @ is_member and weight @ ~is_member):
        raise ValueError(
            f"is_member must have members and others, got {is_member.sum()} of {len(is_member)}."
        )
    from sklearn.metrics import roc_curve  # takes a second to import

    false_alarms, hits, _ = roc_curve(
        is_member, scores, sample_weight=weight, drop_intermediate=False
    )
    return Roc(false_alarms, hits)


class AttackResult(NamedTuple):
    """How well an attack did, with 95 % intervals over records.

    Attributes:
      curve: over all attacked models and records.
      area: under the curve; 0.5 is chance.
      hits_at_1_percent: share of members found when 1 % of the others are called members.
    """

    curve: Roc
    area: Estimate
    hits_at_1_percent: Estimate


def judge_attack(
    scores: np.ndarray, is_member: np.ndarray, *, num_resamples: int = 200, seed: int = 0
) -> AttackResult:
    """Judges scores of records under several models, whose members differ.

    Args:
      scores: float `[models, records]`.
      is_member: bool `[models, records]`.
      num_resamples: of the bootstrap, which draws records, each with all its models.
      seed: of the bootstrap.
    """
    models, records = scores.shape
    curve = roc(scores.ravel(), is_member.ravel())
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(num_resamples):
        count = np.bincount(rng.integers(records, size=records), minlength=records)
        again = roc(scores.ravel(), is_member.ravel(), np.tile(count, models))
        found.append((again.area, again.hits_at(0.01)))
    low, high = np.quantile(found, [0.025, 0.975], axis=0)
    values = (curve.area, curve.hits_at(0.01))
    intervals = [
        Estimate(value, float(below), float(above))
        for value, below, above in zip(values, low, high, strict=True)
    ]
    return AttackResult(curve, *intervals)


def _last_at_each(curve: Roc) -> tuple[np.ndarray, np.ndarray]:
    """The curve without vertical parts: the most hits at every rate of false alarms."""
    last = np.append(np.diff(curve.false_alarms) > 0, True)
    return curve.false_alarms[last], curve.hits[last]
