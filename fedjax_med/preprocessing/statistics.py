"""Counts, means and variances of columns, from sums over hospitals.

What leaves a hospital: of each column, the number of values, of zeros and of ones, and the sums of
`x - shift` and `(x - shift)^2`, twice: first about 0, then about the mean that was found. Only the
sums over hospitals are needed. `own_moments` are each hospital's own and need not leave it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.data import ClientArrays, DataError, FederatedDataset
from fedjax_med.engine import Survey
from fedjax_med.engine.contracts import Array, Batch, Client, ClientProgram, ClientResult
from fedjax_med.preprocessing.columns import training_survey
from fedjax_med.preprocessing.messages import Leaves, Messages, Surveyor


class Sums(NamedTuple):
    """What a hospital tells of its columns, float64.

    Attributes:
      rows: `[]`, its rows.
      count: `[features]`, values that are not missing.
      zeros: `[features]`, of these, those that are 0.
      ones: `[features]`, of these, those that are 1.
      total: `[features]`, sum of `x - shift`.
      squares: `[features]`, sum of `(x - shift)^2`.
    """

    rows: Array
    count: Array
    zeros: Array
    ones: Array
    total: Array
    squares: Array


class Moments(NamedTuple):
    """Of each column: values, their mean, and the sum of squared deviations from it.

    Attributes:
      count: float64 `[..., features]`.
      mean: float64, same shape; 0 where there is no value.
      squares: float64, same shape.
    """

    count: Array
    mean: Array
    squares: Array


class Statistics(NamedTuple):
    """Statistics of the columns over the training rows of all hospitals.

    Attributes:
      rows: number of rows.
      count: int64 `[features]`, values that are not missing.
      missing: int64 `[features]`, the others.
      mean: float64 `[features]`, in the units of the column; NaN where there is no value.
      variance: float64 `[features]`, divided by `count`; NaN where there is no value.
      zeros: int64 `[features]`, values that are 0.
      ones: int64 `[features]`, values that are 1.
    """

    rows: int
    count: np.ndarray
    missing: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    zeros: np.ndarray
    ones: np.ndarray


def present(batch: Batch) -> tuple[jax.Array, jax.Array]:
    """The values of a minibatch in float64, 0 where missing, and which are there."""
    x = batch.examples["x"].astype(float)
    there = batch.mask[:, None] & ~jnp.isnan(x)
    return jnp.where(there, x, 0), there


def _begin(shift: jax.Array, client: Client) -> Sums:
    del client
    zeros = jnp.zeros_like(shift)
    return Sums(jnp.zeros(()), zeros, zeros, zeros, zeros, zeros)


def _step(shift: jax.Array, carry: Sums, batch: Batch) -> Sums:
    x, there = present(batch)
    deviation = jnp.where(there, x - shift[None], 0)
    seen = Sums(
        rows=jnp.sum(batch.mask, dtype=float),
        count=jnp.sum(there, axis=0, dtype=float),
        zeros=jnp.sum(there & (x == 0), axis=0, dtype=float),
        ones=jnp.sum(there & (x == 1), axis=0, dtype=float),
        total=jnp.sum(deviation, axis=0),
        squares=jnp.sum(deviation**2, axis=0),
    )
    return jax.tree.map(jnp.add, carry, batch.sum_over_splits(seen))


def _end(shift: jax.Array, carry: Sums, client: Client) -> ClientResult:
    del shift
    return ClientResult(carry, weight=client.num_examples.astype(float))


SUMS = ClientProgram(_begin, _step, _end)


def statistics(dataset: FederatedDataset, *, messages: Messages | None = None) -> Statistics:
    """Counts, means and variances of every column of `examples["x"]`, training rows only.

    In two passes, so that nothing cancels: with m the mean found by the first, the second sums
    `d = x - m` and `d^2`, and

        mean = m + sum(d) / n        variance = (sum(d^2) - sum(d)^2 / n) / n

    Args:
      dataset: a table; NaN is missing.
      messages: notes what hospitals told.

    Raises:
      DataError: if `examples` has no table `x`.
      ValueError: if a training value is infinite.
    """
    return sums_of(
        training_survey(dataset, messages=messages), dataset.train.examples["x"].shape[1]
    )


def sums_of(surveyor: Surveyor, num_features: int) -> Statistics:
    """`statistics` of what is surveyed."""
    first: Sums = surveyor.total("mean and variance", SUMS, np.zeros(num_features))
    n = np.maximum(first.count, 1)
    shift = first.total / n
    second: Sums = surveyor.total("mean and variance", SUMS, shift)
    nothing = first.count == 0
    variance = np.maximum(second.squares - second.total**2 / n, 0) / n
    count = first.count.astype(np.int64)
    return Statistics(
        rows=int(first.rows),
        count=count,
        missing=int(first.rows) - count,
        mean=np.where(nothing, np.nan, shift + second.total / n),
        variance=np.where(nothing, np.nan, variance),
        zeros=first.zeros.astype(np.int64),
        ones=first.ones.astype(np.int64),
    )


def _begin_own(shared: tuple, client: Client) -> Moments:
    del shared
    return jax.tree.map(jnp.zeros_like, client.state)


def _step_own(shared: tuple, carry: Moments, batch: Batch) -> Moments:
    del shared
    return merged_moments(carry, batch, *present(batch))


def merged_moments(old: Moments, batch: Batch, x: jax.Array, there: jax.Array) -> Moments:
    """Moments with those of the values `x` where `there` `[batch, features]` added.

    The update of Chan, Golub and LeVeque, The American Statistician 1983, eq. 2.1, which does not
    cancel where the mean is far from zero.
    """
    count = batch.sum_over_splits(jnp.sum(there, axis=0, dtype=float))
    mean = batch.sum_over_splits(jnp.sum(jnp.where(there, x, 0), axis=0)) / jnp.maximum(count, 1)
    squares = jnp.sum(jnp.where(there, x - mean[None], 0) ** 2, axis=0)
    total = old.count + count
    share = count / jnp.maximum(total, 1)
    moved = mean - old.mean
    return Moments(
        count=total,
        mean=old.mean + moved * share,
        squares=old.squares + batch.sum_over_splits(squares) + moved**2 * old.count * share,
    )


def _end_own(shared: tuple, carry: Moments, client: Client) -> ClientResult:
    del shared
    return ClientResult((), weight=client.num_examples.astype(float), state=carry)


OWN_MOMENTS = ClientProgram(_begin_own, _step_own, _end_own)


def own_moments(surveyor: Surveyor, shape: tuple[int, int], leaves: Leaves) -> Moments:
    """Each hospital's own moments, arrays `[clients, features]`."""
    zeros = np.zeros(shape)
    states = Moments(zeros, zeros, zeros)
    return surveyor.own("own mean and variance", OWN_MOMENTS, (), states, leaves)


