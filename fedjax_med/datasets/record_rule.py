"""The rule behind generated health records: what the codes stand for, and what makes a risk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

CHRONIC = (
    "hypertension",
    "diabetes",
    "heart failure",
    "kidney disease",
    "lung disease",
    "depression",
)
ACUTE = ("surgery", "infection", "steroid course", "fracture")
CONDITIONS = CHRONIC + ACUTE
LABS = ("creatinine [umol/L]", "HbA1c [%]", "NT-proBNP [log ng/L]", "CRP [log mg/L]", "Hb [g/dL]")
STATIC = ("age [years]", "female")
VARIANTS = 3  # codes for the diagnosis of a condition, and for its treatment
UNRELATED = 20  # codes that have nothing to do with the outcome
CODES_PER_VISIT = 12

# Of the log odds: a chronic condition at the last visit, by its place in CHRONIC.
CHRONIC_EFFECTS = np.array([0.0, 0.2, 1.0, 0.7, 0.6, 0.3])
# Of the second of these acute conditions after the first, and its negative before it.
ORDERED_PAIRS = (("surgery", "infection"), ("steroid course", "fracture"))
ORDER_EFFECT = 2.0
AGE_EFFECT = 0.25  # per 10 years above 60
VISIT_EFFECT = 0.2  # per visit in the half year before the last one, up to 4
CREATININE_EFFECT = 0.4  # per standard deviation of the last value, from -1 to 3

LAB_MEAN = np.array([80.0, 5.6, 4.8, 1.0, 13.5])
LAB_SD = np.array([18.0, 0.5, 0.9, 0.8, 1.4])
_HALF_YEAR = 182.0


def code_names() -> tuple[str, ...]:
    """What the codes 0, 1, ... stand for; 0 is the padding."""
    related = [
        f"{condition}, {kind} {'ABC'[variant]}"
        for condition in CONDITIONS
        for kind in ("diagnosis", "treatment")
        for variant in range(VARIANTS)
    ]
    return ("no code", *related, *(f"unrelated {i:02}" for i in range(1, UNRELATED + 1)))


def condition_of_code() -> np.ndarray:
    """The place in `CONDITIONS` of what a code stands for, int64 `[codes]`; -1 for nothing of them."""
    related = np.repeat(np.arange(len(CONDITIONS)), 2 * VARIANTS)
    return np.concatenate([[-1], related, np.full(UNRELATED, -1)])


def history_logit(examples: Mapping[str, Any]) -> np.ndarray:
    """The log odds of the outcome `[N]` from records, but for a constant of the hospital.

        sum of CHRONIC_EFFECTS over what is treated at the last visit
        + ORDER_EFFECT * (+1 if last seen first A then B, -1 if first B then A)   for A, B of each pair
        + AGE_EFFECT * (age - 60) / 10
        + VISIT_EFFECT * visits in the half year before the last, up to 4
        + CREATININE_EFFECT * last creatinine in standard deviations from 80, from -1 to 3, 0 if none

    Args:
      examples: as of `datasets.draw_health_records`.
    """
    treated = _treated(examples["codes"])
    num, max_visits = treated.shape[:2]
    number = np.asarray(examples["visits"])
    real = np.arange(max_visits) < number[:, None]
    logit = treated[np.arange(num), number - 1][:, : len(CHRONIC)] @ CHRONIC_EFFECTS
    logit += AGE_EFFECT * (np.asarray(examples["static"][:, 0], np.float64) - 60) / 10
    last = _last_visit(treated & real[:, :, None])  # [N, conditions], -1 if never
    for first, second in ORDERED_PAIRS:
        a, b = last[:, CONDITIONS.index(first)], last[:, CONDITIONS.index(second)]
        logit += ORDER_EFFECT * np.where((a >= 0) & (b >= 0), np.sign(b - a), 0)
    day = np.cumsum(np.where(real, np.asarray(examples["gap"], np.float64), 0), axis=1)
    recent = real & (day >= day[:, -1:] - _HALF_YEAR)
    logit += VISIT_EFFECT * np.minimum(recent.sum(axis=1) - 1, 4)
    creatinine = np.asarray(examples["labs"][:, :, 0], np.float64)
    at = _last_visit((~np.isnan(creatinine) & real)[:, :, None])[:, 0]
    value = (creatinine[np.arange(num), np.maximum(at, 0)] - LAB_MEAN[0]) / LAB_SD[0]
    return logit + CREATININE_EFFECT * np.where(at >= 0, np.clip(value, -1, 3), 0)


def _treated(codes: np.ndarray) -> np.ndarray:
    """Whether a condition has a treatment code `[N, visits, conditions]`."""
    first = 1 + 2 * VARIANTS * np.arange(len(CONDITIONS)) + VARIANTS
    return np.stack([((codes >= f) & (codes < f + VARIANTS)).any(axis=2) for f in first], axis=2)


def _last_visit(happened: np.ndarray) -> np.ndarray:
    """The last visit `[N, K]` at which something `[N, visits, K]` happened, -1 if never."""
    at = np.arange(happened.shape[1])[None, :, None]
    return np.where(happened, at, -1).max(axis=1)
