"""Membership inference: whether a patient was among those that a model was trained on.

References:
  Yeom et al., CSF 2018, https://arxiv.org/abs/1709.01604 (a threshold for the loss)
  Carlini et al., S&P 2022, https://arxiv.org/abs/2112.03570 (LiRA)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from scipy.special import log_softmax, logsumexp

from fedjax_med.attacks.roc import AttackResult, judge_attack
from fedjax_med.attacks.shadows import Shadows
from fedjax_med.data import DataError
from fedjax_med.models import Model
from fedjax_med.studies.training import outputs_of
from fedjax_med.tasks.kinds import Kind

# With fewer models of a kind, a variance of one's own for each record is noise (Carlini et al., VI-D).
_OWN_VARIANCE = 32


class Membership(NamedTuple):
    """What the attacks tell of models' members; every shadow model is attacked in turn.

    Attributes:
      threshold: the confidence of the model in the record's true outcome alone.
      lira: that confidence against what it is in the other models, with the record and without it.
    """

    threshold: AttackResult
    lira: AttackResult


def infer_membership(
    model: Model, kind: Kind, shadows: Shadows, *, num_resamples: int = 200, seed: int = 0
) -> Membership:
    """Attacks every shadow model with the help of the others.

    Raises:
      DataError: if outcomes of this kind have no confidence of a single record.
    """
    outputs = outputs_of(model, shadows.variables, shadows.records)
    found = confidence(outputs, shadows.records.examples, kind)
    judged = {"num_resamples": num_resamples, "seed": seed}
    return Membership(
        judge_attack(found, shadows.is_member, **judged),
        judge_attack(likelihood_ratios(found, shadows.is_member), shadows.is_member, **judged),
    )


def confidence(outputs: np.ndarray, examples: Any, kind: Kind) -> np.ndarray:
    """How sure models are of the true outcome, on a scale where it is about normally distributed.

    log(p / (1 - p)) of the probability of the true class (Carlini et al., equation 4); of numbers,
    minus the logarithm of the squared error.

    Args:
      outputs: `[models, N, outputs]` or `[models, N]`.
      examples: with `y` `[N]`.
      kind: of the outcome.

    Returns:
      float64 `[models, N]`.

    Raises:
      DataError: for other kinds than binary, multiclass and regression.
    """
    if kind not in ("binary", "multiclass", "regression"):
        raise DataError(
            f"membership is inferred from classes or numbers, but the outcome is {kind}."
        )
    outputs, y = np.asarray(outputs, np.float64), np.asarray(examples["y"])
    if kind == "multiclass":
        log_p = log_softmax(outputs, axis=-1)
        true = np.arange(outputs.shape[-1]) == y[:, None]
        # The others are added up, not taken as 1 - p, which is 0 where the model is sure.
        own = np.where(true, log_p, 0).sum(axis=-1)
        return own - logsumexp(np.where(true, -np.inf, log_p), axis=-1)
    outputs = outputs.reshape(outputs.shape[:2])
    if kind == "binary":
        return outputs * (2 * y - 1)
    return -np.log((outputs - y) ** 2 + 1e-12)


def likelihood_ratios(found: np.ndarray, is_member: np.ndarray) -> np.ndarray:
    """LiRA: log ratio of the densities of a record's confidence with it and without it.

    Both are normal; mean and variance are those of the other models. The model of the other half of a pair
    is left out too: what is unusual in one half is missing in the other, which would tell a member even
    where models forget it.

    Args:
      found: float `[models, records]`, confidences; models `2 i` and `2 i + 1` are a pair.
      is_member: bool `[models, records]`, each record in one half of every pair.

    Returns:
      `[models, records]`.
    """
    members = _of_other_pairs(found, is_member)
    others = _of_other_pairs(found, ~is_member)
    return stats.norm.logpdf(found, *members) - stats.norm.logpdf(found, *others)


def _of_other_pairs(found: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the chosen models of other pairs, `[models, records]` each."""
    center = found.mean(axis=0)  # sums of squares of what is near 0 lose no digits
    value = np.where(chosen, found - center, 0)

    def others(x: np.ndarray) -> np.ndarray:
        in_pair = x.reshape(-1, 2, x.shape[1]).sum(axis=1)
        return x.sum(axis=0) - np.repeat(in_pair, 2, axis=0)

    count = len(found) // 2 - 1
    mean = others(value) / count
    variance = np.maximum(others(value**2) - count * mean**2, 0) / max(count - 1, 1)
    if count < _OWN_VARIANCE:
        variance = np.broadcast_to(variance.mean(), variance.shape)
    return mean + center, np.sqrt(variance) + 1e-6
