"""Health records of several hospitals, generated, with a risk that is known. No patients.

A patient is a sequence of visits, each with codes (diagnoses, treatments and what has nothing to do with
the outcome), laboratory values and the days since the visit before. Hospitals differ in which patients
they have, in the codes they use for one and the same condition and how often they leave diagnoses out,
in what they measure, in how often patients come, and in how many have the outcome: being admitted again
as an emergency within a year after the last visit.

Its probability is a logistic function of the record alone (`record_rule.history_logit`). So `HealthRecords.risk`
holds the probabilities that the best possible model gives, one that knows the rule and the hospital.
Part of the rule is the order of events, which no summary of the codes holds: an infection **after** a
surgery is dangerous, one before it is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fedjax_med.data import ClientArrays, DataError, FederatedDataset
from fedjax_med.datasets.record_rule import (
    CHRONIC,
    CODES_PER_VISIT,
    CONDITIONS,
    LAB_MEAN,
    LAB_SD,
    LABS,
    UNRELATED,
    VARIANTS,
    code_names,
    condition_of_code,
    history_logit,
)

# What raises a laboratory value, and by how many standard deviations.
_RAISED_BY = (
    ("kidney disease", 2.0),
    ("diabetes", 2.5),
    ("heart failure", 2.0),
    ("infection", 2.5),
    ("kidney disease", -1.0),
)
_LEAST_PATIENTS = 20


class HealthRecords(NamedTuple):
    """Generated records, and the truth behind them.

    Attributes:
      dataset: as of `health_records`.
      risk: by split, float64 `[N]`: the probability of each patient's outcome given the whole record
        and the hospital.
      condition_of_code: int64 `[codes]`, the place in `CONDITIONS` of what a code stands for, -1 for
        padding and for codes that have nothing to do with the outcome.
    """

    dataset: FederatedDataset
    risk: dict[str, np.ndarray]
    condition_of_code: np.ndarray


def health_records(
    *,
    num_hospitals: int = 10,
    num_patients: int = 12_000,
    max_visits: int = 12,
    site_differences: float = 1.0,
    validation: float = 0.0,
    test: float = 0.25,
    seed: int = 0,
) -> FederatedDataset:
    """The dataset of `draw_health_records`, with the same arguments."""
    return draw_health_records(
        num_hospitals=num_hospitals,
        num_patients=num_patients,
        max_visits=max_visits,
        site_differences=site_differences,
        validation=validation,
        test=test,
        seed=seed,
    ).dataset


def draw_health_records(
    *,
    num_hospitals: int = 10,
    num_patients: int = 12_000,
    max_visits: int = 12,
    site_differences: float = 1.0,
    validation: float = 0.0,
    test: float = 0.25,
    seed: int = 0,
) -> HealthRecords:
    """Draws the records of hospitals, the largest about ten times as large as the smallest.

    Examples, for `N` patients:

    | name | dtype, shape | meaning |
    | --- | --- | --- |
    | `codes` | int32 `[N, max_visits, 12]` | codes of a visit, each once; 0 is no code |
    | `labs` | float32 `[N, max_visits, 5]` | `LABS`, NaN where not measured |
    | `gap` | float32 `[N, max_visits]` | days since the visit before, 0 at the first |
    | `visits` | int32 `[N]` | number of visits, at least 1; what is behind them is padding |
    | `static` | float32 `[N, 2]` | `STATIC` |
    | `y` | int32 `[N]` | 1 where admitted again within a year |

    `feature_names` are those of the codes, the first of them being the padding. A condition that is
    present leaves one of three treatment codes at every visit, the one that the hospital's formulary
    prefers, and often one of three diagnosis codes. What is measured depends on the hospital and on
    what the patient has: laboratory values are not missing at random.

    Args:
      num_hospitals: the clients.
      num_patients: of all hospitals, at least 20 for each.
      max_visits: longest record.
      site_differences: 0 for hospitals that are alike but for their size, 1 for those described.
      validation: fraction of the patients for validation, of each hospital.
      test: fraction for test, likewise.
      seed: non-negative integer; the same one gives the same records on one NumPy version.

    Raises:
      DataError: if a number is out of range.
    """
    if num_hospitals < 1:
        raise DataError(f"num_hospitals must be at least 1, got {num_hospitals}.")
    if num_patients < _LEAST_PATIENTS * num_hospitals:
        raise DataError(
            f"num_patients must be at least {_LEAST_PATIENTS} per hospital, "
            f"{_LEAST_PATIENTS * num_hospitals}, got {num_patients}."
        )
    if max_visits < 1:
        raise DataError(f"max_visits must be at least 1, got {max_visits}.")
    if not 0 <= site_differences <= 1:
        raise DataError(f"site_differences must be from 0 to 1, got {site_differences!r}.")
    rng = np.random.default_rng(seed)
    sizes = _sizes(rng, num_hospitals, num_patients)
    site = np.repeat(np.arange(num_hospitals), sizes)
    habits = _draw_habits(rng, num_hospitals, site_differences)
    examples = _draw_records(rng, habits, site, max_visits)
    risk = _sigmoid(_calibrated(history_logit(examples), site, habits.prevalence))
    examples["y"] = (rng.random(num_patients) < risk).astype(np.int32)
    width = len(str(num_hospitals))
    dataset = FederatedDataset(
        "synthetic-ehr",
        tuple(f"Hospital {i:0{width}}" for i in range(1, num_hospitals + 1)),
        ClientArrays({**examples, "risk": risk}, sizes),
        feature_names=code_names(),
        label_names=("not within a year", "admitted again"),
        source="generated",
    ).split(validation=validation, test=test, seed=seed)
    # Divided like the examples, and taken out again: no model may see it.
    risks = {split: arrays.examples["risk"] for split, arrays in dataset.splits().items()}
    dataset = dataset.map_examples(_without_risk, code_names())
    return HealthRecords(dataset, risks, condition_of_code())


class _Habits(NamedTuple):
    """How each of `H` hospitals works, for `K` conditions."""

    case_mix: np.ndarray  # [H, K], added to the log odds of a condition
    coding: np.ndarray  # [H, K], how often a diagnosis is coded
    diagnosis: np.ndarray  # [H, K, VARIANTS], shares of the codes
    treatment: np.ndarray  # [H, K, VARIANTS]
    unrelated: np.ndarray  # [H, UNRELATED]
    panel: np.ndarray  # [H, LABS], how often a value is measured where there is a reason
    mean_visits: np.ndarray  # [H]
    mean_gap: np.ndarray  # [H], days
    prevalence: np.ndarray  # [H], of the outcome


def _draw_habits(rng: np.random.Generator, num: int, differences: float) -> _Habits:
    conditions = len(CONDITIONS)

    def between(low: float, high: float, *shape: int) -> np.ndarray:
        """Uniform, drawn towards the middle where hospitals differ less."""
        drawn = rng.uniform(low, high, (num, *shape))
        return differences * drawn + (1 - differences) * (low + high) / 2

    def shares(*shape: int) -> np.ndarray:
        drawn = rng.dirichlet(np.full(shape[-1], 0.4), (num, *shape[:-1]))
        return differences * drawn + (1 - differences) / shape[-1]

    return _Habits(
        differences * rng.normal(0, 0.7, (num, conditions)),
        between(0.3, 1.0, conditions),
        shares(conditions, VARIANTS),
        shares(conditions, VARIANTS),
        shares(UNRELATED),
        between(0.1, 0.9, len(LABS)),
        between(4.0, 9.0),
        between(40.0, 150.0),
        between(0.1, 0.4),
    )


def _draw_records(
    rng: np.random.Generator, habits: _Habits, site: np.ndarray, max_visits: int
) -> dict[str, np.ndarray]:
    num = len(site)
    age = np.clip(rng.normal(62, 14, num), 18, 95).round()
    visits = 1 + np.minimum(rng.poisson(habits.mean_visits[site] - 1), max_visits - 1)
    present = _draw_conditions(rng, habits.case_mix[site], age, max_visits)
    present &= (np.arange(max_visits) < visits[:, None])[:, :, None]
    failing = present[:, :, CONDITIONS.index("heart failure")]
    gap = rng.exponential(habits.mean_gap[site][:, None] * np.where(failing, 0.6, 1.0))
    later = (np.arange(max_visits) > 0) & (np.arange(max_visits) < visits[:, None])
    return {
        "codes": _draw_codes(rng, habits, site, present, visits),
        "labs": _draw_labs(rng, habits, site, present, visits),
        "gap": np.where(later, np.ceil(gap), 0).astype(np.float32),
        "visits": visits.astype(np.int32),
        "static": np.column_stack([age, rng.random(num) < 0.5]).astype(np.float32),
    }


def _draw_conditions(
    rng: np.random.Generator, case_mix: np.ndarray, age: np.ndarray, max_visits: int
) -> np.ndarray:
    """What is present `[N, visits, conditions]`: chronic conditions stay, acute ones come and go."""
    old = 0.02 * (age - 60)[:, None]
    chronic = len(CHRONIC)
    begins = rng.random((len(age), max_visits, len(CONDITIONS)))
    first = _sigmoid(-1.4 + case_mix[:, :chronic] + old)[:, None]
    after = _sigmoid(-2.6 + case_mix[:, :chronic] + old)[:, None]
    rate = np.where(np.arange(max_visits)[None, :, None] == 0, first, after)
    stays = np.logical_or.accumulate(begins[:, :, :chronic] < rate, axis=1)
    passing = begins[:, :, chronic:] < _sigmoid(-1.3 + 0.5 * case_mix[:, chronic:])[:, None]
    return np.concatenate([stays, passing], axis=2)


def _draw_codes(
    rng: np.random.Generator,
    habits: _Habits,
    site: np.ndarray,
    present: np.ndarray,
    visits: np.ndarray,
) -> np.ndarray:
    num, max_visits, conditions = present.shape
    start = 1 + 2 * VARIANTS * np.arange(conditions)
    coded = present & (rng.random(present.shape) < habits.coding[site][:, None])
    diagnosis = start + _choose(rng, habits.diagnosis[site][:, None], present.shape)
    treatment = start + VARIANTS + _choose(rng, habits.treatment[site][:, None], present.shape)
    others = (num, max_visits, 3)
    real = (np.arange(max_visits) < visits[:, None])[:, :, None]
    unrelated = 1 + 2 * VARIANTS * conditions
    unrelated = unrelated + _choose(rng, habits.unrelated[site][:, None, None], others)
    for slot in (1, 2):  # each code once
        again = (unrelated[:, :, slot : slot + 1] == unrelated[:, :, :slot]).any(axis=2)
        unrelated[:, :, slot] = np.where(again, 0, unrelated[:, :, slot])
    seen = real & (rng.random(others) < 0.4)
    # Treatments first: no record is so full that one of them would be cut off.
    candidates = np.concatenate(
        [
            np.where(present, treatment, 0),
            np.where(coded, diagnosis, 0),
            np.where(seen, unrelated, 0),
        ],
        axis=2,
    )
    order = np.argsort(candidates == 0, axis=2, kind="stable")[:, :, :CODES_PER_VISIT]
    return np.take_along_axis(candidates, order, axis=2).astype(np.int32)


def _draw_labs(
    rng: np.random.Generator,
    habits: _Habits,
    site: np.ndarray,
    present: np.ndarray,
    visits: np.ndarray,
) -> np.ndarray:
    cause = [CONDITIONS.index(condition) for condition, _ in _RAISED_BY]
    raised = present[:, :, cause]
    shift = np.array([by for _, by in _RAISED_BY])
    values = LAB_MEAN + LAB_SD * (rng.standard_normal(raised.shape) + shift * raised)
    share = habits.panel[site][:, None] * np.where(raised, 1.0, 0.4)
    measured = rng.random(raised.shape) < share
    measured &= (np.arange(present.shape[1]) < visits[:, None])[:, :, None]
    return np.where(measured, values, np.nan).astype(np.float32)


def _choose(rng: np.random.Generator, shares: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A place in the last axis of `shares` for every element of `shape`, drawn by its shares."""
    below = rng.random(shape)[..., None] < np.cumsum(shares, axis=-1)
    below[..., -1] = True  # the sum may round to less than 1
    return below.argmax(axis=-1)


def _calibrated(logit: np.ndarray, site: np.ndarray, prevalence: np.ndarray) -> np.ndarray:
    """Log odds plus the constant of each hospital with which their mean risk is its prevalence."""
    low, high = np.full(len(prevalence), -30.0), np.full(len(prevalence), 30.0)
    count = np.bincount(site)
    for _ in range(60):  # bisection, to the last digit
        middle = (low + high) / 2
        mean = np.bincount(site, _sigmoid(logit + middle[site])) / count
        low, high = (
            np.where(mean < prevalence, middle, low),
            np.where(mean < prevalence, high, middle),
        )
    return logit + high[site]


def _without_risk(examples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: leaf for name, leaf in examples.items() if name != "risk"}


def _sizes(rng: np.random.Generator, num_hospitals: int, num_patients: int) -> np.ndarray:
    share = np.exp(rng.uniform(0, np.log(12), num_hospitals))
    free = num_patients - _LEAST_PATIENTS * num_hospitals
    return _LEAST_PATIENTS + rng.multinomial(free, share / share.sum())


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))
