"""Bootstrap intervals: patients are drawn again within their hospitals, all resamples at once.

A resample is how often each patient was drawn, so a metric of a thousand resamples is the metric
with a weight `[1000, N]`. Hospitals keep their size, as the hospitals of a study are given; where
results are to hold for other hospitals too, draw `whole_hospitals`.

In simulations of 2000 studies, 95 % intervals by BCa held the truth in 94.6 % for AUROC and 93.9 % for
accuracy with 170 patients of three hospitals, and in 95.8 % for AUROC with 30 patients of one; by
percentiles in 94.1, 93.6 and 93.1 %. Means of skewed errors are harder for any bootstrap: 93.2 % with
200 patients, 92.8 % with 60, 90.4 % with 16 (`tests/evaluation/test_intervals.py` has the studies).
Resampling within hospitals of n patients understates the variance by (n - 1) / n; with many tiny ones,
draw `whole_hospitals`.

References:
  Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 14.
  Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.2, for strata.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from fedjax_med.evaluation._weighted import Weighted, ratio
from fedjax_med.evaluation.metrics import Metric
from fedjax_med.evaluation.predictions import Predictions

# `(predictions, weight [..., N]) -> values [...]`
Statistic = Callable[[Predictions, np.ndarray], np.ndarray]
Method = Literal["percentile", "bca"]

_BLOCK = 2**19  # weights that are held at once: 4 MiB stay in the cache
# Below this share of resamples in which a statistic is defined, the rest says little about it.
_MIN_DEFINED = 0.5
# Of more patients, BCa leaves out groups: the work stays that of some hundred resamples.
_MAX_UNITS = 1000


class Resampling(NamedTuple):
    """How patients are drawn again.

    Attributes:
      draw: `(client [N], resamples, generator) -> weight [resamples, N]`.
      units: `(client [N]) -> (unit [N], stratum [units])`: what BCa leaves out in turn, numbered,
        and within what each was drawn.
      name: for reports.
    """

    draw: Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
    units: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    name: str


class Estimate(NamedTuple):
    """A value with its interval; NaN where not defined.

    Attributes:
      value: of the patients as they are.
      low: lower end of the interval. NaN if the value is, if it is not defined in more than half
        of the resamples, if all resamples agree (a single patient, or everybody predicted right,
        tells nothing of how much the value may vary), or if the value is outside of the interval:
        then resampling biases the statistic by more than it varies.
      high: upper end.
      num_undefined: resamples in which the value was not defined; they are left out.
    """

    value: float
    low: float
    high: float
    num_undefined: int = 0


def _draw_within(client: np.ndarray, num: int, generator: np.random.Generator) -> np.ndarray:
    weight = np.zeros((num, len(client)))
    for hospital in np.unique(client):
        rows = np.flatnonzero(client == hospital)
        weight[:, rows] = _counts(len(rows), num, generator)
    return weight


def _units_within(client: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Patients; of very many, groups of a hospital's patients, every so-many-th in one."""
    unit, strata = np.zeros(len(client), np.int64), []
    for hospital in np.unique(client):
        rows = np.flatnonzero(client == hospital)
        groups = min(len(rows), -(-len(rows) * _MAX_UNITS // len(client)))
        unit[rows] = len(strata) + np.arange(len(rows)) % groups
        strata += [int(hospital)] * groups
    return unit, np.array(strata, np.int64)


def _draw_whole(client: np.ndarray, num: int, generator: np.random.Generator) -> np.ndarray:
    names, number = np.unique(client, return_inverse=True)
    return _counts(len(names), num, generator)[:, number]


def _units_whole(client: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    names, number = np.unique(client, return_inverse=True)
    return number, np.zeros(len(names), np.int64)


# As many patients of every hospital as it has, with replacement.
within_hospitals = Resampling(_draw_within, _units_within, "of patients within hospitals")
# As many hospitals as there are with replacement, each with all of its patients.
whole_hospitals = Resampling(_draw_whole, _units_whole, "of whole hospitals")


def _counts(size: int, num: int, generator: np.random.Generator) -> np.ndarray:
    """How often each of `size` was drawn in `size` draws, float64 `[num, size]`."""
    if not size:
        return np.zeros((num, 0))
    drawn = generator.integers(size, size=(num, size)) + size * np.arange(num)[:, None]
    return np.bincount(drawn.ravel(), minlength=num * size).reshape(num, size).astype(np.float64)


def over_patients(metric: Metric) -> Statistic:
    """A metric over all patients together."""

    def statistic(predictions: Predictions, weight: np.ndarray) -> np.ndarray:
        return np.asarray(metric.compute(predictions.outputs, predictions.labels, weight))

    return statistic


def over_hospitals(metric: Metric) -> Statistic:
    """The mean of a metric over hospitals, each counted as often as it was drawn.

    Over the hospitals where it is defined with the patients as they are. A resample in which one of
    these has lost it (the only positive was not drawn) is left out, as it would be a mean over others.
    """

    def statistic(predictions: Predictions, weight: np.ndarray) -> np.ndarray:
        parts = []
        for hospital in np.unique(predictions.client):
            rows = np.flatnonzero(predictions.client == hospital)
            part = predictions.take(rows)
            parts.append((rows, metric.of(part.outputs, part.labels)))
        return mean_over_parts(parts, weight)

    return statistic


def mean_over_parts(parts: Sequence[tuple[np.ndarray, Weighted]], weight: np.ndarray) -> np.ndarray:
    """`over_hospitals`, from the rows of each hospital and its metric, for weights `[..., N]`."""
    values, drawn, defined = [], [], []
    for rows, metric in parts:
        own = weight[..., rows]
        as_they_are = metric(np.ones(len(rows)))
        # The jackknife changes one hospital at a time; the others keep their values.
        changed = (own != 1).any(-1)
        value = np.full(changed.shape, float(as_they_are))
        if changed.any():
            value[changed] = metric(own[changed])
        values.append(value)
        drawn.append(times_drawn(own))
        defined.append(not np.isnan(as_they_are))
    if not any(defined):
        return np.full(weight.shape[:-1], np.nan)
    return mean_as_drawn(np.stack(values, -1), np.stack(drawn, -1), np.array(defined))


def times_drawn(weight: np.ndarray) -> np.ndarray:
    """How often a hospital was drawn, from the weights `[..., n]` of its patients.

    1 for any resample of its own patients, and where a patient is left out by the jackknife.
    """
    return np.asarray(np.ceil(weight.sum(-1) / max(1, weight.shape[-1]) - 1e-9))


def mean_as_drawn(values: np.ndarray, drawn: np.ndarray, defined: np.ndarray) -> np.ndarray:
    """Mean of `values` `[..., H]` over the hospitals that are `defined` `[H]`, counted as `drawn`."""
    values, drawn = values[..., defined], drawn[..., defined]
    lost = (np.isnan(values) & (drawn > 0)).any(-1)
    total = np.where(drawn > 0, values, 0.0) * drawn
    return np.where(lost, np.nan, ratio(total.sum(-1), drawn.sum(-1)))


def resamples(
    client: np.ndarray, num_resamples: int, *, seed: int = 0, resampling: Resampling
) -> Iterator[np.ndarray]:
    """Weights `[some, N]` of `num_resamples` resamples, in blocks that fit the memory.

    Raises:
      ValueError: if `num_resamples` is below 2.
    """
    if num_resamples < 2:
        raise ValueError(f"num_resamples must be at least 2, got {num_resamples!r}.")
    generator = np.random.default_rng(seed)
    size = max(1, _BLOCK // max(1, len(client)))
    for start in range(0, num_resamples, size):
        yield resampling.draw(client, min(size, num_resamples - start), generator)


def bootstrap(
    statistic: Statistic,
    predictions: Predictions,
    *,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
    method: Method = "bca",
    resampling: Resampling = within_hospitals,
) -> Estimate:
    """A statistic of the predictions and its bootstrap interval.

    Args:
      statistic: `over_patients(metric)`, `over_hospitals(metric)`, or any function of the kind.
      predictions: of one method.
      level: of confidence.
      num_resamples: resamples; a multiple of 1000 keeps Monte Carlo error small.
      seed: of the resamples; equal seeds draw equal patients for any method.
      method: "percentile" takes the quantiles of the resamples; "bca" (bias-corrected and
        accelerated) shifts them by the bias and skewness of the statistic, which helps with few
        patients and near the ends of a scale. It evaluates the statistic without each patient in
        turn, or without each of 1000 groups.
      resampling: `within_hospitals` or `whole_hospitals`.

    Raises:
      ValueError: names the argument that does not fit.
    """
    check_level(level)
    value = float(statistic(predictions, np.ones(predictions.num_patients)))
    blocks = resamples(predictions.client, num_resamples, seed=seed, resampling=resampling)
    draws = np.concatenate([np.atleast_1d(statistic(predictions, weight)) for weight in blocks])
    acceleration = 0.0
    if method == "bca":
        acceleration = jackknife_acceleration(statistic, predictions, resampling)
    return interval(value, draws, level=level, method=method, acceleration=acceleration)


def interval(
    value: float,
    draws: np.ndarray,
    *,
    level: float = 0.95,
    method: Method = "percentile",
    acceleration: float = 0.0,
) -> Estimate:
    """The interval from what a statistic was in the resamples `[B]`; see `Estimate` for its edges."""
    defined = draws[~np.isnan(draws)]
    missing = len(draws) - len(defined)
    few = len(defined) < max(2, _MIN_DEFINED * len(draws))
    if np.isnan(value) or few or np.ptp(defined) <= 1e-12 * max(1.0, abs(value)):
        return Estimate(value, float("nan"), float("nan"), missing)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        tails = _bca_tails(value, defined, tails, acceleration)
        if np.isnan(tails).any():
            return Estimate(value, float("nan"), float("nan"), missing)
    low, high = (float(bound) for bound in np.quantile(defined, tails))
    if not low <= value <= high:
        return Estimate(value, float("nan"), float("nan"), missing)
    return Estimate(value, low, high, missing)


def _bca_tails(
    value: float, draws: np.ndarray, tails: np.ndarray, acceleration: float
) -> np.ndarray:
    """The quantiles that BCa takes instead of `tails` (Efron and Tibshirani, eq. 14.10)."""
    # Draws equal to the value count half, which matters where it can take few values only.
    below = np.mean(draws < value) / 2 + np.mean(draws <= value) / 2
    with np.errstate(invalid="ignore"):  # everything on one side: no correction, NaN
        bias = ndtri(below)
        shifted = bias + ndtri(tails)
        return ndtr(bias + shifted / (1 - acceleration * shifted))


def jackknife_acceleration(
    statistic: Statistic, predictions: Predictions, resampling: Resampling = within_hospitals
) -> float:
    """BCa's acceleration: a sixth of the skewness of the influence of each patient.

        a = sum_h n_h**-3 sum_i l_hi**3 / (6 (sum_h n_h**-2 sum_i l_hi**2)**1.5)
        l_hi = (n_h - 1) (mean without one patient of hospital h - value without patient i)

    over hospitals h (Davison and Hinkley, section 5.3.2); with `whole_hospitals`, over hospitals in
    place of patients. Hospitals of one patient, and patients without whom the value is not defined,
    are left out. 0 if nothing is left.
    """
    unit, stratum = resampling.units(predictions.client)
    left_out = [np.zeros(0)]
    for weight in leaving_out(unit, len(stratum)):
        left_out.append(np.atleast_1d(statistic(predictions, weight)))
    return acceleration(np.concatenate(left_out), stratum)


def leaving_out(unit: np.ndarray, num_units: int) -> Iterator[np.ndarray]:
    """Weights `[some, N]` without each unit in turn, in blocks that fit the memory."""
    size = max(1, _BLOCK // max(1, len(unit)))
    for start in range(0, num_units, size):
        gone = np.arange(start, min(start + size, num_units))
        yield (unit[None, :] != gone[:, None]).astype(np.float64)


def acceleration(without: np.ndarray, stratum: np.ndarray) -> float:
    """`jackknife_acceleration` from the values without each unit `[units]`, and their strata."""
    cubes = squares = 0.0
    for one in np.unique(stratum):
        values = without[stratum == one]
        n = len(values)
        values = values[~np.isnan(values)]
        if n < 2 or not len(values):
            continue
        influence = (n - 1) * (values.mean() - values)
        cubes += (influence**3).sum() / n**3
        squares += (influence**2).sum() / n**2
    return float(cubes / (6 * squares**1.5)) if squares > 0 else 0.0


def check_level(level: float) -> None:
    """Raises ValueError if a level of confidence is not between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level!r}.")
