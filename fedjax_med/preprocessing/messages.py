"""What left the hospitals while something was fitted, for the report of a run."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import numpy as np

from fedjax_med.engine import Survey
from fedjax_med.engine.contracts import ClientProgram, PyTree

Leaves = Literal["sum", "per-site", "nothing"]


class Message(NamedTuple):
    """What every hospital told for one statistic.

    Attributes:
      statistic: what it is for.
      shapes: shape of each array, by its name; numbers of 64 bits.
      num_bytes: of one pass, from one hospital.
      leaves: "sum" if only the sum over hospitals is needed, so that secure aggregation loses
        nothing; "per-site" if the server has to see each hospital's own; "nothing" if it stays there.
      passes: times that it was told.
    """

    statistic: str
    shapes: dict[str, tuple[int, ...]]
    num_bytes: int
    leaves: Leaves
    passes: int = 1


class Messages:
    """A list of messages that grows; repeated passes of a statistic are one entry."""

    def __init__(self) -> None:
        """Begins with none."""
        self.entries: list[Message] = []

    def add(self, statistic: str, arrays: PyTree, leaves: Leaves) -> None:
        """Notes that every hospital told `arrays` (a NamedTuple or a dict) once."""
        named = arrays._asdict() if hasattr(arrays, "_asdict") else dict(arrays)
        shapes = {name: tuple(np.shape(value)) for name, value in named.items()}
        size = sum(np.asarray(x).nbytes for x in jax.tree.leaves(arrays))
        last = self.entries[-1] if self.entries else None
        if last is not None and (last.statistic, last.shapes) == (statistic, shapes):
            self.entries[-1] = last._replace(passes=last.passes + 1)
        else:
            self.entries.append(Message(statistic, shapes, size, leaves))


class Surveyor:
    """A `Survey` that notes what is told."""

    def __init__(self, survey: Survey, messages: Messages):
        """Binds the two."""
        self.survey, self.messages = survey, messages

    def total(self, statistic: str, program: ClientProgram, shared: PyTree, **options) -> PyTree:
        """The sum of what the hospitals tell."""
        found = self.survey(program, shared, **options).aggregate
        self.messages.add(statistic, found, "sum")
        return found

    def own(
        self, statistic: str, program: ClientProgram, shared: PyTree, states: PyTree, leaves: Leaves
    ) -> PyTree:
        """What each hospital finds of its own, `[clients, ...]`."""
        found = self.survey(program, shared, states=states).per_client
        self.messages.add(statistic, jax.tree.map(lambda x: x[0], found), leaves)
        return found