def site_moments(x: np.ndarray) -> Moments:
    """The moments of rows `[N, features]` that are at hand, NaN left out; float64."""
    there = ~np.isnan(x)
    count = there.sum(axis=0).astype(np.float64)
    mean = np.where(there, x, 0).sum(axis=0) / np.maximum(count, 1)
    return Moments(count, mean, (np.where(there, x - mean, 0) ** 2).sum(axis=0))


def after_filling(
    moments: Moments, missing: np.ndarray, fill: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation once `missing` values are filled in; 0 and 1 of nothing."""
    total = moments.count + missing
    n = np.maximum(total, 1)
    gap = fill - moments.mean
    mean = np.where(moments.count > 0, moments.mean + gap * missing / n, np.where(missing, fill, 0))
    squares = moments.squares + gap**2 * moments.count * missing / n
    return mean, scale_of(squares / n, mean)


def fit_target(dataset: FederatedDataset) -> tuple[float, float]:
    """Mean and standard deviation of the training outcomes, for regression.

    Train on `(y - center) / scale`, and give predictions as `center + scale * prediction`.

    Returns:
      `center` and `scale` in the unit of `y`; a constant outcome has scale 1.

    Raises:
      DataError: if `examples["y"]` is not floating `[N]`.
    """
    y = dataset.train.examples.get("y")
    if not isinstance(y, np.ndarray) or y.ndim != 1 or y.dtype.kind != "f":
        raise DataError("examples must have a floating leaf 'y' of [rows] for a regression.")
    arrays = ClientArrays({"x": y[:, None]}, dataset.train.sizes)
    found = sums_of(Surveyor(Survey(arrays, dataset.client_names), Messages()), 1)
    return float(found.mean[0]), float(scale_of(found.variance, found.mean)[0])


def scale_of(variance: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Standard deviations, 1 where a column is constant."""
    std = np.sqrt(variance)
    # A constant column has a standard deviation of rounding errors of its mean, not of 0.
    constant = ~(std > 1e-12 * np.abs(mean))
    return np.where(constant, 1.0, std)
