"""Small tables divided among hospitals, with everything that makes tables awkward."""

import numpy as np

from fedjax_med.data import ClientArrays, FederatedDataset

NAMES = ("age", "chol", "female", "stage=I", "stage=II", "lab")
SIZES = (9, 0, 14, 4)  # the second hospital has no training rows
SITES = ("North", "Empty", "South", "East")


def pooled_rows(num_rows=27, seed=0):
    """float32 rows: whole numbers, numbers far from zero, 0 and 1, a block, and NaN in all."""
    rng = np.random.default_rng(seed)
    stage = rng.integers(0, 3, num_rows)  # a third stage has no indicator
    x = np.stack(
        [
            rng.integers(40, 90, num_rows),
            1e4 + rng.normal(0, 1, num_rows),
            rng.integers(0, 2, num_rows),
            stage == 0,
            stage == 1,
            rng.normal(-3, 20, num_rows),
        ],
        axis=1,
    )
    missing = rng.random(x.shape) < 0.2
    missing[:, 4] = missing[:, 3]  # a block is missing together
    return np.where(missing, np.nan, x).astype(np.float32)


def divided(x, sizes=SIZES, names=NAMES, sites=SITES, **splits):
    """The rows given to hospitals in their order; targets are the row numbers."""
    arrays = ClientArrays({"x": x, "y": np.arange(len(x), dtype=np.float32)}, np.array(sizes))
    return FederatedDataset("toy", tuple(sites), arrays, feature_names=tuple(names), **splits)


def held_out(dataset, value):
    """The same with test rows that are `value` everywhere."""
    arrays = ClientArrays(
        {
            "x": np.full((8, len(dataset.feature_names)), value, np.float32),
            "y": np.full(8, value, np.float32),
        },
        np.array([2, 2, 2, 2]),
    )
    return dataset.replace(test=arrays)
