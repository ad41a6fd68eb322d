"""The populations of a study: repeated splits, hospitals left out, and splits to tune on.

Each is a division of the same patients into those who are trained on and those who are judged, with
preprocessing fitted to its own training patients. Together they are one dataset, whose clients are
"hospital in population", so that all populations of a method are experiments of one compiled call
(`Experiments.for_each`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fedjax_med.data import ClientArrays, DataError, FederatedDataset
from fedjax_med.data._tree import map_leaves
from fedjax_med.data.standardize import Standardizer
from fedjax_med.evaluation import leave_one_hospital_out, repeated_splits, together


class Fitted(NamedTuple):
    """What was fitted to the training patients of a dataset.

    Attributes:
      apply: preprocesses a dataset of the same columns.
      restore: outputs of models of such data `[..., N, outputs]` in natural units.
      standardizer: what columns were standardised with, None if it is not the same everywhere.
    """

    apply: Callable[[FederatedDataset], FederatedDataset]
    restore: Callable[[np.ndarray], np.ndarray]
    standardizer: Standardizer | None


Fit = Callable[[FederatedDataset], Fitted]


class Population(NamedTuple):
    """One division of the patients.

    Attributes:
      name: such as "split 1", or "without Cleveland".
      raw: in natural units: hospitals whose training examples are trained on.
      raw_judged: in natural units: hospitals whose test examples are judged.
      train: `raw`, preprocessed.
      judged: `raw_judged`, preprocessed alike.
      fitted: to the training examples.
    """

    name: str
    raw: FederatedDataset
    raw_judged: FederatedDataset
    train: FederatedDataset
    judged: FederatedDataset
    fitted: Fitted

    @property
    def test(self) -> ClientArrays:
        """Those who are judged, preprocessed."""
        return self.judged.splits()["test"]

    @property
    def is_left_out(self) -> bool:
        """Whether who is judged was not among those who trained."""
        return self.raw.client_names != self.raw_judged.client_names


class Union(NamedTuple):
    """Populations as one dataset.

    Attributes:
      dataset: all clients of all populations; training examples only.
      members: for each population the positions of its clients.
    """

    dataset: FederatedDataset
    members: tuple[np.ndarray, ...]


def population(
    name: str, raw: FederatedDataset, fit: Fit, raw_judged: FederatedDataset | None = None
) -> Population:
    """A division with its preprocessing; `raw` itself is judged if nobody else is."""
    fitted = fit(raw)
    train = fitted.apply(raw)
    if raw_judged is None:
        return Population(name, raw, raw, train, train, fitted)
    return Population(name, raw, raw_judged, train, fitted.apply(raw_judged), fitted)


def splits(
    dataset: FederatedDataset,
    fit: Fit,
    *,
    repeats: int,
    test: float,
    seed: int,
    stratify: str | None,
) -> list[Population]:
    """Repeated random splits within every hospital; see `evaluation.repeated_splits`."""
    divided = repeated_splits(dataset, repeats=repeats, test=test, seed=seed, stratify=stratify)
    return [population(f"split {i + 1}", part, fit) for i, part in enumerate(divided)]


def own_division(dataset: FederatedDataset, fit: Fit) -> Population:
    """The training and test patients that the dataset itself has; see `to_tune_on_own`.

    Raises:
      DataError: if it has no test patients.
    """
    if dataset.test is None:
        raise DataError(
            f"{dataset.name} has no test examples; use random divisions (division 'random')."
        )
    return population("own division", dataset, fit)


def to_tune_on_own(
    of: Population, fit: Fit, *, share: float, seed: int, stratify: str | None
) -> list[Population]:
    """The dataset's own validation patients to be judged, or a share of the training patients."""
    if of.raw.validation is None:
        return to_tune_on([of], fit, share=share, seed=seed, stratify=stratify)
    raw = of.raw.replace(validation=None, test=of.raw.validation)
    return [population(f"{of.name}, to tune on", raw, fit)]


def hospitals_left_out(dataset: FederatedDataset, fit: Fit) -> list[Population]:
    """Every hospital once as the one that is judged; all patients of the others are trained on."""
    return [
        population(f"without {held_out.client}", together(held_out.others), fit, held_out.unseen)
        for held_out in leave_one_hospital_out(dataset)
    ]


def to_tune_on(
    populations: Iterable[Population], fit: Fit, *, share: float, seed: int, stratify: str | None
) -> list[Population]:
    """Of each population the training patients alone, a share of whom is judged instead.

    What is chosen on these has not seen a test patient.
    """
    return [
        population(
            f"{of.name}, to tune on",
            of.raw.replace(validation=None, test=None).split(
                test=share, seed=seed, stratify=stratify
            ),
            fit,
        )
        for of in populations
    ]


def union(populations: Sequence[Population]) -> Union:
    """One dataset of the training examples of all populations."""
    parts = [population.train for population in populations]
    sizes = [part.train.sizes for part in parts]
    examples = map_leaves(
        lambda *leaves: np.concatenate(leaves), *(part.train.examples for part in parts)
    )
    ends = np.cumsum([part.num_clients for part in parts])
    names = tuple(
        f"{client} in {population.name}"
        for population in populations
        for client in population.train.client_names
    )
    dataset = parts[0].replace(
        client_names=names,
        train=ClientArrays(examples, np.concatenate(sizes)),
        validation=None,
        test=None,
    )
    members = tuple(
        np.arange(end - part.num_clients, end) for part, end in zip(parts, ends, strict=True)
    )
    return Union(dataset, members)


def pooled(populations: Sequence[Population]) -> FederatedDataset:
    """A client for each population, with the training examples of all of its hospitals."""
    whole = union(populations)
    sizes = whole.dataset.train.sizes
    return whole.dataset.replace(
        client_names=tuple(population.name for population in populations),
        train=ClientArrays(
            whole.dataset.train.examples, np.array([sizes[m].sum() for m in whole.members])
        ),
    )
