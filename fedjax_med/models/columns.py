"""What the columns of a table are, and how missing values of theirs enter a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Columns(NamedTuple):
    """The columns of a table.

    Attributes:
      numeric: positions in `x` of the numeric columns, yes and no among them.
      categories: names of the columns of categories, and the positions of their indicators.
    """

    numeric: tuple[int, ...]
    categories: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def width(self) -> int:
        """How many columns `x` has."""
        return len(self.numeric) + sum(len(at) for _, at in self.categories)


def columns_of(feature_names: Sequence[str]) -> Columns:
    """Finds blocks of indicators by their names, `column=category`; all else is numeric.

    Raises:
      ValueError: if there are no names.

    Examples:
      >>> columns_of(["age", "stage=I", "stage=II", "smoker"])
      Columns(numeric=(0, 3), categories=(('stage', (1, 2)),))
    """
    if not feature_names:
        raise ValueError("feature_names must name the columns of x, got none.")
    numeric, blocks = [], {}
    for position, name in enumerate(feature_names):
        column, separator, _ = name.partition("=")
        if separator:
            blocks.setdefault(column, []).append(position)
        else:
            numeric.append(position)
    return Columns(tuple(numeric), tuple((name, tuple(at)) for name, at in blocks.items()))


def check_columns(columns: Columns, width: int) -> None:
    """Raises ValueError unless `columns` say of each of `width` columns once what it is."""
    positions = [*columns.numeric, *(p for _, at in columns.categories for p in at)]
    if sorted(positions) != list(range(width)):
        raise ValueError(
            f"columns must name each of the {width} columns of x once, got {len(positions)} "
            f"positions: {columns}."
        )


def numeric_parts(columns: Columns, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Values `[batch, numeric]`, 0 where missing, and whether they are missing (bool)."""
    values = x[:, np.asarray(columns.numeric, np.int32)]
    missing = jnp.isnan(values)
    return jnp.where(missing, 0, values), missing


def category_parts(columns: Columns, x: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """For each block, indicators `[batch, categories]`, 0 where missing, and bool `[batch]`."""
    parts = []
    for _, at in columns.categories:
        indicators = x[:, np.asarray(at, np.int32)]
        missing = jnp.any(jnp.isnan(indicators), axis=1)
        # NaN is replaced before anything is computed with it, so no gradient sees it either.
        parts.append((jnp.where(missing[:, None], 0, indicators), missing))
    return parts
