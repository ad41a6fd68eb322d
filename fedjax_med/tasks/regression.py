"""Regression."""

import jax.numpy as jnp

from fedjax_med.engine.contracts import Batch, PyTree, Variables
from fedjax_med.engine.task import Task
from fedjax_med.models.adapters import Model
from fedjax_med.tasks.inputs import initialise


def regression(model: Model, example: PyTree) -> Task:
    """Half the squared error as loss; metrics `mse` and `mae` in (squared) units of `y`.

    Args:
      model: gives `[batch, 1]` or `[batch]` predictions.
      example: examples like those of the data, for their shapes and dtypes.
    """

    def errors(variables: Variables, batch: Batch, train: bool):
        outputs, state = model.apply(variables, batch, train)
        return outputs.reshape(batch.mask.shape) - batch.examples["y"], state

    def loss(variables: Variables, batch: Batch):
        error, state = errors(variables, batch, True)
        return 0.5 * error**2, state

    def metrics(variables: Variables, batch: Batch):
        error, _ = errors(variables, batch, False)
        ones = jnp.ones_like(error)
        return {"mse": (error**2, ones), "mae": (jnp.abs(error), ones)}

    return Task(initialise(model, example), loss, metrics, ("mse", "mae"), (False, False))
