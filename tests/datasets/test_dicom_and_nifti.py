"""Files become scans with the intensities, the places and the spacing that they say."""

import itertools
import sys

import nibabel
import numpy as np
import pydicom
import pytest

from fedjax_med.data import DataError
from fedjax_med.datasets._scan import at_spacing, cut_or_filled, resampled
from fedjax_med.datasets.dicom import read_dicom, read_series
from fedjax_med.datasets.nifti import read_nifti
from tests.datasets.imaging_files import dicom_file, dicom_series, nifti_file

STORED = np.arange(12, dtype=np.uint16).reshape(3, 4) * 100


def message(call, *args, **options):
    with pytest.raises(DataError) as error:
        call(*args, **options)
    return str(error.value)


def test_dicom_intensities_are_rescaled(tmp_path):
    path = dicom_file(tmp_path / "a.dcm", STORED, RescaleSlope=2, RescaleIntercept=-1000)
    scan = read_dicom(path, modality="MR")
    assert scan.values.dtype == np.float32
    np.testing.assert_array_equal(scan.values, 2.0 * STORED - 1000)
    assert scan.spacing == (2.0, 3.0) and scan.patient == "P1"


def test_signed_and_inverted_images(tmp_path):
    signed = dicom_file(tmp_path / "a.dcm", STORED.astype(np.int16) - 500)
    np.testing.assert_array_equal(read_dicom(signed).values, STORED - 500.0)
    inverted = dicom_file(tmp_path / "b.dcm", STORED, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_dicom(inverted).values, 4095.0 - STORED)
    # The window is in values as stored; then black and white change places.
    got = read_dicom(inverted, window=(600.0, 400.0)).values
    np.testing.assert_allclose(got, 1 - np.clip((STORED - 400.0) / 400, 0, 1), atol=1e-7)


def test_windows(tmp_path):
    path = dicom_file(tmp_path / "a.dcm", STORED, WindowCenter=[500, 9], WindowWidth=[1000, 9])
    want = np.clip(STORED / 1000.0, 0, 1)
    np.testing.assert_allclose(read_dicom(path, window="file").values, want, atol=1e-7)
    np.testing.assert_allclose(read_dicom(path, window=(500.0, 1000.0)).values, want, atol=1e-7)
    plain = dicom_file(tmp_path / "b.dcm", STORED)
    assert message(read_dicom, plain, window="file") == (
        f"{plain} has no window of its own; give its centre and width."
    )


def test_spacing_of_the_detector_stands_in(tmp_path):
    path = dicom_file(tmp_path / "a.dcm", STORED, PixelSpacing=None, ImagerPixelSpacing=[0.1, 0.2])
    assert read_dicom(path).spacing == (0.1, 0.2)
    assert read_dicom(dicom_file(tmp_path / "b.dcm", STORED, PixelSpacing=None)).spacing is None


@pytest.mark.parametrize(
    "tags, words",
    [
        ({"Modality": "CT"}, "{path} has the modality CT, but MR is asked for."),
        ({"Modality": None}, "{path} has the modality none, but MR is asked for."),
        (
            {"PixelData": None},
            "{path} is a DICOM file without an image (its modality is MR).",
        ),
        (
            {"NumberOfFrames": 2},
            "{path} holds 2 frames; only files of one image can be read, so save the frames as the "
            "files of a folder.",
        ),
        (
            {"PhotometricInterpretation": "RGB"},
            "{path} is an image of RGB; only grey images, MONOCHROME1 and MONOCHROME2, can be read.",
        ),
        (
            {"PixelData": b"\0\0"},
            "the image of {path} cannot be decoded (Explicit VR Little Endian): it is damaged, or "
            "compressed in a way for which a plugin of pydicom has to be installed.",
        ),
    ],
    ids=["modality", "no modality", "no image", "frames", "colour", "cut short"],
)
def test_dicom_files_that_cannot_be_used(tmp_path, tags, words):
    path = dicom_file(tmp_path / "a.dcm", STORED, **tags)
    assert message(read_dicom, path, modality="MR") == words.format(path=path)


