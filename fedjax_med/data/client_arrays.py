"""The examples of all clients in flat arrays, with the size of each client beside them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fedjax_med.data._tree import PyTree, leaves_with_paths, map_leaves
from fedjax_med.data.errors import DataError

_CHUNK_BYTES = 16 * 2**20


@dataclass(frozen=True, eq=False)
class ClientArrays:
    """Examples of all clients, concatenated, and how many belong to each.

    Attributes:
      examples: any nesting of dict, list and tuple whose leaves are arrays `[N, ...]` of
        numbers or booleans, client after client. Supervised data is by convention
        `{"x": float32 [N, ...], "y": int32 or float32 [N]}`. Leaves may be `np.memmap`.
      sizes: int64 `[num_clients]`, the number of examples of each client; 0 is allowed here
        (a client may have no test examples), `fedjax_med.data.check` decides where it is not.

    Raises:
      DataError: on construction, if a leaf is not an array of numbers, if the leaves differ
        in length, or if `sizes` does not add up to that length.
    """

    examples: PyTree
    sizes: np.ndarray

    def __post_init__(self):
        sizes = np.asarray(self.sizes)
        if sizes.ndim != 1 or (sizes.size and not np.issubdtype(sizes.dtype, np.integer)):
            raise DataError(
                f"sizes must be a list of integers, one per client, got shape {sizes.shape} "
                f"and dtype {sizes.dtype}."
            )
        if (sizes < 0).any():
            raise DataError(f"sizes must not be negative, got {int(sizes.min())}.")
        # asanyarray keeps a memmap a memmap; frozen, hence object.__setattr__.
        object.__setattr__(self, "sizes", sizes.astype(np.int64))
        object.__setattr__(self, "examples", map_leaves(np.asanyarray, self.examples))
        total = int(self.sizes.sum())
        empty = True
        for path, leaf in leaves_with_paths(self.examples):
            empty = False
            # Kind V without fields is bfloat16 and its relatives.
            if leaf.dtype.kind not in "biufcV" or leaf.dtype.names:
                raise DataError(
                    f"examples{path} has dtype {leaf.dtype}; only numbers and booleans are "
                    "allowed, so encode text and categories first."
                )
            if leaf.ndim == 0 or leaf.shape[0] != total:
                raise DataError(
                    f"examples{path} has shape {leaf.shape}, but the sizes of the "
                    f"{len(self.sizes)} clients add up to {total} examples, which its first "
                    "axis must equal."
                )
        if empty:
            raise DataError("examples holds no array; at least one is needed.")

    @cached_property
    def offsets(self) -> np.ndarray:
        """int64 `[num_clients + 1]`; client `i` has the rows `offsets[i]:offsets[i + 1]`."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.sizes)])

    @property
    def num_examples(self) -> int:
        """The number of examples of all clients together."""
        return int(self.offsets[-1])

    @property
    def num_clients(self) -> int:
        """The number of clients."""
        return len(self.sizes)

    def client(self, index: int) -> PyTree:
        """The examples of one client: views, nothing is copied.

        Raises:
          IndexError: if `index` is not in `range(num_clients)`.
        """
        if not 0 <= index < self.num_clients:
            raise IndexError(f"client index must be in 0..{self.num_clients - 1}, got {index}.")
        start, stop = int(self.offsets[index]), int(self.offsets[index + 1])
        return map_leaves(lambda leaf: leaf[start:stop], self.examples)

    def row_indices(self, clients: np.ndarray | Sequence[int]) -> np.ndarray:
        """The row numbers of the given clients, one client after the other, int64."""
        clients = np.asarray(clients, np.int64)
        sizes = self.sizes[clients]
        # Where the rows of each client begin in the result, subtracted from where they
        # begin here, turns one arange into all row numbers without a Python loop.
        begins = np.cumsum(sizes) - sizes
        return np.arange(sizes.sum()) + np.repeat(self.offsets[clients] - begins, sizes)

    def take(self, clients: np.ndarray | Sequence[int]) -> "ClientArrays":
        """The given clients in the given order; their rows are copied into memory."""
        clients = np.asarray(clients, np.int64)
        rows = self.row_indices(clients)
        return ClientArrays(map_leaves(lambda leaf: leaf[rows], self.examples), self.sizes[clients])


def concatenate_clients(
    names: Sequence[str], clients: Mapping[str, PyTree], split: str
) -> ClientArrays:
    """The examples of these clients of a split, in this order.

    Raises:
      DataError: if lengths differ within a client, or names, dtypes or shapes between clients.
    """
    trees = [map_leaves(np.asanyarray, clients[name]) for name in names]
    sizes, signature = [], None
    for name, tree in zip(names, trees, strict=True):
        pairs = list(leaves_with_paths(tree))
        for path, leaf in pairs:
            if leaf.ndim == 0 or leaf.shape[0] != len(pairs[0][1]):
                raise DataError(
                    f"examples{path} of client {name!r} ({split}) has shape {leaf.shape}, "
                    f"but examples{pairs[0][0]} has shape {pairs[0][1].shape}; the first "
                    "axes must be equal."
                )
        sizes.append(len(pairs[0][1]) if pairs else 0)
        signature = signature or signature_of(tree)
        difference = first_difference(signature, signature_of(tree))
        if difference:
            raise DataError(
                f"client {name!r} ({split}) must hold the same arrays as client {names[0]!r}, "
                f"but {difference}."
            )
    return ClientArrays(map_leaves(lambda *parts: np.concatenate(parts), *trees), np.array(sizes))


def signature_of(examples: PyTree) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of an example, for the path of every array."""
    return {path: (leaf.dtype.name, leaf.shape[1:]) for path, leaf in leaves_with_paths(examples)}


def first_difference(want: dict[str, Any], got: dict[str, Any]) -> str:
    """What distinguishes two signatures, in words, or an empty string."""
    for path in [*want, *got]:
        if path not in got:
            return f"examples{path} is missing"
        if path not in want:
            return f"there is also examples{path}"
        if want[path] != got[path]:
            (dtype, shape), (want_dtype, want_shape) = got[path], want[path]
            return (
                f"examples{path} has dtype {dtype} and shape {shape} per example instead of "
                f"{want_dtype} and {want_shape}"
            )
    return ""


def row_chunks(leaf: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields `(first row, rows)`, pieces of about 16 MiB, so a memmap is never in memory."""
    rows = max(1, _CHUNK_BYTES // max(1, leaf.itemsize * int(np.prod(leaf.shape[1:]))))
    for start in range(0, leaf.shape[0], rows):
        yield start, leaf[start : start + rows]
