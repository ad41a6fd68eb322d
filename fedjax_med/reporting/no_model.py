"""What is reached without any model: everybody at a hospital is told the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fedjax_med import tasks
from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.engine import Evaluation, Variables
from fedjax_med.engine.evaluate import evaluate
from fedjax_med.models import Model
from fedjax_med.models.graph_embeddings import INDIFFERENT
from fedjax_med.preprocessing.log_windows import present_column
from fedjax_med.tasks.kinds import LEVELS, Kind, num_outputs
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

    Links of a graph are all equally plausible, and of a series nothing changes.

    Judged by all metrics of the kind's task, in natural units; see `constant_outputs`.
    """
    if kind == "links":
        task = tasks.link_prediction(INDIFFERENT, tasks.graph_of(dataset))
        return evaluate(task.init(0), dataset, task=task, split=split)
    outputs_of = _no_change(dataset) if kind == "forecast" else _constant(dataset, kind)
    told: dict[str, Any] = {
        name: ClientArrays({**arrays.examples, "x": outputs_of(arrays)}, arrays.sizes)
        for name, arrays in dataset.splits().items()
    }
    judged = dataset.replace(feature_names=(), **told)
    task = tasks.for_dataset(judged, _AS_IT_IS).task
    return evaluate(_NOTHING, judged, task=task, split=split)


def _constant(dataset: FederatedDataset, kind: Kind) -> Callable[[ClientArrays], np.ndarray]:
    outputs = constant_outputs(dataset, kind)
    return lambda arrays: np.repeat(outputs, arrays.sizes, axis=0)


def _no_change(dataset: FederatedDataset) -> Callable[[ClientArrays], np.ndarray]:
    """The present value, with quantiles of the changes in the hospital's own training windows."""
    present, train = present_column(dataset), dataset.train
    changes = train.examples["y"] - train.examples["x"][:, present, None]
    spread = np.stack(
        [
            np.quantile(part, LEVELS, axis=0).T  # [horizons, levels]
            for part in np.split(changes, train.offsets[1:-1])
        ]
    )
    spread[..., len(LEVELS) // 2] = 0  # nothing changes, whatever the drift of training

    def outputs_of(arrays: ClientArrays) -> np.ndarray:
        now = arrays.examples["x"][:, present, None, None]
        outputs = now + np.repeat(spread, arrays.sizes, axis=0)
        return outputs.reshape(len(outputs), -1).astype(np.float32)

    return outputs_of


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
    if kind == "responses":  # the mean of every drug, in deviations from it
        return np.zeros((dataset.num_clients, num_outputs(dataset, kind)), np.float32)
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
