"""MedMNIST: files, simulated hospitals and scanners."""

import gzip
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedjax_med import datasets
from fedjax_med.cli import main
from fedjax_med.data import DataError
from fedjax_med.datasets import _medmnist, scanners
from fedjax_med.datasets._files import Remote, locate
from fedjax_med.datasets._simulated_hospitals import simulated_hospitals
from tests.draws import draws

TOY = _medmnist.MedMnist("Toy", "toys", (6, 2, 3), ("no", "yes"), md5="0" * 32)


def toy_arrays(known=TOY, size=28):
    rng = np.random.default_rng(0)
    channels = (3,) if known.is_colour else ()
    out = {}
    for short, number in zip(("train", "val", "test"), known.num_images, strict=True):
        shape = (number, len(known.labels)) if known.is_multilabel else (number, 1)
        out[f"{short}_images"] = rng.integers(256, size=(number, size, size, *channels)).astype(
            np.uint8
        )
        most = 2 if known.is_multilabel else len(known.labels)
        out[f"{short}_labels"] = rng.integers(most, size=shape).astype(np.uint8)
    return out


@pytest.mark.parametrize(
    "name, folder, counts",
    [
        ("breast-mnist", "breast", {"train": (147, 399), "val": (21, 57), "test": (42, 114)}),
        (
            "pneumonia-mnist",
            "pneumonia",
            {"train": (1214, 3494), "val": (135, 389), "test": (234, 390)},
        ),
    ],
)
@pytest.mark.parametrize("how", [{}, {"partition": "dirichlet", "alpha": 0.1}], ids=["iid", "skew"])
def test_hospitals_have_every_image_of_the_file_once(shared_data_dir, name, folder, counts, how):
    dataset = datasets.load(name, shared_data_dir, **how)
    with np.load(shared_data_dir / f"medmnist_{folder}" / f"{folder}mnist.npz") as archive:
        for arrays, short in zip(dataset.splits().values(), ("train", "val", "test"), strict=True):
            x, y = arrays.examples["x"], arrays.examples["y"]
            assert tuple(np.bincount(y)) == counts[short]
            got = sorted(zip(x.reshape(len(x), -1).tolist(), y.tolist(), strict=True))
            images, labels = archive[f"{short}_images"], archive[f"{short}_labels"].ravel()
            want = zip(images.reshape(len(images), -1).tolist(), labels.tolist(), strict=True)
            assert got == sorted(want)
    assert dataset.label_names == _medmnist.SETS[name].labels


@pytest.mark.parametrize(
    "known, size, packed",
    [
        (TOY, 28, False),
        (TOY._replace(is_colour=True, labels=("a", "b", "c")), 64, True),
        (TOY._replace(is_multilabel=True, labels=("a", "b", "c")), 28, False),
    ],
)
def test_archives_of_all_shapes_are_read(tmp_path, known, size, packed):
    arrays = toy_arrays(known, size)
    path = tmp_path / "toy.npz"
    np.savez(path, **arrays)
    if packed:
        content, path = path.read_bytes(), tmp_path / "toy.npz.gz"
        path.write_bytes(gzip.compress(content))
    parts = _medmnist._read(path, known, size)
    assert list(parts) == ["train", "validation", "test"]
    x, y = parts["validation"]["x"], parts["validation"]["y"]
    assert x.shape == (2, size, size, 3 if known.is_colour else 1) and x.dtype == np.uint8
    np.testing.assert_array_equal(
        x.reshape(2, size, size, -1)[..., 0].ravel()[:5],
        arrays["val_images"].reshape(2, size, size, -1)[..., 0].ravel()[:5],
    )
    assert y.shape == ((2, 3) if known.is_multilabel else (2,)) and y.dtype == np.int32


