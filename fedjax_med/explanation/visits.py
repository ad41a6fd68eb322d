"""What a model of visits relies on: codes of single patients, visits of single patients, codes of all.

Attributions of single patients (`code_attributions`, `visit_effects`) stay in the hospital. For the
federated importance of codes (`code_importance`) a hospital sends, for each group of codes, its metric
without them, and its number of patients.

References:
  Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, eq. 1.
  https://arxiv.org/abs/1703.01365
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.engine import Batch, Variables
from fedjax_med.engine.contracts import PyTree
from fedjax_med.evaluation import binary_probability
from fedjax_med.evaluation.metrics import Metric
from fedjax_med.evaluation.predictions import Predictions
from fedjax_med.explanation._plain import plain
from fedjax_med.explanation._rows import weighted_mean
from fedjax_med.models import Model

_BATCH_SIZE = 256


@dataclasses.dataclass(frozen=True, eq=False)
class CodeImportance:
    """How much worse a metric is without groups of codes `[K]`; above 0 the model needs them.

    Attributes:
      groups: names.
      baseline: the metric with all codes, mean over hospitals weighted by patients.
      federated: distance from the ideal without the group, minus with it; mean over hospitals,
        weighted by patients, of those where the metric is defined.
      per_hospital: the same by name.
      num_patients: by hospital.
    """

    groups: tuple[str, ...]
    baseline: float
    federated: np.ndarray
    per_hospital: dict[str, np.ndarray]
    num_patients: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """The same as dicts, lists, texts and numbers for JSON; None where not defined."""
        return plain(self)


def code_attributions(
    model: Model,
    variables: Variables,
    examples: Mapping[str, np.ndarray],
    *,
    steps: int = 16,
    output: int = 0,
) -> np.ndarray:
    """The part of each code of each visit in a patient's output, by integrated gradients.

        part[v, c] = integral_0^1 (d output / d weight[v, c])(a, ..., a) da

    where all vectors of codes are multiplied by weights, from 0 (no code was written down) to 1. As a
    visit is linear in its codes, these are the integrated gradients of the embeddings, summed over
    their numbers. The parts of a patient add up to the output minus what it would be without codes,
    with the same visits, laboratory values and days. By Gauss and Legendre's rule.

    Args:
      model: of `models.visits`, of logits.
      variables: of the model.
      examples: records of patients; as they are compiled together, some hundreds at most.
      steps: points of the integral.
      output: which of the model's outputs.

    Returns:
      float32 `[N, visits, codes]`, 0 where there is no code.

    Raises:
      ValueError: if `steps` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps!r}.")
    points, weights = np.polynomial.legendre.leggauss(steps)
    points = jnp.asarray((points + 1) / 2, jnp.float32)
    weights = jnp.asarray(weights / 2, jnp.float32)
    parts = _code_parts(model, variables, _on_device(examples), points, weights, output)
    return np.where(np.asarray(examples["codes"]) > 0, parts, np.float32(0))


def visit_effects(
    model: Model,
    variables: Variables,
    examples: Mapping[str, np.ndarray],
    *,
    output: int = 0,
) -> np.ndarray:
    """What each visit changes: the output minus that of the record in which the visit says nothing.

    The visit stays where it is, with its day, but without codes and laboratory values. Effects of
    visits need not add up.

    Args:
      model: of `models.visits`, of logits.
      variables: of the model.
      examples: records of patients.
      output: which of the model's outputs.

    Returns:
      float32 `[N, visits]`, 0 behind the last visit.
    """
    effects = _visit_parts(model, variables, _on_device(examples), output)
    number = np.asarray(examples["visits"])
    real = np.arange(effects.shape[1]) < number[:, None]
    return np.where(real, np.asarray(effects), np.float32(0))


def code_importance(
    model: Model,
    variables: Variables,
    dataset: FederatedDataset,
    metric: Metric,
    groups: Mapping[str, Sequence[int]],
    *,
    split: str = "test",
    link: Callable[[np.ndarray], Any] = binary_probability,
    batch_size: int = _BATCH_SIZE,
) -> CodeImportance:
    """Takes groups of codes out of all records, and judges the model again at each hospital.

    Nothing is drawn: a code that is taken out is as if it had never been written down.

    Args:
      model: of `models.visits`.
      variables: of the model, the same for all hospitals.
      dataset: the patients.
      metric: as `binary_metrics()["auroc"]`.
      groups: codes by name, for example all codes of one condition.
      split: "train", "validation" or "test".
      link: from outputs `[N, ...]` to what the metric takes.
      batch_size: patients at once.

    Raises:
      ValueError: if the split has no examples, there is no group, or a group has no code.
    """
    arrays = dataset.splits().get(split)
    if arrays is None or arrays.num_examples == 0:
        raise ValueError(f"split must have examples, but {dataset.name} has no {split!r}.")
    if not groups or not all(len(codes) for codes in groups.values()):
        raise ValueError(f"groups must each have a code, got {dict(groups)!r}.")
    num_codes = 1 + max(
        int(np.max(arrays.examples["codes"])), *(max(codes) for codes in groups.values())
    )
    taken = np.zeros((1 + len(groups), num_codes), bool)  # the first group is of no code
    for row, codes in enumerate(groups.values(), 1):
        taken[row, list(codes)] = True
    outputs = _without(model, variables, arrays, taken, min(batch_size, arrays.num_examples))
    by_group = np.array([_by_hospital(metric, link(out), arrays) for out in outputs])
    worse = np.abs(by_group[1:] - metric.ideal) - np.abs(by_group[0] - metric.ideal)
    sizes = arrays.sizes.astype(np.float64)
    names = dataset.client_names
    return CodeImportance(
        tuple(groups),
        float(weighted_mean(by_group[0], sizes)),
        weighted_mean(worse.T, sizes),
        {name: worse[:, i] for i, name in enumerate(names)},
        dict(zip(names, arrays.sizes.tolist(), strict=True)),
    )


