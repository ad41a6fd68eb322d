"""Federated standardisation: mean 0 and variance 1 from per-site summaries only.

A site reveals, for each feature, how many values it has, their mean and their sum of squared
deviations. These combine to exactly the pooled mean and variance (Chan, Golub and LeVeque,
The American Statistician 1983, eq. 1.5), without the cancellation of sums of squares.

Features are the last axis of `examples["x"]`: columns of a table, channels of an image or of
a time series. All other axes are averaged over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fedjax_med.data.client_arrays import ClientArrays
from fedjax_med.data.errors import DataError
from fedjax_med.data.federated_dataset import FederatedDataset

_CHUNK_VALUES = 2**21


class SiteStatistics(NamedTuple):
    """What one site says about its features; or many sites, stacked on a leading axis.

    Attributes:
      count: float64 `[]` or `[sites]`, the number of values of each feature.
      mean: float64 `[features]` or `[sites, features]`; 0 where `count` is 0.
      squares: float64, same shape, the sum of squared deviations from `mean`.
    """

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    def variance(self, ddof: int = 0) -> np.ndarray:
        """`squares / (count - ddof)`, 0 where that is not positive."""
        degrees = np.expand_dims(self.count - ddof, -1)
        positive = np.broadcast_to(degrees > 0, self.squares.shape)
        zeros = np.zeros_like(self.squares)
        return np.divide(self.squares, degrees, out=zeros, where=positive)


def site_statistics(x: np.ndarray) -> SiteStatistics:
    """Summaries of one site's features.

    Args:
      x: `[N, ..., features]`, any real dtype; summed in float64. NaN stays NaN.

    Returns:
      Statistics with `count` of shape `[]`.
    """
    x = np.asanyarray(x)
    stacked = client_statistics(ClientArrays({"x": x}, np.array([len(x)])))
    return SiteStatistics(*(field[0] for field in stacked))


def client_statistics(arrays: ClientArrays, leaf: str = "x") -> SiteStatistics:
    """`site_statistics` of every client, stacked on a leading axis.

    Reads the rows in pieces of about 2 million values, so memory stays small for many small
    clients, for a few large ones and for memory-mapped arrays alike.

    Raises:
      DataError: if the examples have no such leaf with a last axis of features.
    """
    x = _features(arrays, leaf)
    num_features = x.shape[-1]
    inner = int(np.prod(x.shape[1:-1]))  # values of one feature in one example
    count = arrays.sizes.astype(np.float64) * inner
    mean = np.zeros((arrays.num_clients, num_features))
    squares = np.zeros_like(mean)
    filled = np.flatnonzero(arrays.sizes)  # reduceat cannot express an empty segment
    row_values = max(1, inner * num_features)
    values = arrays.sizes[filled] * row_values
    large = values > _CHUNK_VALUES
    group = np.cumsum(values) // _CHUNK_VALUES
    new_group = (np.diff(group) != 0) | large[1:] | large[:-1]
    for clients in np.split(filled, np.flatnonzero(new_group) + 1):
        if not len(clients):
            continue
        start, stop = arrays.offsets[clients[0]], arrays.offsets[clients[-1] + 1]
        if len(clients) == 1:
            step = max(1, _CHUNK_VALUES // row_values)
            pieces = (x[i : min(i + step, stop)] for i in range(start, stop, step))
            total = combine([_one_piece(piece) for piece in pieces])
            mean[clients[0]], squares[clients[0]] = total.mean, total.squares
        else:
            begins = (arrays.offsets[clients] - start) * inner
            _, mean[clients], squares[clients] = _segments(x[start:stop], begins)
    return SiteStatistics(count, mean, squares)


def _one_piece(x: np.ndarray) -> SiteStatistics:
    stacked = _segments(x, np.zeros(1, np.int64))
    return SiteStatistics(*(field[0] for field in stacked))


def _segments(x: np.ndarray, begins: np.ndarray) -> SiteStatistics:
    """Statistics of the stretches of `x` that begin at `begins`, none of them empty.

    `begins` counts values of a feature, that is rows of `x` with all but its last axis
    flattened.
    """
    rows = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    repeats = np.diff(np.append(begins, len(rows)))
    n = repeats.astype(np.float64)[:, None]
    first = np.add.reduceat(rows, begins, axis=0) / n
    deviation = rows - np.repeat(first, repeats, axis=0)
    # The deviations sum to the rounding error of the first mean; taking it out again keeps
    # both moments exact for features far from zero.
    residual = np.add.reduceat(deviation, begins, axis=0)
    square = np.add.reduceat(deviation * deviation, begins, axis=0)
    squares = np.maximum(square - residual * residual / n, 0.0)
    return SiteStatistics(n[:, 0], first + residual / n, squares)


def combine(statistics: SiteStatistics | Sequence[SiteStatistics]) -> SiteStatistics:
    """The statistics of several sites together, equal to those of their pooled rows.

        count = sum_i count_i
        mean = sum_i count_i mean_i / count
        squares = sum_i squares_i + sum_i count_i (mean_i - mean)**2

    The update of Chan et al. for any number of sites at once. Sites with count 0 change
    nothing.

    Args:
      statistics: stacked statistics, or one per site.

    Raises:
      DataError: if there is no site.
    """
    if not isinstance(statistics, SiteStatistics):
        if not statistics:
            raise DataError("statistics is empty; at least one site is needed.")
        statistics = SiteStatistics(*(np.stack(f) for f in zip(*statistics, strict=True)))
    count, mean, squares = statistics
    total = count.sum()
    n = count[:, None]
    # About one site's mean, so that a common offset of all sites costs no digits.
    reference = mean[np.argmax(count)]
    pooled = reference + (n * (mean - reference)).sum(axis=0) / max(total, 1.0)
    between = (n * np.square(mean - pooled)).sum(axis=0)
    return SiteStatistics(np.asarray(total), pooled, squares.sum(axis=0) + between)


@dataclass(frozen=True, eq=False)
class Standardizer:
    """`(x - mean) / scale`, the same for all clients or each client's own.

    Attributes:
      mean: float64 `[features]`, or `[num_clients, features]`; 0 for columns left alone.
      scale: float64, same shape, positive; 1 for columns left alone and constant columns.
      leaf: key of the examples it applies to.
    """

    mean: np.ndarray
    scale: np.ndarray
    leaf: str = "x"

    def transform(self, x: np.ndarray, client: int | None = None) -> np.ndarray:
        """Standardises rows `[N, ..., features]` of one client.

        Args:
          x: the rows; the result has their dtype, or float32 if that is not floating.
          client: position of the client, needed where every client has its own statistics.

        Raises:
          DataError: if `client` is missing where it is needed.
        """
        if self.mean.ndim == 1:
            return _scaled(x, self.mean, self.scale)
        if client is None:
            raise DataError("client is needed: every client has its own statistics.")
        return _scaled(x, self.mean[client], self.scale[client])

    def apply(self, dataset: FederatedDataset) -> FederatedDataset:
        """Standardises all splits of a dataset; the result is in memory.

        Raises:
          DataError: if the dataset has another number of features or clients.
        """
        splits = {}
        for split, arrays in dataset.splits().items():
            x = _features(arrays, self.leaf)
            want = (dataset.num_clients, x.shape[-1])
            if self.mean.shape not in (want, want[1:]):
                raise DataError(
                    f"the statistics have shape {self.mean.shape}, but the dataset has "
                    f"{want[0]} clients and {want[1]} features; fit them on it first."
                )
            if self.mean.ndim == 1:
                scaled = _scaled(x, self.mean, self.scale)
            else:
                inner = (1,) * (x.ndim - 2)
                per_row = (len(x), *inner, x.shape[-1])
                mean = np.repeat(self.mean, arrays.sizes, axis=0).reshape(per_row)
                scale = np.repeat(self.scale, arrays.sizes, axis=0).reshape(per_row)
                scaled = _scaled(x, mean, scale)
            splits[split] = ClientArrays({**arrays.examples, self.leaf: scaled}, arrays.sizes)
        return dataset.replace(**splits)


def fit(
    dataset: FederatedDataset,
    *,
    columns: Sequence[str | int] | None = None,
    ddof: int = 0,
    epsilon: float = 0.0,
    leaf: str = "x",
) -> Standardizer:
    """Global mean and standard deviation of the training examples, from site summaries.

    Only what `client_statistics` returns crosses a site's border. Validation and test
    examples are not looked at.

    Args:
      dataset: the data.
      columns: names (from `feature_names`) or positions of the features to standardise;
        leave binary ones out to keep them 0 and 1. All by default.
      ddof: divisor of the variance is the count minus `ddof`.
      epsilon: added to the standard deviation. Constant features get scale 1 in any case.
      leaf: key of the examples.

    Raises:
      DataError: if a column is unknown or there is no such leaf.
    """
    pooled = combine(client_statistics(dataset.train, leaf))
    return _standardizer(dataset, pooled, columns, ddof, epsilon, leaf)


def fit_per_client(
    dataset: FederatedDataset,
    *,
    columns: Sequence[str | int] | None = None,
    ddof: int = 1,
    epsilon: float = 1e-9,
    leaf: str = "x",
) -> Standardizer:
    """Each client's own mean and standard deviation, from its training examples.

    The defaults are FLamby's: variance divided by `n - 1`, and 1e-9 added to the standard
    deviation. Note that this removes what distinguishes the sites: a site where all patients
    are ill looks like any other.

    Departure from FLamby: a feature that is constant at a client gets scale 1 there, not
    1e-9, so a test value that differs is not blown up a billion times. A client without
    training examples is left as it is.

    Args, Raises: as `fit`.
    """
    stacked = client_statistics(dataset.train, leaf)
    return _standardizer(dataset, stacked, columns, ddof, epsilon, leaf)


def _standardizer(
    dataset: FederatedDataset,
    statistics: SiteStatistics,
    columns: Sequence[str | int] | None,
    ddof: int,
    epsilon: float,
    leaf: str,
) -> Standardizer:
    num_features = statistics.mean.shape[-1]
    chosen = np.ones(num_features, bool)
    if columns is not None:
        chosen[:] = False
        chosen[[_column(c, dataset.feature_names, num_features) for c in columns]] = True
    std = np.sqrt(statistics.variance(ddof))
    # A constant feature has a standard deviation of rounding errors of its mean, not of 0.
    constant = std <= 4 * np.finfo(np.float64).eps * np.abs(statistics.mean)
    scale = np.where(constant, 1.0, std + epsilon)
    return Standardizer(np.where(chosen, statistics.mean, 0.0), np.where(chosen, scale, 1.0), leaf)


def _column(column: str | int, names: tuple[str, ...], num_features: int) -> int:
    if isinstance(column, str):
        if column not in names:
            known = ", ".join(names) or "not named"
            raise DataError(f"unknown column {column!r}; the columns are {known}.")
        return names.index(column)
    if not 0 <= column < num_features:
        raise DataError(f"column must be in 0..{num_features - 1}, got {column}.")
    return int(column)


def _features(arrays: ClientArrays, leaf: str) -> np.ndarray:
    examples = arrays.examples
    x = examples.get(leaf) if isinstance(examples, dict) else None
    if not isinstance(x, np.ndarray) or x.ndim < 2:
        raise DataError(f"examples must be a dict whose leaf {leaf!r} has a last axis of features.")
    return x


def _scaled(x: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.float32)
    return ((np.asarray(x, np.float64) - mean) / scale).astype(dtype)
