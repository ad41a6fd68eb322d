"""Figures of classes that are predicted: which are taken for which, and ROC curves.

All return a matplotlib figure, as those of `clinical_figures` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fedjax_med.evaluation import Predictions
from fedjax_med.evaluation.ranking import auroc
from fedjax_med.reporting.clinical_figures import drawn
from fedjax_med.reporting.figures import STYLE
from fedjax_med.reporting.palette import INK, client_style

_MOST_HOSPITALS = 4


def confusion_figure(
    predictions: Predictions, *, label_names: Sequence[str] = (), title: str = "Errors"
) -> Figure:
    """How many patients of each label were called what, of all hospitals together.

    Args:
      predictions: probabilities of label 1 `[N]`, or of the classes `[N, classes]`.
      label_names: of the classes; their numbers where there are none.
      title: of the figure.

    Raises:
      ValueError: if there is no patient.
    """
    if not predictions.num_patients:
        raise ValueError("predictions must have at least one patient, got none.")
    said, _ = said_labels(predictions)
    labels = np.asarray(predictions.labels, np.int64)
    size = max(int(labels.max()) + 1, int(said.max()) + 1, len(label_names))
    counts = np.bincount(labels * size + said, minlength=size**2).reshape(size, size)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [label_name(value, label_names) for value in range(size)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.2 + 0.62 * size, 2.4 + 0.5 * size), layout="constrained")
        axes = figure.subplots()
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            dark = share[row, column] > 0.55
            axes.text(
                column,
                row,
                f"{count:,}\n{share[row, column]:.0%}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else INK,
            )
        axes.set_xticks(range(size), names, rotation=30, ha="right")
        axes.set_yticks(range(size), names)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.grid(visible=False)
        axes.set_title(title)
        return drawn(figure)


def roc_figure(predictions: Predictions, *, title: str = "ROC curves") -> Figure:
    """Sensitivity over false alarms at all thresholds, of all patients and of the largest hospitals.

    Args:
      predictions: probabilities of label 1 `[N]` and labels of 0 and 1.
      title: of the figure.

    Raises:
      ValueError: if all labels are equal.
    """
    labels = np.asarray(predictions.labels)
    if len(np.unique(labels)) != 2:
        raise ValueError("labels must hold 0 and 1 for a ROC curve, got one of them only.")
    sizes = np.bincount(predictions.client, minlength=len(predictions.client_names))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.6), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], ":", color=INK, lw=1)
        for hospital in np.argsort(-sizes, kind="stable")[:_MOST_HOSPITALS]:
            own = predictions.take(predictions.client == hospital)
            if len(np.unique(own.labels)) == 2:
                colour, dashes = client_style(int(hospital))
                name = predictions.client_names[hospital]
                _curve(axes, own, name, color=colour, ls=dashes, lw=1.3)
        _curve(axes, predictions, "all patients", color=INK, lw=2.4)
        axes.set_xlabel("share of label 0 called 1 (1 - specificity)")
        axes.set_ylabel("sensitivity")
        axes.set_aspect("equal")
        axes.set_title(title)
        figure.legend(loc="outside right center", frameon=False, fontsize=8)
        return drawn(figure)


def roc_points(probability: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False alarms and sensitivity `[thresholds + 1]`, from calling nobody positive to everybody.

    Patients of equal probability are called together.
    """
    order = np.argsort(-probability, kind="stable")
    positive = np.asarray(labels)[order] > 0
    last = np.append(np.diff(probability[order]) != 0, True)  # of those that are equal
    found = np.concatenate([[0], np.cumsum(positive)[last]])
    alarms = np.concatenate([[0], np.cumsum(~positive)[last]])
    return alarms / alarms[-1], found / found[-1]


def said_labels(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """The predicted label of each patient, and its probability."""
    outputs = np.asarray(predictions.outputs)
    if outputs.ndim == 1:
        outputs = np.stack([1 - outputs, outputs], axis=1)
    return outputs.argmax(axis=1), outputs.max(axis=1)


def label_name(label: int, label_names: Sequence[str]) -> str:
    """The name of a label; its number where it has none."""
    return label_names[label] if label < len(label_names) else str(label)


def _curve(axes: Any, predictions: Predictions, name: str, **style: Any) -> None:
    alarms, found = roc_points(predictions.outputs, predictions.labels)
    weight = np.ones(predictions.num_patients)
    area = float(auroc(predictions.outputs, predictions.labels, weight))
    axes.plot(alarms, found, label=f"{name}: AUROC {area:.3f}", **style)
