"""Figures of classified images: examples with what the model looks at.

All return a matplotlib figure, as those of `clinical_figures` do.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fedjax_med.engine import Variables
from fedjax_med.evaluation import Predictions
from fedjax_med.explanation import grad_cam, image_gradients
from fedjax_med.models import Model
from fedjax_med.reporting.classification_figures import label_name, said_labels
from fedjax_med.reporting.clinical_figures import drawn
from fedjax_med.reporting.figures import STYLE
from fedjax_med.reporting.palette import INK
from fedjax_med.studies import Study
from fedjax_med.studies.judging import predictions as predictions_of

_MOST_HOSPITALS = 4
_WRONG = "#a63603"


def examples_figure(
    images: np.ndarray,
    predictions: Predictions,
    maps: np.ndarray,
    parts: np.ndarray,
    *,
    label_names: Sequence[str] = (),
    title: str = "Test images and what speaks for the prediction",
) -> Figure:
    """Of each hospital, the most certain right prediction and the most certain wrong one.

    Beside each image: Grad-CAM (bright: speaks for the prediction), and integrated gradients (red:
    for it, blue: against it), both scaled to the largest value of the image.

    Args:
      images: `[N, height, width, channels]`, uint8 or floating in [-1, 1].
      predictions: probabilities of label 1 `[N]`, or of the classes `[N, classes]`, of the same images.
      maps: `[N, height, width]`, from `explanation.grad_cam`.
      parts: `[N, height, width]` or with channels, from `explanation.image_gradients`.
      label_names: of the classes; their numbers where there are none.
      title: of the figure.

    Raises:
      ValueError: if there is no image, or the arrays differ in length.
    """
    lengths = [len(images), predictions.num_patients, len(maps), len(parts)]
    if not lengths[0] or len(set(lengths)) > 1:
        raise ValueError(
            f"images, predictions, maps and parts must be of the same images, got {lengths}."
        )
    if parts.ndim == 4:
        parts = parts.sum(axis=-1)
    chosen = _chosen(predictions)
    said, certainty = said_labels(predictions)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 0.7 + 1.75 * len(chosen)), layout="constrained")
        grid = figure.subplots(len(chosen), 6, squeeze=False)
        for axes in grid.ravel():
            axes.set_axis_off()
        for row, (hospital, patients) in zip(grid, chosen, strict=True):
            row[0].text(
                -0.12,
                0.5,
                predictions.client_names[hospital],
                transform=row[0].transAxes,
                rotation=90,
                ha="right",
                va="center",
            )
            for place, patient in enumerate(patients):
                if patient is None:
                    continue
                panels = row[3 * place : 3 * place + 3]
                _panels(panels, images[patient], maps[patient], parts[patient])
                label = int(predictions.labels[patient])
                right = label == said[patient]
                text = f"{label_name(label, label_names)}"
                if not right:
                    text += f", called {label_name(int(said[patient]), label_names)}"
                panels[1].set_title(
                    f"{text} ({certainty[patient]:.2f})",
                    fontsize=8,
                    fontweight="normal",
                    loc="center",
                    color=INK if right else _WRONG,
                )
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        figure.supxlabel(
            "most certain right and most certain wrong prediction of each hospital (probability); "
            "image, Grad-CAM, integrated gradients",
            fontsize=8,
        )
        return drawn(figure)


def figures_of(study: Study) -> dict[str, Figure]:
    """Examples of the chosen method, of the first split and seed.

    Nothing is drawn of several labels at once, which have no single prediction to explain.
    """
    if study.kind not in ("binary", "multiclass"):
        return {}
    first = study.populations[0]
    predicted = predictions_of(study.judge, study.outputs[study.chosen][0][0], first)
    return {"Test images, and what the shared model looks at": _examples(study, predicted)}


def _examples(study: Study, predicted: Predictions) -> Figure:
    rows = np.array([i for _, own in _chosen(predicted) for i in own if i is not None])
    images = np.asarray(study.populations[0].test.examples["x"])[rows]
    said, _ = said_labels(predicted)
    maps, parts = explained(
        study.learner.model, study.models[study.chosen], images, said[rows], study.kind
    )
    return examples_figure(
        images, predicted.take(rows), maps, parts, label_names=study.dataset.label_names
    )


def explained(
    model: Model, variables: Variables, images: np.ndarray, said: np.ndarray, kind: str
) -> tuple[np.ndarray, np.ndarray]:
    """Grad-CAM `[N, height, width]` and integrated gradients of what is said of each image `[N]`."""
    maps = np.zeros(images.shape[:3], np.float32)
    parts = np.zeros(images.shape, np.float32)
    for label in np.unique(said):
        rows = np.flatnonzero(said == label)
        output, sign = (0, 1.0 if label else -1.0) if kind == "binary" else (int(label), 1.0)
        own = images[rows]
        maps[rows] = grad_cam(model, variables, own, output=output, sign=sign)
        parts[rows] = sign * image_gradients(model, variables, own, output=output)
    return maps, parts


def _chosen(predictions: Predictions) -> list[tuple[int, list[int | None]]]:
    """Of the largest hospitals, in their order, a patient called right and one called wrong."""
    said, certainty = said_labels(predictions)
    right = said == np.asarray(predictions.labels)
    sizes = np.bincount(predictions.client, minlength=len(predictions.client_names))
    largest = np.sort(np.argsort(-sizes, kind="stable")[:_MOST_HOSPITALS])
    chosen = []
    for hospital in largest[sizes[largest] > 0]:
        patients: list[int | None] = []
        for outcome in (right, ~right):
            rows = np.flatnonzero((predictions.client == hospital) & outcome)
            patients.append(int(rows[np.argmax(certainty[rows])]) if len(rows) else None)
        chosen.append((int(hospital), patients))
    return chosen


def _panels(axes: np.ndarray, image: np.ndarray, heat: np.ndarray, part: np.ndarray) -> None:
    """An image, with a map over it, and beside its parts."""
    shown = image if image.dtype == np.uint8 else (image + 1) / 2
    gray = {"cmap": "gray"} if shown.shape[-1] == 1 else {}
    shown = shown[..., 0] if shown.shape[-1] == 1 else shown
    axes[0].imshow(shown, **gray)
    axes[1].imshow(shown, **gray)
    axes[1].imshow(heat, cmap="inferno", alpha=0.55, vmin=0, vmax=max(float(heat.max()), 1e-12))
    bound = max(float(np.abs(part).max()), 1e-12)
    axes[2].imshow(part, cmap="RdBu_r", vmin=-bound, vmax=bound)
