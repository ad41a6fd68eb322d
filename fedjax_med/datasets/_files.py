"""Finds the files of a dataset: a local copy first, the network last, never unverified.

Patients' data changes results silently when a file is another version or cut short, so every
file is compared with its SHA-256 wherever it comes from, or with the MD5 that its origin publishes.
"""

import gzip
import hashlib
import io
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fedjax_med.data import DataError

DATA_VARIABLE = "FEDJAX_MED_DATA"

_ADVICE = f"pass --data-dir (or data_dir=) or set {DATA_VARIABLE} to a folder that holds it"
_TITLES = {"sha256": "SHA-256", "md5": "MD5"}
# Each of what gzip and zipfile raise for bytes that are cut short or changed.
UNPACKING_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile)


class Remote(NamedTuple):
    """Where a file comes from, and how it is recognised.

    Attributes:
      url: address of the file, or of a zip archive that holds it.
      sha256: in hex, of the file itself, unpacked; empty if only `md5` is known.
      member: its name inside the archive; empty if `url` is the file.
      md5: in hex, instead of `sha256`.
      repacked: SHA-256 of local copies with the same content that were packed in another way.
    """

    url: str
    sha256: str
    member: str = ""
    md5: str = ""
    repacked: tuple[str, ...] = ()

    @property
    def known_hash(self) -> str:
        """Algorithm and digest of the file as it is downloaded."""
        return f"sha256:{self.sha256}" if self.sha256 else f"md5:{self.md5}"


def locate(
    name: str,
    files: Mapping[str, Remote],
    data_dir: str | os.PathLike | None = None,
) -> dict[str, Path]:
    """The verified path of every file of a dataset.

    Each file is looked for as `<folder>/<dataset>/<file>` and then `<folder>/<file>`, where
    `<dataset>` is `name` with underscores, and in either place also packed, with `.gz` behind
    its name; `open_text` reads both:

    1. in `data_dir`, if given; a file missing there is an error, nothing else is tried;
    2. in the folder that the environment variable `FEDJAX_MED_DATA` names, if set;
    3. in the user's cache, where it is downloaded to if it is missing or damaged. A download
       with the wrong checksum is deleted.

    Args:
      name: name of the dataset, such as "heart-disease".
      files: for each file name where it comes from.
      data_dir: a folder with local copies.

    Raises:
      DataError: if a file is missing, cannot be downloaded or has the wrong checksum.
    """
    return {file: _locate_one(name, file, files[file], data_dir) for file in files}


def unverified(name: str, file: str, data_dir: str | os.PathLike | None = None) -> Path:
    """The path of a local copy of which no checksum is known; the caller judges what is in it.

    Raises:
      DataError: if it is neither in `data_dir` nor in the folder of `FEDJAX_MED_DATA`.
    """
    given = data_dir if data_dir is not None else os.environ.get(DATA_VARIABLE)
    local = None if not given else _local_copy(Path(given), name.replace("-", "_"), file)
    if local is None:
        where = f"not in {given}" if given else "in no local folder"
        raise DataError(f"{file} of {name} is {where}, and is not downloaded; {_ADVICE}.")
    return local


def open_text(path: Path, encoding: str = "utf-8") -> io.TextIOWrapper:
    """Opens a file for the `csv` module, unpacking it if its name ends in `.gz`."""
    stream = gzip.open(path) if path.suffix == ".gz" else open(path, "rb")
    return io.TextIOWrapper(stream, encoding=encoding, newline="")


def verified(path: Path, sha256: str, advice: str = _ADVICE) -> Path:
    """`path`, if the SHA-256 of the file, unpacked where it ends in `.gz`, is `sha256`.

    Args:
      path: the file.
      sha256: in hex.
      advice: the second half of the sentence "replace the file, or ... unchanged."

    Raises:
      DataError: if it is another one, or the file cannot be read.
    """
    return _compared(path, f"sha256:{sha256}", advice)


def _recognised(path: Path, remote: Remote) -> Path:
    """`path`, if it is the file or another packing of it."""
    if remote.repacked and _digest(path, "sha256", _ADVICE) in remote.repacked:
        return path
    return _compared(path, remote.known_hash, _ADVICE)


