"""Permutation importance: how much worse a model is when a column says nothing.

What leaves a hospital: for each column and repeat its metric, and its number of patients. The
federated importance is their mean weighted by patients. The pooled one needs the predictions of all
patients in one place: in a simulation it shows what permuting within hospitals cannot.

References:
  Breiman, "Random Forests", Machine Learning 45, 2001, section 10.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.engine import Variables
from fedjax_med.evaluation import binary_probability
from fedjax_med.evaluation.metrics import Metric
from fedjax_med.evaluation.predictions import Predictions
from fedjax_med.explanation._plain import plain
from fedjax_med.explanation._rows import (
    BATCH_SIZE,
    apply_rows,
    column_groups,
    in_blocks,
    rows_of,
    weighted_mean,
)
from fedjax_med.models import Model


class Importance(NamedTuple):
    """How much worse the metric is without each column `[K]`; NaN where it is not defined.

    Attributes:
      baseline: the metric with all columns.
      mean: distance from the ideal, permuted minus not, mean over repeats. Above 0 the model
        needs the column.
      sd: standard deviation over repeats: of the permutations, not of the patients.
    """

    baseline: float
    mean: np.ndarray
    sd: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class PermutationImportance:
    """Importance of the columns of a table.

    Attributes:
      columns: names `[K]`, categories under the name of their column.
      federated: mean over hospitals, weighted by patients, of those where the metric is defined.
      pooled: of the metric of all patients together.
      per_hospital: by name.
      num_patients: by hospital.
      num_repeats: permutations per column.
    """

    columns: tuple[str, ...]
    federated: Importance
    pooled: Importance
    per_hospital: dict[str, Importance]
    num_patients: dict[str, int]
    num_repeats: int

    def as_dict(self) -> dict[str, Any]:
        """The same as dicts, lists, texts and numbers for JSON; None where not defined."""
        return plain(self)


def _label(examples: Any) -> np.ndarray:
    return np.asarray(examples["y"])


def permutation_importance(
    model: Model,
    variables: Variables,
    dataset: FederatedDataset,
    metric: Metric,
    *,
    split: str = "test",
    columns: Sequence[str] | None = None,
    num_repeats: int = 5,
    seed: int = 0,
    link: Callable[[np.ndarray], Any] = binary_probability,
    labels: Callable[[Any], Any] = _label,
    batch_size: int = BATCH_SIZE,
) -> PermutationImportance:
    """Permutes each column among the patients of each hospital, and judges the model again.

    A permutation follows from seed, hospital, patient, column and repeat: neither the other columns
    asked for nor the number of repeats change it.

    Args:
      model: the model that was trained.
      variables: of the model.
      dataset: the patients.
      metric: as `binary_metrics()["auroc"]`.
      split: "train", "validation" or "test". On training patients it says what the model relies
        on, on others what helps it.
      columns: names, a column of categories by its name before `=`; all if None.
      num_repeats: permutations per column.
      seed: of the permutations.
      link: from outputs `[N, ...]` to what the metric takes, see `evaluation.predict`.
      labels: from examples to what the metric takes.
      batch_size: patients at once, times `num_repeats`.

    Raises:
      ValueError: names the argument that does not fit.
    """
    if num_repeats < 1:
        raise ValueError(f"num_repeats must be at least 1, got {num_repeats!r}.")
    arrays = rows_of(dataset, split)
    num_features = np.shape(arrays.examples["x"])[1]
    groups = column_groups(dataset.feature_names, num_features)
    if columns is not None:
        known = {group.name: group for group in groups}
        unknown = [name for name in columns if name not in known]
        if unknown or not columns:
            raise ValueError(f"columns must be among {', '.join(known)}, got {[*columns]!r}.")
        groups = tuple(known[name] for name in columns)
    judged = partial(_judge, metric, labels(arrays.examples), arrays)
    x = jnp.asarray(arrays.examples["x"])
    blocks = in_blocks(arrays, batch_size)
    row = np.minimum(np.arange(blocks.client.size), arrays.num_examples - 1)
    row = jnp.asarray(row.reshape(blocks.client.shape))
    client = np.repeat(np.arange(arrays.num_clients), arrays.sizes)
    place = np.arange(len(client)) - arrays.offsets[client]
    keys = _row_keys(jax.random.key(seed), jnp.asarray(client), jnp.asarray(place))
    repeats = jnp.arange(num_repeats)
    variables = jax.tree.map(jnp.asarray, variables)

    def outputs(mask: np.ndarray, number: int) -> np.ndarray:
        """Outputs `[repeats, N, ...]` with the columns of `mask` permuted."""
        order = _orders(keys, jnp.asarray(client), jnp.int32(number), repeats)
        values = np.asarray(_permuted(model, variables, x, row, order, jnp.asarray(mask)))
        return values[:, : arrays.num_examples]

    everything = judged([link(outputs(np.zeros(num_features, bool), 0)[0])])
    changed = []
    for group in groups:
        mask = np.zeros(num_features, bool)
        mask[group.columns] = True
        changed.append(judged([link(out) for out in outputs(mask, int(group.columns[0]))]))
    baseline = everything[0]  # [1 + hospitals]: pooled, then each
    worse = np.abs(np.stack(changed) - metric.ideal) - np.abs(baseline - metric.ideal)
    worse = np.moveaxis(worse, -1, 0)  # [1 + hospitals, columns, repeats]
    sizes = arrays.sizes.astype(np.float64)
    federated = weighted_mean(worse[1:], sizes)
    names = dataset.client_names
    return PermutationImportance(
        tuple(group.name for group in groups),
        _over_repeats(float(weighted_mean(baseline[1:], sizes)), federated),
        _over_repeats(float(baseline[0]), worse[0]),
        {n: _over_repeats(float(baseline[1 + i]), worse[1 + i]) for i, n in enumerate(names)},
        dict(zip(names, arrays.sizes.tolist(), strict=True)),
        num_repeats,
    )


def _over_repeats(baseline: float, worse: np.ndarray) -> Importance:
    several = worse.shape[-1] > 1
    sd = worse.std(-1, ddof=1) if several else np.full(len(worse), np.nan)
    return Importance(baseline, worse.mean(-1), sd)


def _judge(metric: Metric, labels: Any, arrays: ClientArrays, outputs: list[Any]) -> np.ndarray:
    """The metric `[repeats, 1 + hospitals]`: of all patients, and of each hospital's."""
    client = np.repeat(np.arange(arrays.num_clients), arrays.sizes)
    names = tuple(str(i) for i in range(arrays.num_clients))
    values = np.empty((len(outputs), 1 + arrays.num_clients))
    for repeat, output in enumerate(outputs):
        everyone = Predictions(output, labels, client, names)
        for i in range(1 + arrays.num_clients):
            rows = slice(None) if i == 0 else slice(*arrays.offsets[i - 1 : i + 1])
            part = everyone.take(np.arange(len(client))[rows])
            ones = np.ones(part.num_patients)
            values[repeat, i] = float(metric.compute(part.outputs, part.labels, ones))
    return values


