"""Responses of patients to drugs: what is known of a row predicts the rest of it."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fedjax_med.data import ClientArrays, DataError, FederatedDataset
from fedjax_med.engine.contracts import Batch, PyTree, Variables
from fedjax_med.engine.task import Task
from fedjax_med.models.adapters import Model
from fedjax_med.tasks.inputs import initialise


def masked_responses(model: Model, example: PyTree, *, hidden: float = 0.5) -> Task:
    """Half the mean squared error over responses that were hidden from the model.

    At every step each known response of a training row is hidden with probability `hidden`, anew,
    and the model predicts those from the others: so it learns what it is for, to say of new patients
    what was not measured. A row's loss is the mean over its hidden responses, 0 if there are none.

    Evaluation hides nothing: the model sees `x` and is judged where `measured`. Metrics: `mse` and
    `mae`, means over responses. On training rows, whose `y` is in `x`, they are those of a
    reconstruction.

    Args:
      model: gives `[batch, drugs]` from `x` `[batch, drugs]` with NaN where not known.
      example: examples like those of the data, with `x`, `y` and `measured` as of
        `datasets.gdsc_ic50`, for their shapes and dtypes.
      hidden: above 0 and below 1.

    Raises:
      ValueError: if `hidden` is not allowed, or a part of the examples is missing.
    """
    if not 0 < hidden < 1:
        raise ValueError(f"hidden must be above 0 and below 1, got {hidden!r}.")
    for key in ("x", "y", "measured"):
        if key not in example:
            raise ValueError(f"examples must have {key!r}, got {', '.join(sorted(example))}.")

    def loss(variables: Variables, batch: Batch):
        x = batch.examples["x"]
        asked = batch.bernoulli(hidden, x.shape[1:]) & ~jnp.isnan(x)
        shown = {**batch.examples, "x": jnp.where(asked, jnp.nan, x)}
        outputs, state = model.apply(variables, _with_examples(batch, shown), True)
        error = jnp.where(asked, outputs - jnp.where(asked, x, 0), 0)
        number = jnp.maximum(jnp.sum(asked, axis=1), 1).astype(error.dtype)
        return 0.5 * jnp.sum(error**2, axis=1) / number, state

    def metrics(variables: Variables, batch: Batch):
        outputs, _ = model.apply(variables, batch, False)
        measured = batch.examples["measured"]
        error = jnp.where(measured, outputs - batch.examples["y"], 0)
        number = jnp.sum(measured, axis=1).astype(error.dtype)
        return {
            "mse": (jnp.sum(error**2, axis=1), number),
            "mae": (jnp.sum(jnp.abs(error), axis=1), number),
        }

    return Task(initialise(model, example), loss, metrics, ("mse", "mae"), (False, False))


def _with_examples(batch: Batch, examples: PyTree) -> Batch:
    return dataclasses.replace(batch, examples=examples)


class DrugScale(NamedTuple):
    """Mean and standard deviation of every drug's response over the training rows of all clients.

    Attributes:
      center: float64 `[drugs]`, in the unit of the responses.
      scale: float64 `[drugs]`, positive.
    """

    center: np.ndarray
    scale: np.ndarray

    def apply(self, dataset: FederatedDataset) -> FederatedDataset:
        """The dataset with `x` and `y` in standard deviations from the mean of the drug."""

        def scaled(arrays: ClientArrays) -> ClientArrays:
            own = dict(arrays.examples)
            measured = own["measured"]
            own["x"] = ((own["x"] - self.center) / self.scale).astype(np.float32)
            y = np.where(measured, (own["y"] - self.center) / self.scale, 0)
            return ClientArrays({**own, "y": y.astype(np.float32)}, arrays.sizes)

        return dataset.replace(**{name: scaled(part) for name, part in dataset.splits().items()})

    def invert(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs `[..., drugs]` of a model of the scaled responses, in their own unit."""
        return np.asarray(outputs, np.float64) * self.scale + self.center


def drug_scale(dataset: FederatedDataset) -> DrugScale:
    """The scale of every drug from the responses that training rows know.

    Each client sends a count, a sum and a sum of squared deviations from the overall mean per drug;
    sums over clients are all that is used, so those may be summed securely.

    Raises:
      DataError: if a drug has fewer than two training responses, or they are all equal.
    """
    x: np.ndarray = np.asarray(dataset.train.examples["x"], np.float64)
    known = ~np.isnan(x)
    count = known.sum(0)
    names = dataset.feature_names or tuple(map(str, range(x.shape[1])))
    if (count < 2).any():
        drug = int(np.argmax(count < 2))
        raise DataError(
            f"drug {names[drug]!r} has {count[drug]} training responses; at least two are needed."
        )
    center = np.where(known, x, 0).sum(0) / count
    deviation = np.where(known, x - center, 0)
    scale = np.sqrt((deviation**2).sum(0) / count)
    if not (scale > 0).all():
        drug = int(np.argmin(scale > 0))
        raise DataError(f"drug {names[drug]!r} has the same response everywhere; leave it out.")
    return DrugScale(center, scale)