def test_other_files_are_not_dicom(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_text("a letter")
    assert message(read_dicom, path) == f"{path} is not a DICOM file."


AXES = list(itertools.permutations(range(3)))


@pytest.mark.parametrize("order", AXES, ids=str)
def test_a_series_and_a_nifti_file_of_one_volume_are_the_same_scan(tmp_path, order):
    """In whichever order and direction of the axes it was stored."""
    rng = np.random.default_rng(order)
    patient = rng.integers(0, 4000, (4, 3, 5)).astype(np.uint16)  # to the right, front, head
    spacing = np.array([2.0, 3.0, 1.5])
    affine = np.eye(4)
    affine[:3, :3] = np.diag(spacing)
    affine[:3, 3] = [-7, 5, 11]
    flips = rng.integers(0, 2, 3).astype(bool)
    stored = patient.transpose(order)
    turned = affine[:, [*order, 3]]
    for axis in np.flatnonzero(flips):
        stored = np.flip(stored, axis)
        turned[:3, 3] += turned[:3, axis] * (stored.shape[axis] - 1)
        turned[:3, axis] *= -1
    one = read_series(dicom_series(tmp_path / "series", stored, turned))
    other = read_nifti(nifti_file(tmp_path / "a.nii.gz", stored, turned, np.int16))
    want = affine[:, [2, 1, 0, 3]]
    for scan in (one, other):
        np.testing.assert_array_equal(scan.values, patient.transpose(2, 1, 0))
        np.testing.assert_allclose(scan.spacing, spacing[::-1], rtol=1e-6)
        # NIfTI stores affines in float32.
        np.testing.assert_allclose(scan.affine, want, atol=1e-5)


def test_oblique_scans_keep_their_spacing(tmp_path):
    angle = np.deg2rad(20)
    affine = np.eye(4)
    affine[:3, :3] = np.diag([2.0, 3.0, 1.5])
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]] @ affine[
        :2, :2
    ]
    volume = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    scan = read_series(dicom_series(tmp_path / "a", volume, affine))
    np.testing.assert_allclose(scan.spacing, [1.5, 3.0, 2.0], rtol=1e-6)
    np.testing.assert_array_equal(scan.values, volume.transpose(2, 1, 0))


def series(folder, **tags):
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    return dicom_series(folder, np.zeros((3, 4, 4), np.uint16), affine, **tags)


def change(path, **tags):
    header = pydicom.dcmread(path)
    for name, value in tags.items():
        if value is None:
            delattr(header, name)
        else:
            setattr(header, name, value)
    header.save_as(path)


@pytest.mark.parametrize(
    "tags, words",
    [
        (
            {"SeriesInstanceUID": "1.2.4"},
            "{folder}/003.dcm has another series (1.2.4) than {folder}/001.dcm (1.2.3); all slices of a "
            "folder must be of one series.",
        ),
        (
            {"PixelSpacing": [1.0, 1.5]},
            "{folder}/003.dcm has another spacing ([1.0, 1.5]) than {folder}/001.dcm ([1.0, 1.0]); all "
            "slices of a folder must be of one series.",
        ),
        (
            {"ImagePositionPatient": [0.0, 0.0, 0.0]},
            "{folder}/003.dcm and {folder}/004.dcm are slices at the same place.",
        ),
        (
            {"ImagePositionPatient": [0.0, 0.0, 3.0]},
            "{folder}/004.dcm and {folder}/003.dcm are 3 mm apart, but the other slices of the folder 2 "
            "mm; a slice may be missing.",
        ),
        (
            {"ImagePositionPatient": None},
            "{folder}/003.dcm has no ImagePositionPatient of 3 numbers, without which slices have no "
            "place in a volume.",
        ),
    ],
    ids=["series", "spacing", "same place", "gap", "no place"],
)
def test_series_that_are_no_volume(tmp_path, tags, words):
    folder = series(tmp_path / "a")
    change(folder / "003.dcm", **tags)
    assert message(read_series, folder) == words.format(folder=folder)


def test_a_folder_without_files_is_no_series(tmp_path):
    assert message(read_series, tmp_path) == (
        f"{tmp_path} has no files; the slices of a series are needed."
    )


