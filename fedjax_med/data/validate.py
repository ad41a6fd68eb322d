"""Checks of the values of a dataset, before anything is trained on it."""

from collections.abc import Callable

import numpy as np

from fedjax_med.data._tree import leaves_with_paths
from fedjax_med.data.client_arrays import ClientArrays, row_chunks
from fedjax_med.data.errors import DataError
from fedjax_med.data.federated_dataset import FederatedDataset

_MAY_BE_MISSING = ("['x']", "['labs']", "['static']")


def check(
    dataset: FederatedDataset, num_classes: int | None = None, *, allow_missing: bool = False
) -> None:
    """Raises if the values of `dataset` cannot be trained on; returns nothing otherwise.

    Every client needs a training example, every floating leaf must be finite, and the
    labels `examples["y"]` must be classes, as those of every voxel, `examples["mask"]`. Where there are `examples["time"]` and
    `examples["event"]`, times must not be negative and events must be 0 or 1; time 0 is
    allowed, since a patient censored on the day of entry says nothing and does no harm. What
    concerns names, lengths, dtypes and shapes is refused when a `FederatedDataset` is built.
    Arrays are read in pieces, so memory-mapped ones stay on disk.

    Args:
      dataset: the data to check, all splits of it.
      num_classes: labels must be whole numbers in `0..num_classes - 1`. By default integer
        labels must be below the number of `label_names`, or just not negative where there
        are none, and floating labels may be anything finite.
      allow_missing: allow NaN in `examples["x"]`, and in `labs` and `static` of records, where it
        means that a value is missing, as in a dataset that is not imputed yet. Infinite values
        are never allowed.

    Raises:
      DataError: one sentence naming the client, the leaf or column, the value and what is
        allowed, for the first thing found.
    """
    empty = np.flatnonzero(dataset.train.sizes == 0)
    if len(empty):
        more = f" ({len(empty)} clients have none)" if len(empty) > 1 else ""
        raise DataError(
            f"client {dataset.client_names[empty[0]]!r} of dataset {dataset.name!r} has no "
            f"training examples{more}; every client needs at least one."
        )
    splits = dataset.splits()
    for split, arrays in splits.items():
        for path, leaf in leaves_with_paths(arrays.examples):
            if leaf.dtype.kind in "fcV":
                bad = np.isinf if allow_missing and path in _MAY_BE_MISSING else _not_finite
                _check_finite(dataset, split, arrays, path, leaf, bad)
    if num_classes is None and dataset.label_names:
        num_classes = len(dataset.label_names)
    for split, arrays in splits.items():
        for key in ("y", "mask"):
            _check_labels(dataset, split, arrays, num_classes, key)
        _check_times(dataset, split, arrays)


def _not_finite(values: np.ndarray) -> np.ndarray:
    return ~np.isfinite(values)


def _check_finite(
    dataset: FederatedDataset,
    split: str,
    arrays: ClientArrays,
    path: str,
    leaf: np.ndarray,
    is_bad: Callable[[np.ndarray], np.ndarray],
) -> None:
    for start, piece in row_chunks(leaf):
        bad = is_bad(piece)
        if not bad.any():
            continue
        row, *column = np.argwhere(bad)[0].tolist()
        client = _client_of_row(arrays, start + row)
        # Then count in that client alone, and in that column where there are columns.
        begin, end = arrays.offsets[client], arrays.offsets[client + 1]
        values = leaf[begin:end]
        if path == "['x']" and len(column) == 1:
            names = dataset.feature_names
            named = repr(names[column[0]]) if names else str(column[0])
            where = f"column {named}"
            values = values[:, column[0]]
        else:
            index = f"[{', '.join(map(str, column))}]" if column else ""
            where = f"examples{path}" + (f" (first at {index})" if index else "")
            values = values.reshape(len(values), -1)
        bad = is_bad(values)
        bad_rows = int((bad if bad.ndim == 1 else bad.any(axis=1)).sum())
        what = "infinite" if is_bad is np.isinf else "NaN or infinite"
        raise DataError(
            f"{where} of client {dataset.client_names[client]!r} is {what} in "
            f"{bad_rows} of its {len(values)} {split} rows; only finite numbers are "
            "allowed, so impute or drop these rows."
        )


def _check_labels(
    dataset: FederatedDataset,
    split: str,
    arrays: ClientArrays,
    num_classes: int | None,
    key: str,
) -> None:
    y = arrays.examples.get(key) if isinstance(arrays.examples, dict) else None
    if not isinstance(y, np.ndarray) or y.dtype.kind in "cV":
        return
    if y.dtype.kind == "f" and num_classes is None:
        return
    for start, piece in row_chunks(y):
        bad = piece < 0
        if num_classes is not None:
            bad = bad | (piece >= num_classes)
        if y.dtype.kind == "f":
            bad = bad | (piece != np.floor(piece))
        if not bad.any():
            continue
        index = tuple(np.argwhere(bad)[0].tolist())
        client = _client_of_row(arrays, start + index[0])
        row = start + index[0] - int(arrays.offsets[client])
        if num_classes is None:
            allowed = "labels must not be negative"
        else:
            allowed = f"labels must be whole numbers in 0..{num_classes - 1}"
        raise DataError(
            f"{'label' if key == 'y' else key} {piece[index].item()!r} of client {dataset.client_names[client]!r} "
            f"({split}, row {row} of that client) is not allowed; {allowed}."
        )


def _check_times(dataset: FederatedDataset, split: str, arrays: ClientArrays) -> None:
    if not isinstance(arrays.examples, dict) or not {"time", "event"} <= arrays.examples.keys():
        return
    allowed = {"time": "times must not be negative", "event": "events must be 0 or 1"}
    for key, sentence in allowed.items():
        leaf = arrays.examples[key]
        for start, piece in row_chunks(leaf):
            bad = piece < 0 if key == "time" else (piece != 0) & (piece != 1)
            if not bad.any():
                continue
            index = tuple(np.argwhere(bad)[0].tolist())
            client = _client_of_row(arrays, start + index[0])
            row = start + index[0] - int(arrays.offsets[client])
            raise DataError(
                f"{key} {piece[index].item()!r} of client {dataset.client_names[client]!r} "
                f"({split}, row {row} of that client) is not allowed; {sentence}."
            )


def _client_of_row(arrays: ClientArrays, row: int) -> int:
    # "right", so that clients without rows, whose offsets coincide, are passed over.
    return int(np.searchsorted(arrays.offsets, row, side="right")) - 1
