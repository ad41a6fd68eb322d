"""Histograms and quantiles, from counts that are summed over hospitals.

What leaves a hospital: how many of its values are at most as large as each of some numbers that it
was sent. Only the sums over hospitals are needed. A quantile is found by sending the same question
again, about ever narrower intervals (`bisection`); what becomes known is the interval it ends in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.preprocessing.bisection import (
    RANKS,
    Grid,
    Ranks,
    float_grid,
    just_below,
    total_quantiles,
)
from fedjax_med.preprocessing.columns import names_of, table_of, training_survey
from fedjax_med.preprocessing.messages import Messages

_SMALLEST_RESOLUTION = 2.0**-23


class Histogram(NamedTuple):
    """Counts of the values of every column, over the training rows of all hospitals.

    Attributes:
      edges: float64 `[features, bins + 1]`.
      counts: int64 `[features, bins]`, of `edges[i] <= x < edges[i + 1]`; the last bin has its
        right edge as well, as in `np.histogram`.
      below: int64 `[features]`, values below the first edge.
      above: int64 `[features]`, values above the last.
      missing: int64 `[features]`.
    """

    edges: np.ndarray
    counts: np.ndarray
    below: np.ndarray
    above: np.ndarray
    missing: np.ndarray


def histogram(
    dataset: FederatedDataset, edges: np.ndarray, *, messages: Messages | None = None
) -> Histogram:
    """Counts the training values of every column between `edges`.

    Sums only. Small counts may tell of single patients: see `suppress`.

    Args:
      dataset: a table; NaN is missing.
      edges: finite and ascending, `[bins + 1]` for all columns or `[features, bins + 1]`.
      messages: notes what hospitals told.

    Raises:
      DataError: if there is no table, or edges do not fit.
    """
    width = table_of(dataset.train).shape[1]
    edges = np.asarray(edges, np.float64)
    if edges.ndim == 1:
        edges = np.broadcast_to(edges, (width, len(edges)))
    if edges.ndim != 2 or len(edges) != width or edges.shape[1] < 2:
        raise DataError(
            f"edges must have shape [bins + 1] or [{width}, bins + 1] with at least one bin, got "
            f"shape {list(edges.shape)}."
        )
    if not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
        raise DataError("edges must be finite and ascending in every column.")
    # Below an edge is what is at most its predecessor; only the last bin has its right edge.
    asked = np.concatenate([just_below(edges), edges[:, -1:]], axis=1)
    surveyor = training_survey(dataset, messages=messages)
    ranks: Ranks = surveyor.total("histogram", RANKS, asked)
    up_to = np.concatenate([ranks.up_to[:, :-2], ranks.up_to[:, -1:]], axis=1).astype(np.int64)
    count = ranks.count.astype(np.int64)
    return Histogram(
        edges=edges.copy(),
        counts=np.diff(up_to, axis=1),
        below=up_to[:, 0],
        above=count - up_to[:, -1],
        missing=dataset.train.num_examples - count,
    )


def quantiles(
    dataset: FederatedDataset,
    probabilities: Sequence[float],
    *,
    within: tuple[np.ndarray, np.ndarray] | None = None,
    resolution: float = 2.0**-15,
    messages: Messages | None = None,
) -> np.ndarray:
    """Quantiles of every column over the training rows of all hospitals.

    The smallest number v with at least `ceil(p * n)` of the n values at most as large, what
    `np.quantile` calls "inverted_cdf". The interval that holds it is divided by eight in every pass.
    Without `within` it is at first all that a float32 can be, so nothing has to be known before, and
    the intervals are between float32 numbers of few digits: the result is at most `resolution * |v|`
    further from zero or nearer to it than v, never below v, and **is** v where v is a whole number below
    `1 / resolution` in magnitude. With `within` the intervals are of equal width, and the result is
    above v by less than `resolution` times the width of the range, ends included.

    The finer the resolution, the closer the results are to values of single patients: the extreme
    quantiles of few patients tell of them.

    Args:
      dataset: a table; NaN is missing.
      probabilities: in [0, 1].
      within: a public range, `low` and `high` `[features]`; values outside count as its ends.
      resolution: see above, from 2**-23 to 1. 2**-23 is exact for float32 values, without `within`.
      messages: notes what hospitals told.

    Returns:
      float64 `[features, probabilities]`, NaN for a column without a value.

    Raises:
      DataError: if there is no table, or an argument does not fit.
    """
    width = table_of(dataset.train).shape[1]
    grid = _grid(within, resolution, width)
    surveyor = training_survey(dataset, messages=messages)
    return total_quantiles(surveyor, width, probabilities, grid)


def _grid(within: tuple[np.ndarray, np.ndarray] | None, resolution: float, width: int) -> Grid:
    if not _SMALLEST_RESOLUTION <= resolution <= 1:
        raise DataError(f"resolution must be from 2**-23 to 1, got {resolution!r}.")
    resolution = 2.0 ** np.floor(np.log2(resolution))
    if within is None:
        return float_grid(resolution)
    low, high = (np.broadcast_to(np.asarray(end, np.float64), width) for end in within)
    if not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
        raise DataError("within must be two finite numbers per column, the smaller first.")
    steps = int(1 / resolution)

    def value(number: np.ndarray) -> np.ndarray:
        inner = (width,) + (1,) * (number.ndim - 1)
        share = number / steps
        return low.reshape(inner) * (1 - share) + high.reshape(inner) * share

    return Grid(0, steps, value)


def bounds(
    dataset: FederatedDataset,
    allowed: dict[str, tuple[float, float]] | None = None,
    *,
    disclose_extremes: bool = False,
    messages: Messages | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A range for every column, for histograms and for `quantiles(within=...)`.

    A column of `allowed` has the public range given there. Of the others, the smallest and the
    largest value are found up to a factor of two, outwards, from sums over hospitals. With
    `disclose_extremes` they are found exactly: the smallest and the largest value are those of
    **single patients**, known to everybody then.

    Args:
      dataset: a table; NaN is missing.
      allowed: range by the name of a column; `allowed_ranges(schema)` gives that of a schema file.
      disclose_extremes: see above.
      messages: notes what hospitals told.

    Returns:
      `low` and `high`, float64 `[features]`; NaN for a column without range or value.

    Raises:
      DataError: if a column is unknown.
    """
    names = names_of(dataset)
    for column in allowed or {}:
        if column not in names:
            raise DataError(f"unknown column {column!r}; the columns are {', '.join(names)}.")
    # Truncated to a power of two, a negative maximum and a positive minimum would be cut inwards.
    grid = float_grid(2.0**-23 if disclose_extremes else 1.0)
    surveyor = training_survey(dataset, messages=messages)
    found = total_quantiles(surveyor, len(names), (0.0, 1.0), grid)
    low, high = found.T.copy()
    if not disclose_extremes:
        # What is found is the upper end of the interval: of the smallest value the lower is wanted.
        low = np.where(low > 0, low / 2, low * 2)
    for column, (first, last) in (allowed or {}).items():
        at = names.index(column)
        low[at], high[at] = first, last
    return low, high
