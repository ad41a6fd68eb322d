import numpy as np
import pytest
from sklearn.metrics import roc_curve

from fedjax_med.evaluation import Predictions
from fedjax_med.explanation.visits import CodeImportance
from fedjax_med.reporting.figures import as_svg
from fedjax_med.reporting.visit_figures import (
    code_importance_figure,
    code_map,
    record_figure,
    roc_figure,
)

NAMES = ("no code", "surgery", "infection", "asthma")
RECORD = {
    "codes": np.array([[1, 3], [2, 0], [3, 0], [2, 2]]),
    "visits": np.int32(3),
    "gap": np.array([0.0, 20.0, 100.0, 7.0]),
}
PARTS = np.array([[0.2, -0.1], [1.5, 0.0], [-0.3, 0.0], [9.0, 9.0]])


def texts(axes):
    return [tick.get_text() for tick in axes.get_yticklabels()]


def test_a_record_shows_each_code_on_its_day_with_its_part():
    figure = record_figure(RECORD, PARTS, NAMES, effects=np.array([0.5, 1.0, -0.2, 9.0]))
    top, axes = figure.axes[:2]
    assert texts(axes) == ["asthma", "surgery", "infection"]
    points = axes.collections[0]
    found = dict(zip(map(tuple, points.get_offsets().data), points.get_array().data, strict=True))
    # What lies behind the third visit is not drawn.
    assert found == {(0, 1): 0.2, (0, 0): -0.1, (20, 2): 1.5, (120, 0): -0.3}
    assert top.lines[0].get_xydata().tolist() == [[0, 0.5], [20, 1.0], [120, -0.2]]
    assert axes.get_xlabel() == "days since the first visit"
    assert as_svg(figure, "record").startswith("<svg")


def test_records_without_days_and_with_many_codes():
    record = {key: leaf for key, leaf in RECORD.items() if key != "gap"}
    figure = record_figure(record, PARTS, NAMES, most=2)
    axes = figure.axes[0]
    # The two with the largest parts: 1.5, and 0.1 + 0.3.
    assert texts(axes) == ["asthma", "infection"]
    assert "1 codes not shown" in axes.get_title("left")
    assert axes.get_xlabel() == "visit"
    empty = {"codes": np.zeros((2, 2), int), "visits": 2}
    with pytest.raises(ValueError, match="record must have at least one code, got none"):
        record_figure(empty, np.zeros((2, 2)), NAMES)


def test_a_map_keeps_distances_of_two_dimensions_and_says_how_much_it_shows():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(7, 2)) * [3, 1]
    turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    embeddings = np.pad(plane, ((0, 0), (0, 3))) @ turn + 4
    figure = code_map(embeddings, ["a", "a", "b", "", "b", "a", ""])
    drawn = np.concatenate([line.get_xydata() for line in figure.axes[0].lines])
    order = [3, 6, 0, 1, 5, 2, 4]  # those without a group first, then group by group
    distance = lambda x: np.linalg.norm(x[:, None] - x[None], axis=2)
    np.testing.assert_allclose(distance(drawn), distance(plane[order]), atol=1e-9)
    assert "second (" in figure.axes[0].get_ylabel()
    with pytest.raises(ValueError, match="at least 2 codes with a group each, got 7 and 1"):
        code_map(embeddings, ["a"])


def test_curves_are_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 60)
    scores = np.round(rng.random(60), 1)  # with ties
    client = np.repeat([0, 1, 2], [30, 29, 1])
    figure = roc_figure(Predictions(scores, labels, client, ("North", "South", "East")))
    lines = figure.axes[0].lines[1:]
    assert len(lines) == 3  # East has one patient, of whom there is no curve
    for line, rows in zip(lines, (slice(None), slice(30), slice(30, 59)), strict=True):
        want = roc_curve(labels[rows], scores[rows], drop_intermediate=False)[:2]
        np.testing.assert_allclose(line.get_xydata().T, want, atol=1e-12)
    with pytest.raises(ValueError, match="patients with and without the outcome"):
        roc_figure(Predictions(scores, np.ones(60, int), client, ("North", "South", "East")))


def test_importance_is_drawn_from_the_largest_down():
    importance = CodeImportance(
        ("a", "b", "c"),
        0.8,
        np.array([0.1, 0.3, np.nan]),
        {"North": np.array([0.2, 0.3, np.nan]), "South": np.array([0.0, 0.3, np.nan])},
        {"North": 10, "South": 20},
    )
    figure = code_importance_figure(importance, "AUROC", most=2)
    axes = figure.axes[0]
    assert texts(axes) == ["b", "a"]
    assert [bar.get_width() for bar in axes.patches] == [0.3, 0.1]
    assert "n = 30, AUROC 0.800" in axes.get_title("left")
