"""Imputation of missing values, from statistics of all hospitals.

What leaves a hospital: sums for means, modes and the kinds of columns (`statistics`), counts between
given numbers for medians (`quantiles`). Only the sums over hospitals are needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.preprocessing.bisection import float_grid, total_quantiles
from fedjax_med.preprocessing.columns import (
    Block,
    Kind,
    kinds_of,
    names_of,
    positions_of,
    training_survey,
)
from fedjax_med.preprocessing.messages import Messages
from fedjax_med.preprocessing.statistics import Statistics, statistics

Method = Literal["mean", "median", "mode"]
METHODS = ("mean", "median", "mode")


@dataclasses.dataclass(frozen=True, eq=False)
class Imputer:
    """Fills in missing values, the same at all hospitals.

    Attributes:
      names: of the columns of `x` that it applies to.
      fill: float64 `[features]`, what a missing value becomes; NaN for columns that are dropped.
      indicators: for each column or block that gets a column `missing(name)`: its name, and the
        position of a column of it.
    """

    names: tuple[str, ...]
    fill: np.ndarray
    indicators: tuple[tuple[str, int], ...] = ()

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns of what `transform` returns."""
        kept = (n for n, f in zip(self.names, self.fill, strict=True) if not np.isnan(f))
        return (*kept, *(f"missing({name})" for name, _ in self.indicators))

    @property
    def dropped(self) -> tuple[str, ...]:
        """Names of columns without enough values to tell what is missing."""
        return tuple(n for n, f in zip(self.names, self.fill, strict=True) if np.isnan(f))

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Fills in rows `[N, features]`; the result has their dtype (floating), and no NaN.

        Raises:
          DataError: if `x` has another number of columns.
        """
        if x.ndim != 2 or x.shape[1] != len(self.names):
            raise DataError(
                f"x must have shape [rows, {len(self.names)}], got {list(x.shape)}; the columns are "
                f"{', '.join(self.names)}."
            )
        x = x if x.dtype.kind == "f" else x.astype(np.float32)
        missing = np.isnan(x)
        filled = np.where(missing, self.fill.astype(x.dtype)[None], x)
        flags = missing[:, [at for _, at in self.indicators]]
        return np.concatenate([filled[:, ~np.isnan(self.fill)], flags], axis=1, dtype=x.dtype)

    def apply(self, dataset: FederatedDataset) -> FederatedDataset:
        """Fills in all splits of a dataset.

        Raises:
          DataError: if it has other columns.
        """
        if names_of(dataset) != self.names:
            raise DataError(
                "the columns of the dataset are not those that the imputer was fitted on."
            )
        return dataset.map_examples(
            lambda examples: {**examples, "x": self.transform(examples["x"])}, self.feature_names
        )


def fit_imputer(
    dataset: FederatedDataset,
    method: Method = "median",
    *,
    methods: Mapping[str, Method] | None = None,
    indicators: bool = False,
    min_count: int = 1,
    messages: Messages | None = None,
) -> Imputer:
    """Finds what to fill in, from the training rows of all hospitals.

    | column | filled with |
    | --- | --- |
    | numeric | mean or median over all hospitals |
    | 0 and 1 only | the more frequent of the two (0 if equal) |
    | block `column=category` | the most frequent category: its indicator 1, the others 0; or all 0, \
where more rows belong to none (a category without an indicator) |
    | with fewer than `min_count` values | nothing: it is dropped |

    Which column is which is found from counts (`kinds_of`), not from names alone.

    With `indicators`, a column (or block) with at least `min_count` missing values gets a column
    `missing(column)`, 1 where it was missing. It is not called `column=missing`, which could be a
    category of a block; an existing column of that name is refused.

    Args:
      dataset: a table; NaN is missing.
      method: for numeric columns: "mean" or "median"; with "mode", which is for categories, the
        median.
      methods: for single columns (by name) instead; a column of 0 and 1 may have a mean as well.
      indicators: see above.
      min_count: see above; at least 1.
      messages: notes what hospitals told.

    Raises:
      DataError: if an argument does not fit.
    """
    found = statistics(dataset, messages=messages)
    kinds, blocks = kinds_of(names_of(dataset), found.count, found.zeros, found.ones)
    return imputer_from(
        dataset,
        found,
        kinds,
        blocks,
        method,
        methods or {},
        indicators=indicators,
        min_count=min_count,
        messages=messages or Messages(),
    )


def imputer_from(
    dataset: FederatedDataset,
    found: Statistics,
    kinds: list[Kind],
    blocks: list[Block],
    method: Method,
    methods: Mapping[str, Method],
    *,
    indicators: bool,
    min_count: int,
    messages: Messages,
) -> Imputer:
    """`fit_imputer`, given the statistics of the columns."""
    names = names_of(dataset)
    chosen = _chosen(names, kinds, method, methods)
    kept = found.count >= max(1, min_count)
    fill = np.where(kept, found.mean, np.nan)
    medians = [i for i, m in enumerate(chosen) if m == "median" and kept[i]]
    if medians:
        surveyor = training_survey(dataset, medians, messages)
        fill[medians] = total_quantiles(surveyor, len(medians), (0.5,), float_grid())[:, 0]
    modes = np.array([m == "mode" for m in chosen]) & kept
    fill[modes] = (found.ones > found.zeros)[modes]
    for block in blocks:
        at = np.array(block.columns)
        at_mode = at[modes[at]]
        if len(at_mode):
            fill[at_mode] = 0
            most = at[np.argmax(found.ones[at])]
            if found.ones[most] >= found.count[most] - found.ones[at].sum() and most in at_mode:
                fill[most] = 1
    flagged: tuple[tuple[str, int], ...] = ()
    if indicators:
        of_block = {i: block.name for block in blocks for i in block.columns}
        flags: dict[str, int] = {}
        for i in np.flatnonzero(kept & (found.missing >= max(1, min_count))).tolist():
            flags.setdefault(of_block.get(i, names[i]), i)
        flagged = tuple(flags.items())
    for name, _ in flagged:
        if f"missing({name})" in names:
            raise DataError(
                f"the indicator of missing values of {name!r} would be called 'missing({name})', "
                "but there is a column of that name already; rename it or leave indicators out."
            )
    return Imputer(names, fill, flagged)


def _chosen(
    names: tuple[str, ...], kinds: list[Kind], method: Method, methods: Mapping[str, Method]
) -> list[Method]:
    for what in (method, *methods.values()):
        if what not in METHODS:
            raise DataError(f"impute must be 'mean', 'median' or 'mode', got {what!r}.")
    for column, what in methods.items():
        kind = kinds[positions_of([column], names)[0]]
        if what == "mode" and kind == "numeric":
            raise DataError(
                f"impute of column {column!r} must be 'mean' or 'median', since it holds numbers "
                "other than 0 and 1, got 'mode'."
            )
    numeric = "median" if method == "mode" else method
    by_kind: dict[Kind, Method] = {"numeric": numeric, "binary": "mode", "category": "mode"}
    return [methods.get(n, by_kind.get(k, numeric)) for n, k in zip(names, kinds, strict=True)]
