"""How a run computes the models of its clients, and what it says about that.

Whatever an algorithm does with a loss, it differentiates it in `gradient`, and evaluation calls
metrics in one place; both are handed a `Batch`. So the batch brings the rewrite along, as a static
field, and neither algorithms nor models know of it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

from fedjax_med_kernels.client_batched import Choice, Record, client_batched, summarise

Part = Literal["training", "evaluation"]


class Notes:
    """Which operations were found while the programs of a run were traced.

    A program is traced more than once, and a round may differentiate several losses. So what a
    program holds is, of every operation, the largest number of times that one function has it.
    """

    def __init__(self) -> None:
        """Starts without any."""
        self._traces: dict[Part, list[Counter[Record]]] = {}

    def start(self, part: Part) -> None:
        """Forgets a part, because its program is traced anew."""
        self._traces[part] = []

    def trace(self, part: Part) -> Callable[[Record], None]:
        """A function to report to while one function is traced."""
        records: Counter[Record] = Counter()
        self._traces.setdefault(part, []).append(records)

        def report(record: Record) -> None:
            records[record] += 1

        return report

    def records(self, part: Part) -> Counter[Record]:
        """The operations of a part, and how often it has them."""
        found: Counter[Record] = Counter()
        for records in self._traces.get(part, []):
            found |= records
        return found

    def described(self) -> dict[Part, str]:
        """One line for every part that was traced."""
        return {part: summarise(self.records(part)) for part in self._traces}


@dataclasses.dataclass(frozen=True)
class Rewriting:
    """Replaces convolutions and pooling of a function by those that are fast under `vmap`.

    Attributes:
      notes: gets what was found; two objects are equal only if they share it.
      choice: overrides which implementation runs, see `fedjax_med_kernels.client_batched`.
      platform: of the devices that it runs on.
      num_clients: how many clients train side by side on a device.
    """

    notes: Notes
    choice: Choice | None = None
    platform: str | None = None
    num_clients: int = 1

    def __call__(self, fn: Callable[..., Any], part: Part) -> Callable[..., Any]:
        """`fn`, rewritten; to be called before differentiation."""

        def rewritten(*args: Any, **kwargs: Any) -> Any:
            return client_batched(
                fn,
                choice=self.choice,
                num_clients=self.num_clients,
                platform=self.platform,
                report=self.notes.trace(part),
            )(*args, **kwargs)

        return rewritten

    def for_clients(self, num_clients: int) -> Rewriting:
        """The same for another number of clients side by side."""
        return dataclasses.replace(self, num_clients=num_clients)


def make_rewriting(rewrite: Any, platform: str) -> Rewriting | None:
    """What the argument `rewrite` of `simulate` and `evaluate` means; None for no rewrite.

    Raises:
      TypeError: if it is neither a bool nor a function.
    """
    if isinstance(rewrite, bool):
        return Rewriting(Notes(), platform=platform) if rewrite else None
    if not callable(rewrite):
        raise TypeError(
            "rewrite must be True, False or a function that chooses implementations, got "
            f"{rewrite!r}."
        )
    return Rewriting(Notes(), choice=rewrite, platform=platform)
