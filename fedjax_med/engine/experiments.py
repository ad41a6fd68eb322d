"""Experiments: many trainings (seeds x hyperparameters) in one compiled call."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Experiments:
    """A list of experiments.

    Attributes:
      seeds: one per experiment.
      hyperparameters: `{name: values [experiments]}`.
      members: for each experiment the clients it is about, distinct positions in the dataset
        (int64), as if it were simulated on `dataset.select` of them: cohorts are drawn from them
        and `Client.index` counts them. None if every experiment is about all clients.
        Evaluations judge its model on all clients of the dataset nevertheless.
    """

    seeds: tuple[int, ...]
    hyperparameters: dict[str, np.ndarray]
    members: tuple[np.ndarray, ...] | None = None

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

        if self.members is None:
            return
        object.__setattr__(self, "members", tuple(np.asarray(m, np.int64) for m in self.members))
        if len(self.members) != len(self.seeds):
            raise ValueError(
                f"members has {len(self.members)} entries, but there are {len(self.seeds)} seeds; "
                "each experiment needs one."
            )
        for number, clients in enumerate(self.members):
            if not clients.size or len(np.unique(clients)) < clients.size:
                raise ValueError(
                    f"members of experiment {number} must be one or more distinct clients, got "
                    f"{clients.tolist()}."
                )

    def for_each(self, populations: Sequence[Sequence[int]]) -> Experiments:
        """All these experiments on one population of clients, then on the next.

        Repeated divisions into training and test patients, or one hospital left out after the
        other, are populations of one dataset that holds the clients of all of them.

        Args:
          populations: for each the positions of its clients in the dataset.

        Examples:
          >>> two_seeds_three_folds = grid(seed=range(2)).for_each([[0, 1], [2, 3], [4, 5]])
          >>> len(two_seeds_three_folds)
          6
        """
        if self.members is not None:
            raise ValueError("These experiments have members already.")
        times = len(populations)
        return Experiments(
            self.seeds * times,
            {name: np.tile(values, times) for name, values in self.hyperparameters.items()},
            tuple(np.asarray(p, np.int64) for p in populations for _ in self.seeds),
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
