"""Windows of weekly counts as standardised logarithms, each place by its own training weeks.

Nothing leaves a place: it needs to know its own mean and deviation only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.datasets.weekly import THIS_WEEK


def present_column(dataset: FederatedDataset) -> int:
    """The column of the present week; the last one where columns have no names."""
    names = dataset.feature_names
    width = dataset.train.examples["x"].shape[1]
    return names.index(THIS_WEEK) if THIS_WEEK in names else width - 1


def standardised_logarithms(dataset: FederatedDataset) -> FederatedDataset:
    """`(log(1 + counts) - mean) / deviation` of the weeks in `x` and of `y`.

    Mean and deviation are those of the present weeks of the place's training windows. Columns after
    the present week, such as the season, stay.

    Args:
      dataset: windows `x` `[N, window + others]` of counts and `y` `[N, horizons]`, as of
        `datasets.flu_ili` with `standardize=None`.
    """
    present = present_column(dataset)
    train = dataset.train
    logs = np.log1p(np.asarray(train.examples["x"][:, present], np.float64))
    parts = np.split(logs, train.offsets[1:-1])
    mean = np.array([part.mean() for part in parts])
    deviation = np.array([part.std() or 1.0 for part in parts])

    def scaled(arrays: ClientArrays) -> ClientArrays:
        m, d = (np.repeat(values, arrays.sizes)[:, None] for values in (mean, deviation))
        own: dict[str, Any] = dict(arrays.examples)
        x = np.array(own["x"], np.float64)
        x[:, : present + 1] = (np.log1p(x[:, : present + 1]) - m) / d
        y = (np.log1p(np.asarray(own["y"], np.float64)) - m) / d
        return ClientArrays(
            {**own, "x": x.astype(np.float32), "y": y.astype(np.float32)}, arrays.sizes
        )

    splits: dict[str, Any] = {name: scaled(part) for name, part in dataset.splits().items()}
    return dataset.replace(**splits)
