"""How frequent categories are, from sums over hospitals.

What leaves a hospital is what `statistics` says: of every indicator, how many of its rows are 0 and 1.
"""

from __future__ import annotations

import numpy as np

from fedjax_med.data import FederatedDataset
from fedjax_med.preprocessing.columns import kinds_of, names_of
from fedjax_med.preprocessing.messages import Messages
from fedjax_med.preprocessing.statistics import statistics
from fedjax_med.preprocessing.suppression import SuppressedTable, suppress


def category_counts(
    dataset: FederatedDataset, *, min_count: int = 5, messages: Messages | None = None
) -> dict[str, tuple[tuple[str, ...], SuppressedTable]]:
    """Counts of the categories of every block `column=category`, over the training rows of all.

    Args:
      dataset: a table; NaN is missing.
      min_count: smaller counts are left out, and others that would give them away (`suppress`).
      messages: notes what hospitals told.

    Returns:
      By the name of the column: its categories, and their counts. The last two categories are
      "(none of them)", which rows belong to that have 0 in all indicators, and "(missing)".

    Raises:
      DataError: if there is no table.
    """
    names, found = names_of(dataset), statistics(dataset, messages=messages)
    _, blocks = kinds_of(names, found.count, found.zeros, found.ones)
    told = {}
    for block in blocks:
        at = list(block.columns)
        rest = found.count[at[0]] - found.ones[at].sum()
        counts = np.array([*found.ones[at], rest, found.missing[at[0]]])
        categories = tuple(names[i].partition("=")[2] for i in at)
        told[block.name] = (
            (*categories, "(none of them)", "(missing)"),
            suppress(counts, min_count),
        )
    return told
