"""Who takes part in a round. Sampled on the host, from (seed, round) alone.

A sampler is a frozen dataclass with `draw(num_clients, round_index, seed)`, which returns the
distinct client indices of a round, and `max_size(num_clients)`, a bound on their number.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

_COHORT_STREAM = 0x636F686F  # keeps these draws apart from other host randomness of the seed


@runtime_checkable
class CohortSampler(Protocol):
    """What the engine needs of a sampler.

    A sampler whose cohorts do not depend on the seed may say so with a class attribute
    `uses_seed = False`; experiments then share one schedule.
    """

    def draw(self, num_clients: int, round_index: int, seed: int) -> np.ndarray:
        """Distinct client indices of a round, int64 `[cohort]`, in any order; may be empty."""
        ...

    def max_size(self, num_clients: int) -> int:
        """No cohort is larger than this."""
        ...


@runtime_checkable
class StaleCohorts(CohortSampler, Protocol):
    """A sampler whose clients began with the server's model of earlier rounds.

    Its algorithm has to keep as many models: `max_staleness` is compared with that of
    `FederatedAlgorithm`.
    """

    @property
    def max_staleness(self) -> int:
        """No client begins with an older model."""
        ...

    def staleness(self, round_index: int) -> np.ndarray:
        """Rounds between a client's model and the present one, int64 `[cohort]` as drawn."""
        ...


def _rng(seed: int, round_index: int) -> np.random.Generator:
    return np.random.default_rng([_COHORT_STREAM, seed, round_index])


def _check_size(size: int, num_clients: int) -> None:
    if size > num_clients:
        raise ValueError(
            f"The cohort has {size} clients, but the population only {num_clients}; "
            f"allowed are 1 to {num_clients}."
        )


def _check_positive(size: int) -> None:
    if size < 1:
        raise ValueError(f"The cohort must have at least 1 client, got {size}.")


@dataclasses.dataclass(frozen=True)
class Everyone:
    """Every client, every round."""

    uses_seed: ClassVar[bool] = False

    def draw(self, num_clients: int, round_index: int, seed: int) -> np.ndarray:
        """All client indices."""
        del round_index, seed
        return np.arange(num_clients)

    def max_size(self, num_clients: int) -> int:
        """The whole population."""
        return num_clients


@dataclasses.dataclass(frozen=True)
class Uniform:
    """A fixed number of clients, uniformly without replacement."""

    size: int

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _check_positive(self.size)

    def draw(self, num_clients: int, round_index: int, seed: int) -> np.ndarray:
        """`size` distinct clients."""
        _check_size(self.size, num_clients)
        return _rng(seed, round_index).choice(num_clients, self.size, replace=False, shuffle=False)

    def max_size(self, num_clients: int) -> int:
        """`size`."""
        _check_size(self.size, num_clients)
        return self.size


@dataclasses.dataclass(frozen=True)
class Poisson:
    """Every client independently with probability `rate`; a round may be empty.

    The sampling that privacy amplification is usually proved for.
    """

    rate: float

    def __post_init__(self) -> None:
        """Checks the arguments."""
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate must be above 0 and at most 1, got {self.rate!r}.")

    def draw(self, num_clients: int, round_index: int, seed: int) -> np.ndarray:
        """A binomial number of distinct clients."""
        rng = _rng(seed, round_index)
        size = rng.binomial(num_clients, self.rate)  # one draw instead of num_clients coins
        return rng.choice(num_clients, size, replace=False, shuffle=False)

    def max_size(self, num_clients: int) -> int:
        """Eight standard deviations above the mean: rarer than one round in 10^14.

        A round that is larger all the same is run; it only compiles the program again.
        """
        mean = num_clients * self.rate
        spread = (mean * (1 - self.rate)) ** 0.5
        return min(num_clients, int(mean + 8 * spread) + 1)


@dataclasses.dataclass(frozen=True)
class Weighted:
    """A fixed number of clients without replacement, drawn by weight one after the other.

    Attributes:
      size: clients of a round.
      weights: non-negative, one per client; at least `size` of them positive.
    """

    size: int
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _check_positive(self.size)
        weights = np.asarray(self.weights, np.float64)
        if not (np.isfinite(weights).all() and (weights >= 0).all()):
            raise ValueError("weights must be finite and not negative.")
        if (weights > 0).sum() < self.size:
            raise ValueError(
                f"A cohort of {self.size} needs at least as many clients of positive weight, "
                f"got {(weights > 0).sum()}."
            )

    def draw(self, num_clients: int, round_index: int, seed: int) -> np.ndarray:
        """`size` distinct clients."""
        self.max_size(num_clients)
        weights = np.asarray(self.weights, np.float64)
        # Efraimidis and Spirakis (2006): the smallest of exponential variates over the weights
        # are a sample without replacement; weight 0 gives inf and is never among them.
        with np.errstate(divide="ignore"):
            arrival = _rng(seed, round_index).exponential(size=num_clients) / weights
        return np.argpartition(arrival, self.size - 1)[: self.size]

    def max_size(self, num_clients: int) -> int:
        """`size`."""
        if len(self.weights) != num_clients:
            raise ValueError(
                f"weights must have one entry per client ({num_clients}), got {len(self.weights)}."
            )
        return self.size


