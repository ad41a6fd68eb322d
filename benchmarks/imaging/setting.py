"""What is trained, on whom and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

NUM_HOSPITALS = 5
# Chosen on the validation images of pooled training from 0.003 and 0.01, for both datasets and all
# methods; Adam's state begins anew in every round.
LEARNING_RATE = 3e-3
SHIFT = 1.0  # of the simulated scanners


class Schedule(NamedTuple):
    """How long a dataset is trained on.

    Attributes:
      pooled_epochs: passes over all images in one place.
      rounds: federated rounds.
      local_epochs: passes of a hospital over its own images in each.
      batch_size: images of a local step.
      augmented: whether images are changed at random; short trainings do better without.
    """

    pooled_epochs: int
    rounds: int
    local_epochs: int
    batch_size: int
    augmented: bool


SCHEDULES = {
    "breast-mnist": Schedule(24, 8, 2, 16, augmented=False),
    "pneumonia-mnist": Schedule(5, 2, 1, 32, augmented=False),
}
# Longer, to be compared with others' pooled trainings.
PUBLISHED = {
    "breast-mnist": Schedule(80, 0, 0, 16, augmented=True),
    "pneumonia-mnist": Schedule(8, 0, 0, 32, augmented=True),
}
SCANNERS = Schedule(24, 12, 2, 16, augmented=True)


class Division(NamedTuple):
    """How images are divided over hospitals."""

    how: str
    alpha: float = 0.5

    @property
    def title(self) -> str:
        """For tables."""
        return "IID" if self.how == "iid" else f"Dirichlet {self.alpha:g}"


DIVISIONS = (Division("iid"), Division("dirichlet", 0.5), Division("dirichlet", 0.1))


class Population(NamedTuple):
    """The hospitals of one experiment: a division, a seed, and their images."""

    division: Division
    seed: int
    dataset: Any


def populations(
    name: str,
    data_dir: str | None,
    divisions: Sequence[Division],
    seeds: int,
    shift: float = 0.0,
    clients: int = NUM_HOSPITALS,
) -> list[Population]:
    """Hospitals for every division and seed; `row` is an image's place in the official split."""
    from fedjax_med.datasets import medmnist, scanners
    from fedjax_med.datasets._simulated_hospitals import simulated_hospitals

    whole = medmnist(name, data_dir=data_dir, clients=1)
    parts = {
        split: {**arrays.examples, "row": np.arange(arrays.num_examples, dtype=np.int32)}
        for split, arrays in whole.splits().items()
    }
    made = []
    for division in divisions:
        for seed in range(seeds):
            dataset = simulated_hospitals(
                parts,
                clients,
                how=division.how,
                alpha=division.alpha,
                seed=seed,
                name=name,
                label_names=whole.label_names,
            )
            if shift:
                own = scanners.draw_scanners(clients, shift, seed)
                dataset = scanners.scanned(dataset, own, seed)
            made.append(Population(division, seed, dataset))
    return made


def joined(parts: Sequence[Population]) -> Any:
    """One dataset of the hospitals of all populations."""
    from fedjax_med.data import ClientArrays

    first = parts[0].dataset
    splits = {
        split: ClientArrays(
            {
                key: np.concatenate([p.dataset.splits()[split].examples[key] for p in parts])
                for key in first.train.examples
            },
            np.concatenate([p.dataset.splits()[split].sizes for p in parts]),
        )
        for split in ("train", "test")
    }
    names = [f"{i}: {name}" for i, p in enumerate(parts) for name in p.dataset.client_names]
    return first.replace(client_names=tuple(names), validation=None, **splits)


def network(name: str, norm: str, augmented: bool) -> Any:
    """The model of all experiments."""
    from fedjax_med import models

    network = models.resnet(norm="batch" if norm == "batch" else "group")
    if not augmented:
        return network
    return models.augmented(
        network,
        # Ultrasound has no fixed left and right; in a chest X-ray the heart is on one side.
        models.affine(shift=0.07, degrees=10.0, zoom=0.1, flip=name == "breast-mnist"),
        models.intensity(contrast=0.1, brightness=0.1),
    )
