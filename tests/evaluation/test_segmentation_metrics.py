"""Overlap and distance of outlines, against brute force over all pairs of surface voxels."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_med.evaluation import (
    Predictions,
    SegmentationTruth,
    judge,
    judged_by,
    segmentation_metrics,
)
from fedjax_med.evaluation.segmentation import (
    BROKEN,
    called_classes,
    dice_of_scans,
    hausdorff_of_scans,
    true_outlines,
)


def surface(mask):
    """Voxels of which a neighbour along an axis is not in the mask, or not in the scan."""
    places = []
    for place in np.argwhere(mask):
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            other = place.copy()
            other[axis] += step
            inside = (other >= 0).all() and (other < mask.shape).all()
            if not inside or not mask[tuple(other)]:
                places.append(place)
                break
    return np.array(places, np.float64)


def brute_force(called, mask, spacing, percentile):
    one, other = surface(called) * spacing, surface(mask) * spacing
    pairs = np.linalg.norm(one[:, None] - other[None], axis=-1)
    directed = [np.percentile(pairs.min(axis=k), percentile) for k in (0, 1)]
    return max(directed)


@pytest.mark.parametrize("size", [(9, 7), (5, 4, 6)], ids=str)
@pytest.mark.parametrize("percentile", [95.0, 100.0])
@settings(max_examples=15)
@given(seed=st.integers(0, 2**31 - 1))
def test_distances_are_those_between_all_pairs(size, percentile, seed):
    rng = np.random.default_rng(seed)
    spacing = rng.uniform(0.3, 3.0, (1, len(size)))
    mask, called = (rng.random((2, 1, *size)) < rng.uniform(0.05, 0.9)).astype(np.int32)
    mask[0, ..., 0], called[0, ..., -1] = 1, 1  # none is empty
    got = hausdorff_of_scans(called, mask, spacing, percentile=percentile)
    # Square roots of the same sums of a few squares, in other orders.
    want = brute_force(called[0] == 1, mask[0] == 1, spacing[0], percentile)
    np.testing.assert_allclose(got, [want], rtol=1e-12)
    back = hausdorff_of_scans(mask, called, spacing, percentile=percentile)
    np.testing.assert_allclose(back, got, rtol=1e-12)  # symmetric


def test_known_overlaps_and_distances():
    mask = np.zeros((3, 8, 8), np.int32)
    called = np.zeros((3, 8, 8), np.int32)
    mask[:, 2:4, 2:4] = 1
    called[0] = mask[0]
    called[1, 2:4, 3:5] = 1  # half of it, shifted by one pixel
    called[2, 2:4, 6:8] = 1  # beside it
    np.testing.assert_allclose(dice_of_scans(called, mask), [1, 0.5, 0])
    spacing = np.tile([1.0, 2.5], (3, 1))
    np.testing.assert_allclose(hausdorff_of_scans(called, mask, spacing), [0, 2.5, 10])


def test_empty_masks_have_defined_results():
    mask = np.zeros((3, 4, 3), np.int32)
    called = np.zeros((3, 4, 3), np.int32)
    mask[0, 1, 1] = 1  # missed
    called[1, 1, 1] = 1  # a false alarm; of the third scan, nothing is said and nothing is true
    spacing = np.tile([1.0, 2.0], (3, 1))
    np.testing.assert_array_equal(dice_of_scans(called, mask), [0, np.nan, np.nan])
    diagonal = np.hypot(4 * 1.0, 3 * 2.0)
    np.testing.assert_allclose(
        hausdorff_of_scans(called, mask, spacing), [diagonal, np.nan, np.nan]
    )
    truth = SegmentationTruth(mask, spacing)
    metrics = segmentation_metrics()
    value = {name: float(m.compute(called, truth, np.ones(3))) for name, m in metrics.items()}
    assert value == pytest.approx({"dice": 0.0, "hd95": diagonal, "false_alarm_rate": 0.5})
    healthy = {name: m.compute(called, truth, np.array([0.0, 1, 1])) for name, m in metrics.items()}
    assert np.isnan(healthy["dice"]) and np.isnan(healthy["hd95"])
    ill = {name: m.compute(called, truth, np.array([1.0, 0, 0])) for name, m in metrics.items()}
    assert np.isnan(ill["false_alarm_rate"])


def test_classes_of_a_scan_count_alike_and_scans_by_weight():
    mask = np.zeros((2, 4, 4), np.int32)
    called = np.zeros((2, 4, 4), np.int32)
    mask[0, 0], mask[0, 1] = 1, 2
    called[0, 0], called[0, 1, :2] = 1, 2  # class 1 right, class 2 half found: 2 * 2 / (2 + 4)
    mask[1, 0] = 2  # missed; there is no class 1
    truth = SegmentationTruth(mask, np.ones((2, 2)))
    metrics = segmentation_metrics(["background", "kidney", "tumour"])
    at = lambda name, *weight: float(metrics[name].compute(called, truth, np.array(weight)))
    assert at("dice", 1.0, 0) == pytest.approx((1 + 2 / 3) / 2)
    assert at("dice", 1.0, 1) == pytest.approx((1 + 2 / 3) / 4)
    assert at("dice", 3.0, 1) == pytest.approx(3 * (1 + 2 / 3) / 8)
    assert at("dice_kidney", 1.0, 1) == 1
    assert at("dice_tumour", 1.0, 1) == pytest.approx(1 / 3)
    assert at("hd95_tumour", 0.0, 1) == pytest.approx(np.hypot(4, 4))


def test_a_broken_output_is_not_a_bad_one():
    logits = np.zeros((2, 3, 3, 2), np.float32)
    logits[0, 1, 1, 1] = np.nan
    logits[1, 0, 0, 1] = 1.0
    called = called_classes(logits)
    assert (called[0] == BROKEN).all() and called[1].sum() == 1
    truth = true_outlines({"mask": np.ones((2, 3, 3), np.int32)})
    dice = segmentation_metrics()["dice"]
    assert np.isnan(dice.compute(called, truth, np.ones(2)))
    assert dice.compute(called, truth, np.array([0.0, 1])) == pytest.approx(0.2)


def test_scans_are_judged_per_hospital_with_intervals():
    rng = np.random.default_rng(0)
    num = 24
    mask = (rng.random((num, 6, 6)) < 0.3).astype(np.int32)
    wrong = rng.random((num, 6, 6)) < np.linspace(0.05, 0.4, num)[:, None, None]
    logits = np.stack([1.0 - (mask ^ wrong), mask ^ wrong], axis=-1)
    link, labels, metrics = judged_by("segmentation")
    examples = {"mask": mask, "spacing": np.full((num, 2), 2.0, np.float32)}
    client = np.repeat([0, 1], num // 2)
    found = judge(
        Predictions(link(logits), labels(examples), client, ("A", "B")), metrics, num_resamples=200
    )
    for metric in ("dice", "hd95"):
        pooled = found.pooled.metrics[metric]
        assert pooled.low < pooled.value < pooled.high
    one, two = (found.per_hospital[name].metrics["dice"] for name in "AB")
    assert one.low > two.high  # twelve scans each, of 5 to 22 % and of 23 to 40 % wrong pixels
    assert found.gaps["dice"].worst_name == "B"
    own = dice_of_scans(link(logits), mask)
    assert one.value == pytest.approx(own[:12].mean())


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda a: dice_of_scans(a, a[:, :2]),
            "called and mask must have one shape, got [1, 3, 3] and [1, 2, 3].",
        ),
        (
            lambda a: hausdorff_of_scans(a, a, np.ones((1, 3))),
            "spacing must have shape [1, 2], got [1, 3].",
        ),
        (
            lambda a: segmentation_metrics()["dice"].of(a[:, :2], true_outlines({"mask": a})),
            "outputs must be classes of shape [1, 3, 3], got [1, 2, 3].",
        ),
    ],
)
def test_shapes_that_differ_are_named(call, message):
    with pytest.raises(ValueError) as error:
        call(np.ones((1, 3, 3), np.int32))
    assert str(error.value) == message
