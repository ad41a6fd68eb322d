"""When the examples of every client arrive. NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fedjax_med.data import ClientArrays, DataError, FederatedDataset
from fedjax_med.data._tree import map_leaves


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """Examples in the order in which they arrive at each client, in periods that all clients share.

    Attributes:
      dataset: all examples that ever arrive, as training examples, each client's in order of arrival.
      ends: int64 `[periods + 1, clients]`, from 0 on: in period `t`, counted from 0, client `c` is given
        its examples `ends[t, c]` to `ends[t + 1, c] - 1`.

    Raises:
      DataError: on construction, if `ends` does not rise from 0 to the clients' sizes.
    """

    dataset: FederatedDataset
    ends: np.ndarray

    def __post_init__(self) -> None:
        """Checks that arrivals and examples fit."""
        ends = np.asarray(self.ends, np.int64)
        object.__setattr__(self, "ends", ends)
        sizes = self.dataset.train.sizes
        if ends.ndim != 2 or len(ends) < 2 or ends.shape[1] != len(sizes):
            raise DataError(
                f"ends must be [periods + 1, {len(sizes)}] with a period at least, got shape "
                f"{list(ends.shape)}."
            )
        wrong = (np.diff(ends, axis=0) < 0).any(axis=0) | (ends[0] != 0) | (ends[-1] != sizes)
        if wrong.any():
            client = int(np.argmax(wrong))
            raise DataError(
                f"ends of client {self.dataset.client_names[client]!r} must rise from 0 to its "
                f"{sizes[client]} examples, got {ends[:, client].tolist()}."
            )

    @property
    def num_periods(self) -> int:
        """The number of periods."""
        return len(self.ends) - 1

    @property
    def arrivals(self) -> np.ndarray:
        """How many examples came, int64 `[periods, clients]`."""
        return np.diff(self.ends, axis=0)

    def rows(self, period: int) -> np.ndarray:
        """Rows of the dataset that arrive in a period, client after client."""
        offsets = self.dataset.train.offsets
        begin, end = self.ends[period], self.ends[period + 1]
        return np.concatenate(
            [np.arange(o + b, o + e) for o, b, e in zip(offsets, begin, end, strict=False)]
        )

    def pooled(self) -> Stream:
        """The same arrivals at one client, for the pooled baseline."""
        order = np.concatenate([self.rows(period) for period in range(self.num_periods)])
        examples = map_leaves(lambda leaf: leaf[order], self.dataset.train.examples)
        dataset = self.dataset.replace(
            client_names=("pooled",), train=ClientArrays(examples, np.array([len(order)]))
        )
        return Stream(dataset, self.ends.sum(axis=1, keepdims=True))


def in_periods(dataset: FederatedDataset, num_periods: int) -> Stream:
    """Every client's training examples, in their order, in so many parts of equal size.

    Parts of a client differ by one example at most.

    Raises:
      DataError: if there are fewer than two periods, or a client has fewer examples than periods.
    """
    if num_periods < 2:
        raise DataError(f"num_periods must be at least 2, got {num_periods!r}.")
    sizes = dataset.train.sizes
    if sizes.min() < num_periods:
        client = int(np.argmin(sizes))
        raise DataError(
            f"client {dataset.client_names[client]!r} has {sizes[client]} examples, fewer than the "
            f"{num_periods} periods; take fewer, or divide by time."
        )
    parts = np.arange(num_periods + 1)[:, None]
    return Stream(_without_held_out(dataset), parts * sizes[None] // num_periods)


def by_time(
    dataset: FederatedDataset,
    time: np.ndarray,
    edges: Sequence[float] | np.ndarray,
    *,
    gaps: str = "allow",
) -> Stream:
    """Training examples by the time at which they came, in periods between `edges`.

    Args:
      dataset: the clients; each client's examples may be in any order.
      time: of every training example `[N]`.
      edges: rising `[periods + 1]`; a period holds its first edge and not its last.
      gaps: whether a period may pass without examples of a client: "allow", or "refuse".

    Raises:
      DataError: if an example is outside of all periods, a client has none in the first period or one
        at all if gaps are refused, or an argument does not fit.
    """
    time, edges = np.asarray(time, np.float64), np.asarray(edges, np.float64)
    train = dataset.train
    if time.shape != (train.num_examples,):
        raise DataError(
            f"time must have one value per training example ({train.num_examples}), got shape "
            f"{list(time.shape)}."
        )
    if edges.ndim != 1 or len(edges) < 3 or (np.diff(edges) <= 0).any():
        raise DataError(f"edges must rise and make two periods at least, got {edges.tolist()}.")
    if gaps not in ("allow", "refuse"):
        raise DataError(f"gaps must be 'allow' or 'refuse', got {gaps!r}.")
    owner = np.repeat(np.arange(train.num_clients), train.sizes)
    outside = ~((edges[0] <= time) & (time < edges[-1]))  # NaN is outside as well
    if outside.any():
        row = int(np.argmax(outside))
        raise DataError(
            f"an example of client {dataset.client_names[owner[row]]!r} came at {time[row]:g}, but "
            f"periods go from {edges[0]:g} to {edges[-1]:g}."
        )
    order = np.lexsort((time, owner))
    period = np.searchsorted(edges, time[order], side="right") - 1
    counts = np.zeros((len(edges) - 1, train.num_clients), np.int64)
    np.add.at(counts, (period, owner), 1)
    empty = counts == 0
    if gaps == "refuse" and empty.any():
        client = int(np.argmax(empty.any(axis=0)))
        first = int(np.argmax(empty[:, client]))
        raise DataError(
            f"client {dataset.client_names[client]!r} has no examples from {edges[first]:g} to "
            f"{edges[first + 1]:g}, {empty.sum()} gaps of all clients in all; take longer periods, or "
            "gaps='allow'."
        )
    examples = map_leaves(lambda leaf: leaf[order], train.examples)
    sorted_ = _without_held_out(dataset).replace(train=ClientArrays(examples, train.sizes))
    zero = np.zeros((1, train.num_clients), np.int64)
    return Stream(sorted_, np.concatenate([zero, counts.cumsum(axis=0)]))


def _without_held_out(dataset: FederatedDataset) -> FederatedDataset:
    return dataset.replace(validation=None, test=None)
