"""Classification: is a disease present, and which one."""

import jax
import jax.numpy as jnp
import optax

from fedjax_med.engine.contracts import Batch, PyTree, Variables
from fedjax_med.engine.task import Task
from fedjax_med.models.adapters import Model
from fedjax_med.tasks.inputs import initialise


def binary_classification(model: Model, example: PyTree) -> Task:
    """Logistic loss on one logit; labels `y` 0 or 1, the prediction is 1 where the logit is > 0.

    Metrics: `loss` [nats], `accuracy`, `sensitivity` (of the positives found) and `specificity`
    (of the negatives left alone).

    Args:
      model: gives `[batch, 1]` or `[batch]` logits.
      example: examples like those of the data, for their shapes and dtypes.
    """

    def logits_and_losses(variables: Variables, batch: Batch, train: bool):
        outputs, state = model.apply(variables, batch, train)
        logits = outputs.reshape(batch.mask.shape)
        labels = batch.examples["y"].astype(logits.dtype)
        # -log sigmoid(z) for y = 1 and -log sigmoid(-z) for y = 0 in one softplus: half the
        # transcendental functions of the two terms, which are what a small model computes.
        return logits, jax.nn.softplus(logits) - labels * logits, state

    def loss(variables: Variables, batch: Batch):
        _, losses, state = logits_and_losses(variables, batch, True)
        return losses, state

    def metrics(variables: Variables, batch: Batch):
        logits, losses, _ = logits_and_losses(variables, batch, False)
        ones = jnp.ones_like(losses)
        positive = batch.examples["y"] > 0
        right = (logits > 0) == positive
        return {
            "loss": (losses, ones),
            "accuracy": (right * ones, ones),
            "sensitivity": (right * positive * ones, positive * ones),
            "specificity": (right * ~positive * ones, ~positive * ones),
        }

    return Task(
        initialise(model, example),
        loss,
        metrics,
        ("loss", "accuracy", "sensitivity", "specificity"),
        (False, True, True, True),
    )


def multiclass_classification(model: Model, example: PyTree) -> Task:
    """Softmax cross-entropy; labels `y` are integers 0, 1, ...

    Metrics: `loss` [nats] and `accuracy`.

    Args:
      model: gives `[batch, classes]` logits.
      example: examples like those of the data, for their shapes and dtypes.
    """

    def logits_and_losses(variables: Variables, batch: Batch, train: bool):
        logits, state = model.apply(variables, batch, train)
        labels = batch.examples["y"].astype(jnp.int32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return logits, losses, state

    def loss(variables: Variables, batch: Batch):
        _, losses, state = logits_and_losses(variables, batch, True)
        return losses, state

    def metrics(variables: Variables, batch: Batch):
        logits, losses, _ = logits_and_losses(variables, batch, False)
        ones = jnp.ones_like(losses)
        right = jnp.argmax(logits, axis=-1) == batch.examples["y"]
        return {"loss": (losses, ones), "accuracy": (right * ones, ones)}

    return Task(initialise(model, example), loss, metrics, ("loss", "accuracy"), (False, True))


def predicted_probability(model: Model, variables: Variables, batch: Batch) -> jax.Array:
    """Probability of the positive class `[batch]` of a binary model."""
    outputs, _ = model.apply(variables, batch, False)
    return jax.nn.sigmoid(outputs.reshape(batch.mask.shape))
