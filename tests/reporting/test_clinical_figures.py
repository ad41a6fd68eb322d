"""Figures for clinicians: what they say, and that nothing is cut off or written over."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from fedjax_med.evaluation import Outcome, Predictions, binary_metrics, judge, log_rank
from fedjax_med.evaluation.calibration import reliability_curve
from fedjax_med.explanation import (
    Attribution,
    Attributions,
    Coefficients,
    CoefficientTable,
    Importance,
    PartialDependence,
    PermutationImportance,
)
from fedjax_med.reporting.clinical_figures import (
    kaplan_meier_figure,
    metric_forest,
    reliability_figure,
    subgroup_forest,
)
from fedjax_med.reporting.explanation_figures import (
    attribution_figure,
    coefficients_figure,
    dependence_figure,
    importance_figure,
)

NAMES = ("General hospital of the north", "VA Long Beach", "C")


def texts(figure):
    found = figure.findobj(lambda a: isinstance(a, Text) and a.get_visible() and a.get_text())
    return {text.get_text(): text for text in found}


def check_layout(figure):
    """All text lies within the figure, and no label of a row covers another."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    page = figure.bbox.padded(2)  # half a pixel of rounding at each side, at 100 dpi
    hidden = [axes for axes in figure.axes if not axes.get_visible() or not axes.axison]
    # Ticks beyond the limits of their axis exist, but are not drawn.
    not_drawn = {id(label) for axes in figure.axes for label in axes.get_xticklabels()}
    for axes in figure.axes:
        low, high = sorted(axes.get_ylim())
        for label, at in zip(axes.get_yticklabels(), axes.get_yticks(), strict=False):
            if axes in hidden or not low <= at <= high:
                not_drawn.add(id(label))
    for text in texts(figure).values():
        if id(text) in not_drawn:
            continue
        box = text.get_window_extent(renderer)
        assert page.x0 <= box.x0 and box.x1 <= page.x1, text.get_text()
        assert page.y0 <= box.y0 and box.y1 <= page.y1, text.get_text()
    titles = [axes._left_title for axes in figure.axes]
    titles = [t.get_window_extent(renderer) for t in titles if t.get_text()]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(titles, 2))
    for axes in figure.axes:
        boxes = [t.get_window_extent(renderer) for t in axes.get_yticklabels() if t.get_text()]
        middles = np.sort([(box.y0 + box.y1) / 2 for box in boxes])
        if len(boxes) > 1 and axes.get_visible() and axes.axison:
            assert np.diff(middles).min() > 0.8 * min(box.height for box in boxes)


@pytest.fixture(scope="module")
def predictions():
    rng = np.random.default_rng(0)
    client = np.repeat([0, 1, 2], [60, 30, 12])
    probability = rng.random(102)
    label = (rng.random(102) < probability).astype(int)
    groups = {"sex": np.where(rng.random(102) < 0.5, "female", "male")}
    return Predictions(probability, label, client, NAMES, groups)


@pytest.fixture(scope="module")
def judgements(predictions):
    metrics = {name: binary_metrics()[name] for name in ("auroc", "brier")}
    labels = np.where(predictions.client == 2, 1, predictions.labels)  # C has no AUROC
    other = Predictions(
        predictions.outputs**2, labels, predictions.client, NAMES, predictions.groups
    )
    return {
        "federated": judge(predictions, metrics, num_resamples=30),
        "local only": judge(other, metrics, num_resamples=30),
    }


def test_survival_by_group_says_numbers_at_risk_medians_and_the_test():
    time = np.array([5.0, 10, 20, 30, 40, 2, 3, 4, 8, 100])
    event = np.array([1, 1, 1, 0, 0, 1, 1, 1, 1, 0])
    group = np.repeat([0, 1], 5)
    figure = kaplan_meier_figure(Outcome(time, event), group, ["low", "high"])
    said = texts(figure)
    assert "low, n = 5, median 20 days" in said and "high, n = 5, median 4 days" in said
    p = log_rank(Outcome(time, event), group).p_value
    assert f"log-rank p = {p:.3f}" in said
    table = {(t.get_position()[0], t.get_position()[1]): t.get_text() for t in figure.axes[1].texts}
    assert table[0, 0] == table[0, 1] == "5"
    for (tick, row), text in table.items():
        assert int(text) == (time[group == row] >= tick).sum()
    check_layout(figure)
    with pytest.raises(ValueError, match="at least one patient"):
        kaplan_meier_figure(Outcome(time[:0], event[:0]), group[:0])


def test_calibration_has_a_panel_per_hospital_with_the_points_of_its_curve(
    predictions, monkeypatch
):
    figure = reliability_figure(predictions)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert "all patients\n(n = 102)" in titles and "VA Long Beach\n(n = 30)" in titles
    axes = figure.axes[titles.index("VA Long Beach\n(n = 30)")]
    own = predictions.take(predictions.client == 1)
    curve = reliability_curve(own.outputs, own.labels, num_bins=3, quantiles=True)
    line = next(line for line in axes.lines if line.get_marker() == "o")
    np.testing.assert_allclose(line.get_xydata(), np.stack([curve.predicted, curve.observed], 1))
    check_layout(figure)
    monkeypatch.setattr("fedjax_med.reporting.clinical_figures._MOST_PANELS", 2)
    assert "Calibration (2 smaller hospitals not shown)" in texts(reliability_figure(predictions))
    with pytest.raises(ValueError, match="at least one patient"):
        reliability_figure(predictions.take(np.zeros(102, bool)))


