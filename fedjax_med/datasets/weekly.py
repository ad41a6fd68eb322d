"""Weekly counts of several places, and the windows that a forecast learns from. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedjax_med.data import DataError

# The column of a window that is the present week; those before it are the past.
THIS_WEEK = "this week"

# Weeks ahead that studies and runs forecast.
HORIZONS = (1, 2, 3, 5, 10, 15)

Gaps = str | None  # None refuses them, "previous" and "linear" fill them


class WeeklyCounts(NamedTuple):
    """Counts of one week after the other.

    Attributes:
      counts: float64 `[weeks, places]`, a number of patients; NaN where a week is missing.
      names: of the places.
      season: int64 `[weeks]`, the year in which the season of a week began; seasons begin in
        week 40.
      week: int64 `[weeks]`, the week of the year, 1 to 53, as the CDC counts them.
      adjacent: bool `[places, places]`, which places have a border in common; each with itself.
    """

    counts: np.ndarray
    names: tuple[str, ...]
    season: np.ndarray
    week: np.ndarray
    adjacent: np.ndarray


class LogScale(NamedTuple):
    """Standardised logarithms, `(log(1 + counts) - mean) / deviation`.

    Attributes:
      mean: float64 `[places]`.
      deviation: float64 `[places]`, above 0.
    """

    mean: np.ndarray
    deviation: np.ndarray

    def apply(self, counts: np.ndarray) -> np.ndarray:
        """From counts `[..., places]`."""
        return (np.log1p(counts) - self.mean) / self.deviation

    def logarithms(self, scaled: np.ndarray) -> np.ndarray:
        """`log(1 + counts)` from what `apply` gives."""
        return scaled * self.deviation + self.mean


class Windows(NamedTuple):
    """Past weeks and the weeks that are to be forecast from them.

    Attributes:
      past: float32 `[origins, places, window]`, the last observed week last.
      target: float32 `[origins, places, horizons]`.
      origin: int64 `[origins]`, the row of the last observed week.
    """

    past: np.ndarray
    target: np.ndarray
    origin: np.ndarray


def weeks_of_year(year: int) -> int:
    """52 or 53: weeks run from Sunday to Saturday and belong to the year of their Wednesday."""
    # The last day of the year's last week is the Saturday next to 31 December.
    first = np.datetime64(f"{year}-01-01")
    weekday = int((first.astype("datetime64[D]").astype(np.int64) + 4) % 7)  # 0 is a Sunday
    leap = (np.datetime64(f"{year + 1}-01-01") - first).astype(np.int64) == 366
    return 53 if weekday == 3 or (leap and weekday == 2) else 52


def calendar(first_year: int, num_weeks: int) -> tuple[np.ndarray, np.ndarray]:
    """Season and week `[num_weeks]` of rows that begin with week 40 of `first_year`."""
    season, week = np.zeros(num_weeks, np.int64), np.zeros(num_weeks, np.int64)
    year, number = first_year, 40
    for row in range(num_weeks):
        season[row], week[row] = (year if number >= 40 else year - 1), number
        number += 1
        if number > weeks_of_year(year):
            year, number = year + 1, 1
    return season, week


def without_gaps(series: WeeklyCounts, fill: Gaps = None) -> WeeklyCounts:
    """The series, if it has no missing weeks, or with these filled in.

    Args:
      series: weekly counts.
      fill: None refuses gaps; "previous" repeats the last week that was seen, which is what was
        known at the time; "linear" joins the weeks before and after, so it looks ahead.

    Raises:
      DataError: if a week is missing, or negative; with `fill`, if none was seen before it (or,
        for "linear", after it).
    """
    if fill not in (None, "previous", "linear"):
        raise DataError(f"fill must be None, 'previous' or 'linear', got {fill!r}.")
    counts = np.array(series.counts, np.float64)
    for place, name in enumerate(series.names):
        column = counts[:, place]
        wrong = np.flatnonzero((column < 0) | np.isinf(column))
        if wrong.size:
            raise DataError(
                f"{name} has {column[wrong[0]]:g} patients in {_named(series, wrong[0])}; counts "
                "must be finite and 0 or above."
            )
        missing = np.isnan(column)
        if not missing.any():
            continue
        first = int(np.argmax(missing))
        seen = np.flatnonzero(~missing)
        if fill is None:
            raise DataError(
                f"{name} has no count in {_named(series, first)}; pass fill='previous' or "
                "fill='linear' to fill such weeks in."
            )
        lost = missing.copy()
        if seen.size:
            lost[seen[0] :] = False
            lost[seen[-1] + 1 :] = fill == "linear"
        if lost.any():
            raise DataError(
                f"{name} has no count in {_named(series, int(np.argmax(lost)))} and none to fill "
                f"it in from by {fill!r}; begin later, end earlier or leave {name} out."
            )
        rows = np.arange(len(column))
        if fill == "linear":
            counts[:, place] = np.interp(rows, seen, column[seen])
        else:
            last = np.maximum.accumulate(np.where(missing, 0, rows))
            counts[:, place] = column[last]
    return series._replace(counts=counts)


def fit_log_scale(counts: np.ndarray, *, shared: bool = False) -> LogScale:
    """Means and deviations of `log(1 + counts)` of training weeks `[weeks, places]`.

    Args:
      counts: of the weeks that may be learned from, nothing else.
      shared: one mean and deviation for all places. They follow exactly from the number of weeks,
        the sum and the sum of squares of each place, which is all that leaves it. Otherwise
        each place has its own, of which nobody has to know.
    """
    logs = np.log1p(np.asarray(counts, np.float64))
    if shared:
        center = logs.mean(axis=0)
        mean = np.full(logs.shape[1], center.mean())
        # Within a place, and between the places: Chan, Golub and LeVeque, 1983, eq. 1.5.
        variance = logs.var(axis=0).mean() + center.var()
        deviation = np.full(logs.shape[1], np.sqrt(variance))
    else:
        mean, deviation = logs.mean(axis=0), logs.std(axis=0)
    return LogScale(mean, np.where(deviation > 0, deviation, 1.0))


def windows(
    values: np.ndarray, *, window: int, horizons: Sequence[int], begin: int, end: int
) -> Windows:
    """Windows whose targets all lie in the weeks `begin` to `end - 1`.

    Past weeks may lie before `begin`: they had been observed by then. So a training part that
    ends where a test part begins shares no target with it, and no training window holds a week
    of the test part.

    Args:
      values: `[weeks, places]`, without NaN.
      window: observed weeks, at least 1.
      horizons: weeks ahead, rising, from 1.
      begin: row of the first week that may be a target.
      end: row behind the last one.

    Raises:
      ValueError: if `window` or `horizons` do not fit, or no window does.
    """
    horizons = tuple(horizons)
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window!r}.")
    if not horizons or horizons[0] < 1 or list(horizons) != sorted(set(horizons)):
        raise ValueError(f"horizons must rise from 1 or more, got {horizons!r}.")
    first = max(window - 1, begin - horizons[0])
    origin = np.arange(first, min(end, len(values)) - horizons[-1])
    if not origin.size:
        raise ValueError(
            f"no window of {window} weeks with a target {horizons[-1]} weeks ahead fits into the "
            f"weeks {begin} to {end - 1} of {len(values)}."
        )
    past = values[origin[:, None] + np.arange(1 - window, 1)]
    target = values[origin[:, None] + np.array(horizons)]
    return Windows(
        np.moveaxis(past, 1, 2).astype(np.float32),
        np.moveaxis(target, 1, 2).astype(np.float32),
        origin,
    )


def _named(series: WeeklyCounts, row: int | np.integer) -> str:
    year = series.season[row] + (series.week[row] < 40)
    return f"week {series.week[row]} of {year} (row {row + 1})"
