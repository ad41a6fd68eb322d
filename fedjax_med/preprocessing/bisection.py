"""Quantiles by asking again and again how many values are at most as large as some numbers.

What leaves a hospital are these counts, of which the sum over hospitals is enough; or nothing but the
result, where a hospital looks for its own quantiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.data import DataError
from fedjax_med.engine.contracts import Array, Batch, Client, ClientProgram, ClientResult
from fedjax_med.preprocessing.messages import Leaves, Surveyor

_INNER_EDGES = 7  # a pass narrows every interval to an eighth
_INFINITY = 0x7F800000  # bits of the infinity of float32
_LARGEST = float(np.finfo(np.float32).max)
_TINY = float(np.finfo(np.float64).tiny)


class Ranks(NamedTuple):
    """What a hospital tells: float64 counts.

    Attributes:
      count: `[features]`, values that are not missing.
      up_to: `[features, edges]`, of these, those that are at most as large as the edge.
    """

    count: Array
    up_to: Array


class Own(NamedTuple):
    """A hospital's own edges, and its answer."""

    edges: Array
    ranks: Ranks


def _counted(edges: jax.Array, batch: Batch) -> Ranks:
    # Compared in the dtype of the values where the edges are representable in it would be faster,
    # but then an edge could round across a value.
    x = batch.examples["x"].astype(float)
    x = jnp.where(batch.mask[:, None], x, jnp.nan)  # NaN is never at most as large
    up_to = jnp.sum(x[:, :, None] <= edges[None], axis=0, dtype=float)
    there = jnp.sum(~jnp.isnan(x), axis=0, dtype=float)
    return batch.sum_over_splits(Ranks(there, up_to))


def _nothing(edges: jax.Array) -> Ranks:
    return Ranks(jnp.zeros(edges.shape[0]), jnp.zeros(edges.shape))


RANKS = ClientProgram(
    begin=lambda edges, client: _nothing(edges),
    step=lambda edges, carry, batch: jax.tree.map(jnp.add, carry, _counted(edges, batch)),
    end=lambda edges, carry, client: ClientResult(carry, client.num_examples.astype(float)),
)


def _begin_own(shared: tuple, client: Client) -> Own:
    return Own(client.state.edges, _nothing(client.state.edges))


def _step_own(shared: tuple, carry: Own, batch: Batch) -> Own:
    seen = _counted(carry.edges, batch)
    return Own(carry.edges, jax.tree.map(jnp.add, carry.ranks, seen))


def _end_own(shared: tuple, carry: Own, client: Client) -> ClientResult:
    return ClientResult((), client.num_examples.astype(float), state=carry)


OWN_RANKS = ClientProgram(_begin_own, _step_own, _end_own)


def just_below(edges: np.ndarray) -> np.ndarray:
    """The largest normal numbers smaller than `edges`, so that `x < edge` is `x <= just_below`.

    Devices take numbers nearer to zero than the smallest normal one for zero.
    """
    below = np.nextafter(edges, -np.inf)
    return np.where(np.abs(below) < _TINY, np.where(edges <= 0, -_TINY, 0.0), below)


class Grid(NamedTuple):
    """Ascending numbers `value(0), value(1), ...` among which quantiles are looked for.

    Attributes:
      low: number of the first.
      high: number of the last.
      value: from int64 `[features, ...]` to float64 of the same shape.
    """

    low: int
    high: int
    value: Callable[[np.ndarray], np.ndarray]


def float_grid(resolution: float = 2.0**-15) -> Grid:
    """The float32 numbers with `-log2(resolution)` bits behind the leading one, zero among them."""
    unit = 2 ** (23 + round(np.log2(resolution)))

    def value(number: np.ndarray) -> np.ndarray:
        bits = (np.abs(number) * unit).astype(np.int32)
        magnitude = np.minimum(bits.view(np.float32).astype(np.float64), _LARGEST)
        return np.where(number < 0, -magnitude, magnitude)

    last = _INFINITY // unit
    return Grid(-last, last, value)


