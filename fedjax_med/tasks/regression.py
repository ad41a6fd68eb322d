"""Regression."""

import math

import jax.numpy as jnp

from fedjax_med.engine.contracts import Batch, PyTree, Variables
from fedjax_med.engine.task import Task
from fedjax_med.models.adapters import Model
from fedjax_med.tasks.inputs import initialise


def regression(model: Model, example: PyTree, *, center: float = 0.0, scale: float = 1.0) -> Task:
    """Half the squared error as loss; metrics `mse` and `mae` in (squared) units of `y`.

    With `center` and `scale`, such as the mean and standard deviation over all hospitals' training
    patients, the model predicts `(y - center) / scale`: it starts near the mean, and learning rates
    need not know the unit. The loss is then that of the scaled target, predictions are
    `scale * outputs + center`, and metrics keep the unit of `y`.

    Args:
      model: gives `[batch, 1]` or `[batch]` outputs.
      example: examples like those of the data, for their shapes and dtypes.
      center: subtracted from `y`, in its unit.
      scale: divides what is left, in the unit of `y`.

    Raises:
      ValueError: if `center` is not finite, or `scale` not finite and positive.
    """
    if not math.isfinite(center):
        raise ValueError(f"center must be finite, got {center!r}.")
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"scale must be finite and positive, got {scale!r}.")

    def errors(variables: Variables, batch: Batch, train: bool):
        outputs, state = model.apply(variables, batch, train)
        target = (batch.examples["y"] - center) / scale
        return outputs.reshape(batch.mask.shape) - target, state

    def loss(variables: Variables, batch: Batch):
        error, state = errors(variables, batch, True)
        return 0.5 * error**2, state

    def metrics(variables: Variables, batch: Batch):
        error = scale * errors(variables, batch, False)[0]
        ones = jnp.ones_like(error)
        return {"mse": (error**2, ones), "mae": (jnp.abs(error), ones)}

    return Task(initialise(model, example), loss, metrics, ("mse", "mae"), (False, False))