def _on_device(examples: Mapping[str, np.ndarray]) -> PyTree:
    return {name: jnp.asarray(leaf) for name, leaf in examples.items()}


def _output(model: Model, variables: Variables, examples: PyTree, output: int) -> jax.Array:
    """One output of each patient `[N]`, with dropout off."""
    num = examples["visits"].shape[0]
    batch = Batch(examples, jnp.ones(num, bool), jnp.asarray(float(num)), jax.random.key(0))
    return model.apply(variables, batch, False)[0].reshape(num, -1)[:, output]


@partial(jax.jit, static_argnames=("model", "output"))
def _code_parts(
    model: Model,
    variables: Variables,
    examples: PyTree,
    points: jax.Array,
    weights: jax.Array,
    output: int,
) -> jax.Array:
    shape = examples["codes"].shape

    def gradient(point: jax.Array) -> jax.Array:
        # Patients do not touch each other, so the gradient of the sum is that of every one.
        def total(weight: jax.Array) -> jax.Array:
            weighted = {**examples, "code_weight": weight}
            return jnp.sum(_output(model, variables, weighted, output))

        return jax.grad(total)(jnp.full(shape, point))

    def add(parts: jax.Array, point_and_weight: tuple[jax.Array, jax.Array]):
        point, weight = point_and_weight
        return parts + weight * gradient(point), None

    return jax.lax.scan(add, jnp.zeros(shape, jnp.float32), (points, weights))[0]


@partial(jax.jit, static_argnames=("model", "output"))
def _visit_parts(model: Model, variables: Variables, examples: PyTree, output: int) -> jax.Array:
    whole = _output(model, variables, examples, output)

    def without(visit: jax.Array) -> jax.Array:
        here = (jnp.arange(examples["codes"].shape[1]) == visit)[None, :, None]
        silent = {**examples, "codes": jnp.where(here, 0, examples["codes"])}
        if "labs" in examples:
            silent["labs"] = jnp.where(here, jnp.nan, examples["labs"])
        return whole - _output(model, variables, silent, output)

    return jax.lax.map(without, jnp.arange(examples["codes"].shape[1])).T


def _without(
    model: Model, variables: Variables, arrays: ClientArrays, taken: np.ndarray, batch_size: int
) -> np.ndarray:
    """Outputs `[groups, N, ...]` of all patients without the codes of each group."""

    @jax.jit
    def apply(examples: PyTree, taken: jax.Array) -> jax.Array:
        batch = Batch(
            examples, jnp.ones(batch_size, bool), jnp.float32(batch_size), jax.random.key(0)
        )

        def of_group(out: jax.Array) -> jax.Array:
            codes = jnp.where(out[examples["codes"]], 0, examples["codes"])
            fewer = dataclasses.replace(batch, examples={**examples, "codes": codes})
            return model.apply(variables, fewer, False)[0]

        return jax.lax.map(of_group, taken)

    outputs = []
    for first in range(0, arrays.num_examples, batch_size):
        rows = np.arange(first, min(first + batch_size, arrays.num_examples))
        padded = np.resize(rows, batch_size)
        examples = {name: np.asarray(leaf[padded]) for name, leaf in arrays.examples.items()}
        outputs.append(np.asarray(apply(examples, jnp.asarray(taken)))[:, : len(rows)])
    return np.concatenate(outputs, axis=1)


def _by_hospital(metric: Metric, outputs: Any, arrays: ClientArrays) -> np.ndarray:
    """The metric of every hospital `[H]`, NaN where it is not defined."""
    client = np.repeat(np.arange(arrays.num_clients), arrays.sizes)
    names = tuple(map(str, range(arrays.num_clients)))
    everyone = Predictions(outputs, np.asarray(arrays.examples["y"]), client, names)
    values = np.full(arrays.num_clients, np.nan)
    for i in np.flatnonzero(arrays.sizes):
        part = everyone.take(np.flatnonzero(client == i))
        values[i] = float(metric.compute(part.outputs, part.labels, np.ones(part.num_patients)))
    return values
