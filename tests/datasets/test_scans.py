"""Generated scans hold the lesions that they say, and scanners differ in what they say."""

import numpy as np
import pytest
from scipy import stats

from fedjax_med.data import DataError
from fedjax_med.datasets import synthetic_scans
from fedjax_med.datasets.scans import SCANNERS, Scanner, at_shift

CLEAR = Scanner("Clear", noise=0.0, resolution_mm=0.0)


def scans(*scanners, **options):
    made = synthetic_scans(scanners=scanners, validation_patients=0, test_patients=0, **options)
    return [made.train.client(i) for i in range(len(scanners))]


def mean_of(scanner, **options):
    """Mean image of many patients, from air to tissue."""
    (examples,) = scans(scanner._replace(patients=100), **options)
    return examples["x"][..., 0].mean(axis=0)


@pytest.mark.parametrize("dims, size", [(2, (32, 24)), (3, (8, 12, 10))], ids=["2-D", "3-D"])
def test_shapes_spacing_and_splits(dims, size):
    made = synthetic_scans(dims, size, test_patients=3, validation_patients=2)
    assert made.client_names == tuple(scanner.name for scanner in SCANNERS)
    assert made.train.sizes.tolist() == [scanner.patients for scanner in SCANNERS]
    for split, arrays in made.splits().items():
        examples = arrays.examples
        assert examples["x"].shape[1:] == (*size, 1) and examples["x"].dtype == np.float32
        assert examples["mask"].shape[1:] == size and examples["mask"].dtype == np.int32
        np.testing.assert_allclose(examples["spacing"] * size, 192, rtol=1e-6)
        if split != "train":
            assert (arrays.sizes == (3 if split == "test" else 2)).all()


def test_lesions_are_where_the_mask_says_and_as_bright_as_the_scanner_says():
    """The same patients with and without contrast of lesions differ in lesions and nowhere else."""
    bright, plain = scans(CLEAR, CLEAR._replace(name="Plain")), None
    (plain,) = scans(CLEAR._replace(lesion_contrast=0.0))
    difference = (bright[0]["x"] - plain["x"])[..., 0]
    mask = bright[0]["mask"]
    np.testing.assert_array_equal(mask, plain["mask"])
    assert (np.abs(difference) > 0.15).mean() > 0.005
    # The edge of a lesion is a tenth of its radius wide and half as bright as its middle; the body's
    # own edge is softer, and lesions may overlap.
    inside, outside = difference[mask == 1], difference[mask == 0]
    assert np.median(inside) == pytest.approx(0.3, abs=0.02)
    assert (inside > 0.14).mean() > 0.97
    assert (outside < 0.16).mean() > 0.995


def test_prevalence_is_that_of_the_scanner():
    many = Scanner("Many", patients=400, prevalence=0.3)
    (examples,) = scans(many)
    ill = examples["mask"].any(axis=(1, 2)).sum()
    assert 0.001 < stats.binomtest(int(ill), 400, 0.3).pvalue
    assert stats.binomtest(int(ill), 400, 0.4).pvalue < 0.01  # another prevalence would be seen


def test_larger_lesions_have_larger_masks():
    area = [
        e["mask"].sum() / e["mask"].any(axis=(1, 2)).sum()
        for e in scans(CLEAR, CLEAR._replace(name="Large", lesion_mm=27.0))
    ]
    assert 1.4 < area[1] / area[0] < 1.5**2 * 1.3  # half as large again; some are cut by the body


def test_what_each_property_of_a_scanner_does():
    clear = mean_of(CLEAR)
    tissue, air = clear[12:20, 12:20].mean(), clear[0, 0]
    assert air < 1e-4 and 0.4 < tissue < 0.6
    np.testing.assert_allclose(
        mean_of(CLEAR._replace(gain=2.0, offset=0.5)), 2 * clear + 0.5, rtol=1e-4, atol=1e-6
    )
    assert mean_of(CLEAR._replace(gamma=2.0))[12:20, 12:20].mean() < 0.7 * tissue
    # Rician noise lifts air to sqrt(pi / 2) of its standard deviation and leaves tissue.
    noisy = mean_of(CLEAR._replace(noise=0.05))
    assert noisy[:4, :4].mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.06)
    assert noisy[12:20, 12:20].mean() == pytest.approx(tissue, rel=0.02)
    for change in ({"resolution_mm": 24.0}, {"ringing": 0.6}):
        edges = np.abs(np.diff(mean_of(CLEAR._replace(**change)), axis=1)).max()
        assert edges < np.abs(np.diff(clear, axis=1)).max()
    (striped,), (lit,) = scans(CLEAR._replace(stripes=0.2)), scans(CLEAR._replace(bias_field=0.5))
    (own,) = scans(CLEAR)
    stripes = (striped["x"] - own["x"])[..., 0]
    # The magnitude folds stripes in air; in the body they are constant along the last axis.
    np.testing.assert_allclose(stripes[:, 16, 13:19].std(axis=1), 0, atol=1e-5)
    assert stripes[:, :, 16].std(axis=1).mean() > 0.08
    body = own["x"] > 0.3
    assert np.log(lit["x"][body] / own["x"][body]).std() > 0.25


def test_without_shift_hospitals_are_alike():
    for scanner in SCANNERS:
        assert at_shift(scanner, 0.0) == Scanner(scanner.name, scanner.patients)
        assert at_shift(scanner, 1.0) == scanner
    half = at_shift(Scanner("A", gamma=2.0), 0.5)
    assert half.gamma == 1.5 and half.noise == 0.03


def test_patients_do_not_depend_on_other_hospitals_or_splits():
    one = synthetic_scans(scanners=SCANNERS[:2])
    other = synthetic_scans(
        scanners=(SCANNERS[0], SCANNERS[1]._replace(patients=3)), validation_patients=0
    )
    np.testing.assert_array_equal(one.train.client(0)["x"], other.train.client(0)["x"])
    np.testing.assert_array_equal(one.test.client(1)["x"], other.test.client(1)["x"])
    again = synthetic_scans(scanners=SCANNERS[:2], seed=1)
    assert (one.train.client(0)["x"] != again.train.client(0)["x"]).mean() > 0.9


@pytest.mark.parametrize(
    "options, message",
    [
        ({"dims": 4}, "dims must be 2 or 3, got 4."),
        ({"size": (8, 8, 8)}, "size must be 2 numbers of at least 8, got [8, 8, 8]."),
        ({"shift": 1.5}, "shift must be from 0 to 1, got 1.5."),
        ({"test_patients": -1}, "test_patients must not be negative, got -1."),
        ({"scanners": ()}, "scanners is empty; at least one is needed."),
        (
            {"scanners": (Scanner("A", prevalence=1.2),)},
            "prevalence of scanner 'A' must be from 0 to 1, got 1.2.",
        ),
    ],
)
def test_what_is_not_allowed_is_named(options, message):
    with pytest.raises(DataError) as error:
        synthetic_scans(**options)
    assert str(error.value) == message
