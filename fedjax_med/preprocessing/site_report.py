"""What is wrong with the data of which hospital, from summaries, before anything is trained.

What leaves a hospital, of each column: the number of its values, their mean and sum of squared
deviations, their quartiles, and how many lie outside of ranges it was sent. These are **per-site**,
since the report is about single hospitals; the quartiles of all hospitals together, which the ranges
are made of, come from sums. Whoever makes the report sees all of it; whoever reads it is not told small
counts, nor medians of few values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from rich.table import Table

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.datasets import Schema
from fedjax_med.preprocessing import findings
from fedjax_med.preprocessing.bisection import (
    OWN_RANKS,
    Own,
    Ranks,
    float_grid,
    just_below,
    own_quantiles,
    total_quantiles,
)
from fedjax_med.preprocessing.columns import allowed_ranges, kinds_of, names_of, training_survey
from fedjax_med.preprocessing.messages import Messages
from fedjax_med.preprocessing.statistics import own_moments, sums_of
from fedjax_med.preprocessing.units import Suspicion, suspected_unit

_QUARTILES = (0.25, 0.5, 0.75)
_IQR_OF_NORMAL = 1.349  # interquartile range in standard deviations
SUPPRESSED = findings.SUPPRESSED


@dataclasses.dataclass(frozen=True, eq=False)
class SiteReport:
    """Counts and medians of every hospital and column; what is told of them is safe to give out.

    Counts are float64 `[sites, columns]`. `SUPPRESSED` (-1) stands for a count that, or whose
    complement, is from 1 to `min_count - 1`; NaN for what does not apply, or is not told since the
    hospital has fewer than `min_count` values. There are no totals, so nothing can be found by
    subtraction.

    Attributes:
      sites: names of the hospitals.
      columns: names of the columns.
      rows: training rows, float64 `[sites]`.
      missing: values that are missing.
      outliers: values further from the median of all hospitals than `outlier_z` standard deviations,
        which are taken to be the interquartile range / 1.349; of numeric columns.
      impossible: values outside of the allowed range, where there is one.
      median: of the hospital, in the units of the column; of numeric columns with `min_count` values.
      constant: bool, whether at least `min_count` values are all the same; not of indicators of a
        block of categories.
      absent: bool, whether the hospital has rows (at least `min_count`), but no value.
      units: suspected wrong units, by (site, column).
      min_count: smallest count that is told.
    """

    sites: tuple[str, ...]
    columns: tuple[str, ...]
    rows: np.ndarray
    missing: np.ndarray
    outliers: np.ndarray
    impossible: np.ndarray
    median: np.ndarray
    constant: np.ndarray
    absent: np.ndarray
    units: dict[tuple[str, str], Suspicion]
    min_count: int

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """By hospital: `rows`, and by column all that is known. For JSON."""
        return findings.as_dict(self)

    def findings(self) -> list[tuple[str, str, str]]:
        """Hospital, column and what was found, of all that somebody should look at."""
        return findings.listed(self)

    def table(self) -> Table:
        """The findings as a table for the terminal."""
        return findings.table(self)

    def html(self) -> str:
        """The findings as a `<table>` for a report."""
        return findings.html(self)


def site_report(
    dataset: FederatedDataset,
    schema: Schema | Mapping[str, tuple[float, float]] | None = None,
    *,
    outlier_z: float = 5.0,
    min_count: int = 5,
    messages: Messages | None = None,
) -> SiteReport:
    """Looks at the training rows of every hospital.

    Args:
      dataset: a table in natural units; NaN is missing.
      schema: a schema, or allowed ranges by the name of the column.
      outlier_z: see `SiteReport.outliers`.
      min_count: counts below are not told.
      messages: notes what hospitals told.

    Raises:
      DataError: if there is no table, or a range is of an unknown column or not one.
      ValueError: if a training value is infinite.
    """
    names = names_of(dataset)
    low, high = _allowed(names, schema)
    if not outlier_z > 0:
        raise DataError(f"outlier_z must be positive, got {outlier_z!r}.")
    surveyor = training_survey(dataset, messages=messages)
    found = sums_of(surveyor, len(names))
    kinds, blocks = kinds_of(names, found.count, found.zeros, found.ones)
    shape = (dataset.num_clients, len(names))
    own = own_moments(surveyor, shape, "per-site")
    enough = own.count >= min_count
    quartiles = np.full((*shape, 3), np.nan)
    fences = np.full((len(names), 2), np.nan)
    numeric = [i for i, kind in enumerate(kinds) if kind == "numeric"]
    if numeric:
        of_numeric = training_survey(dataset, numeric, surveyor.messages)
        grid, size = float_grid(), (shape[0], len(numeric))
        total = total_quantiles(of_numeric, len(numeric), _QUARTILES, grid)
        quartiles[:, numeric] = own_quantiles(of_numeric, size, _QUARTILES, grid, "per-site")
        quartiles[~enough] = np.nan
        reach = outlier_z * (total[:, 2] - total[:, 0]) / _IQR_OF_NORMAL
        varies = reach > 0  # where half of the values are one, any other would be an outlier
        fences[numeric] = total[:, 1, None] + np.where(varies, reach, np.nan)[:, None] * [-1, 1]
    outside = _outside(dataset, surveyor, fences, np.stack([low, high], axis=1))
    outside = np.where(enough[..., None], outside, np.nan)
    outliers, impossible = _told(outside, own.count[..., None], min_count).transpose(2, 0, 1)
    sites = dataset.client_names
    of_block = np.isin(np.arange(len(names)), [i for block in blocks for i in block.columns])
    spread = np.sqrt(own.squares / np.maximum(own.count, 1))
    return SiteReport(
        sites=sites,
        columns=names,
        rows=_told(dataset.train.sizes.astype(np.float64), np.inf, min_count),
        missing=_told(
            dataset.train.sizes[:, None] - own.count, dataset.train.sizes[:, None], min_count
        ),
        outliers=outliers,
        impossible=impossible,
        median=quartiles[..., 1],
        constant=enough & ~(spread > 1e-12 * np.abs(own.mean)) & ~of_block,
        absent=(own.count == 0) & (dataset.train.sizes[:, None] >= min_count),
        units=_suspected(sites, names, own.count, quartiles),
        min_count=min_count,
    )


def _allowed(
    names: tuple[str, ...], schema: Schema | Mapping[str, tuple[float, float]] | None
) -> tuple[np.ndarray, np.ndarray]:
    ranges = allowed_ranges(schema) if isinstance(schema, Schema) else dict(schema or {})
    low, high = np.full((2, len(names)), np.nan)
    for column, (first, last) in ranges.items():
        if column not in names:
            raise DataError(f"unknown column {column!r}; the columns are {', '.join(names)}.")
        if not first <= last:
            raise DataError(f"the range of {column!r} must be two numbers, got {(first, last)!r}.")
        low[names.index(column)], high[names.index(column)] = first, last
    return low, high


def _outside(dataset: FederatedDataset, surveyor: Any, *ranges: np.ndarray) -> np.ndarray:
    """How many values of each hospital are outside of `[features, 2]`: `[sites, features, ranges]`."""
    first = [just_below(r[:, 0]) for r in ranges]  # at most this: below the range
    edges = np.stack([*first, *(r[:, 1] for r in ranges)], axis=1)
    edges = np.where(np.isnan(edges), 0, edges)  # where there is no range; NaN for it below
    shape = (dataset.num_clients, *edges.shape)
    ranks = Ranks(np.zeros(shape[:2]), np.zeros(shape))
    states = Own(np.broadcast_to(edges, shape), ranks)
    found = surveyor.survey(OWN_RANKS, (), states=states).per_client.ranks
    told = jax.tree.map(lambda counts: counts[0], found)
    surveyor.messages.add("values outside of ranges", told, "per-site")
    below, up_to = np.split(found.up_to, 2, axis=-1)
    outside = below + found.count[..., None] - up_to
    return np.where(np.isnan(np.stack(ranges, axis=-1)[:, 0]), np.nan, outside)


def _told(counts: np.ndarray, totals: Any, min_count: int) -> np.ndarray:
    """Counts, or `SUPPRESSED` where they or what they leave of `totals` are small."""
    rest = totals - counts
    small = ((counts > 0) & (counts < min_count)) | ((rest > 0) & (rest < min_count))
    return np.where(small, SUPPRESSED, counts)


def _suspected(
    sites: tuple[str, ...], names: tuple[str, ...], count: np.ndarray, quartiles: np.ndarray
) -> dict[tuple[str, str], Suspicion]:
    found = {}
    for j, column in enumerate(names):
        for i, site in enumerate(sites):
            others = np.delete(quartiles[:, j], i, axis=0)
            others = others[others[:, 2] > others[:, 0]]  # NaN and constants are left out
            if not len(others):
                continue
            # Medians over hospitals: one more with a wrong unit moves them little.
            middle = float(np.median(others[:, 1]))
            spread = float(np.median(others[:, 2] - others[:, 0]))
            low, median, high = quartiles[i, j].tolist()
            own = (median, high - low)
            unit = suspected_unit(column, own, (middle, spread), int(count[i, j]))
            if unit is not None:
                found[site, column] = unit
    return found
