"""Writes DICOM and NIfTI files for tests, as scanners and other programs do."""

import nibabel
import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

DEFAULTS = {
    "Modality": "MR",
    "PatientID": "P1",
    "PhotometricInterpretation": "MONOCHROME2",
    "PixelSpacing": [2.0, 3.0],  # between rows, between columns
    "SeriesInstanceUID": "1.2.3",
}


def dicom_file(path, stored, **tags):
    """A file of one image from what is stored for its pixels, `[rows, columns]` of 16 bits."""
    stored = np.asarray(stored)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    made.Rows, made.Columns = stored.shape
    made.SamplesPerPixel = 1
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
    made.PixelRepresentation = int(stored.dtype.kind == "i")
    made.PixelData = stored.astype("<i2" if stored.dtype.kind == "i" else "<u2").tobytes()
    for name, value in {**DEFAULTS, **tags}.items():
        if value is None:
            if name in made:
                delattr(made, name)
        else:
            setattr(made, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def dicom_series(folder, volume, affine, **tags):
    """A volume `[columns, rows, slices]` with an affine to mm to the right, front and head.

    Files are numbered against the order of slices.
    """
    affine = np.diag([-1.0, -1, 1, 1]) @ affine  # DICOM counts to the left and to the back
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    ways = affine[:3, :3] / steps
    count = volume.shape[2]
    for i in range(count):
        dicom_file(
            folder / f"{count - i:03d}.dcm",
            volume[:, :, i].T,
            ImageOrientationPatient=[*ways[:, 0], *ways[:, 1]],
            ImagePositionPatient=list(affine[:3, 3] + i * affine[:3, 2]),
            **{"PixelSpacing": [steps[1], steps[0]], **tags},
        )
    return folder


def nifti_file(path, values, affine=None, dtype=np.float32, slope=None, units="mm"):
    """A volume `[x, y, z]` or an image `[x, y]`."""
    made = nibabel.Nifti1Image(np.asarray(values, dtype), np.eye(4) if affine is None else affine)
    made.header.set_xyzt_units(units)
    if slope is not None:
        made.header.set_slope_inter(*slope)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(made, path)
    return path