def one_array():
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def write(path, **changes):
    arrays = toy_arrays()
    arrays.update(changes)
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
    "damage, sentence",
    [
        (
            lambda p: p.write_bytes(b"\x89PNG\r\n"),
            "is no archive of images (NumPy's .npz), or is cut",
        ),
        (lambda p: p.write_bytes(b""), "is no archive of images"),
        (lambda p: p.write_bytes(one_array()), "is no archive of images"),
        (lambda p: write(p, train_images=np.array([None])), "is no archive of images"),
        (
            lambda p: (write(p), p.write_bytes(p.read_bytes()[:9000])),
            "is no archive of images (NumPy's .npz), or is cut short; replace the file.",
        ),
        (
            lambda p: write(p, val_labels=None),
            "must hold the array 'val_labels', got train_images,",
        ),
        (
            lambda p: write(p, test_images=np.zeros((2, 28, 28), np.uint8)),
            "must be of 3 images, got 2",
        ),
        (
            lambda p: write(p, test_images=np.zeros((3, 32, 28), np.uint8)),
            "must be uint8 images of 28 x 28 pixels with 1 channel(s), got uint8 [3, 32, 28, 1].",
        ),
        (
            lambda p: write(p, test_images=np.zeros((3, 28, 28))),
            "must be uint8 images of 28 x 28 pixels with 1 channel(s), got float64 [3, 28, 28, 1].",
        ),
        (
            lambda p: write(p, train_labels=np.full(6, 2)),
            "must be whole numbers from 0 to 1 of shape [6], got int64 [6].",
        ),
    ],
)
def test_what_is_no_archive_of_the_set_is_refused(tmp_path, damage, sentence):
    path = tmp_path / "toy.npz"
    damage(path)
    with pytest.raises(DataError) as error:
        _medmnist._read(path, TOY, 28)
    assert sentence in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_image_in_place_of_the_archive_is_refused_by_its_checksum(tmp_path):
    (tmp_path / "breastmnist.npz").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match=r"its MD5 begins with [0-9a-f]{12}, expected 750601b1f35b"):
        datasets.medmnist("breast-mnist", data_dir=tmp_path)


def test_commands_say_so_in_a_sentence(tmp_path, capsys):
    (tmp_path / "breastmnist.npz").write_bytes(b"\x89PNG\r\n")
    output = tmp_path / "run"
    for command in (["data", "check", "breast-mnist"], ["run", "breast-mnist", "--output", output]):
        assert main([str(word) for word in [*command, "--data-dir", tmp_path]]) == 2
        said = capsys.readouterr()
        assert "breastmnist.npz is damaged or another version" in said.err
        assert said.err.count("\n") == 1 and not output.exists()


def test_files_are_recognised_by_either_checksum(tmp_path):
    path = tmp_path / "a.npz"
    md5, sha256 = (
        "900150983cd24fb0d6963f7d28e17f72",
        (  # of "abc" (RFC 1321, FIPS 180-2)
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        ),
    )
    nothing = "http://127.0.0.1:1/"
    path.write_bytes(b"abc")
    for remote in (
        Remote(nothing, "", md5=md5),
        Remote(nothing, "", md5="0" * 32, repacked=("1" * 64, sha256)),
        Remote(nothing, sha256),
    ):
        assert locate("x", {"a.npz": remote}, tmp_path)["a.npz"] == path
    with pytest.raises(DataError, match="its MD5 begins with 900150983cd2, expected 0000"):
        locate("x", {"a.npz": Remote(nothing, "", md5="0" * 32, repacked=("1" * 64,))}, tmp_path)


def test_options_that_do_not_fit_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("FEDJAX_MED_DATA", raising=False)
    for name, options, sentence in [
        ("mnist", {}, "name must be one of blood-mnist, breast-mnist, "),
        ("breast-mnist", {"size": 32}, "size must be one of 28, 64, 128, 224, got 32."),
        ("breast-mnist", {"shift": -1.0}, "shift must be finite and not negative, got -1.0."),
        (
            "breast-mnist",
            {"size": 64, "data_dir": tmp_path},
            f"breastmnist_64.npz of medmnist-breast is not in {tmp_path}, and is not downloaded",
        ),
        ("breast-mnist", {"size": 64}, "is in no local folder, and is not downloaded; pass"),
    ]:
        with pytest.raises(DataError) as error:
            datasets.medmnist(name, **options)
        assert sentence in str(error.value)
    with pytest.raises(DataError, match="partition must be 'iid' or 'dirichlet', got 'skew'"):
        simulated_hospitals({"train": {"y": np.zeros(9, int)}}, 3, how="skew", name="toy")


@draws(20, 200)
@given(
    seed=st.integers(0, 10**6),
    clients=st.integers(1, 6),
    alpha=st.floats(0.05, 50.0),
    how=st.sampled_from(["iid", "dirichlet"]),
)
def test_held_out_examples_are_dealt_out_as_training_examples_were(seed, clients, alpha, how):
    rng = np.random.default_rng(seed)
    sizes = {"train": 300, "validation": 40, "test": 120}
    parts = {
        split: {"x": np.arange(n), "y": rng.choice(3, n, p=[0.5, 0.3, 0.2])}
        for split, n in sizes.items()
    }
    dataset = simulated_hospitals(parts, clients, how=how, alpha=alpha, seed=seed, name="toy")
    trained = np.array(
        [np.bincount(dataset.train.client(i)["y"], minlength=3) for i in range(clients)]
    )
    for split, arrays in dataset.splits().items():
        np.testing.assert_array_equal(np.sort(arrays.examples["x"]), np.arange(sizes[split]))
        np.testing.assert_array_equal(arrays.examples["y"], parts[split]["y"][arrays.examples["x"]])
        dealt = np.array([np.bincount(arrays.client(i)["y"], minlength=3) for i in range(clients)])
        want = trained / trained.sum(axis=0) * dealt.sum(axis=0)
        # Cumulative sums are rounded to half an image, so each share is off by one at most.
        assert np.abs(dealt - want).max() <= 1 + 1e-9
    assert trained.sum(axis=1).min() >= 10


