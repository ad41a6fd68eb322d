"""Figures of images: which are chosen, what is counted, and that they can be drawn."""

import dataclasses

import numpy as np
import pytest

from fedjax_med.evaluation import Predictions
from fedjax_med.evaluation.ranking import auroc
from fedjax_med.reporting.classification_figures import (
    confusion_figure,
    roc_figure,
    roc_points,
)
from fedjax_med.reporting.figures import as_svg
from fedjax_med.reporting.image_figures import (
    _chosen,
    examples_figure,
)

LABELS = np.array([0, 1, 1, 0, 1, 0])
PROBABILITY = np.array([0.1, 0.9, 0.2, 0.6, 0.7, 0.3])
HOSPITAL = np.array([0, 0, 0, 1, 1, 1])
PREDICTIONS = Predictions(PROBABILITY, LABELS, HOSPITAL, ("North", "South"))
IMAGES = np.random.default_rng(0).integers(256, size=(6, 5, 7, 1)).astype(np.uint8)
MAPS = np.random.default_rng(1).random((6, 5, 7))
PARTS = np.random.default_rng(2).standard_normal((6, 5, 7, 1))


def texts(figure):
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    return found + [axes.get_title(loc) for axes in figure.axes for loc in ("left", "center")]


def test_the_most_certain_right_and_wrong_of_each_hospital_are_shown():
    assert _chosen(PREDICTIONS) == [(0, [0, 2]), (1, [4, 3])]
    everybody_right = dataclasses.replace(PREDICTIONS, outputs=LABELS * 0.8 + 0.1)
    assert _chosen(everybody_right) == [(0, [0, None]), (1, [3, None])]
    figure = examples_figure(IMAGES, PREDICTIONS, MAPS, PARTS, label_names=("well", "ill"))
    found = texts(figure)
    for words in ("North", "South", "well (0.90)", "ill, called well (0.80)", "ill (0.70)"):
        assert words in found
    assert as_svg(figure, "examples").startswith("<svg")
    colour = np.repeat(IMAGES, 3, axis=3)
    classes = np.stack([1 - PROBABILITY, PROBABILITY], axis=1)
    of_classes = dataclasses.replace(PREDICTIONS, outputs=classes)
    assert "1, called 0 (0.80)" in texts(examples_figure(colour, of_classes, MAPS, PARTS[..., 0]))


def test_errors_are_counted():
    figure = confusion_figure(PREDICTIONS, label_names=("well", "ill"))
    # Called ill at 0.5 or more: of three that are well one, of three that are ill two.
    assert [t.get_text() for t in figure.axes[0].texts] == ["2\n67%", "1\n33%", "1\n33%", "2\n67%"]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["well", "ill"]


def test_the_area_under_the_curve_is_the_auroc():
    rng = np.random.default_rng(0)
    probability = np.round(rng.random(200), 1)  # with many that are equal
    labels = (rng.random(200) < 0.3 + 0.4 * probability).astype(int)
    alarms, found = roc_points(probability, labels)
    assert (alarms[0], found[0], alarms[-1], found[-1]) == (0, 0, 1, 1)
    area = np.trapezoid(found, alarms)
    assert area == pytest.approx(float(auroc(probability, labels, np.ones(200))), abs=1e-12)
    shown = [t.get_text() for t in roc_figure(PREDICTIONS).legends[0].get_texts()]
    # 7 of the 9 pairs of all patients are in order; at North 1 of 2, at South 2 of 2.
    assert shown == ["North: AUROC 1.000", "South: AUROC 1.000", "all patients: AUROC 0.778"]


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(ValueError, match=r"must be of the same images, got \[5, 6, 6, 6\]"):
        examples_figure(IMAGES[:5], PREDICTIONS, MAPS, PARTS)
    with pytest.raises(ValueError, match="labels must hold 0 and 1 for a ROC curve"):
        roc_figure(dataclasses.replace(PREDICTIONS, labels=np.ones(6, int)))
    nobody = Predictions(np.zeros(0), np.zeros(0, int), np.zeros(0, int), ("North",))
    with pytest.raises(ValueError, match="predictions must have at least one patient, got none"):
        confusion_figure(nobody)
