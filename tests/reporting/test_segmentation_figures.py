"""Outlines run around the voxels that they are of; dots are the Dice of the scans."""

import numpy as np
import pytest

from fedjax_med.evaluation import Predictions, SegmentationTruth
from fedjax_med.evaluation.segmentation import dice_of_scans
from fedjax_med.reporting.figures import as_svg
from fedjax_med.reporting.segmentation_figures import dice_figure, outlines_figure


def outlines(axes):
    """Corners of every outline in the picture, `[corners, 2]`, as (column, row)."""
    return [path.vertices for c in axes.collections for path in c.get_paths() if len(path.vertices)]


@pytest.mark.parametrize("dims", [2, 3])
def test_outlines_lie_half_a_voxel_around_the_masks(dims):
    size = (6, 8, 9)[-dims:]
    image = np.random.default_rng(0).random(size)
    truth, called = np.zeros((2, *size), int)
    where = (2, 5, 4)[-dims:]  # of a volume, this slice is shown
    truth[where] = 1
    called[(*where[:-2], slice(0, 2), slice(0, 3))] = 1  # at the edge of the scan
    figure = outlines_figure(image[None, None], truth[None, None], called[None, None], [["A: 0"]])
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "A: 0"
    one, other = outlines(axes)
    np.testing.assert_allclose([one.min(0), one.max(0)], [[3.5, 4.5], [4.5, 5.5]])
    np.testing.assert_allclose([other.min(0), other.max(0)], [[-0.5, -0.5], [2.5, 1.5]])
    shown = axes.images[0].get_array()
    np.testing.assert_array_equal(shown, image if dims == 2 else image[2])
    assert "<path" in as_svg(figure, "outlines")


def test_dots_are_the_dice_of_the_scans_of_each_hospital():
    rng = np.random.default_rng(1)
    mask = (rng.random((12, 5, 5)) < 0.4).astype(int)
    mask[0] = 0  # nothing to find
    truth = SegmentationTruth(mask, np.ones((12, 2)))
    client = np.repeat([0, 1], 6)
    methods = {
        name: Predictions((rng.random(mask.shape) < share).astype(int), truth, client, ("A", "B"))
        for name, share in (("local", 0.3), ("pooled", 0.7))
    }
    axes = dice_figure(methods).axes[0]
    drawn = [line.get_ydata() for line in axes.lines if line.get_marker() == "."]
    medians = [line.get_ydata()[0] for line in axes.lines if line.get_color() == "#1f2933"]
    want = []
    for predicted in methods.values():
        dice = dice_of_scans(predicted.outputs, mask)
        want += [dice[1:6], dice[6:]]
    for got, expected, median in zip(drawn, want, medians, strict=True):
        np.testing.assert_allclose(got, expected)
        assert median == pytest.approx(np.median(expected))
    assert [t.get_text() for t in axes.get_xticklabels()] == ["A", "B"]
