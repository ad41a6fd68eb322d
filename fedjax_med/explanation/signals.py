"""When in a signal a model finds what it says: integrated gradients of single examples.

Attributions of single patients stay with the patient.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np

from fedjax_med.engine import Batch, Variables
from fedjax_med.explanation._rows import BATCH_SIZE
from fedjax_med.explanation.attribution import integrated_gradients
from fedjax_med.models import Model


def signal_gradients(
    model: Model,
    variables: Variables,
    x: np.ndarray,
    *,
    baseline: np.ndarray | None = None,
    steps: int = 32,
    output: int = 0,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """The part of each time and channel in an output of each signal, by integrated gradients.

    The parts of a signal add up to `output(x) - output(baseline)`; see `integrated_gradients`.

    Args:
      model: the model that was trained, of logits.
      variables: of the model.
      x: `[N, time, channels]`, as the model takes it.
      baseline: a signal that says nothing, `[time, channels]`; a flat line at 0 if None.
      steps: points between baseline and signal.
      output: which of the model's outputs.
      batch_size: signals at once, times `steps`.

    Returns:
      float32 `[N, time, channels]`, in units of the output.

    Raises:
      ValueError: if `x` has another number of axes, or as `integrated_gradients`.

    References:
      Sundararajan, Taly and Yan, ICML 2017, eq. 1. https://arxiv.org/abs/1703.01365
    """
    x = np.asarray(x)
    if x.ndim != 3:
        raise ValueError(f"x must be signals [N, time, channels], got shape {list(x.shape)}.")
    flat = np.zeros(x.shape[1:], x.dtype) if baseline is None else np.asarray(baseline)
    if flat.shape != x.shape[1:]:
        raise ValueError(
            f"baseline must have the shape {list(x.shape[1:])} of a signal, got {list(flat.shape)}."
        )
    parts = integrated_gradients(
        _of_rows(model, x.shape[1:]),
        variables,
        x.reshape(len(x), -1),
        flat.reshape(-1),
        steps=steps,
        output=output,
        batch_size=batch_size,
    )
    return parts.reshape(x.shape)


@lru_cache(maxsize=8)
def _of_rows(model: Model, shape: tuple[int, ...]) -> Model:
    """The same model of signals that are written as rows; one object, which compiles once."""

    def apply(variables: Variables, batch: Batch, train: bool):
        x = batch.examples["x"].reshape(-1, *shape)
        return model.apply(variables, dataclasses.replace(batch, examples={"x": x}), train)

    return Model(model.init, apply)