def _compared(path: Path, known_hash: str, advice: str) -> Path:
    algorithm, _, expected = known_hash.partition(":")
    found = _digest(path, algorithm, advice)
    if found != expected:
        raise DataError(
            f"{path} is damaged or another version: its {_TITLES[algorithm]} begins with "
            f"{found[:12]}, expected {expected[:12]}; replace the file, or {advice} unchanged."
        )
    return path


def _digest(path: Path, algorithm: str, advice: str) -> str:
    opener = gzip.open if path.suffix == ".gz" else open
    digest = hashlib.new(algorithm, usedforsecurity=False)
    try:
        with opener(path, "rb") as stream:
            while piece := stream.read(2**20):
                digest.update(piece)
    except UNPACKING_ERRORS as error:
        raise DataError(
            f"{path} is cut short or damaged and cannot be unpacked; replace the file, or "
            f"{advice} unchanged."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {advice}.") from error
    return digest.hexdigest()


def _locate_one(name: str, file: str, remote: Remote, data_dir: str | os.PathLike | None) -> Path:
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
        return _recognised(local, remote)
    named = os.environ.get(DATA_VARIABLE)
    if named:
        local = _local_copy(Path(named), folder, file)
        if local is not None:
            return _recognised(local, remote)
    return _download(name, folder, file, remote)


def _local_copy(root: Path, folder: str, file: str) -> Path | None:
    candidates = (root / folder / file, root / folder / f"{file}.gz")
    candidates += (root / file, root / f"{file}.gz")
    return next((path for path in candidates if path.is_file()), None)


def _download(name: str, folder: str, file: str, remote: Remote) -> Path:
    import pooch  # takes a while to import, and most calls end before it is needed

    cache = Path(pooch.os_cache("fedjax_med")) / folder
    try:
        if remote.member:
            return _download_member(file, remote, cache)
        # Pooch downloads to a temporary file, compares the checksum and only then renames; a
        # cached file with another checksum is downloaded again.
        return Path(
            pooch.retrieve(remote.url, known_hash=remote.known_hash, fname=file, path=cache)
        )
    except ValueError as error:
        found = re.search(r"but got ([0-9a-f]{12})", str(error))
        if not found:
            raise
        algorithm, _, expected = remote.known_hash.partition(":")
        raise DataError(
            f"{file} of {name}, downloaded from {remote.url}, is damaged or another version and "
            f"was deleted: its {_TITLES[algorithm]} begins with {found[1]}, expected "
            f"{expected[:12]}; try again, or {_ADVICE}."
        ) from error
    except (KeyError, *UNPACKING_ERRORS) as error:  # before OSError, which BadGzipFile is
        raise DataError(
            f"{file} of {name} could not be unpacked from what {remote.url} sent, which was "
            f"deleted; try again, or {_ADVICE}."
        ) from error
    except OSError as error:  # no network, no such page, or a full disk
        if (response := getattr(error, "response", None)) is not None:
            response.close()  # an error page is never read, and its connection stays open
        reason = error.strerror or type(error).__name__
        raise DataError(
            f"{file} of {name} is in no local folder and could not be downloaded from "
            f"{remote.url} to {cache} ({reason}); {_ADVICE}, or connect to the network."
        ) from error


def _download_member(file: str, remote: Remote, cache: Path) -> Path:
    """Keeps the one file of the archive that is needed, and nothing else."""
    import pooch

    path = cache / file
    if path.is_file() and _digest(path, "sha256", _ADVICE) == remote.sha256:
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        # The checksum is that of the member: sites pack the same file again and again.
        archive = pooch.retrieve(remote.url, known_hash=None, fname="archive", path=temporary)
        unpacked = Path(temporary) / "unpacked"
        with zipfile.ZipFile(archive) as packed, packed.open(remote.member) as source:
            with open(unpacked, "wb") as target:
                shutil.copyfileobj(source, target)
        found = _digest(unpacked, "sha256", _ADVICE)
        if found != remote.sha256:
            raise ValueError(f"expected {remote.sha256} but got {found}")
        return unpacked.replace(path)
