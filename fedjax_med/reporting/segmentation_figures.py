"""Scans with the outlines that a model drew beside the true ones, and Dice scan by scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedjax_med.evaluation import Predictions
from fedjax_med.evaluation.segmentation import dice_of_scans
from fedjax_med.reporting.figures import STYLE
from fedjax_med.reporting.palette import INK, client_style
from fedjax_med.studies import BASELINES, METHODS, Study
from fedjax_med.studies.judging import predictions

# Light enough on dark tissue, dark enough on bright, and apart for people with colour blindness.
_TRUE, _CALLED = "#56B4E9", "#E69F00"
_EACH = 3  # scans of every hospital
_MOST_HOSPITALS = 8


def outlines_figure(
    images: np.ndarray, truth: np.ndarray, called: np.ndarray, titles: Sequence[Sequence[str]]
) -> Figure:
    """Scans in rows and columns, with the true outlines and those of a model.

    Of a volume the slice is shown in which most is true, or else most is marked.

    Args:
      images: `[rows, columns, (depth,) height, width]`.
      truth: classes of the same shape.
      called: classes of the same shape.
      titles: above every scan `[rows][columns]`.
    """
    rows, columns = images.shape[:2]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.0 * columns, 2.1 * rows + 0.4), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for row in range(rows):
            for column in range(columns):
                scan = tuple(x[row, column] for x in (images, truth, called))
                image, true, mark = scan if images.ndim == 4 else _slice(*scan)
                axis = axes[row, column]
                low, high = np.quantile(image, [0.01, 0.995])
                axis.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
                for mask, colour, dashes in ((true, _TRUE, "-"), (mark, _CALLED, "--")):
                    for label in np.unique(mask[mask > 0]):
                        axis.contour(
                            np.pad(mask == label, 1),
                            [0.5],
                            colors=[colour],
                            linewidths=1.4,
                            linestyles=[dashes],
                            extent=(-1, image.shape[1], -1, image.shape[0]),
                        )
                axis.set_xlim(-0.5, image.shape[1] - 0.5)
                axis.set_ylim(image.shape[0] - 0.5, -0.5)
                axis.set_axis_off()
                axis.set_title(titles[row][column], fontsize=8)
        handles = [
            Line2D([], [], color=_TRUE, lw=2, label="true outline"),
            Line2D([], [], color=_CALLED, lw=2, ls="--", label="outline of the model"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
        return figure


def dice_figure(methods: Mapping[str, Predictions], label: int = 1) -> Figure:
    """Dice of every scan that has something to find, by hospital, with the median of each method.

    Args:
      methods: by title; outputs are classes, labels `SegmentationTruth`, of the same scans.
      label: the class.
    """
    first = next(iter(methods.values()))
    names = first.client_names
    rng = np.random.default_rng(0)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(6.0, 1.5 * len(names)), 3.8), layout="constrained")
        axes = figure.subplots()
        width = 0.8 / len(methods)
        for number, (title, predicted) in enumerate(methods.items()):
            colour, _ = client_style(number)
            dice = dice_of_scans(predicted.outputs, predicted.labels.mask, label)
            for hospital in range(len(names)):
                own = dice[(predicted.client == hospital) & ~np.isnan(dice)]
                if not own.size:
                    continue
                place = hospital + (number - (len(methods) - 1) / 2) * width
                spread = rng.uniform(-0.3, 0.3, own.size) * width
                axes.plot(place + spread, own, ".", color=colour, ms=5, alpha=0.6, mew=0)
                axes.plot(
                    [place - 0.4 * width, place + 0.4 * width],
                    [np.median(own)] * 2,
                    color=INK,
                    lw=2,
                )
            axes.plot([], [], "o", color=colour, label=title)
        axes.set_xticks(range(len(names)), names)
        axes.grid(axis="x", visible=False)
        axes.set_ylim(-0.02, 1.02)
        axes.set_ylabel("Dice of a scan")
        figure.legend(loc="outside lower center", ncols=len(methods), frameon=False)
        return figure


def figures_of(study: Study) -> dict[str, Figure]:
    """Outlines by the chosen method, and Dice by hospital of it and of what it is compared with."""
    first = study.populations[0]
    predicted = {
        name: predictions(study.judge, study.outputs[name][0][0], first)
        for name in ("local", study.chosen, "pooled")
    }
    titles = {
        name: METHODS[name].title if name in METHODS else BASELINES[name] for name in predicted
    }
    return {
        f"Scans of the test set, outlined by {titles[study.chosen]}": _examples(
            study, predicted[study.chosen]
        ),
        "Dice of every scan": dice_figure({titles[name]: p for name, p in predicted.items()}),
    }


def _examples(study: Study, predicted: Predictions) -> Figure:
    """Of every hospital the scans at the quartiles of Dice."""
    examples = study.populations[0].test.examples
    dice = dice_of_scans(predicted.outputs, predicted.labels.mask)
    rows, titles = [], []
    for hospital, name in enumerate(predicted.client_names):
        own = np.flatnonzero((predicted.client == hospital) & ~np.isnan(dice))
        if own.size and len(rows) < _MOST_HOSPITALS:
            ranked = own[np.argsort(dice[own], kind="stable")]
            shown = ranked[np.linspace(0, len(own) - 1, _EACH + 2).round().astype(int)[1:-1]]
            rows.append(shown)
            titles.append([f"{name}: {dice[i]:.2f}" for i in shown])
    # Hospitals are columns.
    chosen = np.stack(rows, axis=1)
    return outlines_figure(
        examples["x"][chosen][..., 0],
        examples["mask"][chosen],
        predicted.outputs[chosen],
        list(zip(*titles, strict=True)),
    )


def _slice(
    image: np.ndarray, truth: np.ndarray, called: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shown = truth if truth.any() else called
    depth = int(np.argmax((shown > 0).sum(axis=(1, 2)))) if shown.any() else len(image) // 2
    return image[depth], truth[depth], called[depth]
