"""Partial dependence: the mean prediction if every patient had the same value in a column.

What leaves a hospital: the sums of its patients' predictions at each value `[grid]`, and their number;
for the default grid also the sums and squares of its columns, and whether a column has other values
than 0 and 1. Curves of single patients stay in the hospital.

References:
  Friedman, "Greedy Function Approximation", Annals of Statistics 29, 2001, section 8.2.
  Goldstein et al., Journal of Computational and Graphical Statistics 24, 2015, for single patients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.data.standardize import Standardizer, client_statistics, combine
from fedjax_med.engine import Variables
from fedjax_med.explanation._plain import plain
from fedjax_med.explanation._rows import (
    BATCH_SIZE,
    in_blocks,
    one_group,
    one_output,
    rows_of,
    weighted_mean,
)
from fedjax_med.models import Model

_GRID_SIZE = 21


@dataclasses.dataclass(frozen=True, eq=False)
class PartialDependence:
    """Mean predictions over the values of a column.

    Attributes:
      column: its name.
      grid: values `[G]`, in natural units if a standardizer was given; of a column of categories
        0, 1, ..., as `categories` has them.
      categories: names of the grid's values; empty where they are numbers.
      federated: mean over hospitals, weighted by patients `[G]`.
      per_hospital: by name `[G]`, NaN for a hospital without patients.
      individuals: predictions of some patients `[individuals, G]`, not to leave their hospitals.
      num_patients: by hospital.
    """

    column: str
    grid: np.ndarray
    categories: tuple[str, ...]
    federated: np.ndarray
    per_hospital: dict[str, np.ndarray]
    individuals: np.ndarray
    num_patients: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON, without curves of single patients."""
        return plain({**vars(self), "individuals": None})


def partial_dependence(
    model: Model,
    variables: Variables,
    dataset: FederatedDataset,
    column: str,
    grid: np.ndarray | None = None,
    *,
    split: str = "test",
    link: Callable[[jax.Array], jax.Array] | None = None,
    output: int = 0,
    standardizer: Standardizer | None = None,
    num_individuals: int = 0,
    batch_size: int = BATCH_SIZE,
) -> PartialDependence:
    """Sets a column of all patients to each of some values, and averages what the model predicts.

    All other columns stay as they are, so where columns are correlated some of these patients do
    not exist; hospitals differ in their patients, so their curves do as well, for one model.

    Args:
      model: the model that was trained.
      variables: of the model.
      dataset: the patients.
      column: its name; categories `cp=2`, `cp=3`, ... are one column `cp`, whose values are "none of
        them" and each category.
      grid: numbers, in natural units with a standardizer. If None, 0 and 1 for a column that has no
        others, else 21 numbers within two standard deviations of the mean of the training patients.
        Not for categories.
      split: "train", "validation" or "test".
      link: of JAX, from outputs to predictions, as `jax.nn.sigmoid`.
      output: which of the predictions.
      standardizer: what `x` was standardised with, the same for all hospitals.
      num_individuals: patients whose own curves are wanted, evenly spaced over the rows.
      batch_size: patients at once, times the size of the grid.

    Raises:
      ValueError: names the argument that does not fit.
    """
    arrays = rows_of(dataset, split)
    x = np.asarray(arrays.examples["x"])
    group = one_group(dataset, x.shape[1], column)
    if standardizer is not None and standardizer.mean.shape != x.shape[1:]:
        raise ValueError(
            f"standardizer must be one for all hospitals with {x.shape[1]} features, got "
            f"statistics of shape {list(standardizer.mean.shape)}."
        )
    mean = np.zeros(x.shape[1]) if standardizer is None else standardizer.mean
    scale = np.ones(x.shape[1]) if standardizer is None else standardizer.scale
    names = dataset.feature_names
    plain_name = not names or names[group.columns[0]] == column
    if len(group.columns) > 1 or not plain_name:
        if grid is not None:
            raise ValueError(f"grid must be None, as {column!r} is a column of categories.")
        categories = ("none of them", *(names[c].split("=", 1)[1] for c in group.columns))
        natural = np.concatenate([np.zeros((1, len(group.columns))), np.eye(len(group.columns))])
        shown = np.arange(len(natural), dtype=np.float64)
    else:
        categories = ()
        place = int(group.columns[0])
        shown = _default_grid(dataset, place, mean[place], scale[place]) if grid is None else grid
        shown = np.asarray(shown, np.float64)
        if shown.ndim != 1 or not len(shown) or not np.isfinite(shown).all():
            raise ValueError(f"grid must be finite numbers, at least one, got {shown.tolist()}.")
        natural = shown[:, None]
    columns = group.columns
    values = np.zeros((len(natural), x.shape[1]), x.dtype)
    values[:, columns] = (natural - mean[columns]) / scale[columns]
    mask = np.zeros(x.shape[1], bool)
    mask[columns] = True
    settings = (jnp.asarray(values), jnp.asarray(mask))
    blocks = in_blocks(arrays, batch_size, len(values))
    variables = jax.tree.map(jnp.asarray, variables)
    total = _sums(
        model,
        variables,
        jnp.asarray(blocks.x),
        jnp.asarray(blocks.client),
        *settings,
        link,
        output,
        arrays.num_clients,
    )
    sizes = arrays.sizes.astype(np.float64)
    with np.errstate(invalid="ignore"):
        curves = np.float64(total) / sizes[:, None]
    some = np.linspace(0, arrays.num_examples - 1, num_individuals).round().astype(int)
    own = np.zeros((0, len(values)))
    if num_individuals:
        own = np.asarray(_curves(model, variables, jnp.asarray(x[some]), *settings, link, output))
    return PartialDependence(
        column,
        shown,
        categories,
        weighted_mean(curves, sizes),
        {name: curves[i] for i, name in enumerate(dataset.client_names)},
        own,
        dict(zip(dataset.client_names, arrays.sizes.tolist(), strict=True)),
    )


