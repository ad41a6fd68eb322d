"""Folders of hospitals' scans become datasets; whatever is wrong with them is one sentence."""

import json

import numpy as np
import pytest

from fedjax_med import tasks
from fedjax_med.cli import main
from fedjax_med.data import DataError, FederatedDataset, check
from fedjax_med.datasets import is_image_folder, load_images
from tests.datasets.imaging_files import dicom_file, dicom_series, nifti_file

SIZE = (4, 3)


def image(seed, size=SIZE):
    return np.random.default_rng(seed).integers(0, 4000, size).astype(np.uint16)


def labels(folder, rows, columns="file,label"):
    (folder / "labels.csv").write_text("\n".join([columns, *rows]) + "\n")


def hospital_of_images(folder, count=4, start=0):
    """X-rays as DICOM files, two of each patient, every other one with the label ill."""
    for i in range(count):
        dicom_file(folder / f"{i}.dcm", image(start + i), PatientID=f"P{start + i // 2}")
    labels(folder, [f"{i}.dcm,{'ill' if i % 2 else 'healthy'}" for i in range(count)])


def hospital_of_volumes(folder, count=3, start=0, size=(3, 4, 5), spacing=(1.0, 2.0, 3.0)):
    """Volumes as NIfTI files, with masks of the voxels above a threshold."""
    affine = np.diag([*spacing, 1.0])
    for i in range(count):
        volume = image(start + i, size)
        nifti_file(folder / f"{i}.nii.gz", volume, affine)
        nifti_file(folder / "masks" / f"{i}.nii.gz", volume > 2000, affine, np.uint8)


def options(folder, **chosen):
    (folder / "imaging.json").write_text(json.dumps(chosen))


def message(*args, **given):
    with pytest.raises(DataError) as error:
        load_images(*args, **given)
    return str(error.value)


