"""Experiments: many trainings (seeds x hyperparameters) in one compiled call."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Experiments:
    """A list of experiments.

    Attributes:
      seeds: one per experiment.
      hyperparameters: `{name: values [experiments]}`.
    """

    seeds: tuple[int, ...]
    hyperparameters: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        """Checks the lengths."""
        if not self.seeds:
            raise ValueError("experiments must name at least one experiment.")
        for name, values in self.hyperparameters.items():
            if len(values) != len(self.seeds):
                raise ValueError(
                    f"{name} has {len(values)} values, but there are {len(self.seeds)} seeds; "
                    "each experiment needs one."
                )

    def __len__(self) -> int:
        """The number of experiments."""
        return len(self.seeds)

    def settings(self, index: int) -> dict[str, int | float]:
        """Seed and hyperparameters of one experiment, as numbers."""
        values = {name: v[index].item() for name, v in self.hyperparameters.items()}
        return {"seed": self.seeds[index], **values}


def grid(*, seed: Iterable[int] = (0,), **hyperparameters: Iterable[int | float]) -> Experiments:
    """All combinations of seeds and hyperparameters, the last name varying fastest.

    Examples:
      >>> len(grid(seed=range(16), learning_rate=[0.01, 0.03, 0.1, 0.3]))
      64
    """
    names = list(hyperparameters)
    combinations = list(itertools.product(seed, *hyperparameters.values()))
    columns = list(zip(*combinations, strict=True)) or [()] * (1 + len(names))
    return Experiments(
        tuple(int(s) for s in columns[0]),
        {name: np.asarray(values) for name, values in zip(names, columns[1:], strict=True)},
    )
