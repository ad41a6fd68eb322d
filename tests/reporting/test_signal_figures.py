"""Figures of signals and streams: what they say, and that nothing lies outside of the page."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.text import Text

from fedjax_med.reporting.figures import as_svg
from fedjax_med.reporting.signal_figures import beats_figure, confusion_figure, stream_figure

RNG = np.random.default_rng(0)


def texts(figure):
    found = figure.findobj(lambda a: isinstance(a, Text) and a.get_visible() and a.get_text())
    return [text.get_text() for text in found]


def check_layout(figure):
    """Titles, labels and legends lie within the page."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    page = figure.bbox.padded(2)
    for axes in figure.axes:
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts):
            if text.get_text() and axes.get_visible():
                box = text.get_window_extent(renderer)
                assert page.x0 <= box.x0 and box.x1 <= page.x1, text.get_text()
                assert page.y0 <= box.y0 and box.y1 <= page.y1, text.get_text()
    for legend in figure.legends:
        box = legend.get_window_extent(renderer)
        assert page.x0 <= box.x0 and box.x1 <= page.x1


def test_beats_are_coloured_by_their_own_attributions():
    x = RNG.normal(size=(4, 50))
    parts = np.zeros((4, 50))
    parts[1, 20:30], parts[1, 35:40] = 2.0, -0.5
    figure = beats_figure(x, parts, ["a", "b", "c", "d"], rate=100.0, before=10.0)
    check_layout(figure)
    drawn = [c for axes in figure.axes for c in axes.collections if isinstance(c, LineCollection)]
    lines = [c for c in drawn if c.get_array() is not None]
    assert len(lines) == 4 and {"a", "b", "c", "d", "mV", "for", "against"} <= set(texts(figure))
    colours = lines[1].get_array()
    assert colours.max() == 1.0 and colours[20:29].min() > 0.5 and colours[35:39].max() < 0
    assert np.abs(lines[0].get_array()).max() == 0
    seconds = np.array(lines[1].get_segments())[:, 0, 0]
    np.testing.assert_allclose(seconds[[0, 10]], [-0.1, 0.0], atol=1e-12)
    assert as_svg(figure, "beats").startswith("<svg")


def test_confusion_shows_shares_of_true_classes():
    counts = np.array([[90, 10, 0], [5, 15, 0], [0, 0, 0]])
    figure = confusion_figure(counts, ("N", "S", "V"))
    check_layout(figure)
    said = texts(figure)
    assert {"90 %\n90", "10 %\n10", "25 %\n5", "75 %\n15", "N (100)", "V (0)"} <= set(said)
    assert said.count("none") == 3


def test_streams_show_values_arrivals_and_alarms():
    values = {"window": np.linspace(0, 1, 12), "frozen": np.full(12, 0.4)}
    values["window"][0] = np.nan
    figure = stream_figure(
        values, np.arange(12), [(5, "Clinic 1"), (5, "server"), (5, "server")], drift=5
    )
    check_layout(figure)
    bars = [patch.get_height() for patch in figure.axes[1].patches]
    assert bars[5] == 2 and sum(bars) == 2
    assert [patch.get_height() for patch in figure.axes[2].patches] == list(range(12))
    assert {"window", "frozen", "drift"} <= set(texts(figure))
    without = stream_figure(values, np.arange(12))
    assert len(without.axes) == 2 and "drift" not in texts(without)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: beats_figure(np.ones((2, 5)), np.ones((2, 4)), ["a", "b"], rate=1.0), "K titles"),
        (lambda: beats_figure(np.ones((0, 5)), np.ones((0, 5)), [], rate=1.0), "at least one"),
        (lambda: confusion_figure(np.ones((2, 2)), ("a",)), r"\[1, 1\] for 1 names"),
        (lambda: stream_figure({"a": np.ones(3)}, np.ones(4)), "each of 4 periods"),
        (lambda: stream_figure({}, np.ones(4)), "each of 4 periods"),
    ],
)
def test_bad_shapes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