@jax.jit
def _row_keys(key: jax.Array, client: jax.Array, place: jax.Array) -> jax.Array:
    """A key for every patient, from the hospital and the place in it."""
    fold = lambda c, p: jax.random.fold_in(jax.random.fold_in(key, c), p)
    return jax.vmap(fold)(client, place)


@jax.jit
def _orders(keys: jax.Array, client: jax.Array, column: jax.Array, repeats: jax.Array) -> jax.Array:
    """Whose value each patient is given `[repeats, N]`: a random order within each hospital."""

    def of_repeat(repeat: jax.Array) -> jax.Array:
        draw = lambda k: jax.random.bits(jax.random.fold_in(jax.random.fold_in(k, column), repeat))
        return jnp.lexsort((jax.vmap(draw)(keys), client))

    return jax.lax.map(of_repeat, repeats)


@partial(jax.jit, static_argnames="model")
def _permuted(
    model: Model,
    variables: Variables,
    x: jax.Array,
    row: jax.Array,
    order: jax.Array,
    mask: jax.Array,
) -> jax.Array:
    """Outputs `[repeats, rows, ...]` where columns of `mask` come from the patients of `order`."""

    def of_block(rows: jax.Array) -> jax.Array:
        def of_repeat(order: jax.Array) -> jax.Array:
            return apply_rows(model, variables, jnp.where(mask[None], x[order[rows]], x[rows]))

        return jax.vmap(of_repeat)(order)

    outputs = jnp.moveaxis(jax.lax.map(of_block, row), 0, 1)  # [repeats, blocks, rows, ...]
    return outputs.reshape(outputs.shape[0], -1, *outputs.shape[3:])
