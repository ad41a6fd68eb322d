"""The task and the model that fit a dataset, for those who choose neither by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.engine.contracts import PyTree
from fedjax_med.engine.task import Task
from fedjax_med.models import (
    Model,
    columns_of,
    feature_tokens,
    linear,
    mlp,
    tabular_network,
)
from fedjax_med.models.graph_embeddings import GRAPH_MODELS
from fedjax_med.tasks.classification import binary_classification, multiclass_classification
from fedjax_med.tasks.forecasting import quantile_forecast
from fedjax_med.tasks.kinds import Kind, kind_of, num_outputs
from fedjax_med.tasks.links import graph_of, link_prediction
from fedjax_med.tasks.modalities import modality_of, network_of
from fedjax_med.tasks.multilabel import multilabel_classification
from fedjax_med.tasks.partial_likelihood import Ties
from fedjax_med.tasks.regression import regression
from fedjax_med.tasks.response import masked_responses
from fedjax_med.tasks.segmentation import segmentation
from fedjax_med.tasks.survival import cox, discrete_time_survival

MODELS = ("linear", "mlp", "embeddings", "transformer")
# Examples that a true triple is compared with, for each of its ends.
NUM_NEGATIVES = 8
TAKE_MISSING = ("embeddings", "transformer")


class ModelTask(NamedTuple):
    """What is learned from a dataset.

    Attributes:
      kind: of the outcome; with the options of the task it says how predictions are judged, see
        `evaluation.judged_by`.
      model: the model.
      task: loss and metrics of the model.
    """

    kind: Kind
    model: Model
    task: Task


def for_table(
    dataset: FederatedDataset,
    model: str | Model = "linear",
    *,
    hidden: Sequence[int] = (32, 16),
    embedding_size: int = 4,
    dim: int = 16,
    depth: int = 2,
    heads: int = 2,
    center: float = 0.0,
    scale: float = 1.0,
    ties: Ties = "efron",
    edges: Sequence[float] | np.ndarray | None = None,
) -> ModelTask:
    """The task of `kind_of(dataset)` with a model of the right number of outputs.

    Args:
      dataset: with examples `x` `[N, features]`, as the model will be given them: standardised, and
        without missing values unless the model takes them.
      model: "linear"; "mlp", `hidden` layers; "embeddings", the same with embedded categories and
        missing values; "transformer", columns as tokens, with missing values; or a model of one's
        own, of which nothing is checked.
      hidden: widths of hidden layers of "mlp" and "embeddings".
      embedding_size: of "embeddings".
      dim: of the tokens of "transformer".
      depth: of "transformer".
      heads: of "transformer".
      center: of the target of a regression, see `regression`.
      scale: of the target of a regression.
      ties: of a Cox model, see `cox`.
      edges: for survival, ends of the intervals of `discrete_time_survival`; `cox` if None.

    Raises:
      DataError: if no kind fits, `x` is no table, or values are missing that the model cannot take.
      ValueError: if there is no model of that name, or `edges` are given without survival.
    """
    kind = kind_of(dataset)
    if edges is not None and kind != "survival":
        raise ValueError(f"edges are for survival, but the outcome of {dataset.name} is {kind}.")
    if isinstance(model, str):
        outputs = num_outputs(dataset, kind) if edges is None else len(edges)
        check_table(dataset, model)
        # Only the chosen one is built: the others' options, or names, may not fit.
        network = {
            "linear": lambda: linear(outputs),
            "mlp": lambda: mlp(hidden, outputs),
            "embeddings": lambda: tabular_network(
                columns_of(_names(dataset)),
                hidden,
                embedding_size=embedding_size,
                num_outputs=outputs,
            ),
            "transformer": lambda: feature_tokens(
                columns_of(_names(dataset)), dim=dim, depth=depth, heads=heads, num_outputs=outputs
            ),
        }[model]()
    else:
        network = model
    if kind == "survival":
        example = dataset.train.examples
        if edges is None:
            return ModelTask(kind, network, cox(network, example, ties=ties))
        return ModelTask(kind, network, discrete_time_survival(network, example, edges=edges))
    return _with_task(dataset, kind, network, center, scale)


def for_dataset(
    dataset: FederatedDataset,
    model: str | Model | None = None,
    *,
    hidden: Sequence[int] = (32, 16),
    center: float = 0.0,
    scale: float = 1.0,
) -> ModelTask:
    """The task of `kind_of(dataset)` with a model for its modality, see `modality_of`.

    Args:
      dataset: as the model will be given it.
      model: name of a model of the modality, `for_table` or `modalities.NETWORKS`; None for the
        default one; or a model of one's own, of which nothing is checked.
      hidden: widths of hidden layers, of models of tables that have them.
      center: of the target of a regression, see `regression`.
      scale: of the target of a regression.

    Raises:
      DataError: if no kind or modality fits, or the model cannot take the examples.
      ValueError: if there is no model of that name.
    """
    modality = modality_of(dataset)
    if modality == "graph":
        return _for_graph(dataset, model)
    if modality == "table":
        return for_table(dataset, model or "linear", hidden=hidden, center=center, scale=scale)
    kind = kind_of(dataset)
    if model is None or isinstance(model, str):
        model = network_of(dataset, modality, model)(dataset, num_outputs(dataset, kind))
    return _with_task(dataset, kind, model, center, scale)


def _for_graph(dataset: FederatedDataset, model: str | Model | None) -> ModelTask:
    """Link prediction, of which the score is asked for rather than the outputs of a `Model`."""
    if model is not None and not isinstance(model, str):
        raise ValueError(
            f"model must be one of {', '.join(GRAPH_MODELS)} for a graph, by its name."
        )
    name = model or next(iter(GRAPH_MODELS))
    network = network_of(dataset, "graph", name)(dataset, 1)
    task = link_prediction(GRAPH_MODELS[name](), graph_of(dataset), num_negatives=NUM_NEGATIVES)
    return ModelTask("links", network, task)


def _with_task(
    dataset: FederatedDataset, kind: Kind, network: Model, center: float, scale: float
) -> ModelTask:
    tasks: dict[Kind, Callable[[Model, PyTree], Task]] = {
        "binary": binary_classification,
        "multiclass": multiclass_classification,
        "multilabel": multilabel_classification,
        "regression": lambda m, e: regression(m, e, center=center, scale=scale),
        "survival": cox,
        "segmentation": lambda m, e: segmentation(m, e, label_names=dataset.label_names),
        "responses": masked_responses,
        "forecast": quantile_forecast,
    }
    return ModelTask(kind, network, tasks[kind](network, dataset.train.examples))


def default_for(
    dataset: FederatedDataset, model: str | Model | None = None, **options: Any
) -> Task:
    """The task of a table; a linear model, or one that takes missing values where there are some.

    Args, Raises: as `for_table`.
    """
    if model is None:
        model = "embeddings" if _first_missing(dataset) else "linear"
    return for_table(dataset, model, **options).task


def check_table(dataset: FederatedDataset, model: str) -> None:
    """Checks that a model of this name can be given the examples.

    Raises:
      DataError: if `x` is no table, or values are missing that the model cannot take.
      ValueError: if there is no model of that name.
    """
    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {model!r}.")
    x = dataset.train.examples.get("x")
    if not isinstance(x, np.ndarray) or x.ndim != 2 or x.dtype.kind != "f":
        got = "nothing" if x is None else f"{x.dtype} {list(x.shape)}"
        raise DataError(f"x of {dataset.name} must be floating [N, features], got {got}.")
    missing = None if model in TAKE_MISSING else _first_missing(dataset)
    if missing:
        raise DataError(
            f"column {missing!r} of {dataset.name} has missing values, which the model {model!r} "
            f"cannot take; impute them, or choose {' or '.join(map(repr, TAKE_MISSING))}."
        )


def _names(dataset: FederatedDataset) -> tuple[str, ...]:
    """The names of the columns; `x0`, `x1`, ... where the dataset gives none."""
    width = dataset.train.examples["x"].shape[1]
    return dataset.feature_names or tuple(f"x{i}" for i in range(width))


def _first_missing(dataset: FederatedDataset) -> str | None:
    """The first column of which a value is missing, None if there is none."""
    for arrays in dataset.splits().values():
        x = arrays.examples.get("x") if isinstance(arrays.examples, dict) else None
        if not isinstance(x, np.ndarray) or x.ndim != 2 or x.dtype.kind != "f":
            return None  # not a table, of which `check_table` says so
        missing = np.flatnonzero(np.isnan(x).any(axis=0))
        if missing.size:
            return _names(dataset)[missing[0]]
    return None