def test_forests_have_a_row_per_hospital_or_group_and_say_the_numbers(judgements):
    figure = metric_forest(judgements, "auroc", label="AUROC")
    said = texts(figure)
    assert f"{NAMES[0]} (n = 60)" in said and "not defined" in said and "mean of hospitals" in said
    value = judgements["federated"].pooled.metrics["auroc"]
    assert f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]" in said
    assert judgements["federated"].description in said
    check_layout(figure)
    figure = subgroup_forest({"federated": judgements["federated"]}, "brier")
    sizes = judgements["federated"].subgroups["sex"]
    assert f"female (n = {sizes['female'].patients})" in texts(figure)
    check_layout(figure)
    with pytest.raises(ValueError, match="metric must be one of auroc, brier, got 'f1'"):
        metric_forest(judgements, "f1")
    with pytest.raises(ValueError, match="at least one method"):
        subgroup_forest({}, "auroc")


def table(value, se):
    value, se = np.array(value), np.array(se)
    return CoefficientTable(value, se, value - 2 * se, value + 2 * se, np.zeros(len(value)))


def test_coefficients_are_drawn_as_ratios_of_the_amounts_asked_for():
    found = Coefficients(
        ("age", "female", "intercept"),
        np.array([False, False, True]),
        table([0.05, -0.7, 1.0], [0.01, 0.3, 0.1]),
        {name: table([0.04, -0.5, 0.0], [0.1, 0.5, 0.1]) for name in NAMES},
        np.eye(3),
        dict.fromkeys(NAMES, 20),
        0.0,
        0.95,
        "information",
    )
    figure = coefficients_figure(
        found,
        ratio="odds ratio",
        per={"age": 10.0},
        units={"age": "10 years"},
        title="Odds ratios of a disease with a name that is long, by hospital and of all",
    )
    said = texts(figure)
    # exp(0.5) = 1.65, exp(0.5 - 0.2) = 1.35, exp(0.5 + 0.2) = 2.01
    assert "1.65 [1.35, 2.01]" in said and "age [10 years]" in said and "intercept" not in said
    assert (
        any(text.endswith("of all (n = 60)") for text in said)
        and figure.axes[0].get_xscale() == "log"
    )
    check_layout(figure)
    plain = coefficients_figure(found)
    assert "-0.70 [-1.30, -0.10]" in texts(plain) and plain.axes[0].get_xscale() == "linear"


def test_bars_are_the_most_important_columns_first():
    columns = tuple(f"c{i}" for i in range(20))
    mean = np.linspace(0, 0.1, 20)
    mean[3] = np.nan
    found = PermutationImportance(
        columns,
        Importance(0.8, mean, mean / 10),
        Importance(0.81, mean, mean),
        {name: Importance(0.8, mean + 0.01, mean) for name in NAMES},
        dict.fromkeys(NAMES, 20),
        5,
    )
    figure = importance_figure(found, "AUROC", most=4)
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["c19", "c18", "c17", "c16"]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], mean[:15:-1])
    assert "Permutation importance (n = 60, AUROC 0.800), 16 columns not shown" in texts(figure)
    check_layout(figure)
    several = {f"h{i}": Attribution(mean, mean) for i in range(9)}
    gradients = Attributions(
        columns, Attribution(mean, mean), several, mean, 0.0, dict.fromkeys(several, 2)
    )
    figure = attribution_figure(gradients)
    assert "each hospital" in texts(figure) and "h0" not in texts(figure)
    check_layout(figure)


def test_partial_dependence_has_a_panel_per_column():
    grid = np.linspace(40, 80, 5)
    per_hospital = {name: grid / (100 + i) for i, name in enumerate(NAMES)}
    sizes = dict.fromkeys(NAMES, 20)
    age = PartialDependence("age", grid, (), grid / 100, per_hospital, np.zeros((2, 5)), sizes)
    kinds = ("none of them", "mild")
    pain = PartialDependence(
        "pain", np.arange(2.0), kinds, np.array([0.2, 0.4]),
        {name: np.array([0.1, 0.5]) for name in NAMES}, np.zeros((0, 2)), sizes,
    )  # fmt: skip
    figure = dependence_figure([age, pain], units={"age": "years"})
    said = texts(figure)
    assert {"age [years]", "pain", "none\nof\nthem", "Partial dependence (n = 60)"} <= set(said)
    thick = max(figure.axes[0].lines, key=lambda line: line.get_linewidth())
    np.testing.assert_array_equal(thick.get_ydata(), grid / 100)
    check_layout(figure)
    with pytest.raises(ValueError, match="at least one column"):
        dependence_figure([])
