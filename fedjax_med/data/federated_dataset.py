"""The data of all clients in flat arrays, with the size of each client beside them.

A compressed-row layout: the examples of client 0, then those of client 1, and so on. A
million clients of uneven size are then a few large arrays, not a million small ones, and a
minibatch on any device is a gather by index. This module needs NumPy only.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_med.data._keys import random_keys, stream_of
from fedjax_med.data._tree import PyTree, leaves_with_paths, map_leaves
from fedjax_med.data.client_arrays import (
    ClientArrays,
    concatenate_clients,
    first_difference,
    row_chunks,
    signature_of,
)
from fedjax_med.data.errors import DataError
from fedjax_med.data.storage import (
    little_endian,
    new_folder,
    read_array,
    read_tree,
    write_array,
    write_tree,
)

SPLITS = ("train", "validation", "test")

_NAME_FIELDS = ("client_names", "feature_names", "label_names")
_FORMAT = "fedjax_med.federated_dataset"
_FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class FederatedDataset:
    """Named clients with training and, optionally, validation and test examples.

    Attributes:
      name: short name of the dataset.
      client_names: one distinct name per client, in the order of all arrays.
      train: training examples of every client.
      validation: validation examples, or None; a client may have none of them.
      test: test examples, or None; a client may have none of them.
      feature_names: names of the columns of `examples["x"]` where it is tabular, else empty.
      label_names: names of the classes 0, 1, ... of `examples["y"]`, may be empty.
      licence: terms of use of the data.
      source: where the data comes from.
      citation: what to cite.

    Raises:
      DataError: on construction, if names and arrays do not fit together. Values are judged
        by `fedjax_med.data.check`.
    """

    name: str
    client_names: tuple[str, ...]
    train: ClientArrays
    validation: ClientArrays | None = None
    test: ClientArrays | None = None
    feature_names: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()
    licence: str = ""
    source: str = ""
    citation: str = ""

    def __post_init__(self):
        for field in _NAME_FIELDS:
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if len(set(self.client_names)) < len(self.client_names):
            seen: set[str] = set()
            twice = next(n for n in self.client_names if n in seen or seen.add(n))
            raise DataError(f"client name {twice!r} occurs more than once; names must differ.")
        signature = signature_of(self.train.examples)
        for split, arrays in self.splits().items():
            if arrays.num_clients != len(self.client_names):
                raise DataError(
                    f"{split} has {arrays.num_clients} clients, but client_names has "
                    f"{len(self.client_names)}; they must be equal."
                )
            difference = first_difference(signature, signature_of(arrays.examples))
            if difference:
                raise DataError(f"{split} and train must hold the same arrays, but {difference}.")
        width = _num_features(self.train.examples)
        if self.feature_names and width is not None and width != len(self.feature_names):
            raise DataError(
                f"feature_names has {len(self.feature_names)} names, but examples['x'] has "
                f"{width} columns; they must be equal."
            )

    @classmethod
    def from_clients(
        cls,
        clients: Mapping[str, PyTree],
        *,
        validation: Mapping[str, PyTree] | None = None,
        test: Mapping[str, PyTree] | None = None,
        name: str = "dataset",
        **metadata: Any,
    ) -> "FederatedDataset":
        """Builds a dataset from one pytree of arrays per client.

        Dtypes are kept as they are. Clients keep the order of `clients`; those missing in
        `validation` or `test` have no such examples.

        Args:
          clients: training examples by client name, all of one structure, dtype and shape
            apart from the leading axis.
          validation: the same for validation, for some or all of the clients.
          test: the same for test.
          name: name of the dataset.
          **metadata: further fields of `FederatedDataset`, such as `feature_names`.

        Raises:
          DataError: if the clients do not fit together, with the client and the path.

        Examples:
          >>> data = FederatedDataset.from_clients({
          ...     "North": {"x": np.zeros((3, 2), np.float32), "y": np.zeros(3, np.int32)},
          ...     "South": {"x": np.ones((1, 2), np.float32), "y": np.ones(1, np.int32)},
          ... })
          >>> data.train.sizes.tolist()
          [3, 1]
        """
        if not clients:
            raise DataError("clients is empty; at least one client is needed.")
        names = tuple(clients)
        train = concatenate_clients(names, clients, "train")
        template = map_leaves(lambda leaf: leaf[:0], train.examples)
        held_out: dict[str, ClientArrays] = {}
        for split, given in (("validation", validation), ("test", test)):
            for unknown in [n for n in given or () if n not in clients]:
                raise _unknown_client(unknown, names)
            if given is not None:
                filled = {n: given.get(n, template) for n in names}
                held_out[split] = concatenate_clients(names, filled, split)
        return cls(name, names, train, **held_out, **_as_tuples(metadata))

    @classmethod
    def from_pooled(
        cls,
        examples: PyTree,
        site: Sequence[Hashable] | np.ndarray,
        *,
        name: str = "dataset",
        **metadata: Any,
    ) -> "FederatedDataset":
        """Builds a dataset from pooled rows and a column that says whose each row is.

        Clients are ordered by the value of `site` (numbers by size, text alphabetically), so
        that the order of the rows does not decide the order of the clients; a client's name
        is `str(value)`. Within a client, rows keep their order.

        Args:
          examples: pytree of arrays `[N, ...]`.
          site: `[N]`, any hashable values.
          name: name of the dataset.
          **metadata: further fields of `FederatedDataset`.

        Raises:
          DataError: if `site` has another length than the examples or misses a value.
        """
        values = site.tolist() if isinstance(site, np.ndarray) else list(site)
        for row, value in enumerate(values):
            if value is None or value != value:  # NaN is the value unequal to itself
                raise DataError(f"site is missing in row {row}; every row needs a client.")
        distinct = set(values)
        try:
            order = sorted(distinct)  # type: ignore[type-var]
        except TypeError:  # values of mixed types have no order of their own
            order = sorted(distinct, key=str)
        number = {value: i for i, value in enumerate(order)}
        client = np.fromiter((number[v] for v in values), np.int64, len(values))
        return cls.from_assignment(
            examples, client, tuple(str(v) for v in order), name=name, **metadata
        )

    @classmethod
    def from_assignment(
        cls,
        examples: PyTree,
        client: np.ndarray,
        client_names: Iterable[str],
        *,
        name: str = "dataset",
        **metadata: Any,
    ) -> "FederatedDataset":
        """Builds a dataset from pooled rows and the client index of each row.

        Args:
          examples: pytree of arrays `[N, ...]`.
          client: integers `[N]` in `range(len(client_names))`.
          client_names: the name of each client.
          name: name of the dataset.
          **metadata: further fields of `FederatedDataset`.

        Raises:
          DataError: if the lengths differ.
        """
        client_names = tuple(client_names)
        client = np.asarray(client)
        for path, leaf in leaves_with_paths(map_leaves(np.asanyarray, examples)):
            if leaf.ndim == 0 or leaf.shape[0] != len(client):
                raise DataError(
                    f"examples{path} has shape {leaf.shape}, but the column of sites has "
                    f"{len(client)} rows, which its first axis must equal."
                )
        rows = np.argsort(client, kind="stable")
        sizes = np.bincount(client, minlength=len(client_names))
        ordered = map_leaves(lambda leaf: np.asanyarray(leaf)[rows], examples)
        return cls(name, client_names, ClientArrays(ordered, sizes), **_as_tuples(metadata))

    @property
    def num_clients(self) -> int:
        """The number of clients."""
        return len(self.client_names)

    def splits(self) -> dict[str, ClientArrays]:
        """The parts that exist, of "train", "validation" and "test", in this order."""
        parts = {split: getattr(self, split) for split in SPLITS}
        return {split: arrays for split, arrays in parts.items() if arrays is not None}

    def replace(self, **fields: Any) -> "FederatedDataset":
        """The same dataset with some fields replaced, checked like a new one."""
        return dataclasses.replace(self, **fields)

    def client_index(self, name: str) -> int:
        """The position of a client.

        Raises:
          DataError: if there is no client of that name.
        """
        try:
            return self.client_names.index(name)
        except ValueError:
            raise _unknown_client(name, self.client_names) from None

    def select(self, names: Sequence[str]) -> "FederatedDataset":
        """The named clients, in the order given; their rows are copied into memory.

        Raises:
          DataError: if `names` is empty, repeats a client or names an unknown one.
        """
        if isinstance(names, str):
            names = (names,)
        if not names:
            raise DataError("names is empty; at least one client must be selected.")
        position = {name: i for i, name in enumerate(self.client_names)}
        for name in names:
            if name not in position:
                raise _unknown_client(name, self.client_names)
        index = np.array([position[name] for name in names])
        taken = {split: arrays.take(index) for split, arrays in self.splits().items()}
        return self.replace(client_names=tuple(names), **taken)

    def pooled(self, client_name: str = "pooled") -> "FederatedDataset":
        """All clients merged into one, split by split, for the pooled baseline; no copy."""
        merged = {
            split: ClientArrays(arrays.examples, np.array([arrays.num_examples]))
            for split, arrays in self.splits().items()
        }
        return self.replace(client_names=(client_name,), **merged)

    def map_examples(
        self, fn: Callable[[PyTree], PyTree], feature_names: Sequence[str] | None = None
    ) -> "FederatedDataset":
        """Applies `fn` to the examples of every split.

        Args:
          fn: from the pytree of all clients' examples `[N, ...]` of one split to another
            pytree of arrays with the same `N` in the same order. It sees all clients at
            once, so anything fitted in it would mix sites; use `standardize` for that.
          feature_names: names of the new columns of `examples["x"]`. By default the old
            ones, or none where their number no longer fits.

        Raises:
          DataError: if `fn` changes the number of examples.
        """
        mapped = {
            split: ClientArrays(fn(arrays.examples), arrays.sizes)
            for split, arrays in self.splits().items()
        }
        if feature_names is None:
            width = _num_features(mapped["train"].examples)
            feature_names = self.feature_names if width == len(self.feature_names) else ()
        return self.replace(feature_names=tuple(feature_names), **mapped)

    def split(
        self,
        *,
        validation: float = 0.0,
        test: float = 0.0,
        seed: int = 0,
        stratify: str | None = "y",
    ) -> "FederatedDataset":
        """Moves a random part of each client's training examples to validation and test.

        A client of `n` examples gives `round(n * test)` to test and `round(n * validation)`
        to validation (halves up). At least one stays in training: where these would take
        all, validation gives way first, then test. So a client of one example has it in
        training, and small clients may have no validation or test examples.

        Which rows move depends on the seed, the client's name and the order of its rows
        only: other clients may come and go. Rows keep their order within each part. With
        `stratify`, each part holds every class in proportion, to within one example per
        class and client; a class with a single example stays in training while
        `validation + test < 0.5`.

        Args:
          validation: fraction for validation; the existing validation part is kept if 0.
          test: fraction for test; the existing test part is kept if 0.
          seed: any integer.
          stratify: key of a 1-D leaf of the examples whose values are kept in proportion
            (a continuous one is as good as none), or None.

        Raises:
          DataError: if the fractions are not in [0, 1) with a sum below 1, if a part exists
            already, or if there is no such leaf.
        """
        for part, fraction in (("validation", validation), ("test", test)):
            if not 0 <= fraction < 1:
                raise DataError(f"{part} must be a fraction in [0, 1), got {fraction!r}.")
            if fraction and getattr(self, part) is not None:
                raise DataError(
                    f"dataset {self.name!r} has {part} examples already; {part} must be 0."
                )
        if not validation + test < 1:
            raise DataError(f"validation + test must be below 1, got {validation + test!r}.")
        train = self.train
        sizes, n = train.sizes, train.num_examples
        # One random key per row, made from the seed, the client and the place in the client.
        stream = np.fromiter((stream_of(c) for c in self.client_names), np.uint64, len(sizes))
        client = np.repeat(np.arange(len(sizes)), sizes)
        place = np.arange(n) - train.offsets[client]
        key = random_keys(seed, stream[client], place)
        quantile = np.zeros(n)
        if stratify is not None:
            _, label = np.unique(self._stratum(stratify), return_inverse=True)
            order = np.lexsort((key, label, client))
            new_group = np.ones(n, bool)
            new_group[1:] = (np.diff(client[order]) != 0) | (np.diff(label[order]) != 0)
            begin = np.flatnonzero(new_group)
            count = np.diff(np.append(begin, n))
            rank = np.arange(n) - np.repeat(begin, count)
            # The i-th of m examples of a class sits at (i + 1/2) / m: classes interleave
            # evenly, so any stretch of the merged order holds them in proportion.
            quantile[order] = (rank + 0.5) / np.repeat(count, count)
        order = np.lexsort((key, quantile, client))
        num_test = np.minimum(np.floor(sizes * test + 0.5), np.maximum(sizes - 1, 0))
        num_validation = np.minimum(
            np.floor(sizes * validation + 0.5), np.maximum(sizes - 1 - num_test, 0)
        )
        part_of = np.zeros(n, np.int8)
        rank = np.arange(n) - train.offsets[client]
        part_of[order] = np.where(
            rank < num_test[client], 2, rank < (num_test + num_validation)[client]
        )
        parts: dict[str, ClientArrays] = {}
        for code, (split, fraction) in enumerate(zip(SPLITS, (1.0, validation, test), strict=True)):
            if fraction:
                rows = np.flatnonzero(part_of == code)
                parts[split] = ClientArrays(
                    map_leaves(lambda leaf, rows=rows: leaf[rows], train.examples),
                    np.bincount(client[rows], minlength=len(sizes)),
                )
        return self.replace(**parts)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything a training run can depend on.

        Covers client, feature and label names, and for every split the sizes, the paths,
        dtypes and shapes of the leaves and their bytes (little endian, rows in order). It
        does not cover the name of the dataset, licence, source and citation. Arrays are
        read in pieces of 16 MiB, so memory-mapped ones stay on disk.
        """
        digest = hashlib.sha256()

        def add(value: Any) -> None:
            data = json.dumps(value, ensure_ascii=False).encode()
            digest.update(len(data).to_bytes(8, "little"))  # so that fields cannot run together
            digest.update(data)

        add([self.client_names, self.feature_names, self.label_names])
        for split, arrays in self.splits().items():
            add([split, arrays.num_clients])
            digest.update(arrays.sizes.astype("<i8").tobytes())
            for path, leaf in leaves_with_paths(arrays.examples):
                add([path, leaf.dtype.name, leaf.shape])
                for _, piece in row_chunks(leaf):
                    digest.update(np.ascontiguousarray(little_endian(piece)).tobytes())
        return digest.hexdigest()

    def summary(self) -> list[dict[str, Any]]:
        """One dict per client: name, sizes of the splits and label counts.

        Returns:
          Dicts with `name` (str), `train`, `validation`, `test` (numbers of examples, 0
          where there is no such split) and, where `examples["y"]` is 1-D and integer or
          boolean, `label_counts`: from the name of a label (or its number) to the number of
          the client's examples in all splits together, zeros included.
        """
        rows: list[dict[str, Any]] = []
        for i, name in enumerate(self.client_names):
            row: dict[str, Any] = {"name": name, "train": 0, "validation": 0, "test": 0}
            row.update({split: int(arrays.sizes[i]) for split, arrays in self.splits().items()})
            rows.append(row)
        counts = self._label_counts()
        for row, count in zip(rows, counts or (), strict=False):
            row["label_counts"] = count
        return rows

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the dataset to a new folder: one .npy file per array and `manifest.json`.

        Everything is written to a temporary folder beside it, which is renamed at the end:
        after a crash or on a full disk there is no half-written `folder`. Memory-mapped
        arrays are copied piece by piece.

        Raises:
          DataError: if `folder` exists (nothing is written over), or if the examples use
            containers other than dict with text keys, list and tuple.
          OSError: if the disk is full or not writable.
        """
        with new_folder(Path(folder)) as temporary:
            splits = {}
            for split, arrays in self.splits().items():
                splits[split] = write_tree(temporary, split, arrays.examples)
                write_array(temporary / f"{split}.sizes.npy", arrays.sizes)
            manifest = {
                "format": _FORMAT,
                "version": _FORMAT_VERSION,
                "fingerprint": self.fingerprint(),
                "name": self.name,
                "client_names": self.client_names,
                "feature_names": self.feature_names,
                "label_names": self.label_names,
                "licence": self.licence,
                "source": self.source,
                "citation": self.citation,
                "splits": splits,
            }
            with open(temporary / "manifest.json", "w", encoding="utf-8") as file:
                json.dump(manifest, file, ensure_ascii=False, indent=1)
                file.flush()
                os.fsync(file.fileno())

    @classmethod
    def load(
        cls, folder: str | os.PathLike, memory_map: bool = True, verify: bool = False
    ) -> "FederatedDataset":
        """Reads what `save` wrote.

        Args:
          folder: a folder written by `save`.
          memory_map: leave the arrays on disk and read rows as they are used.
          verify: read everything once and compare it with the fingerprint saved.

        Raises:
          DataError: if the folder is not such a dataset, or a file in it is missing,
            damaged or not as the manifest says.
        """
        folder = Path(folder)
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{folder} holds no manifest.json, so it is no dataset.") from None
        except (OSError, ValueError) as error:
            raise DataError(f"{folder / 'manifest.json'} cannot be read: {error}.") from error
        try:
            dataset = cls._from_manifest(folder, manifest, memory_map)
            saved = manifest["fingerprint"]
        except (AttributeError, KeyError, TypeError, IndexError) as error:
            raise DataError(
                f"{folder / 'manifest.json'} is not as it was saved ({error!r})."
            ) from error
        if verify and dataset.fingerprint() != saved:
            raise DataError(
                f"{folder} has fingerprint {dataset.fingerprint()[:12]}, but its manifest says "
                f"{saved[:12]}: a file was changed, so save it again."
            )
        return dataset

    @classmethod
    def _from_manifest(cls, folder: Path, manifest: Any, memory_map: bool) -> "FederatedDataset":
        found = (manifest.get("format"), manifest.get("version"))
        if found != (_FORMAT, _FORMAT_VERSION):
            raise DataError(
                f"{folder / 'manifest.json'} has format and version {found}, expected "
                f"{(_FORMAT, _FORMAT_VERSION)}."
            )
        splits = {}
        for split, entry in manifest["splits"].items():
            sizes = read_array(folder / f"{split}.sizes.npy", None, memory_map=False)
            splits[split] = ClientArrays(read_tree(folder, entry, memory_map), sizes)
        texts = ("name", "licence", "source", "citation")
        return cls(
            **{field: tuple(manifest[field]) for field in _NAME_FIELDS},
            **{field: manifest[field] for field in texts},
            **splits,
        )

    def _stratum(self, key: str) -> np.ndarray:
        examples = self.train.examples
        if not isinstance(examples, dict) or key not in examples:
            raise DataError(f"examples have no leaf {key!r} to stratify by; pass stratify=None.")
        leaf = examples[key]
        if not isinstance(leaf, np.ndarray) or leaf.ndim != 1:
            raise DataError(
                f"examples[{key!r}] must be one array of one dimension to stratify by; "
                "pass stratify=None."
            )
        return leaf

    def _label_counts(self) -> list[dict[str, int]] | None:
        labels = {}
        for split, arrays in self.splits().items():
            y = arrays.examples.get("y") if isinstance(arrays.examples, dict) else None
            if not isinstance(y, np.ndarray) or y.ndim != 1 or y.dtype.kind not in "biu":
                return None
            labels[split] = y.astype(np.int64)
        values = np.unique(np.concatenate([*labels.values(), np.arange(len(self.label_names))]))
        named = dict(enumerate(self.label_names))
        keys = [named.get(int(v), str(v)) for v in values]
        totals = [np.zeros(len(values), np.int64) for _ in self.client_names]
        for split, arrays in self.splits().items():
            number = np.searchsorted(values, labels[split])
            for i, total in enumerate(totals):
                rows = number[arrays.offsets[i] : arrays.offsets[i + 1]]
                total += np.bincount(rows, minlength=len(values))
        return [dict(zip(keys, total.tolist(), strict=True)) for total in totals]


def _as_tuples(metadata: dict[str, Any]) -> dict[str, Any]:
    """Lists of names are as good as tuples where users give them."""
    return {k: tuple(v) if k in _NAME_FIELDS else v for k, v in metadata.items()}


def _unknown_client(name: str, known: Sequence[str]) -> DataError:
    shown = ", ".join(repr(n) for n in known[:10])
    rest = f" and {len(known) - 10} more" if len(known) > 10 else ""
    return DataError(f"unknown client {name!r}; the clients are {shown}{rest}.")


def _num_features(examples: PyTree) -> int | None:
    x = examples.get("x") if isinstance(examples, dict) else None
    return x.shape[1] if isinstance(x, np.ndarray) and x.ndim == 2 else None
