"""What a federated method has to beat, as outputs beside its own."""

from __future__ import annotations

import jax
import numpy as np
from scipy.special import logit

from fedjax_med.engine import Variables
from fedjax_med.models import Model
from fedjax_med.studies.judging import Judge, by_hospital, mean_of_defined, predictions_for_training
from fedjax_med.studies.populations import Population
from fedjax_med.studies.training import outputs_of
from fedjax_med.tasks.kinds import Kind, num_outputs
from fedjax_med.tasks.segmentation import class_counts

# A hospital whose training patients are all ill still may send a healthy one.
_PSEUDO_COUNT = 0.5


def site_rate(population: Population, kind: Kind) -> np.ndarray:
    """Outputs that know nothing of a patient but the hospital `[1, N]` or `[1, N, outputs]`.

    The share of each class among the hospital's training patients, as logits (so the hospital's
    majority is predicted; of masks, for every voxel), their mean outcome, or for survival equal risks. For a hospital that was
    left out, those of all the others together.
    """
    train, judged = population.train, population.judged
    owner = np.repeat(np.arange(judged.num_clients), population.test.sizes)
    if kind == "survival":
        return np.zeros((1, len(owner), 1))
    if kind == "segmentation":
        mask, ends = train.train.examples["mask"], train.train.offsets
        counts = class_counts(mask, ends, num_outputs(population.raw, kind))
        if population.is_left_out:
            counts = np.repeat(counts.sum(axis=0, keepdims=True), judged.num_clients, axis=0)
        return np.log(counts + _PSEUDO_COUNT)[owner][None]
    labels = np.asarray(train.train.examples["y"], np.float64)
    if kind == "multiclass":
        labels = np.eye(num_outputs(population.raw, kind))[labels.astype(int)]
    parts = (
        [labels] * judged.num_clients
        if population.is_left_out
        else np.split(labels, train.train.offsets[1:-1])
    )
    if kind == "regression":
        return np.array([part.mean() for part in parts])[owner][None, :, None]
    counts = np.array([part.sum(axis=0) for part in parts])
    sizes = np.array([len(part) for part in parts]).reshape(-1, *[1] * (counts.ndim - 1))
    share = (counts + _PSEUDO_COUNT) / (sizes + 2 * _PSEUDO_COUNT)
    of_each = np.log(share) if kind == "multiclass" else logit(share)
    return of_each[owner][None] if of_each.ndim > 1 else of_each[owner][None, :, None]


def best_site(
    judge: Judge, model: Model, population: Population, models: Variables
) -> tuple[str, np.ndarray]:
    """The hospital whose model serves the training patients of all hospitals best, and its outputs.

    Chosen by the mean over hospitals of the main metric, with the first of the experiments.

    Args:
      judge: how hospitals are judged.
      model: the model.
      population: who trained and who is judged.
      models: `[experiments, hospitals, ...]`, of hospitals that trained alone.
    """
    metric = judge.metrics[judge.main]
    train = population.train
    outputs = outputs_of(model, jax.tree.map(lambda x: x[0], models), train.train)
    means = [
        mean_of_defined(by_hospital(metric, predictions_for_training(judge, output, population)))
        for output in outputs
    ]
    distance = np.abs(np.array(means) - metric.ideal)
    best = int(np.argmin(np.where(np.isnan(distance), np.inf, distance)))
    chosen = jax.tree.map(lambda x: x[:, best], models)
    name = train.client_names[best]
    return name, outputs_of(model, chosen, population.test)
