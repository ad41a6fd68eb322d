"""Generated scans with lesions whose outlines are known, from hospitals with different scanners.

For testing how well lesions are found, and what a shift between scanners costs, at any size and in two
or three dimensions. A patient is a body of tissue with organs, vessels and sometimes lesions; a scanner
turns it into an image. Everybody is drawn in a few vectorised steps, by NumPy alone. No patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedjax_med.data import DataError, FederatedDataset

FIELD_OF_VIEW_MM = 192.0
LABELS = ("background", "lesion")
_SIZES = {2: (32, 32), 3: (16, 24, 24)}
_ORGANS, _VESSELS, _MOST_LESIONS = 4, 5, 3
_TISSUE = 0.45


class Scanner(NamedTuple):
    """A hospital: its patients, and what its scanner makes of them. The defaults are a good scanner.

    Intensities are those of the patient, in which air is 0, tissue 0.45 and the brightest vessels
    about 0.9.

    Attributes:
      name: of the hospital.
      patients: training patients.
      prevalence: share of the patients who have lesions.
      lesion_mm: radius of lesions, its median.
      lesion_contrast: brightness of lesions above tissue.
      gamma: contrast; intensities are raised to it.
      bias_field: how unevenly the field of view is lit: standard deviation of the log of a smooth
        factor.
      resolution_mm: full width at half maximum of the blur.
      ringing: share of the spatial frequencies along the last axis that are cut off, which leaves
        ripples at edges (Gibbs).
      stripes: amplitude of stripes across the image.
      noise: standard deviation of the noise of both channels whose magnitude is the image (Rician:
        about normal in tissue, and never below 0 in air).
      gain: factor of all intensities, last of all.
      offset: added to all intensities, last of all.
    """

    name: str = "Reference"
    patients: int = 40
    prevalence: float = 0.6
    lesion_mm: float = 18.0
    lesion_contrast: float = 0.3
    gamma: float = 1.0
    bias_field: float = 0.0
    resolution_mm: float = 4.0
    ringing: float = 0.0
    stripes: float = 0.0
    noise: float = 0.03
    gain: float = 1.0
    offset: float = 0.0


SCANNERS = (
    Scanner("North", patients=48, prevalence=0.7),
    Scanner("South", patients=36, gamma=1.7, gain=0.8, lesion_contrast=0.25),
    Scanner("East", patients=30, prevalence=0.8, resolution_mm=12.0, lesion_mm=22.0, noise=0.02),
    Scanner("West", patients=24, noise=0.12, lesion_mm=15.0, offset=0.1),
    Scanner("Coast", patients=16, prevalence=0.5, bias_field=0.5, ringing=0.5, gain=1.2),
    Scanner("Island", patients=10, prevalence=0.4, gamma=0.6, stripes=0.12, lesion_contrast=0.2),
)


def synthetic_scans(
    dims: int = 2,
    size: Sequence[int] | None = None,
    scanners: Sequence[Scanner] = SCANNERS,
    shift: float = 1.0,
    validation_patients: int = 10,
    test_patients: int = 30,
    seed: int = 0,
) -> FederatedDataset:
    """Scans of hospitals that differ in their scanners and patients.

    `x` is float32 `[N, height, width, 1]`, or `[N, depth, height, width, 1]` in three dimensions, in
    the units of each scanner. `mask` is int32 `[N, (depth,) height, width]`, 1 in lesions. `spacing` is
    float32 `[N, dims]` [mm], so that a field of view of 192 mm is covered along every axis.

    Patients depend on the seed, the number of the hospital and the split alone, so more patients in
    one hospital change nobody else.

    Args:
      dims: 2 or 3.
      size: of a scan, at least 8 along every axis; 32 x 32, or 16 x 24 x 24 if None.
      scanners: one per hospital.
      shift: from 0, where all hospitals have the scanner and the patients of `Scanner()`, to 1, where
        they have their own.
      validation_patients: per hospital; 0 for no validation.
      test_patients: per hospital; 0 for no test.
      seed: non-negative integer.

    Raises:
      DataError: if an argument is not allowed.
    """
    size = _checked(dims, size, scanners, shift, validation_patients, test_patients)
    counts = {"train": None, "validation": validation_patients, "test": test_patients}
    parts = {
        split: {
            scanner.name: _scans(
                np.random.default_rng([seed, hospital, number]),
                scanner.patients if count is None else count,
                size,
                at_shift(scanner, shift),
            )
            for hospital, scanner in enumerate(scanners)
        }
        for number, (split, count) in enumerate(counts.items())
        if count != 0
    }
    return FederatedDataset.from_clients(
        parts.pop("train"),
        **parts,
        name="synthetic-scans" if dims == 2 else "synthetic-volumes",
        label_names=LABELS,
        source="generated",
    )


def synthetic_volumes(
    size: Sequence[int] | None = None,
    scanners: Sequence[Scanner] = SCANNERS,
    shift: float = 1.0,
    validation_patients: int = 10,
    test_patients: int = 30,
    seed: int = 0,
) -> FederatedDataset:
    """`synthetic_scans` in three dimensions."""
    return synthetic_scans(3, size, scanners, shift, validation_patients, test_patients, seed)


def at_shift(scanner: Scanner, shift: float) -> Scanner:
    """The scanner on its way from `Scanner()`, at 0, to itself, at 1; patients are as many."""
    own, common = scanner._asdict(), Scanner()._asdict()
    moved = {
        key: common[key] + shift * (own[key] - common[key])
        for key in own
        if key not in ("name", "patients")
    }
    return scanner._replace(**moved)


def _checked(
    dims: int,
    size: Sequence[int] | None,
    scanners: Sequence[Scanner],
    shift: float,
    validation_patients: int,
    test_patients: int,
) -> tuple[int, ...]:
    if dims not in _SIZES:
        raise DataError(f"dims must be 2 or 3, got {dims!r}.")
    size = _SIZES[dims] if size is None else tuple(size)
    if len(size) != dims or min(size) < 8:
        raise DataError(f"size must be {dims} numbers of at least 8, got {list(size)}.")
    if not 0 <= shift <= 1:
        raise DataError(f"shift must be from 0 to 1, got {shift!r}.")
    for name, value in (
        ("validation_patients", validation_patients),
        ("test_patients", test_patients),
    ):
        if value < 0:
            raise DataError(f"{name} must not be negative, got {value}.")
    if not scanners:
        raise DataError("scanners is empty; at least one is needed.")
    for scanner in scanners:
        for name, low, high in (
            ("patients", 1, np.inf),
            ("prevalence", 0, 1),
            ("lesion_mm", 1e-9, np.inf),
            ("gamma", 1e-9, np.inf),
            ("bias_field", 0, np.inf),
            ("resolution_mm", 0, np.inf),
            ("ringing", 0, 0.9),
            ("noise", 0, np.inf),
        ):
            value = getattr(scanner, name)
            if not low <= value <= high:
                raise DataError(
                    f"{name} of scanner {scanner.name!r} must be from {low:g} to {high:g}, got {value}."
                )
    return size


def _scans(
    rng: np.random.Generator, count: int, size: tuple[int, ...], scanner: Scanner
) -> dict[str, np.ndarray]:
    voxel_mm = FIELD_OF_VIEW_MM / np.array(size)
    patient, mask = _patients(rng, count, size, voxel_mm, scanner)
    image = _scanned(rng, patient, voxel_mm, scanner)
    return {
        "x": image[..., None].astype(np.float32),
        "mask": mask.astype(np.int32),
        "spacing": np.tile(voxel_mm.astype(np.float32), (count, 1)),
    }


def _patients(
    rng: np.random.Generator,
    count: int,
    size: tuple[int, ...],
    voxel_mm: np.ndarray,
    scanner: Scanner,
) -> tuple[np.ndarray, np.ndarray]:
    """Intensities and masks of lesions `[count, *size]`."""
    dims = len(size)
    place = _places(size, voxel_mm)
    body_radii = rng.uniform(72, 90, (count, dims))
    turned = _rotations(rng, count, dims)
    body = _level(place, np.zeros((count, dims)), body_radii, turned)
    image = np.full((count, *size), _TISSUE, np.float32)
    for _ in range(_ORGANS):
        inside = _inside(rng, body_radii, turned, 0.7)
        organ = _level(
            place, inside, rng.uniform(14, 36, (count, dims)), _rotations(rng, count, dims)
        )
        image += _column(rng.uniform(-0.2, 0.2, count), dims) * _filled(organ)
    for _ in range(_VESSELS):
        radii = np.full((count, dims), 4.0)
        radii[:, 0] = rng.uniform(10, 40, count)
        inside = _inside(rng, body_radii, turned, 0.8)
        vessel = _level(place, inside, radii, _rotations(rng, count, dims))
        image += 0.3 * _filled(vessel)
    image += 0.04 * _texture(rng, count, size, voxel_mm, 6.0)

    mask = np.zeros((count, *size), bool)
    uneven = _texture(rng, count, size, voxel_mm, 12.0)
    number = rng.integers(1, _MOST_LESIONS, count, endpoint=True)
    number *= rng.random(count) < scanner.prevalence
    for lesion in range(_MOST_LESIONS):
        radius = scanner.lesion_mm * np.exp(0.3 * rng.standard_normal(count))
        radii = radius[:, None] * rng.uniform(0.75, 1.3, (count, dims))
        inside = _inside(rng, body_radii, turned, 0.75)
        level = _level(place, inside, radii, _rotations(rng, count, dims))
        # The voxel of the centre belongs to it however small it is.
        centre = level == level.min(axis=tuple(range(1, dims + 1)), keepdims=True)
        level = level + 0.2 * uneven
        present = _column(lesion < number, dims)
        mask |= present & ((level < 1) | centre) & (body < 1)
        image += present * scanner.lesion_contrast * _filled(level)
    return np.clip(image, 0, None) * _filled(body), mask


def _scanned(
    rng: np.random.Generator, patient: np.ndarray, voxel_mm: np.ndarray, scanner: Scanner
) -> np.ndarray:
    """What the scanner shows of intensities `[count, *size]`."""
    count, *size = patient.shape
    image = patient**scanner.gamma
    lit = _texture(rng, count, tuple(size), voxel_mm, 60.0)
    image = image * np.exp(scanner.bias_field * lit)
    sigma = scanner.resolution_mm / np.sqrt(8 * np.log(2))
    image = _blurred(image, voxel_mm, sigma)
    if scanner.ringing:
        spectrum = np.fft.rfft(image, axis=-1)
        spectrum[..., round((1 - scanner.ringing) * spectrum.shape[-1]) :] = 0
        image = np.fft.irfft(spectrum, size[-1], axis=-1)
    waves = rng.uniform(6, 10, count)
    phase = rng.uniform(0, 2 * np.pi, count)
    along = np.linspace(0, 2 * np.pi, size[-2])
    stripes = np.sin(waves[:, None] * along[None] + phase[:, None])
    image = image + scanner.stripes * stripes.reshape(count, *(1,) * (len(size) - 2), -1, 1)
    real, imaginary = scanner.noise * rng.standard_normal((2, *image.shape), np.float32)
    return scanner.gain * np.hypot(image + real, imaginary) + scanner.offset


def _places(size: tuple[int, ...], voxel_mm: np.ndarray) -> np.ndarray:
    """Where voxels are [mm] from the centre of the scan `[*size, dims]`."""
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(size, voxel_mm, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)


def _rotations(rng: np.random.Generator, count: int, dims: int) -> np.ndarray:
    """Orthogonal matrices `[count, dims, dims]`."""
    return np.linalg.qr(rng.standard_normal((count, dims, dims)))[0]


def _inside(
    rng: np.random.Generator, radii: np.ndarray, turned: np.ndarray, share: float
) -> np.ndarray:
    """Places [mm] uniform in the ellipsoids around 0 of `share` times the radii `[count, dims]`."""
    count, dims = radii.shape
    way = rng.standard_normal((count, dims))
    way *= (rng.random(count) ** (1 / dims) / np.linalg.norm(way, axis=1))[:, None]
    return np.einsum("nji,nj->ni", turned, share * radii * way)


def _level(
    place: np.ndarray, centre: np.ndarray, radii: np.ndarray, turned: np.ndarray
) -> np.ndarray:
    """Distance from ellipsoids' centres in units of their radii `[count, *size]`: 1 is the surface."""
    scaled = (turned / radii[:, :, None]).astype(np.float32)
    centre = centre.astype(np.float32)
    flat = np.einsum("nij,vj->niv", scaled, place.reshape(-1, place.shape[-1]))
    flat -= np.einsum("nij,nj->ni", scaled, centre)[:, :, None]
    return np.sqrt((flat**2).sum(axis=1)).reshape(len(centre), *place.shape[:-1])


