"""What is reached without any model: everybody at a hospital is told the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedjax_med import tasks
from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.engine import Evaluation, Variables
from fedjax_med.engine.evaluate import evaluate
from fedjax_med.models import Model
from fedjax_med.tasks.kinds import Kind, num_outputs
from fedjax_med.tasks.segmentation import class_counts

# A hospital whose training patients are all ill may still see a healthy one (Jeffreys' prior).
_PSEUDO_COUNT = 0.5
_NOTHING = Variables({}, ())
# The outputs take the place of the features, and the model leaves them as they are.
_AS_IT_IS = Model(
    lambda key, x: _NOTHING, lambda variables, batch, train: (batch.examples["x"], variables.state)
)


def no_model_baseline(dataset: FederatedDataset, kind: Kind, *, split: str = "test") -> Evaluation:
    """Every hospital predicts what its own training patients had, the same for everybody.

    Judged by all metrics of the kind's task, in natural units; see `constant_outputs`.
    """
    outputs = constant_outputs(dataset, kind)
    told: dict[str, Any] = {
        name: ClientArrays(
            {**arrays.examples, "x": np.repeat(outputs, arrays.sizes, axis=0)}, arrays.sizes
        )
        for name, arrays in dataset.splits().items()
    }
    judged = dataset.replace(feature_names=(), **told)
    task = tasks.for_dataset(judged, _AS_IT_IS).task
    return evaluate(_NOTHING, judged, task=task, split=split)


def constant_outputs(dataset: FederatedDataset, kind: Kind) -> np.ndarray:
    """What a model would give out for everybody at a hospital, float32 `[clients, ..., outputs]`.

    The share of every class or label among the hospital's own training patients as logits, so that
    the most frequent class is predicted, of equally frequent ones the first; the mean of a measured
    outcome; 0 for survival: equal risks, and a C-index of one half. Of masks, the classes of every
    voxel by themselves.
    """
    train = dataset.train
    if kind == "survival":
        return np.zeros((dataset.num_clients, 1), np.float32)
    if kind == "segmentation":
        counts = class_counts(train.examples["mask"], train.offsets, num_outputs(dataset, kind))
        return np.log(counts + _PSEUDO_COUNT).astype(np.float32)
    y = np.asarray(train.examples["y"], np.float64)
    if kind == "multiclass":
        y = np.eye(num_outputs(dataset, kind))[y.astype(np.int64)]
    y = y.reshape(len(y), -1)
    sums = np.add.reduceat(y, train.offsets[:-1], axis=0)  # nobody is without training examples
    sizes = train.sizes[:, None]
    if kind == "regression":
        return (sums / sizes).astype(np.float32)
    share = (sums + _PSEUDO_COUNT) / (sizes + 2 * _PSEUDO_COUNT)
    logits = np.log(share) if kind == "multiclass" else np.log(share) - np.log1p(-share)
    return logits.astype(np.float32)