@dataclasses.dataclass(frozen=True)
class Available:
    """At most `size` of the clients that a trace says are available in the round.

    Attributes:
      trace: bool `[period, num_clients]`; round r uses row `r % period`.
      size: clients of a round, None for all that are available.
    """

    trace: np.ndarray
    size: int | None = None

    def __post_init__(self) -> None:
        """Checks the arguments."""
        if np.ndim(self.trace) != 2 or len(self.trace) == 0:
            raise ValueError(
                f"trace must be a table of rounds by clients, got shape {np.shape(self.trace)}."
            )
        if self.size is not None:
            _check_positive(self.size)

    def draw(self, num_clients: int, round_index: int, seed: int) -> np.ndarray:
        """Distinct available clients; none if nobody is there."""
        limit = self.max_size(num_clients)
        available = np.flatnonzero(self.trace[round_index % len(self.trace)])
        if len(available) <= limit:
            return available
        return _rng(seed, round_index).choice(available, limit, replace=False, shuffle=False)

    def max_size(self, num_clients: int) -> int:
        """`size`, or the largest row of the trace."""
        if self.trace.shape[1] != num_clients:
            raise ValueError(
                f"trace must have one column per client ({num_clients}), got {self.trace.shape[1]}."
            )
        if self.size is not None:
            _check_size(self.size, num_clients)
            return self.size
        return max(1, int(np.count_nonzero(self.trace, axis=1).max()))


@dataclasses.dataclass(frozen=True)
class Listed:
    """Cohorts given in advance, for comparisons with other engines.

    Attributes:
      rounds: client indices of every round; round r uses entry `r % len(rounds)`.
    """

    uses_seed: ClassVar[bool] = False

    rounds: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        """Checks the arguments."""
        if not self.rounds:
            raise ValueError("rounds must list at least one cohort.")
        for number, cohort in enumerate(self.rounds):
            if len(set(cohort)) != len(cohort):
                raise ValueError(f"The cohort of round {number} names a client twice.")

    def draw(self, num_clients: int, round_index: int, seed: int) -> np.ndarray:
        """The listed clients."""
        cohort = np.asarray(self.rounds[round_index % len(self.rounds)], np.int64)
        if cohort.size and not (0 <= cohort.min() and cohort.max() < num_clients):
            raise ValueError(
                f"The cohort of round {round_index} names client "
                f"{cohort.max() if cohort.max() >= num_clients else cohort.min()}; "
                f"allowed are 0 to {num_clients - 1}."
            )
        return cohort

    def max_size(self, num_clients: int) -> int:
        """The largest listed cohort."""
        return max(1, *(len(cohort) for cohort in self.rounds), 1)


@dataclasses.dataclass(frozen=True)
class Cyclic:
    """One client after the other, each once in every cycle.

    Attributes:
      reshuffle: a new random order for every cycle; False keeps the order of the dataset.
    """

    reshuffle: bool = True

    @property
    def uses_seed(self) -> bool:
        """Whether cohorts depend on the seed."""
        return self.reshuffle

    def draw(self, num_clients: int, round_index: int, seed: int) -> np.ndarray:
        """The client whose turn it is."""
        cycle, place = divmod(round_index, num_clients)
        if not self.reshuffle:
            return np.array([place])
        return _rng(seed, cycle).permutation(num_clients)[place : place + 1]

    def max_size(self, num_clients: int) -> int:
        """One."""
        del num_clients
        return 1


def everyone() -> Everyone:
    """Every client, every round."""
    return Everyone()


def uniform(size: int) -> Uniform:
    """`size` clients a round, uniformly without replacement."""
    return Uniform(size)


def poisson(rate: float) -> Poisson:
    """Every client independently with probability `rate`."""
    return Poisson(rate)


def weighted(size: int, weights) -> Weighted:
    """`size` clients a round, by weight, without replacement."""
    return Weighted(size, tuple(float(w) for w in weights))


def available(trace, size: int | None = None) -> Available:
    """At most `size` of the clients a trace `[period, num_clients]` says are available."""
    return Available(np.asarray(trace, bool), size)


def listed(rounds) -> Listed:
    """Cohorts given in advance, repeated when they run out."""
    return Listed(tuple(tuple(int(c) for c in cohort) for cohort in rounds))


def cyclic(*, reshuffle: bool = True) -> Cyclic:
    """One client a round, each once in every cycle; in a new order every cycle, or the stored one."""
    return Cyclic(reshuffle)
