"""MedMNIST v2: twelve sets of small medical images, with simulated hospitals.

Titles, labels, sizes, addresses and MD5 of the files of 28 x 28 pixels are those of the project's own
table (medmnist/info.py, version 2.1.0, github.com/MedMNIST/MedMNIST at 075a8ad). Not for clinical use.

References:
  Yang et al., "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image
  classification", Scientific Data 10, 2023. https://doi.org/10.1038/s41597-022-01721-8
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.datasets._files import UNPACKING_ERRORS, Remote, locate, unverified
from fedjax_med.datasets._simulated_hospitals import simulated_hospitals
from fedjax_med.datasets.scanners import draw_scanners, scanned

LICENCE = "CC BY 4.0"
CITATION = (
    "Yang J, Shi R, Wei D, Liu Z, Zhao L, Ke B, Pfister H, Ni B. MedMNIST v2 - A large-scale "
    "lightweight benchmark for 2D and 3D biomedical image classification. Scientific Data "
    "2023;10:41. doi:10.1038/s41597-022-01721-8."
)
SIZES = (28, 64, 128, 224)
_URL = "https://zenodo.org/record/6496656/files/{}?download=1"
_SPLITS = {"train": "train", "validation": "val", "test": "test"}


class MedMnist(NamedTuple):
    """What is known of one of the sets.

    Attributes:
      title: for a heading.
      images: what is seen, and what is to be told.
      num_images: of training, validation and test.
      labels: of the classes 0, 1, ...; of a set of several labels, of each.
      md5: of the file of 28 x 28 pixels.
      is_colour: three channels instead of one.
      is_multilabel: whether labels exclude nothing.
      repacked: SHA-256 of other packings of the same images.
    """

    title: str
    images: str
    num_images: tuple[int, int, int]
    labels: tuple[str, ...]
    md5: str
    is_colour: bool = False
    is_multilabel: bool = False
    repacked: tuple[str, ...] = ()


_ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)

SETS: Mapping[str, MedMnist] = MappingProxyType(
    {
        "blood-mnist": MedMnist(
            title="BloodMNIST",
            images="Type of a blood cell, from a microscope's image",
            num_images=(11_959, 1_712, 3_421),
            labels=(
                "basophil",
                "eosinophil",
                "erythroblast",
                "immature granulocytes",
                "lymphocyte",
                "monocyte",
                "neutrophil",
                "platelet",
            ),
            md5="7053d0359d879ad8a5505303e11de1dc",
            is_colour=True,
        ),
        "breast-mnist": MedMnist(
            title="BreastMNIST",
            images="Malignant (0) or normal and benign (1), from breast ultrasound",
            num_images=(546, 78, 156),
            labels=("malignant", "normal, benign"),
            md5="750601b1f35ba3300ea97c75c52ff8f6",
            repacked=("5e68d79723fb3a63a399b0a66b66451799fc2eb3651f469cec0b679cfd743b68",),
        ),
        "chest-mnist": MedMnist(
            title="ChestMNIST",
            images="14 findings that exclude nothing, from chest X-rays",
            num_images=(78_468, 11_219, 22_433),
            labels=(
                "atelectasis",
                "cardiomegaly",
                "effusion",
                "infiltration",
                "mass",
                "nodule",
                "pneumonia",
                "pneumothorax",
                "consolidation",
                "edema",
                "emphysema",
                "fibrosis",
                "pleural",
                "hernia",
            ),
            md5="02c8a6516a18b556561a56cbdd36c4a8",
            is_multilabel=True,
        ),
        "derma-mnist": MedMnist(
            title="DermaMNIST",
            images="Kind of a pigmented skin lesion, from a dermatoscope's image",
            num_images=(7_007, 1_003, 2_005),
            labels=(
                "actinic keratoses and intraepithelial carcinoma",
                "basal cell carcinoma",
                "benign keratosis-like lesions",
                "dermatofibroma",
                "melanoma",
                "melanocytic nevi",
                "vascular lesions",
            ),
            md5="0744692d530f8e62ec473284d019b0c7",
            is_colour=True,
        ),
        "oct-mnist": MedMnist(
            title="OCTMNIST",
            images="Disease of the retina, from optical coherence tomography",
            num_images=(97_477, 10_832, 1_000),
            labels=("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
            md5="c68d92d5b585d8d81f7112f81e2d0842",
        ),
        "organ-a-mnist": MedMnist(
            title="OrganAMNIST",
            images="Organ, from axial slices of abdominal CT",
            num_images=(34_581, 6_491, 17_778),
            labels=_ORGANS,
            md5="866b832ed4eeba67bfb9edee1d5544e6",
        ),
        "organ-c-mnist": MedMnist(
            title="OrganCMNIST",
            images="Organ, from coronal slices of abdominal CT",
            num_images=(13_000, 2_392, 8_268),
            labels=_ORGANS,
            md5="0afa5834fb105f7705a7d93372119a21",
        ),
        "organ-s-mnist": MedMnist(
            title="OrganSMNIST",
            images="Organ, from sagittal slices of abdominal CT",
            num_images=(13_940, 2_452, 8_829),
            labels=_ORGANS,
            md5="e5c39f1af030238290b9557d9503af9d",
        ),
        "path-mnist": MedMnist(
            title="PathMNIST",
            images="Tissue, from stained slides of colorectal cancer",
            num_images=(89_996, 10_004, 7_180),
            labels=(
                "adipose",
                "background",
                "debris",
                "lymphocytes",
                "mucus",
                "smooth muscle",
                "normal colon mucosa",
                "cancer-associated stroma",
                "colorectal adenocarcinoma epithelium",
            ),
            md5="a8b06965200029087d5bd730944a56c1",
            is_colour=True,
        ),
        "pneumonia-mnist": MedMnist(
            title="PneumoniaMNIST",
            images="Pneumonia or not, from chest X-rays of children",
            num_images=(4_708, 524, 624),
            labels=("normal", "pneumonia"),
            md5="28209eda62fecd6e6a2d98b1501bb15f",
            repacked=("d0bfa3330f26554c4117328b1117f52bfb3746404b0594c58f37a09b4314d396",),
        ),
        "retina-mnist": MedMnist(
            title="RetinaMNIST",
            images="Grade of diabetic retinopathy as a class, from images of the fundus",
            num_images=(1_080, 120, 400),
            labels=("0", "1", "2", "3", "4"),
            md5="bd4c0672f1bba3e3a89f0e4e876791e4",
            is_colour=True,
        ),
        "tissue-mnist": MedMnist(
            title="TissueMNIST",
            images="Type of a cell of the kidney's cortex, from a microscope's image",
            num_images=(165_466, 23_640, 47_280),
            labels=(
                "Collecting Duct, Connecting Tubule",
                "Distal Convoluted Tubule",
                "Glomerular endothelial cells",
                "Interstitial endothelial cells",
                "Leukocytes",
                "Podocytes",
                "Proximal Tubule Segments",
                "Thick Ascending Limb",
            ),
            md5="ebe78ee8b05294063de985d821c1c34b",
        ),
    }
)


def medmnist(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    size: int = 28,
    clients: int = 5,
    partition: str = "iid",
    alpha: float = 0.5,
    shift: float = 0.0,
    seed: int = 0,
) -> FederatedDataset:
    """Loads a set, in its official division into training, validation and test images.

    `x` is uint8 `[N, size, size, channels]` of grey values or RGB. `y` is int32 `[N]`, or `[N, labels]`
    of 0 and 1 for "chest-mnist". Hospitals are simulated; each has training, validation and test
    images in the same shares of each class, so small ones may have no validation or test images.

    A file of 28 x 28 pixels is compared with the MD5 that MedMNIST publishes; it is downloaded if it
    is in no local folder. Of "breast-mnist" and "pneumonia-mnist" copies are known besides that were
    packed in another way, and are recognised by SHA-256: the first has labels of another shape, the
    training images of the second were put together from two public copies and are in another order.
    Numbers of images and of each label are the official ones; that pixels are could not be checked.
    Files of other sizes are read from a local folder only; of them numbers, shapes and labels are
    compared, but no checksum.

    Args:
      name: a key of `SETS`, such as "breast-mnist".
      data_dir: folder with `breastmnist.npz`; see `FEDJAX_MED_DATA` as well.
      size: 28, 64, 128 or 224 pixels.
      clients: number of simulated hospitals.
      partition: "iid", or "dirichlet" for classes in uneven shares.
      alpha: concentration of "dirichlet"; 0.1 leaves most hospitals with one class.
      shift: how different the hospitals' scanners are, see `scanners`; 0 for one scanner.
      seed: of division and scanners.

    Raises:
      DataError: if the file is missing, damaged or another one, or an option is not allowed.
    """
    if name not in SETS:
        raise DataError(f"name must be one of {', '.join(SETS)}, got {name!r}.")
    if size not in SIZES:
        raise DataError(f"size must be one of {', '.join(map(str, SIZES))}, got {size!r}.")
    known = SETS[name]
    scanners = draw_scanners(clients, shift, seed)
    parts = _read(_path(name, size, data_dir), known, size)
    dataset = simulated_hospitals(
        parts,
        clients,
        how=partition,
        alpha=alpha,
        seed=seed,
        name=name,
        label_names=known.labels,
        licence=LICENCE,
        source=f"{known.title}, MedMNIST v2; hospitals are simulated",
        citation=CITATION,
    )
    return scanned(dataset, scanners, seed) if shift else dataset


def _path(name: str, size: int, data_dir: str | os.PathLike | None) -> Path:
    known, short = SETS[name], name.replace("-mnist", "").replace("-", "")
    file = f"{short}mnist.npz" if size == 28 else f"{short}mnist_{size}.npz"
    folder = f"medmnist-{short}"
    if size != 28:
        return unverified(folder, file, data_dir)
    remote = Remote(_URL.format(file), "", md5=known.md5, repacked=known.repacked)
    return locate(folder, {file: remote}, data_dir)[file]


def _read(path: Path, known: MedMnist, size: int) -> dict[str, dict[str, np.ndarray]]:
    """Images and labels of all splits, checked against what is known of the set."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            archive: Any = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("a single array")
            arrays = {key: archive[key] for key in archive.files}
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}).") from error
    except (ValueError, *UNPACKING_ERRORS) as error:
        raise DataError(
            f"{path} is no archive of images (NumPy's .npz), or is cut short; replace the file."
        ) from error
    channels = 3 if known.is_colour else 1
    parts = {}
    for (split, short), number in zip(_SPLITS.items(), known.num_images, strict=True):
        x = _array(path, arrays, f"{short}_images", number)
        if x.ndim == 3:
            x = x[..., None]
        if x.dtype != np.uint8 or x.shape[1:] != (size, size, channels):
            raise DataError(
                f"{short}_images in {path} must be uint8 images of {size} x {size} pixels with "
                f"{channels} channel(s), got {x.dtype} {list(x.shape)}."
            )
        y = _array(path, arrays, f"{short}_labels", number)
        parts[split] = {"x": x, "y": _labels(path, f"{short}_labels", y, known)}
    return parts


def _array(path: Path, arrays: Mapping[str, np.ndarray], key: str, number: int) -> np.ndarray:
    if key not in arrays:
        found = ", ".join(arrays) or "nothing"
        raise DataError(f"{path} must hold the array {key!r}, got {found}.")
    if len(arrays[key]) != number:
        raise DataError(f"{key} in {path} must be of {number:,} images, got {len(arrays[key]):,}.")
    return arrays[key]


def _labels(path: Path, key: str, y: np.ndarray, known: MedMnist) -> np.ndarray:
    shape = (len(y), len(known.labels)) if known.is_multilabel else (len(y),)
    most = 1 if known.is_multilabel else len(known.labels) - 1
    if y.shape == (*shape, 1):
        y = y[..., 0]
    if y.shape != shape or y.dtype.kind not in "iu" or y.min() < 0 or y.max() > most:
        raise DataError(
            f"{key} in {path} must be whole numbers from 0 to {most} of shape {list(shape)}, got "
            f"{y.dtype} {list(y.shape)}."
        )
    return y.astype(np.int32)
