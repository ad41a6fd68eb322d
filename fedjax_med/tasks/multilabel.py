"""Several labels at once that exclude nothing: which of these findings does a patient have."""

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import Batch, PyTree, Variables
from fedjax_med.engine.task import Task
from fedjax_med.models.adapters import Model
from fedjax_med.tasks.inputs import initialise


def multilabel_classification(model: Model, example: PyTree) -> Task:
    """Logistic loss on one logit per label, the mean over labels; `y` `[N, labels]` is 0 or 1.

    Metrics: `loss` [nats per label], `accuracy` (the share of all labels that are right) and
    `exact_match` (the share of patients whose labels are all right).

    Args:
      model: gives `[batch, labels]` logits.
      example: examples like those of the data, for their shapes and dtypes.

    Raises:
      ValueError: when traced, if the model gives another number of outputs than there are labels.
    """

    def logits_and_losses(variables: Variables, batch: Batch, train: bool):
        logits, state = model.apply(variables, batch, train)
        labels = batch.examples["y"].astype(logits.dtype)
        if logits.shape != labels.shape:
            raise ValueError(
                f"the model must give one output for each label, got shape {list(logits.shape)} "
                f"for labels of shape {list(labels.shape)}."
            )
        losses = jax.nn.softplus(logits) - labels * logits
        return logits, jnp.mean(losses, axis=1), state

    def loss(variables: Variables, batch: Batch):
        _, losses, state = logits_and_losses(variables, batch, True)
        return losses, state

    def metrics(variables: Variables, batch: Batch):
        logits, losses, _ = logits_and_losses(variables, batch, False)
        ones = jnp.ones_like(losses)
        right = (logits > 0) == (batch.examples["y"] > 0)
        return {
            "loss": (losses, ones),
            "accuracy": (jnp.mean(right * ones[:, None], axis=1), ones),
            "exact_match": (jnp.all(right, axis=1) * ones, ones),
        }

    return Task(
        initialise(model, example),
        loss,
        metrics,
        ("loss", "accuracy", "exact_match"),
        (False, True, True),
    )