def test_images_with_labels_are_classified(tmp_path):
    hospital_of_images(tmp_path / "North", 8)
    hospital_of_images(tmp_path / "South", 6, start=20)
    (tmp_path / "README.txt").write_text("scans of two hospitals")
    assert is_image_folder(tmp_path)
    made = load_images(tmp_path, test=0.0, standardize=False)
    assert made.client_names == ("North", "South") and made.label_names == ("healthy", "ill")
    assert made.train.sizes.tolist() == [8, 6] and made.test is None
    x, y = made.train.client(1)["x"], made.train.client(1)["y"]
    assert x.dtype == np.float32 and y.dtype == np.int32
    np.testing.assert_array_equal(x[3, ..., 0], image(23))
    np.testing.assert_array_equal(y, [0, 1, 0, 1, 0, 1])
    check(made)
    assert tasks.kind_of(made) == "binary"
    centred = load_images(tmp_path).train.examples["x"]
    np.testing.assert_allclose(centred.mean(axis=(1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(centred.std(axis=(1, 2, 3)), 1, rtol=1e-5)


def test_scans_of_a_patient_stay_together(tmp_path):
    for name, start in (("North", 0), ("South", 100)):
        hospital_of_images(tmp_path / name, 40, start)
    made = load_images(tmp_path, test=0.3, validation=0.2, standardize=False)
    seen = [{x.tobytes() for x in arrays.examples["x"]} for arrays in made.splits().values()]
    assert [bool(part) for part in seen] == [True] * 3 and sum(map(len, seen)) == 80
    for start in (0, 100):
        for i in range(start, start + 40, 2):
            one, other = (image(k).astype(np.float32).tobytes() for k in (i, i + 1))
            assert [one in part for part in seen] == [other in part for part in seen]
            assert sum(one in part for part in seen) == 1


def test_volumes_with_masks_are_segmented(tmp_path):
    hospital_of_volumes(tmp_path / "North")
    hospital_of_volumes(tmp_path / "South", 2, start=10)
    made = load_images(tmp_path, test=0.0, standardize=False)
    examples = made.train.client(1)
    assert examples["x"].shape == (2, 5, 4, 3, 1)
    np.testing.assert_array_equal(examples["mask"], examples["x"][..., 0] > 2000)
    np.testing.assert_allclose(examples["spacing"], [[3.0, 2.0, 1.0]] * 2)
    check(made)
    assert tasks.kind_of(made) == tasks.modality_of(made) == "segmentation"


def test_series_and_masks_of_another_format_meet(tmp_path):
    """A series of DICOM files stored from head to foot, its mask a NIfTI file from foot to head."""
    volume = image(0, (3, 4, 5))
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    turned = affine @ np.diag([1.0, 1.0, -1.0, 1.0])
    turned[2, 3] = 3.0 * 4
    dicom_series(tmp_path / "North" / "a", volume[:, :, ::-1], turned)
    mask = tmp_path / "North" / "masks" / "a.nii"
    nifti_file(mask, 255 * (volume > 2000), affine)  # black and white
    made = load_images(tmp_path, test=0.0, standardize=False)
    np.testing.assert_array_equal(made.train.examples["mask"][0], volume.T > 2000)
    np.testing.assert_array_equal(made.train.examples["x"][0, ..., 0], volume.T)
    moved = affine.copy()
    moved[0, 3] += 1.0
    nifti_file(mask, volume > 2000, moved)
    assert message(tmp_path) == (
        f"the mask {mask} lies elsewhere in the patient than {tmp_path}/North/a."
    )


def test_options_bring_scans_to_one_grid(tmp_path):
    hospital_of_volumes(tmp_path / "North")
    hospital_of_volumes(tmp_path / "South", size=(6, 4, 4), spacing=(0.5, 2.0, 3.0))
    words = message(tmp_path)
    assert words == (
        f"{tmp_path}/South/0.nii.gz has the size [4, 4, 6], but {tmp_path}/North/0.nii.gz has "
        "[5, 4, 3]; give a size in imaging.json."
    )
    options(tmp_path, size=[4, 4, 4], window=[2000, 1000])
    made = load_images(tmp_path, test=0.0)
    x, mask = made.train.examples["x"], made.train.examples["mask"]
    assert x.shape[1:] == (4, 4, 4, 1) and 0 <= x.min() < x.max() <= 1
    assert set(np.unique(mask)) == {0, 1}
    np.testing.assert_allclose(made.train.client(0)["spacing"][0], [3.75, 2.0, 0.75])
    options(tmp_path, spacing=[3.0, 2.0, 1.0], size=[5, 4, 3])
    made = load_images(tmp_path, test=0.0, standardize=False)
    np.testing.assert_allclose(made.train.examples["spacing"], [[3.0, 2.0, 1.0]] * 6)
    whole = image(0, (3, 4, 5)).transpose(2, 1, 0)
    np.testing.assert_array_equal(made.train.client(0)["x"][0, ..., 0], whole)
    # One slice less: cut or filled around the middle, with the lowest intensity and no class.
    filled = made.train.client(1)
    lowest = filled["x"][0].min()
    assert (filled["x"][0, 4] == lowest).all() and (filled["mask"][0, 4] == 0).all()


def test_spacings_that_differ_are_refused(tmp_path):
    hospital_of_volumes(tmp_path / "North")
    hospital_of_volumes(tmp_path / "South", spacing=(1.0, 2.0, 2.0))
    assert message(tmp_path) == (
        f"{tmp_path}/South/0.nii.gz has a spacing of [2.0, 2.0, 1.0] mm, but "
        f"{tmp_path}/North/0.nii.gz has [3.0, 2.0, 1.0] mm; give a spacing, or a size, in imaging.json."
    )


def test_parts_and_patients_of_the_csv_file(tmp_path):
    folder = tmp_path / "North"
    hospital_of_images(folder, 4)
    rows = ["0,ill,A,train", "1,ill,A,train", "2,healthy,B,train", "3,ill,C,test"]
    labels(folder, rows, "file,label,patient,split")
    made = load_images(tmp_path)
    assert {k: v.num_examples for k, v in made.splits().items()} == {"train": 3, "test": 1}
    assert load_images(tmp_path, validation=0.5).validation is not None
    labels(folder, [*rows[:3], "3,ill,A,test"], "file,label,patient,split")
    assert message(tmp_path) == (
        f"{folder}/3.dcm and {folder}/0.dcm are of the patient 'A', but one is for test and one for "
        "train."
    )
    labels(folder, [*rows[:3], "3,ill,C,later"], "file,label,patient,split")
    assert message(tmp_path) == (
        f"{folder}/3.dcm has the split 'later'; allowed are train, validation, test."
    )


def nothing(folder):
    """Leaves the folder as it is."""


def remove(name):
    return lambda folder: (folder / name).unlink()


WRONG = {
    "modality": (
        lambda f: dicom_file(f / "0.dcm", image(0), Modality="CT"),
        {"modality": "MR"},
        "{f}/0.dcm has the modality CT, but MR is asked for.",
    ),
    "not an image": (
        lambda f: (f / "0.dcm").write_text("a letter"),
        {},
        "{f}/0.dcm is not a DICOM file.",
    ),
    "photograph": (
        lambda f: (f / "0.png").touch(),
        {},
        "{f}/0.png is neither a DICOM (.dcm) nor a NIfTI (.nii, .nii.gz) file.",
    ),
    "two of one name": (
        lambda f: nifti_file(f / "0.nii", image(0)),
        {},
        "{f}/0.nii and {f}/0.dcm have one name; names of scans must differ.",
    ),
    "no row": (
        lambda f: labels(f, ["0,ill"]),
        {},
        "{f}/1.dcm is not in {f}/labels.csv; every scan needs a row.",
    ),
    "no scan": (
        remove("1.dcm"),
        {},
        "row 3 of {f}/labels.csv names '1.dcm', which is not there.",
    ),
    "row twice": (
        lambda f: labels(f, ["0,ill", "0.dcm,ill"]),
        {},
        "row 3 of {f}/labels.csv names '0.dcm' again.",
    ),
    "too few values": (
        lambda f: labels(f, ["0"]),
        {},
        "row 2 of {f}/labels.csv must have as many values as there are columns, and a column file.",
    ),
    "nothing to learn": (
        remove("labels.csv"),
        {},
        "the hospital 'North' has neither, a folder masks and a column label in labels.csv; exactly one "
        "of them says what is to be learned.",
    ),
    "label": (
        nothing,
        {"labels": ["healthy", "sick"]},
        "{f}/1.dcm has the label 'ill'; labels in imaging.json are healthy, sick.",
    ),
    "option": (
        nothing,
        {"windows": 3},
        "load_images has no option 'windows'; options are name, licence, source, citation, labels, "
        "modality, window, standardize, spacing, size, validation, test, seed.",
    ),
    "window": (
        nothing,
        {"window": [40, 0]},
        "window must be [centre, width] with a width above 0, or 'file', got [40, 0].",
    ),
    "size": (
        nothing,
        {"size": [4]},
        "size must be two or three whole numbers above 0, got [4].",
    ),
    "axes": (nothing, {"size": [4, 4, 4]}, "{f}/0.dcm has 2 axes, but size has 3 numbers."),
    "one patient": (
        lambda f: dicom_file(f / "1.dcm", image(0), PatientID="P0"),
        {},
        "all 2 scans of 'North' are of one patient, 'P0', so none can be kept apart; give a column "
        "patient, or split, in labels.csv.",
    ),
    "share": (nothing, {"test": 1.0}, "test must be a fraction in [0, 1), got 1.0."),
}


@pytest.mark.parametrize("spoil, given, words", WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_with_images_is_one_sentence(tmp_path, spoil, given, words):
    folder = tmp_path / "North"
    hospital_of_images(folder, 2)
    dicom_file(folder / "1.dcm", image(1), PatientID="P1")
    spoil(folder)
    assert message(tmp_path, **given) == words.format(f=folder)


MASKS = {
    "missing": (
        remove("masks/1.nii.gz"),
        "{f}/1.nii.gz has no mask '1' in {f}/masks.",
    ),
    "without a scan": (
        remove("1.nii.gz"),
        "{f}/masks/1.nii.gz is a mask without a scan '1' in {f}.",
    ),
    "another size": (
        lambda f: nifti_file(f / "masks/0.nii.gz", np.zeros((3, 4, 4))),
        "the mask {f}/masks/0.nii.gz has the size [4, 4, 3], but {f}/0.nii.gz has [5, 4, 3].",
    ),
    "class": (
        lambda f: nifti_file(
            f / "masks/0.nii.gz", np.full((3, 4, 5), 2), np.diag([1.0, 2.0, 3.0, 1.0])
        ),
        "the mask of {f}/0.nii.gz has a voxel of class 2; classes are 0 to 1, background, foreground "
        "(labels in imaging.json).",
    ),
    "both": (
        lambda f: labels(f, ["0,ill", "1,ill"]),
        "the hospital 'North' has both, a folder masks and a column label in labels.csv; exactly one of "
        "them says what is to be learned.",
    ),
}


@pytest.mark.parametrize("spoil, words", MASKS.values(), ids=MASKS.keys())
def test_what_is_wrong_with_masks_is_one_sentence(tmp_path, spoil, words):
    folder = tmp_path / "North"
    hospital_of_volumes(folder, 2)
    spoil(folder)
    assert message(tmp_path) == words.format(f=folder)


def test_hospitals_must_agree_and_be_there(tmp_path):
    missing = tmp_path / "nowhere"
    assert message(missing) == f"there is no folder {missing}."
    assert message(tmp_path) == f"{tmp_path} has no sub-folders; every hospital needs one."
    (tmp_path / "East").mkdir()
    assert message(tmp_path) == (
        f"{tmp_path}/East has no scans; every hospital needs at least one."
    )
    hospital_of_images(tmp_path / "East")
    hospital_of_volumes(tmp_path / "North")
    assert message(tmp_path) == (
        "the hospitals 'East' and 'North' must both have a folder masks, or both a column label in "
        "labels.csv."
    )
    options(tmp_path, modalty="MR")
    assert "imaging.json has no option 'modalty'; options are name, " in message(tmp_path)
    (tmp_path / "imaging.json").write_text("{")
    assert "imaging.json cannot be read as JSON (" in message(tmp_path)


def test_the_command_line_takes_folders_of_scans(tmp_path, capsys):
    hospital_of_volumes(tmp_path / "North", 5)
    hospital_of_volumes(tmp_path / "South", 5, start=10)
    assert main(["data", "check", str(tmp_path)]) == 0
    assert "is sound: 2 clients, 10 examples" in capsys.readouterr().out
    path = tmp_path / "South" / "masks" / "3.nii.gz"
    path.write_text("a letter")
    for command in (["data", "check"], ["run"], ["study"]):
        assert main([*command, str(tmp_path)]) == 2
        assert capsys.readouterr().err == (
            f"fedjax-med: {path} is not a NIfTI file, or it is damaged.\n"
        )


def test_saved_datasets_are_no_folders_of_scans(tmp_path):
    hospital_of_volumes(tmp_path / "scans" / "North")
    made = load_images(tmp_path / "scans", test=0.0)
    made.save(tmp_path / "saved")
    assert not is_image_folder(tmp_path / "saved")
    assert FederatedDataset.load(tmp_path / "saved").fingerprint() == made.fingerprint()