class _Search:
    """Bisection into eight parts; all arrays have leading axes `[..., features, probabilities]`."""

    def __init__(self, shape: tuple[int, ...], grid: Grid):
        # The value looked for is above number `low` of the grid and at most number `high`.
        self.low = np.full(shape, grid.low - 1, np.int64)
        self.high = np.full(shape, grid.high, np.int64)
        self._parts = np.arange(1, _INNER_EDGES + 1)

    @property
    def done(self) -> bool:
        return bool((self.high - self.low <= 1).all())

    def numbers(self) -> np.ndarray:
        """What is asked about, `[..., probabilities, 7]`; repeats where little is left."""
        width = (self.high - self.low)[..., None]
        return self.low[..., None] + width * self._parts // (_INNER_EDGES + 1)

    def narrow(self, numbers: np.ndarray, enough: np.ndarray) -> None:
        """Takes the first number for which `enough` as the new upper end."""
        asked = numbers > self.low[..., None]  # number `low` itself is known not to be enough
        enough = enough & asked
        above = np.where(enough, numbers, self.high[..., None]).min(axis=-1)
        below = np.where(~enough & asked, numbers, self.low[..., None]).max(axis=-1)
        self.low, self.high = below, above


def _targets(count: np.ndarray, probabilities: Sequence[float]) -> np.ndarray:
    """How many values must be at most as large, `[..., features, probabilities]`, at least 1."""
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 1 or not len(p) or not ((p >= 0) & (p <= 1)).all():
        raise DataError(f"probabilities must be in [0, 1], at least one, got {probabilities!r}.")
    # The rounding of a product must not move a quantile to the next value.
    return np.maximum(np.ceil(count[..., None] * p * (1 - 1e-12)), 1)


def total_quantiles(
    surveyor: Surveyor, num_features: int, probabilities: Sequence[float], grid: Grid
) -> np.ndarray:
    """`quantiles` of what is surveyed."""
    _targets(np.zeros(1), probabilities)  # refuses before anything is computed
    search = _Search((num_features, len(probabilities)), grid)
    count = np.zeros(num_features)
    while not search.done:
        numbers = search.numbers()
        edges = grid.value(numbers).reshape(num_features, -1)
        ranks: Ranks = surveyor.total("quantiles", RANKS, edges)
        count = ranks.count
        enough = ranks.up_to.reshape(numbers.shape) >= _targets(count, probabilities)[..., None]
        search.narrow(numbers, enough)
    found = grid.value(search.high)
    return np.where(count[:, None] > 0, found, np.nan)


def own_quantiles(
    surveyor: Surveyor,
    shape: tuple[int, int],
    probabilities: Sequence[float],
    grid: Grid,
    leaves: Leaves,
) -> np.ndarray:
    """Each hospital's own quantiles, float64 `[clients, features, probabilities]`.

    The hospitals search by themselves: the counts stay, and of what is found, `leaves` says.
    """
    search = _Search((*shape, len(probabilities)), grid)
    count = np.zeros(shape)
    program, silent = OWN_RANKS, surveyor.survey
    while not search.done:
        numbers = search.numbers()
        # A grid's first axis is that of the features.
        edges = np.moveaxis(grid.value(np.moveaxis(numbers, 1, 0)), 0, 1).reshape(*shape, -1)
        ranks = Ranks(np.zeros(shape), np.zeros(edges.shape))
        ranks = silent(program, (), states=Own(edges, ranks)).per_client.ranks
        count = ranks.count
        enough = ranks.up_to.reshape(numbers.shape) >= _targets(count, probabilities)[..., None]
        search.narrow(numbers, enough)
    found = np.moveaxis(grid.value(np.moveaxis(search.high, 1, 0)), 0, 1)
    found = np.where(count[..., None] > 0, found, np.nan)
    surveyor.messages.add("own quantiles", {"quantiles": found[0]}, leaves)
    return found
