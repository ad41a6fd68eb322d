"""Integrated gradients: the part of each column in a patient's prediction.

What leaves a hospital: over its patients the sums of the attributions and of their absolute values
`[columns]`, and their number; for the default baseline also the sums of its columns. Attributions of
single patients (`integrated_gradients`) stay in the hospital.

References:
  Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, eq. 1.
  https://arxiv.org/abs/1703.01365
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.data.standardize import client_statistics, combine
from fedjax_med.engine import Variables
from fedjax_med.explanation._plain import plain
from fedjax_med.explanation._rows import (
    BATCH_SIZE,
    column_groups,
    in_blocks,
    one_output,
    rows_of,
    weighted_mean,
)
from fedjax_med.models import Model


class Attribution(NamedTuple):
    """Means over patients of the parts of the columns `[K]`, in units of the model's output.

    Attributes:
      absolute: of their absolute values: how much the column matters.
      signed: of the values themselves: how much it moves these patients from the baseline.
    """

    absolute: np.ndarray
    signed: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Attributions:
    """Integrated gradients of a table, summed up.

    Attributes:
      columns: names `[K]`; the parts of a column's categories are added up.
      federated: means over all patients.
      per_hospital: by name, NaN for a hospital without patients.
      baseline: float64 `[features]` that patients are compared with.
      incompleteness: largest difference of any patient between the sum of the parts and the change of the
        output from the baseline, which are equal in the limit of many steps.
      num_patients: by hospital.
    """

    columns: tuple[str, ...]
    federated: Attribution
    per_hospital: dict[str, Attribution]
    baseline: np.ndarray
    incompleteness: float
    num_patients: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """The same as dicts, lists, texts and numbers for JSON; None where not defined."""
        return plain(self)


def federated_mean(dataset: FederatedDataset) -> np.ndarray:
    """The mean of the training patients of all hospitals, float64 `[features]`, from their sums."""
    return combine(client_statistics(dataset.train)).mean


def integrated_gradients(
    model: Model,
    variables: Variables,
    x: np.ndarray,
    baseline: np.ndarray,
    *,
    steps: int = 32,
    output: int = 0,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """The part of each column in the output of each patient.

        part[i] = (x[i] - baseline[i]) * integral_0^1 (d output / d x[i])(baseline + a (x - baseline)) da

    The parts of a patient add up to `output(x) - output(baseline)`. The integral is by Gauss and
    Legendre's rule where the paper has a Riemann sum: for smooth models a few steps are exact.

    Args:
      model: the model that was trained, of logits (probabilities saturate, and their parts with them).
      variables: of the model.
      x: `[N, features]`, as the model takes it.
      baseline: `[features]`, such as `federated_mean(dataset)`.
      steps: points between baseline and patient.
      output: which of the model's outputs.
      batch_size: patients at once, times `steps`.

    Returns:
      float32 `[N, features]`.

    Raises:
      ValueError: if shapes do not fit, a value is missing, or `steps` is below 1.
    """
    x, baseline = np.asarray(x), np.asarray(baseline)
    _check(x, baseline, steps)
    if not len(x):
        return np.zeros(x.shape, np.float32)
    arrays = ClientArrays({"x": x}, np.array([len(x)]))
    blocks = in_blocks(arrays, batch_size, steps)
    variables = jax.tree.map(jnp.asarray, variables)
    parts = _parts_of_blocks(
        model, variables, jnp.asarray(blocks.x), _as(baseline, x), *_rule(steps, x), output
    )
    return np.asarray(parts).reshape(-1, x.shape[1])[: len(x)]


def attributions(
    model: Model,
    variables: Variables,
    dataset: FederatedDataset,
    *,
    split: str = "test",
    baseline: np.ndarray | None = None,
    steps: int = 32,
    output: int = 0,
    batch_size: int = BATCH_SIZE,
) -> Attributions:
    """Means over the patients of each hospital, and of all, of their integrated gradients.

    Args:
      model: as of `integrated_gradients`.
      variables: of the model.
      dataset: the patients.
      split: "train", "validation" or "test".
      baseline: `[features]`; the mean of all training patients if None.
      steps: points between baseline and patient.
      output: which of the model's outputs.
      batch_size: patients at once, times `steps`.

    Raises:
      ValueError: names the argument that does not fit.
    """
    arrays = rows_of(dataset, split)
    x = np.asarray(arrays.examples["x"])
    baseline = federated_mean(dataset) if baseline is None else np.asarray(baseline)
    _check(x, baseline, steps)
    groups = column_groups(dataset.feature_names, x.shape[1])
    belongs = np.zeros((x.shape[1], len(groups)), x.dtype)
    for k, group in enumerate(groups):
        belongs[group.columns, k] = 1
    blocks = in_blocks(arrays, batch_size, steps)
    sums, gap = _summed(
        model,
        jax.tree.map(jnp.asarray, variables),
        jnp.asarray(blocks.x),
        jnp.asarray(blocks.client),
        _as(baseline, x),
        *_rule(steps, x),
        jnp.asarray(belongs),
        arrays.num_clients,
        output,
    )
    sizes = arrays.sizes.astype(np.float64)
    with np.errstate(invalid="ignore"):
        absolute, signed = (np.float64(s) / sizes[:, None] for s in sums)
    return Attributions(
        tuple(group.name for group in groups),
        Attribution(weighted_mean(absolute, sizes), weighted_mean(signed, sizes)),
        {n: Attribution(absolute[i], signed[i]) for i, n in enumerate(dataset.client_names)},
        np.asarray(baseline, np.float64),
        float(gap),
        dict(zip(dataset.client_names, arrays.sizes.tolist(), strict=True)),
    )


def _check(x: np.ndarray, baseline: np.ndarray, steps: int) -> None:
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps!r}.")
    if x.ndim != 2 or baseline.shape != x.shape[1:]:
        raise ValueError(
            "x must have shape [N, features] and baseline [features], got "
            f"{list(x.shape)} and {list(baseline.shape)}."
        )
    for name, values in (("x", x), ("baseline", baseline)):
        if not np.isfinite(values).all():
            raise ValueError(
                f"{name} must have no missing values, got NaN or infinity; impute them first."
            )


def _as(values: np.ndarray, like: np.ndarray) -> jax.Array:
    return jnp.asarray(values.astype(like.dtype))


def _rule(steps: int, like: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Points in [0, 1] and their weights."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    return _as((points + 1) / 2, like), _as(weights / 2, like)


def _parts(
    model: Model,
    variables: Variables,
    x: jax.Array,
    baseline: jax.Array,
    points: jax.Array,
    weights: jax.Array,
    output: int,
) -> jax.Array:
    """Parts `[rows, features]` of a block."""
    way = x - baseline[None]

    def gradient(point: jax.Array) -> jax.Array:
        # Rows do not touch each other, so the gradient of the sum is that of every row.
        total = lambda at: one_output(model, variables, at, output).sum()
        return jax.grad(total)(baseline[None] + point * way)

    return way * jnp.tensordot(weights, jax.vmap(gradient)(points), 1)


@partial(jax.jit, static_argnames=("model", "output"))
def _parts_of_blocks(
    model: Model,
    variables: Variables,
    x: jax.Array,
    baseline: jax.Array,
    points: jax.Array,
    weights: jax.Array,
    output: int,
) -> jax.Array:
    return jax.lax.map(
        lambda rows: _parts(model, variables, rows, baseline, points, weights, output), x
    )


@partial(jax.jit, static_argnames=("model", "num_clients", "output"))
def _summed(
    model: Model,
    variables: Variables,
    x: jax.Array,
    client: jax.Array,
    baseline: jax.Array,
    points: jax.Array,
    weights: jax.Array,
    belongs: jax.Array,
    num_clients: int,
    output: int,
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    at_baseline = one_output(model, variables, baseline[None], output)

    def add(sums: tuple[jax.Array, jax.Array], block: tuple[jax.Array, jax.Array]):
        rows, owner = block
        parts = _parts(model, variables, rows, baseline, points, weights, output)
        change = one_output(model, variables, rows, output) - at_baseline
        gap = jnp.abs(parts.sum(1) - change).max()
        parts = parts @ belongs
        of_clients = lambda v: jax.ops.segment_sum(v, owner, num_clients)
        return (sums[0] + of_clients(jnp.abs(parts)), sums[1] + of_clients(parts)), gap

    zeros = jnp.zeros((num_clients, belongs.shape[1]), x.dtype)
    sums, gaps = jax.lax.scan(add, (zeros, zeros), (x, client))
    return sums, gaps.max()
