"""The columns of a table: their values, their kinds, and surveys of some of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from fedjax_med.data import ClientArrays, DataError, FederatedDataset
from fedjax_med.datasets import Schema
from fedjax_med.engine import Survey
from fedjax_med.preprocessing.messages import Messages, Surveyor

Kind = Literal["numeric", "binary", "category", "absent"]


class Block(NamedTuple):
    """The indicators of a column of categories.

    Attributes:
      name: of the column; the indicators are called `name=category`.
      columns: their positions in `x`.
    """

    name: str
    columns: tuple[int, ...]


def table_of(arrays: ClientArrays) -> np.ndarray:
    """`examples["x"]`, floating `[N, features]`.

    Raises:
      DataError: if there is no such leaf.
    """
    examples = arrays.examples
    x = examples.get("x") if isinstance(examples, dict) else None
    if not isinstance(x, np.ndarray) or x.ndim != 2 or x.dtype.kind != "f":
        raise DataError("examples must be a dict with a floating leaf 'x' of [rows, features].")
    return x


def names_of(dataset: FederatedDataset) -> tuple[str, ...]:
    """The names of the columns; `x0`, `x1`, ... where the dataset gives none.

    Raises:
      DataError: if a name occurs twice.
    """
    width = table_of(dataset.train).shape[1]
    names = dataset.feature_names or tuple(f"x{i}" for i in range(width))
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise DataError(f"feature name {twice!r} occurs more than once; names must differ.")
    return names


def positions_of(columns: Sequence[str], names: tuple[str, ...]) -> tuple[int, ...]:
    """Where the named columns are.

    Raises:
      DataError: if there is no such column.
    """
    if isinstance(columns, str):
        raise DataError(f"columns must be a list of names, got the text {columns!r}.")
    for column in columns:
        if column not in names:
            raise DataError(f"unknown column {column!r}; the columns are {', '.join(names)}.")
    return tuple(names.index(column) for column in columns)


def training_survey(
    dataset: FederatedDataset,
    columns: Sequence[int] | None = None,
    messages: Messages | None = None,
) -> Surveyor:
    """The training rows of `x`, some columns of it, ready to be asked."""
    x = table_of(dataset.train)
    if columns is not None:
        x = x[:, np.asarray(columns, np.int64)]
    survey = Survey(ClientArrays({"x": x}, dataset.train.sizes), dataset.client_names)
    return Surveyor(survey, messages or Messages())


def kinds_of(
    names: tuple[str, ...], count: np.ndarray, zeros: np.ndarray, ones: np.ndarray
) -> tuple[list[Kind], list[Block]]:
    """What each column is, from counts over all hospitals rather than from its name alone.

    | kind | of a column |
    | --- | --- |
    | absent | without a value at any hospital |
    | category | named `column=category`, one of a block: all of them 0 or 1, missing together, and \
with no more ones than rows |
    | binary | that holds 0 and 1 only |
    | numeric | any other |

    A column that is named like an indicator, but holds other numbers, is numeric.

    Args:
      names: of the columns.
      count: `[features]`, values that are not missing.
      zeros: of these, those that are 0.
      ones: of these, those that are 1.
    """
    binary = (count > 0) & (zeros + ones == count)
    kinds: list[Kind] = [
        "absent" if c == 0 else "binary" if b else "numeric"
        for c, b in zip(count, binary, strict=True)
    ]
    members: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        column, separator, _ = name.partition("=")
        if separator:
            members.setdefault(column, []).append(i)
    blocks = []
    for column, at in members.items():
        together = len(set(count[at].tolist())) == 1
        if binary[at].all() and together and ones[at].sum() <= count[at[0]]:
            blocks.append(Block(column, tuple(at)))
            for i in at:
                kinds[i] = "category"
    return kinds, blocks


def allowed_ranges(schema: Schema) -> dict[str, tuple[float, float]]:
    """The ranges that a schema file gives for its columns of numbers, by their names."""
    return {
        column.name: column.allowed
        for column in schema.columns
        if column.kind == "numeric" and column.allowed is not None
    }