def _default_grid(dataset: FederatedDataset, place: int, mean: float, scale: float) -> np.ndarray:
    """0 and 1, or numbers around the mean of the training patients, in natural units."""
    values = dataset.train.examples["x"][:, place] * scale + mean
    present = ~np.isnan(values)
    # Rounding to float32 and back leaves specks: 1e-4 of the unit is neither 0 nor 1.
    if (np.minimum(np.abs(values), np.abs(values - 1))[present] < 1e-4).all():
        return np.array([0.0, 1.0])
    client = np.repeat(np.arange(dataset.num_clients), dataset.train.sizes)[present]
    sizes = np.bincount(client, minlength=dataset.num_clients)
    statistics = combine(client_statistics(ClientArrays({"x": values[present, None]}, sizes)))
    sd = float(np.sqrt(statistics.variance()[0]))
    return float(statistics.mean[0]) + sd * np.linspace(-2, 2, _GRID_SIZE)


@partial(jax.jit, static_argnames=("model", "link", "output"))
def _curves(
    model: Model,
    variables: Variables,
    x: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    link: Callable | None,
    output: int,
) -> jax.Array:
    """Predictions `[rows, grid]` with the columns of `mask` set to each row of `values`."""

    def at(value: jax.Array) -> jax.Array:
        changed = jnp.where(mask[None], value[None], x)
        return one_output(model, variables, changed, output, link)

    return jax.vmap(at, out_axes=1)(values)


@partial(jax.jit, static_argnames=("model", "link", "output", "num_clients"))
def _sums(
    model: Model,
    variables: Variables,
    x: jax.Array,
    client: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    link: Callable | None,
    output: int,
    num_clients: int,
) -> jax.Array:
    """Sums over each hospital's patients `[clients, grid]`."""

    def add(total: jax.Array, block: tuple[jax.Array, jax.Array]):
        rows, owner = block
        predicted = _curves(model, variables, rows, values, mask, link, output)
        return total + jax.ops.segment_sum(predicted, owner, num_clients), None

    zeros = jnp.zeros((num_clients, len(values)), x.dtype)
    return jax.lax.scan(add, zeros, (x, client))[0]
