"""Rows of all hospitals in blocks of one shape, so that one compilation serves any number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.engine import Batch, Variables
from fedjax_med.models import Model

BATCH_SIZE = 1024


class Blocks(NamedTuple):
    """The rows of all hospitals, one after the other.

    Attributes:
      x: float `[blocks, rows, features]`; the last block is filled up with its last row.
      client: int32 `[blocks, rows]`; the number of clients where a block is filled up, which is a
        segment that sums drop.
    """

    x: np.ndarray
    client: np.ndarray


class Group(NamedTuple):
    """Columns that mean one thing and are moved together.

    Attributes:
      name: of the column, without categories.
      columns: positions in `examples["x"]`.
    """

    name: str
    columns: np.ndarray


def rows_of(dataset: FederatedDataset, split: str) -> ClientArrays:
    """The examples of a split.

    Raises:
      ValueError: if there are none, or they are no table.
    """
    arrays = dataset.splits().get(split)
    if arrays is None or arrays.num_examples == 0:
        raise ValueError(f"split must have examples, but {dataset.name} has no {split!r}.")
    if np.ndim(arrays.examples["x"]) != 2:
        shape = list(np.shape(arrays.examples["x"]))
        raise ValueError(f"examples['x'] must be a table [N, features], got shape {shape}.")
    return arrays


def in_blocks(arrays: ClientArrays, batch_size: int, copies: int = 1) -> Blocks:
    """The rows of a table in blocks of at most `batch_size / copies`.

    Raises:
      ValueError: if `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size!r}.")
    num = arrays.num_examples
    size = min(max(1, batch_size // copies), num)
    blocks = -(-num // size)
    row = np.arange(blocks * size)
    client = np.repeat(np.arange(arrays.num_clients), arrays.sizes)
    client = np.where(row < num, client[np.minimum(row, num - 1)], arrays.num_clients)
    x = np.asarray(arrays.examples["x"])[np.minimum(row, num - 1)]
    return Blocks(x.reshape(blocks, size, -1), client.astype(np.int32).reshape(blocks, size))


def apply_rows(model: Model, variables: Variables, x: jax.Array) -> jax.Array:
    """Outputs `[rows, ...]` of a model for rows `[rows, features]`, with dropout off."""
    num = x.shape[0]
    batch = Batch({"x": x}, jnp.ones(num, bool), jnp.asarray(float(num)), jax.random.key(0))
    return model.apply(variables, batch, False)[0]


def one_output(
    model: Model, variables: Variables, x: jax.Array, output: int, link: Callable | None = None
) -> jax.Array:
    """One output of each row `[rows]`, after `link`."""
    outputs = apply_rows(model, variables, x)
    outputs = outputs if link is None else link(outputs)
    return outputs.reshape(x.shape[0], -1)[:, output]


def column_groups(feature_names: Sequence[str], num_features: int) -> tuple[Group, ...]:
    """Columns by the name before `=`, so that the indicators of a category stay together.

    `cp=2`, `cp=3` and `cp=4` are the group `cp`; `weight` and `weight=missing` the group `weight`.
    Columns without names are `x0`, `x1`, ...
    """
    names = list(feature_names) or [f"x{i}" for i in range(num_features)]
    stems = [name.split("=", 1)[0] for name in names]
    return tuple(
        Group(stem, np.flatnonzero([s == stem for s in stems])) for stem in dict.fromkeys(stems)
    )


def one_group(dataset: FederatedDataset, num_features: int, column: str) -> Group:
    """The group of a name.

    Raises:
      ValueError: if there is none.
    """
    groups = column_groups(dataset.feature_names, num_features)
    for group in groups:
        if group.name == column:
            return group
    known = ", ".join(group.name for group in groups)
    raise ValueError(f"column must be one of {known}, got {column!r}.")


def weighted_mean(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Mean over hospitals `[H, ...]` by their patients `[H]`, of those that have a value."""
    share = np.where(np.isnan(values), 0.0, sizes.reshape(-1, *[1] * (values.ndim - 1)))
    total = (np.where(share > 0, values, 0.0) * share).sum(0)
    count = share.sum(0)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
