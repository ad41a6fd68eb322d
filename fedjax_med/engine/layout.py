"""Which device holds which client, and the arrays each device is given."""

from __future__ import annotations

import math
import mmap
from typing import NamedTuple

import jax
import numpy as np

from fedjax_med.data import ClientArrays
from fedjax_med.engine.contracts import PyTree
from fedjax_med.engine.lanes import pack
from fedjax_med.engine.minibatch import DeviceData

_INT32_MAX = np.iinfo(np.int32).max


class Layout(NamedTuple):
    """Clients over devices; fixed for a run, so that persistent states stay where they are.

    Attributes:
      device: int64 `[clients]`, the device that holds each client.
      row: int64 `[clients]`, its row among the clients of that device, in client order.
      members: for each device its clients, ascending.
    """

    device: np.ndarray
    row: np.ndarray
    members: tuple[np.ndarray, ...]

    @property
    def rows_per_device(self) -> int:
        """Rows of the persistent states on each device."""
        return max(1, *(len(clients) for clients in self.members), 1)


def spread(sizes: np.ndarray, num_devices: int) -> Layout:
    """Spreads clients over devices so that all hold about as many examples."""
    if num_devices == 1:  # nothing to balance; a million clients need not be packed for it
        everyone = np.arange(len(sizes))
        return Layout(np.zeros_like(everyone), everyone, (everyone,))
    packing = pack(np.asarray(sizes), num_devices)
    members = tuple(np.sort(part) for part in np.split(packing.order, packing.lane_start[1:-1]))
    device = np.empty(len(sizes), np.int64)
    row = np.empty(len(sizes), np.int64)
    for number, clients in enumerate(members):
        device[clients] = number
        row[clients] = np.arange(len(clients))
    return Layout(device, row, members)


def to_rows(values: PyTree, layout: Layout) -> PyTree:
    """Arrays `[clients, ...]` as `[devices, rows, ...]`; unused rows are zeros."""

    def scatter(x):
        x = np.asarray(x)
        out = np.zeros((len(layout.members), layout.rows_per_device, *x.shape[1:]), x.dtype)
        out[layout.device, layout.row] = x
        return out

    return jax.tree.map(scatter, values)


def from_rows(values: PyTree, layout: Layout) -> PyTree:
    """The inverse of `to_rows`."""
    return jax.tree.map(lambda x: np.asarray(x)[layout.device, layout.row], values)


class Resident(NamedTuple):
    """Client data ready for the devices, and where each client is in it.

    Attributes:
      data: `DeviceData` of host arrays with a leading `[devices]` axis.
      table_row: int64 `[clients]`, row of the device's client table; -1 if not resident.
    """

    data: DeviceData
    table_row: np.ndarray


def _page_aligned_zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros that a CPU device takes over as they are.

    What is not aligned is copied into memory of the device's own, on which the rounds of a
    logistic regression took up to twice as long (measured: in half of the runs, against a tenth).
    """
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + mmap.PAGESIZE, np.uint8)
    start = -memory.ctypes.data % mmap.PAGESIZE
    return memory[start : start + size].view(dtype).reshape(shape)


def gather(
    arrays: ClientArrays,
    layout: Layout,
    clients: tuple[np.ndarray, ...] | None = None,
    *,
    min_rows: int = 1,
    min_clients: int = 1,
) -> Resident:
    """Collects the data of some clients for each device.

    Args:
      arrays: examples of all clients, possibly memory-mapped; only the rows that are needed
        are read.
      layout: which device holds which client.
      clients: for each device the clients to load; everyone that has examples if None.
      min_rows: least rows of the example arrays, so that chunks of data share a shape.
      min_clients: least rows of the client table, likewise.
    """
    everything = clients is None
    members = tuple(m[arrays.sizes[m] > 0] for m in layout.members) if clients is None else clients
    num_rows = max(1, min_rows, *(int(arrays.sizes[m].sum()) for m in members))
    if num_rows > _INT32_MAX:
        raise ValueError(
            f"One device would hold {num_rows} examples; the limit is {_INT32_MAX}. "
            "Use more devices or streaming."
        )
    table = max(1, min_clients, *(len(m) for m in members))
    table_row = np.full(arrays.num_clients, -1, np.int64)
    columns = {
        name: np.full((len(members), table), fill, np.int32)
        for name, fill in (("offset", 0), ("size", 1), ("state_row", 0))
    }
    for device, m in enumerate(members):
        sizes = arrays.sizes[m]
        table_row[m] = np.arange(len(m))
        columns["size"][device, : len(m)] = sizes
        columns["offset"][device, : len(m)] = np.cumsum(sizes) - sizes
        columns["state_row"][device, : len(m)] = layout.row[m]

    rows = [arrays.row_indices(m) for m in members]

    def collect(leaf):
        out = _page_aligned_zeros((len(members), num_rows, *leaf.shape[1:]), leaf.dtype)
        if everything and len(members) == 1:
            out[0, : len(leaf)] = leaf  # in their order already: no gather
            return out
        for device, wanted in enumerate(rows):
            out[device, : len(wanted)] = leaf[wanted]
        return out

    examples = jax.tree.map(collect, arrays.examples)
    return Resident(DeviceData(examples=examples, **columns), table_row)