def test_nifti_scale_units_and_images(tmp_path):
    values = np.arange(6).reshape(2, 3)
    path = nifti_file(
        tmp_path / "a.nii", values, np.diag([500.0, 250.0, 1.0, 1.0]), np.int16, units="micron"
    )
    scan = read_nifti(path)
    # Rows of the result run along y, columns along x.
    np.testing.assert_array_equal(scan.values, values.T)
    np.testing.assert_allclose(scan.spacing, (0.25, 0.5), rtol=1e-6)
    assert scan.affine is None
    scaled = nibabel.Nifti1Image(values[:, :, None].astype(np.int16), np.eye(4))
    scaled.header.set_slope_inter(0.5, 3)
    nibabel.save(scaled, tmp_path / "b.nii")
    assert read_nifti(tmp_path / "b.nii").values.shape == (3, 2)


@pytest.mark.parametrize(
    "make, words",
    [
        (
            lambda path: path.write_bytes(b"a letter" * 100),
            "{path} is not a NIfTI file, or it is damaged.",
        ),
        (
            lambda path: nifti_file(path, np.zeros((2, 2, 2, 5))),
            "{path} has 4 axes, [2, 2, 2, 5]; only images and volumes can be read, so save a series of "
            "volumes one by one.",
        ),
        (
            lambda path: nifti_file(path, np.zeros((2, 2, 2)), dtype=np.complex64),
            "{path} holds complex64 values; only grey values, real numbers, can be read.",
        ),
        (
            lambda path: nifti_file(path, np.full((2, 2, 2), np.nan)),
            "{path} has values that are NaN or infinite; only finite ones can be used.",
        ),
        (
            lambda path: path.write_bytes(
                nifti_file(path, np.zeros((9, 9, 9))).read_bytes()[:1000]
            ),
            "{path} is cut short or damaged.",
        ),
        (lambda path: None, "there is no file {path}."),
    ],
    ids=["text", "4-D", "complex", "NaN", "cut short", "missing"],
)
def test_nifti_files_that_cannot_be_used(tmp_path, make, words):
    path = tmp_path / "a.nii"
    make(path)
    assert message(read_nifti, path) == words.format(path=path)


@pytest.mark.parametrize("module, read", [("pydicom", read_dicom), ("nibabel", read_nifti)])
def test_without_the_extra_one_sentence_says_how_to_install_it(tmp_path, monkeypatch, module, read):
    path = tmp_path / "a"
    path.touch()
    monkeypatch.setitem(sys.modules, module, None)
    assert message(read, path) == (
        f"reading {path} needs {module}: install it with pip install 'fedjax-med[imaging]'."
    )


def test_resampling_keeps_lines_the_field_of_view_and_classes(tmp_path):
    ramp = np.arange(8.0)[:, None] * np.ones((1, 6))
    scan = read_nifti(nifti_file(tmp_path / "a.nii", ramp.T, np.diag([2.0, 1.0, 1.0, 1.0])))
    assert scan.spacing == (1.0, 2.0)
    fine = resampled(scan, (16, 6), is_mask=False)
    assert fine.spacing == (0.5, 2.0)
    centres = (np.arange(16) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(fine.values[1:-1, 2], centres[1:-1], atol=1e-5)
    coarse = at_spacing(scan, (2.0, 4.0), is_mask=False)
    assert coarse.values.shape == (4, 3) and coarse.spacing == (2.0, 4.0)
    # In the middle a blur and a line leave a line; at the edges the blur repeats them.
    np.testing.assert_allclose(coarse.values[1:3, 0], [2.5, 4.5], atol=0.1)
    mask = scan._replace(values=(ramp > 3.5) * 7.0)
    assert set(np.unique(resampled(mask, (5, 9), is_mask=True).values)) == {0.0, 7.0}
    cut = cut_or_filled(scan, (4, 9), -1.0)
    np.testing.assert_array_equal(cut.values[:, 1:7], ramp[2:6])
    assert (cut.values[:, [0, 7, 8]] == -1).all()
