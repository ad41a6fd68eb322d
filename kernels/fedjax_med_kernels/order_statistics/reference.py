"""What the order statistics have to compute, coordinate by coordinate in numpy."""

import numpy as np


def median_reference(x: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The median of every column over the valid rows, float64; NaN counts as infinity."""
    rows = _valid_rows(x, valid)
    if not len(rows):
        return np.full(x.shape[1], np.nan)
    return (rows[(len(rows) - 1) // 2] + rows[len(rows) // 2]) / 2


def trimmed_mean_reference(x: np.ndarray, valid: np.ndarray, trim: int) -> np.ndarray:
    """The mean of every column over the valid rows but the `trim` smallest and largest."""
    rows = _valid_rows(x, valid)
    kept = rows[trim : max(len(rows) - trim, 0)]
    if not len(kept):
        return np.full(x.shape[1], np.nan)
    return kept.mean(axis=0)


def _valid_rows(x: np.ndarray, valid: np.ndarray) -> np.ndarray:
    rows = x[valid].astype(np.float64)
    return np.sort(np.where(np.isnan(rows), np.inf, rows), axis=0)