def _filled(level: np.ndarray) -> np.ndarray:
    """1 inside, 0 outside, with an edge that is a tenth of the radius wide."""
    return 0.5 * (1 + np.tanh(10 * (1 - level)))


def _texture(
    rng: np.random.Generator, count: int, size: tuple[int, ...], voxel_mm: np.ndarray, mm: float
) -> np.ndarray:
    """Normal noise of a length of `mm`, with mean 0 and standard deviation 1 in every scan."""
    noise = _blurred(rng.standard_normal((count, *size), np.float32), voxel_mm, mm)
    axes = tuple(range(1, noise.ndim))
    noise -= noise.mean(axis=axes, keepdims=True)
    return noise / noise.std(axis=axes, keepdims=True)


def _blurred(image: np.ndarray, voxel_mm: np.ndarray, sigma_mm: float) -> np.ndarray:
    """Convolution `[count, *size]` with a normal density, opposite sides of the scan being joined."""
    axes = tuple(range(1, image.ndim))
    spectrum = np.fft.rfftn(image, axes=axes)
    for axis, mm in zip(axes, voxel_mm, strict=True):
        last = axis == axes[-1]
        n = image.shape[axis]
        frequency = np.fft.rfftfreq(n, mm) if last else np.fft.fftfreq(n, mm)
        response = np.exp(-2 * (np.pi * sigma_mm * frequency) ** 2).astype(np.float32)
        spectrum = spectrum * response.reshape([-1 if a == axis else 1 for a in range(image.ndim)])
    return np.fft.irfftn(spectrum, image.shape[1:], axes=axes)


def _column(values: np.ndarray, dims: int) -> np.ndarray:
    if values.dtype.kind == "f":
        values = values.astype(np.float32)
    return values.reshape(-1, *(1,) * dims)
