"""`predict`: what a model says of every patient of a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit, softmax

from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.engine import Batch, FederatedAlgorithm, Run, Variables
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.evaluation._personal import models_of_clients, num_experiments, one_experiment
from fedjax_med.evaluation.metrics import SurvivalOutputs
from fedjax_med.evaluation.predictions import Predictions
from fedjax_med.evaluation.survival import Outcome
from fedjax_med.models import Model

_BATCH_SIZE = 1024


def binary_probability(logits: np.ndarray) -> np.ndarray:
    """Probability of label 1 `[N]`, from one logit each `[N]` or `[N, 1]`."""
    return expit(single_output(logits))


def class_probabilities(logits: np.ndarray) -> np.ndarray:
    """Probabilities of the classes `[N, classes]`, from their logits."""
    return softmax(np.asarray(logits, np.float64), axis=1)


def label_probabilities(logits: np.ndarray) -> np.ndarray:
    """Probabilities of labels that exclude nothing `[N, labels]`, from their logits."""
    return expit(np.asarray(logits, np.float64))


def single_output(outputs: np.ndarray) -> np.ndarray:
    """The one output of each patient `[N]`, from `[N]` or `[N, 1]`."""
    if outputs.ndim > 2 or (outputs.ndim == 2 and outputs.shape[1] != 1):
        raise ValueError(
            f"the model must have one output, got shape {list(outputs.shape)}; choose another link."
        )
    return np.asarray(outputs, np.float64).reshape(len(outputs))


def log_hazard(outputs: np.ndarray) -> SurvivalOutputs:
    """The risk of a Cox model, from its one output."""
    return SurvivalOutputs(single_output(outputs))


def survival_outcome(examples: Any) -> Outcome:
    """What became of each patient: `examples["time"]` and `examples["event"]`."""
    return Outcome(np.asarray(examples["time"]), np.asarray(examples["event"]))


def _label(examples: Any) -> np.ndarray:
    """The labels `examples["y"]`."""
    return np.asarray(examples["y"])


def predict(
    trained: Variables | Run,
    dataset: FederatedDataset,
    model: Model,
    split: str = "test",
    *,
    algorithm: FederatedAlgorithm | None = None,
    experiment: int | None = None,
    local_work: LocalWork | None = None,
    per_client: bool = False,
    link: Callable[[np.ndarray], Any] = binary_probability,
    labels: Callable[[Any], Any] = _label,
    groups: Mapping[str, np.ndarray] | None = None,
    batch_size: int = _BATCH_SIZE,
) -> Predictions:
    """Applies a model to the examples of every client, with dropout off, in one compiled function.

    Args:
      trained: a model, or the run that trained it.
      dataset: the clients.
      model: the model that was trained.
      split: "train", "validation" or "test".
      algorithm: with a run, the algorithm of the run: every client is predicted by its own model
        (`algorithm.personal`), which first adapts to its training examples where the algorithm says
        so, as in the evaluations of `simulate`. None predicts all by `run.variables`.
      experiment: which experiment of the run, if it has some.
      local_work: of the run, for algorithms that adapt for as long as they trained.
      per_client: whether arrays of `trained` have a leading axis of clients, one model each.
      link: from all outputs `[N, ...]` to what the metrics take: `binary_probability`,
        `class_probabilities`, `label_probabilities`, `single_output` (regression), `log_hazard` (Cox), or
        a function of one's own.
      labels: from the examples to what the metrics take: `examples["y"]`, or `survival_outcome`.
      groups: attributes of the patients of the split, see `subgroups`.
      batch_size: examples that are on the device at once.

    Raises:
      ValueError: if the split has no examples, the run has experiments and none is chosen, or the
        number of models is not that of the clients.
      NotImplementedError: if the algorithm adapts for as long as it trained, without `local_work`.
    """
    arrays = _examples(dataset, split, batch_size)
    if isinstance(trained, Run):
        if experiment is not None:
            trained = one_experiment(trained, experiment)
        if num_experiments(trained) is not None:
            raise ValueError(
                "trained must be one run; say which by experiment=..., take predict_experiments, or "
                "hand over the variables of one experiment."
            )
        variables = trained.variables
        if algorithm is not None:
            variables, per_client = _personal_models([trained], algorithm, dataset, local_work)
            variables = jax.tree.map(lambda x: x[0], variables)
    else:
        variables = trained
    if per_client:
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
            if leaf.shape[:1] != (dataset.num_clients,):
                raise ValueError(
                    f"variables{jax.tree_util.keystr(path)} must have a leading axis of "
                    f"{dataset.num_clients} clients, got shape {list(leaf.shape)}."
                )
    outputs = _apply(model, variables, arrays, per_client, batch_size, mapped=False)
    return _predictions(link(outputs), labels(arrays.examples), dataset, arrays, groups)


def predict_experiments(
    run: Run,
    dataset: FederatedDataset,
    model: Model,
    split: str = "test",
    *,
    algorithm: FederatedAlgorithm | None = None,
    local_work: LocalWork | None = None,
    link: Callable[[np.ndarray], Any] = binary_probability,
    labels: Callable[[Any], Any] = _label,
    groups: Mapping[str, np.ndarray] | None = None,
    batch_size: int = _BATCH_SIZE,
) -> list[Predictions]:
    """Predictions of all experiments of a run, in their order, from one compiled pass.

    Args, Raises: as `predict`; `algorithm` is one for all experiments, so what it judges clients by
      must not depend on hyperparameters that differ between them.
    """
    count = num_experiments(run)
    if count is None:
        raise ValueError("run must have experiments, got one without; take predict.")
    arrays = _examples(dataset, split, batch_size)
    variables, per_client = run.variables, False
    if algorithm is not None:
        each = [one_experiment(run, index) for index in range(count)]
        variables, per_client = _personal_models(each, algorithm, dataset, local_work)
    outputs = _apply(model, variables, arrays, per_client, batch_size, mapped=True)
    true = labels(arrays.examples)
    return [_predictions(link(own), true, dataset, arrays, groups) for own in outputs]


def _examples(dataset: FederatedDataset, split: str, batch_size: int) -> ClientArrays:
    arrays = dataset.splits().get(split)
    if arrays is None or arrays.num_examples == 0:
        raise ValueError(f"split must have examples, but {dataset.name} has no {split!r}.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size!r}.")
    return arrays


def _predictions(
    outputs: Any,
    labels: Any,
    dataset: FederatedDataset,
    arrays: ClientArrays,
    groups: Mapping[str, np.ndarray] | None,
) -> Predictions:
    client = np.repeat(np.arange(arrays.num_clients), arrays.sizes)
    return Predictions(outputs, labels, client, dataset.client_names, dict(groups or {}))


def _personal_models(
    runs: Sequence[Run],
    algorithm: FederatedAlgorithm,
    dataset: FederatedDataset,
    local_work: LocalWork | None,
) -> tuple[Variables, bool]:
    """The models of the clients `[runs, (clients,) ...]`, and whether each has one of its own."""
    per_client = algorithm.adaptation is not None or bool(jax.tree.leaves(runs[0].client_states))
    if per_client:
        models = models_of_clients(algorithm, dataset.train, local_work)
    else:
        models = algorithm.personal
    each = [models(run.state, run.client_states) for run in runs]
    return jax.tree.map(lambda *x: np.stack([np.asarray(v) for v in x]), *each), per_client


def _apply(
    model: Model,
    variables: Variables,
    arrays: ClientArrays,
    per_client: bool,
    batch_size: int,
    *,
    mapped: bool,
) -> np.ndarray:
    """Outputs `[N, ...]`. All batches have one shape, so one compilation serves them.

    If `mapped`, variables and outputs have a leading axis of experiments.
    """
    sizes = arrays.sizes if per_client else np.array([arrays.num_examples])
    batch_size = min(batch_size, int(sizes.max()))
    variables = jax.tree.map(jnp.asarray, variables)

    def apply(variables: Variables, client: jax.Array, examples: Any) -> jax.Array:
        if per_client:
            variables = jax.tree.map(lambda x: x[client], variables)
        mask = jnp.ones(batch_size, bool)  # padding is cut off on the host
        batch = Batch(examples, mask, jnp.float32(batch_size), jax.random.key(0))
        outputs, _ = model.apply(variables, batch, False)
        return outputs

    apply = jax.jit(jax.vmap(apply, in_axes=(0, None, None)) if mapped else apply)
    outputs = []
    start = 0
    for client, size in enumerate(sizes):
        for first in range(start, start + int(size), batch_size):
            stop = min(first + batch_size, start + int(size))
            rows = np.minimum(np.arange(first, first + batch_size), stop - 1)
            examples = jax.tree.map(lambda x, rows=rows: np.asarray(x[rows]), arrays.examples)
            new = np.asarray(apply(variables, client, examples))
            outputs.append(new[:, : stop - first] if mapped else new[: stop - first])
        start += int(size)
    return np.concatenate(outputs, axis=int(mapped))
