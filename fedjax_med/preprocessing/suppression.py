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
    counts. So others are left out as well, the smallest first, until for every small count, totals
    among them, what is given out fits more than one number. Whoever reads it is taken to know that
    what is left out is at least 1; zeros are never left out. The range of numbers that fit is found by
    linear programming, which for tables of one or two axes has whole numbers as its corners.

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
    while True:
        exposed = next((at for at in np.argwhere(small) if _can_be_found(full, hidden, at)), None)
        if exposed is None:
            return hidden
        beside = (np.indices(full.shape).T == exposed).T.any(axis=0) | (full.ndim == 1)
        candidates = (full > 0) & ~hidden
        if (candidates & beside).any():
            candidates &= beside
        # There is one: if all but zeros were left out, any multiple of the table would fit.
        smallest = np.where(candidates, full, np.inf).argmin()
        hidden[np.unravel_index(smallest, full.shape)] = True


def _can_be_found(full: np.ndarray, hidden: np.ndarray, at: np.ndarray) -> bool:
    """Whether one number only fits the entry `at`, given the others and that 1 is the least."""
    from scipy.optimize import linprog  # here, because importing it takes a tenth of a second

    sums, shown = _lines(hidden.shape, hidden), np.where(hidden, 0, full)
    right = -_lines(full.shape, np.ones_like(hidden)) @ shown.reshape(-1)
    objective = np.zeros(int(hidden.sum()))
    objective[(np.argwhere(hidden) == at).all(axis=1)] = 1
    ends = []
    for sign in (1, -1):
        result = linprog(sign * objective, A_eq=sums, b_eq=right, bounds=(1, None))
        if result.status == 3:  # as large as one likes
            return False
        ends.append(sign * result.fun)
    return ends[1] - ends[0] < 0.5


def _lines(shape: tuple[int, ...], chosen: np.ndarray) -> np.ndarray:
    """One row per line of the table: 1 for its cells and -1 for its total, of chosen entries."""
    number = np.arange(int(np.prod(shape))).reshape(shape)
    lines = [
        line
        for axis, length in enumerate(shape)
        for line in np.moveaxis(number, axis, -1).reshape(-1, length)
    ]
    matrix = np.zeros((len(lines), number.size))
    for row, line in zip(matrix, lines, strict=True):
        row[line], row[line[-1]] = 1, -1
    return matrix[:, chosen.reshape(-1)]
