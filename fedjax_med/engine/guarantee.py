"""What an algorithm promises about privacy, as far as the engine has to keep to it.

The engine knows no accounting. It takes the sampler and the local work that the promise holds for,
refuses others, ends a run where its budget ends, and puts what was spent among the metrics.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from fedjax_med.engine.cohorts import CohortSampler
from fedjax_med.engine.local_work import LocalWork


@runtime_checkable
class Guarantee(Protocol):
    """A promise about all models of a run, see `FederatedAlgorithm.privacy`."""

    @property
    def sampler(self) -> CohortSampler | None:
        """The only sampler it holds for; None for any."""
        ...

    @property
    def local_work(self) -> LocalWork | None:
        """The only local work it holds for; None for any."""
        ...

    def check_sizes(self, sizes: np.ndarray) -> None:
        """Raises ValueError unless it holds for clients of so many training examples."""
        ...

    def limit(self, rounds: int) -> int:
        """How many of so many rounds may be run; ValueError if none."""
        ...

    def spent(self, first_round: int, count: int, last: int) -> dict[str, np.ndarray]:
        """Metrics `{name: [count]}` of the rounds after `first_round`, in a run of `last`."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON-able; what a resumed run has to agree on."""
        ...


def check_conditions(
    guarantee: Guarantee,
    *,
    sampler: CohortSampler,
    local_work: LocalWork,
    sizes: np.ndarray,
    begins_anew: bool,
) -> None:
    """Raises ValueError if a run does not meet the conditions of a guarantee."""
    for name, given, needed in (
        ("cohort", sampler, guarantee.sampler),
        ("local_work", local_work, guarantee.local_work),
    ):
        if needed is not None and given != needed:
            raise ValueError(
                f"{name} must be what the privacy plan accounts for, {needed!r}, got {given!r}."
            )
    if not begins_anew:
        raise ValueError(
            "A private run cannot begin with the state of another: what that has spent is not known "
            "here, and its noise would be drawn again. Use `checkpoint`, or `variables` of a model "
            "made from public data."
        )
    guarantee.check_sizes(sizes)


class Spending:
    """What the experiments of a run spend; one guarantee serves all, or each has its own."""

    def __init__(self, guarantees: list[Guarantee], mapped: bool):
        """Binds the guarantees `[experiments]`."""
        self._guarantees, self._mapped = guarantees, mapped

    def metrics(self, first_round: int, count: int, last: int) -> dict[str, np.ndarray]:
        """`{name: [(experiments,) count]}`."""
        each = [g.spent(first_round, count, last) for g in self._guarantees]
        if not self._mapped:
            return each[0]
        return {name: np.stack([spent[name] for spent in each]) for name in each[0]}

    def describe(self) -> list[dict[str, Any]]:
        """One description per experiment."""
        return [g.describe() for g in self._guarantees]
