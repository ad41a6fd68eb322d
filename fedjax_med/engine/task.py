"""What is learned: initial model, loss and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fedjax_med.engine.contracts import GradientFn, Loss, Variables, gradient
from fedjax_med.engine.rounds import MetricsFn


class Task(NamedTuple):
    """A learning task.

    Attributes:
      init: `(seed) -> Variables`.
      loss: `(variables, batch) -> (losses [batch], new model state)`, for training.
      metrics: `(variables, batch) -> {name: (numerators [batch], denominators [batch])}`, for
        evaluation; a metric is the sum of the first over the sum of the second.
      metric_names: the names that `metrics` returns.
      higher_is_better: for each name whether more is better.
    """

    init: Callable[[int], Variables]
    loss: Loss
    metrics: MetricsFn
    metric_names: tuple[str, ...]
    higher_is_better: tuple[bool, ...] = ()

    @property
    def gradient(self) -> GradientFn:
        """Gradient of the mean loss of a minibatch."""
        return gradient(self.loss)