def test_several_labels_are_dealt_out_at_random():
    labels = np.random.default_rng(0).integers(2, size=(60, 4))
    parts = {"train": {"y": labels}, "test": {"y": labels[:20]}}
    dataset = simulated_hospitals(parts, 4, name="toy")
    assert dataset.train.sizes.tolist() == [15] * 4 and dataset.test.sizes.tolist() == [5] * 4
    with pytest.raises(DataError, match="must hold one integer label per example"):
        simulated_hospitals(parts, 4, how="dirichlet", name="toy")


def images(number, size=28, channels=1):
    return (
        np.random.default_rng(1).integers(256, size=(number, size, size, channels)).astype(np.uint8)
    )


def test_scanners_without_a_shift_change_nothing():
    (scanner,) = scanners.draw_scanners(1, 0.0)
    assert scanner == (0, 1, 1, 0, 0)
    x = images(4)
    np.testing.assert_array_equal(scanners.scan(x, scanner, np.random.default_rng(0)), x)


def test_what_scanners_do_to_grey_values():
    rng = np.random.default_rng(0)
    plain = scanners.Scanner(0, 1, 1, 0, 0)
    x = images(2)
    grey = x / 255
    for change, want in [
        ({"gamma": 2.0}, grey**2),
        ({"contrast": 0.5}, 0.5 * grey + 0.25),
        ({"brightness": 0.2}, np.minimum(grey + 0.2, 1)),
    ]:
        got = scanners.scan(x, plain._replace(**change), rng)
        # Half a grey value of rounding, and float32.
        assert np.abs(got / 255 - want).max() <= 0.5 / 255 + 1e-5
    middle = np.full((50, 28, 28, 1), 128, np.uint8)
    noise = scanners.scan(middle, plain._replace(noise=0.05), rng) / 255 - 128 / 255
    # The standard deviation of 39,200 normals, five standard errors of 0.05 / sqrt(2 N).
    assert abs(noise.std() - 0.05) < 5 * 0.05 / np.sqrt(2 * noise.size)
    assert stats.kstest(noise.ravel()[:500] / 0.05, "norm").pvalue > 1e-3
    line = np.zeros((1, 56, 56, 1), np.uint8)
    line[0, :, 28] = 255
    blurred = scanners.scan(line, plain._replace(blur=1.0), rng)[0, 28, :, 0].astype(float)
    spread = np.sqrt((blurred * (np.arange(56) - 28) ** 2).sum() / blurred.sum())
    assert abs(spread - 2.0) < 0.1  # 1/28 of 56 pixels is 2; tails below half a grey value are lost


def test_each_hospital_has_a_scanner_for_all_of_its_images(shared_data_dir):
    plain = datasets.load("breast-mnist", shared_data_dir)
    shifted = datasets.load("breast-mnist", shared_data_dir, shift=1.0)
    again = datasets.load("breast-mnist", shared_data_dir, shift=1.0)
    assert shifted.fingerprint() == again.fingerprint() != plain.fingerprint()
    for split in ("train", "test"):
        means = [
            shifted.splits()[split].client(i)["x"].mean()
            - plain.splits()[split].client(i)["x"].mean()
            for i in range(5)
        ]
        assert np.ptp(means) > 20
        np.testing.assert_array_equal(
            shifted.splits()[split].examples["y"], plain.splits()[split].examples["y"]
        )
        if split == "train":
            trained = means
    # The same scanner: the mean grey values of other patients move alike.
    assert np.abs(np.array(trained) - means).max() < 8
    with pytest.raises(DataError, match="scanners must be one for each of 5 clients, got 2"):
        scanners.scanned(plain, scanners.draw_scanners(2, 1.0))
    with pytest.raises(DataError, match=r"images must be uint8 \[N, height, width, channels\]"):
        scanners.scan(np.zeros((2, 3)), scanners.draw_scanners(1, 1.0)[0], np.random.default_rng(0))
