"""How the predictions of each kind of task are judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fedjax_med.evaluation._predict import (
    binary_probability,
    class_probabilities,
    label_probabilities,
    log_hazard,
    single_output,
    survival_outcome,
)
from fedjax_med.evaluation.metrics import (
    Metric,
    SurvivalOutputs,
    binary_metrics,
    multiclass_metrics,
    multilabel_metrics,
    regression_metrics,
    survival_metrics,
)
from fedjax_med.evaluation.segmentation import (
    called_classes,
    segmentation_metrics,
    true_outlines,
)
from fedjax_med.tasks.kinds import Kind
from fedjax_med.tasks.survival import survival_curve


class Judging(NamedTuple):
    """What `predict` and `judge` are given.

    Attributes:
      link: from a model's outputs to what the metrics take.
      labels: from examples to what the metrics compare it with.
      metrics: by name.
    """

    link: Callable[[np.ndarray], Any]
    labels: Callable[[Any], Any]
    metrics: dict[str, Metric]


def judged_by(
    kind: Kind,
    *,
    times: Sequence[float] | np.ndarray = (),
    discrete: bool = False,
    center: float = 0.0,
    scale: float = 1.0,
    label_names: Sequence[str] = (),
) -> Judging:
    """Link, labels and metrics of a kind of task.

        link, labels, metrics = judged_by("survival", times=(365.0, 1095.0))
        judge(predict(run, dataset, model, link=link, labels=labels), metrics)

    Args:
      kind: from `tasks.kind_of(dataset)`.
      times: of survival metrics, ascending, in the unit of the outcomes.
      discrete: whether the model is that of `discrete_time_survival`; `times` are then all its
        edges, at which its survival curves are judged too.
      center: as given to `tasks.regression`.
      scale: as given to `tasks.regression`.
      label_names: of segmentation, for metrics of every class.

    Raises:
      ValueError: for an unknown kind, or a discrete model without `times`.
    """
    if kind == "survival":
        at = tuple(float(t) for t in times)
        if discrete and not at:
            raise ValueError("times must be the edges of a discrete model's intervals, got none.")
        link = partial(discrete_survival, num_intervals=len(at)) if discrete else log_hazard
        return Judging(link, survival_outcome, survival_metrics(at, curves=discrete))
    if kind == "segmentation":
        return Judging(called_classes, true_outlines, segmentation_metrics(label_names))
    links: dict[str, tuple[Callable[[np.ndarray], Any], Callable[[], dict[str, Metric]]]] = {
        "binary": (binary_probability, binary_metrics),
        "multiclass": (class_probabilities, multiclass_metrics),
        "multilabel": (label_probabilities, multilabel_metrics),
        "regression": (partial(scaled_output, center=center, scale=scale), regression_metrics),
    }
    if kind not in links:
        raise ValueError(
            f"kind must be one of {', '.join([*links, 'survival', 'segmentation'])}, got {kind!r}."
        )
    link, metrics = links[kind]
    return Judging(link, _label, metrics())


def discrete_survival(logits: np.ndarray, num_intervals: int | None = None) -> SurvivalOutputs:
    """Curves of a discrete-time model; the risk is minus the sum of its survival probabilities.

    Raises:
      ValueError: if `logits` are not `[N, num_intervals]`.
    """
    if logits.ndim != 2 or num_intervals not in (None, logits.shape[1]):
        raise ValueError(
            f"the model must have {num_intervals or 'several'} outputs, one for each interval, got "
            f"shape {list(logits.shape)}."
        )
    survival = survival_curve(logits)
    return SurvivalOutputs(-survival.sum(axis=1), survival)


def scaled_output(outputs: np.ndarray, *, center: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Predictions `[N]` in natural units of a regression with `center` and `scale`."""
    return scale * single_output(outputs) + center


def _label(examples: Any) -> np.ndarray:
    """The labels `examples["y"]`."""
    return np.asarray(examples["y"])
