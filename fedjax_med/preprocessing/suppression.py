"""Suppression of small counts in tables that are given out together with their totals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedjax_med.data import DataError


class SuppressedTable(NamedTuple):
    """A table of counts that may be given out; NaN where something is left out.

    Attributes:
      counts: float64, shape of the table.
      row_totals: float64 `[rows]` of a table of two axes; empty for one axis.
      column_totals: float64 `[columns]`, likewise.
      total: of the whole table.
    """

    counts: np.ndarray
    row_totals: np.ndarray
    column_totals: np.ndarray
    total: float


def suppress(counts: np.ndarray, min_count: int = 5) -> SuppressedTable:
    """Leaves out counts from 1 to `min_count - 1`, and as many others as it takes to hide them.

    A count that is left out alone could be found again as the difference of a total and the other
    counts. So others are left out as well, until for every small count, totals among them, what is
    given out fits at least one other table. Whoever reads it is taken to know that what is left out is
    at least 1; zeros are never left out. For one small count after the other, those of the smallest sum
    are chosen (a linear programme, which for tables of one or two axes has whole numbers as corners).

    That more than one number fits does not mean that many do; a larger `min_count` helps there. Two
    tables of the same patients (before and after one of them left) can still be subtracted.

    Args:
      counts: whole numbers `[cells]` or `[rows, columns]`, not negative.
      min_count: smallest number that may be told; 1 or 0 leaves everything as it is.

    Raises:
      DataError: if `counts` is no such table.
    """
    given = np.asarray(counts)
    table = given.astype(np.float64)
    whole = table.size and np.isfinite(table).all() and (table == np.floor(table)).all()
    if table.ndim not in (1, 2) or not whole or (table < 0).any():
        raise DataError(
            "counts must be a table of one or two axes of whole numbers that are not negative, got "
            f"shape {list(table.shape)} and dtype {given.dtype}."
        )
    full = np.append(table, table.sum(axis=-1, keepdims=True), axis=-1)
    if table.ndim == 2:
        full = np.append(full, full.sum(axis=0, keepdims=True), axis=0)
    told = np.where(_hidden(full, min_count), np.nan, full)
    if table.ndim == 1:
        return SuppressedTable(told[:-1], np.zeros(0), np.zeros(0), float(told[-1]))
    return SuppressedTable(told[:-1, :-1], told[:-1, -1], told[-1, :-1], float(told[-1, -1]))


def _hidden(full: np.ndarray, min_count: int) -> np.ndarray:
    """What to leave out of a table whose last entries along every axis are the totals."""
    small = (full > 0) & (full < min_count)
    hidden = small.copy()
    for at in np.flatnonzero(small).tolist():
        hidden |= _changed_with(full, hidden, at)
    return hidden


def _changed_with(full: np.ndarray, hidden: np.ndarray, at: int) -> np.ndarray:
    """Where the table can change together with entry `at`, at the least cost of visible entries.

    A change keeps the sum of every line and zeros as they are, and leaves at least 1 elsewhere.
    """
    from scipy.optimize import linprog  # here, because importing it takes a tenth of a second

    value, free = full.reshape(-1), np.flatnonzero(full > 0)
    sums = _lines(full.shape)[:, free]
    cost = np.where(hidden.reshape(-1), 0, value + 1)[free]  # so that of equal sums fewer are taken
    here = free == at
    best = None
    for up in (True, False):
        # What is added, then what is taken away; twice the table is always a change.
        bounds = [(int(up and h), int(up) if h else None) for h in here]
        bounds += [
            (int(not up and h), int(not up) if h else v - 1)
            for h, v in zip(here, value[free], strict=True)
        ]
        if not up and value[at] == 1:
            continue
        result = linprog(
            np.concatenate([cost, cost]),
            A_eq=np.concatenate([sums, -sums], axis=1),
            b_eq=np.zeros(len(sums)),
            bounds=bounds,
        )
        if result.status == 0 and (best is None or result.fun < best.fun):
            best = result
    assert best is not None
    changed = np.zeros(value.shape, bool)
    changed[free] = np.abs(best.x).reshape(2, -1).sum(axis=0) > 1e-6
    return changed.reshape(full.shape)


def _lines(shape: tuple[int, ...]) -> np.ndarray:
    """One row per line of the table: 1 for its cells and -1 for its total."""
    number = np.arange(int(np.prod(shape))).reshape(shape)
    lines = [
        line
        for axis, length in enumerate(shape)
        for line in np.moveaxis(number, axis, -1).reshape(-1, length)
    ]
    matrix = np.zeros((len(lines), number.size))
    for row, line in zip(matrix, lines, strict=True):
        row[line], row[line[-1]] = 1, -1
    return matrix
