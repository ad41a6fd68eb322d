"""Nested arrays in a folder: one .npy file per array, and their structure as JSON."""

import contextlib
import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_med.data._tree import PyTree, leaves
from fedjax_med.data.errors import DataError


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, renamed to it at the end and removed after an error.

    Raises:
      DataError: if `folder` exists.
    """
    if folder.exists():
        raise DataError(f"{folder} exists already; give a folder that does not.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes it private to the user
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_tree(folder: Path, prefix: str, tree: PyTree) -> dict[str, Any]:
    """Writes every array of `tree`; returns the description that `read_tree` needs, for JSON."""
    files: list[dict[str, Any]] = []
    structure = _describe(tree, prefix, files)
    for entry, leaf in zip(files, leaves(tree), strict=True):
        write_array(folder / entry["file"], leaf)
    return {"structure": structure, "leaves": files}


def read_tree(folder: Path, description: dict[str, Any], memory_map: bool) -> PyTree:
    """Reads what `write_tree` wrote."""
    arrays = [read_array(folder / leaf["file"], leaf, memory_map) for leaf in description["leaves"]]
    return _rebuild(description["structure"], arrays)


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes a .npy file and waits until the disk has it."""
    with open(path, "wb") as file:
        np.save(file, little_endian(array), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def read_array(path: Path, expected: dict[str, Any] | None, memory_map: bool) -> np.ndarray:
    """Reads a .npy file.

    Args:
      path: of the file.
      expected: its `dtype` and `shape`, or None for whatever it holds.
      memory_map: whether the array may stay on disk.

    Raises:
      DataError: if the file is missing or damaged, or holds something else.
    """
    memory_map = memory_map and (expected is None or 0 not in expected["shape"])
    try:
        array = np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is missing or damaged: {error}.") from error
    if expected is None:
        return array
    if array.dtype.kind == "V":  # .npy files keep bfloat16 and its relatives as raw bytes
        ml_dtypes = importlib.import_module("ml_dtypes")  # comes with JAX
        array = array.view(getattr(ml_dtypes, expected["dtype"]))
    if [array.dtype.name, list(array.shape)] != [
        expected["dtype"],
        list(expected["shape"]),
    ]:
        raise DataError(
            f"{path} holds {array.dtype.name} {list(array.shape)}, but the manifest says "
            f"{expected['dtype']} {expected['shape']}."
        )
    return array


def little_endian(array: np.ndarray) -> np.ndarray:
    """The array in the byte order that is written and hashed on every machine."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _describe(tree: PyTree, prefix: str, files: list[dict[str, Any]]) -> Any:
    """The structure of `tree` as JSON; appends one entry per leaf to `files`."""
    if tree is None:
        return {"kind": "none"}
    if isinstance(tree, dict):
        if not all(isinstance(key, str) for key in tree):
            raise DataError("only dicts with text keys can be saved; rename the other keys.")
        children = {key: _describe(tree[key], prefix, files) for key in sorted(tree)}
        return {"kind": "dict", "children": children}
    if isinstance(tree, np.ndarray):
        index = len(files)
        files.append(
            {
                "file": f"{prefix}.{index}.npy",
                "dtype": tree.dtype.name,
                "shape": tree.shape,
            }
        )
        return {"kind": "leaf", "index": index}
    if type(tree) not in (list, tuple):
        raise DataError(f"{type(tree).__name__} cannot be saved; use dict, list or tuple.")
    children = [_describe(child, prefix, files) for child in tree]
    return {"kind": type(tree).__name__, "children": children}


def _rebuild(structure: Any, arrays: list[np.ndarray]) -> PyTree:
    kind = structure["kind"]
    if kind == "none":
        return None
    if kind == "leaf":
        return arrays[structure["index"]]
    children = structure["children"]
    if kind == "dict":
        return {key: _rebuild(child, arrays) for key, child in children.items()}
    return (list if kind == "list" else tuple)(_rebuild(child, arrays) for child in children)
