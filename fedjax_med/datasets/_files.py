"""Finds the files of a dataset: a local copy first, the network last, never unverified.

Patients' data changes results silently when a file is another version or cut short, so every
file is compared with its SHA-256 wherever it comes from.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from fedjax_med.data import DataError

DATA_VARIABLE = "FEDJAX_MED_DATA"

_ADVICE = f"pass --data-dir (or data_dir=) or set {DATA_VARIABLE} to a folder that holds it"


def locate(
    name: str,
    files: Mapping[str, tuple[str, str]],
    data_dir: str | os.PathLike | None = None,
) -> dict[str, Path]:
    """The verified path of every file of a dataset.

    Each file is looked for as `<folder>/<dataset>/<file>` and then `<folder>/<file>`, where
    `<dataset>` is `name` with underscores:

    1. in `data_dir`, if given; a file missing there is an error, nothing else is tried;
    2. in the folder that the environment variable `FEDJAX_MED_DATA` names, if set;
    3. in the user's cache, where it is downloaded to if it is missing or damaged. A download
       with the wrong checksum is deleted.

    Args:
      name: name of the dataset, such as "heart-disease".
      files: for each file name its address and its SHA-256 in hex.
      data_dir: a folder with local copies.

    Raises:
      DataError: if a file is missing, cannot be downloaded or has the wrong checksum.
    """
    return {file: _locate_one(name, file, *files[file], data_dir) for file in files}


def _locate_one(
    name: str, file: str, url: str, sha256: str, data_dir: str | os.PathLike | None
) -> Path:
    folder = name.replace("-", "_")
    if data_dir is not None:
        root = Path(data_dir)
        if not root.is_dir():
            raise DataError(f"the data folder {root} does not exist; {_ADVICE} of {name}.")
        local = _local_copy(root, folder, file)
        if local is None:
            raise DataError(
                f"{file} of {name} is neither in {root / folder} nor in {root}; {_ADVICE}, "
                "or leave both out to download it."
            )
        return _verified(local, sha256)
    named = os.environ.get(DATA_VARIABLE)
    if named:
        local = _local_copy(Path(named), folder, file)
        if local is not None:
            return _verified(local, sha256)
    return _download(name, folder, file, url, sha256)


def _local_copy(root: Path, folder: str, file: str) -> Path | None:
    candidates = (root / folder / file, root / file)
    return next((path for path in candidates if path.is_file()), None)


def _verified(path: Path, sha256: str) -> Path:
    try:
        with open(path, "rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {_ADVICE}.") from error
    if found != sha256:
        raise DataError(
            f"{path} is damaged or another version: its SHA-256 begins with {found[:12]}, "
            f"expected {sha256[:12]}; replace the file, or {_ADVICE} unchanged."
        )
    return path


def _download(name: str, folder: str, file: str, url: str, sha256: str) -> Path:
    import pooch  # takes a while to import, and most calls end before it is needed

    cache = Path(pooch.os_cache("fedjax_med")) / folder
    try:
        # Pooch downloads to a temporary file, compares the checksum and only then renames; a
        # cached file with another checksum is downloaded again.
        path = pooch.retrieve(url, known_hash=f"sha256:{sha256}", fname=file, path=cache)
    except ValueError as error:
        found = re.search(r"but got ([0-9a-f]{12})", str(error))
        if not found:
            raise
        raise DataError(
            f"{file} of {name}, downloaded from {url}, is damaged or another version and was "
            f"deleted: its SHA-256 begins with {found[1]}, expected {sha256[:12]}; try again, "
            f"or {_ADVICE}."
        ) from error
    except OSError as error:  # no network, no such page, or a full disk
        if (response := getattr(error, "response", None)) is not None:
            response.close()  # an error page is never read, and its connection stays open
        reason = error.strerror or type(error).__name__
        raise DataError(
            f"{file} of {name} is in no local folder and could not be downloaded from {url} to "
            f"{cache} ({reason}); {_ADVICE}, or connect to the network."
        ) from error
    return Path(path)
