"""Shadow models: the same training on random halves of the same records, all in one compiled call."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedjax_med.attacks.canaries import Train
from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.data._tree import map_leaves
from fedjax_med.engine import Experiments, Task, Variables


class Shadows(NamedTuple):
    """Models, and who was trained on.

    Attributes:
      variables: `[models, ...]`.
      records: the training examples that halves were drawn from, by client.
      is_member: bool `[models, records]`.
    """

    variables: Variables
    records: ClientArrays
    is_member: np.ndarray


def train_shadows(
    train: Train, task: Task, dataset: FederatedDataset, *, num_models: int, seed: int = 0
) -> Shadows:
    """Trains models on random halves of every client's training examples.

    Models come in pairs whose halves have nothing in common, so every record is a member of half of
    the models. Of clients with an odd number of examples the last one is left out.

    Args:
      train: see `Train`; it is given a dataset in which each client appears once for every model.
      task: what is learned.
      dataset: whose training examples are divided.
      num_models: an even number.
      seed: of the halves, and of the first model.

    Raises:
      ValueError: if `num_models` is odd or below 4, or a client has a single example.
    """
    if num_models < 4 or num_models % 2:
        raise ValueError(f"num_models must be an even number of at least 4, got {num_models}.")
    if (dataset.train.sizes < 2).any():
        client = dataset.client_names[int(np.argmax(dataset.train.sizes < 2))]
        raise ValueError(f"client {client!r} must have at least 2 training examples to be halved.")
    records = _even(dataset.train)
    is_member = _halves(records, num_models, np.random.default_rng([seed, 0x5AD0]))
    rows = [np.flatnonzero(members) for members in is_member]
    clients = dataset.num_clients
    halves = dataset.replace(
        client_names=tuple(
            f"{name}, half {number}"
            for number in range(num_models)
            for name in dataset.client_names
        ),
        train=ClientArrays(
            map_leaves(lambda leaf: leaf[np.concatenate(rows)], records.examples),
            np.tile(records.sizes // 2, num_models),
        ),
        validation=None,
        test=None,
    )
    members = tuple(np.arange(clients) + clients * number for number in range(num_models))
    run = train(
        task, halves, Experiments(tuple(range(seed, seed + num_models)), {}, members=members)
    )
    return Shadows(run.variables, records, is_member)


def _even(arrays: ClientArrays) -> ClientArrays:
    """Every client with an even number of examples."""
    place = np.arange(arrays.num_examples) - np.repeat(arrays.offsets[:-1], arrays.sizes)
    sizes = arrays.sizes // 2 * 2
    keep = place < np.repeat(sizes, arrays.sizes)
    return ClientArrays(map_leaves(lambda leaf: leaf[keep], arrays.examples), sizes)


def _halves(records: ClientArrays, num_models: int, rng: np.random.Generator) -> np.ndarray:
    """Bool `[models, records]`: half of every client, and its other half in the next model."""
    client = np.repeat(np.arange(records.num_clients), records.sizes)
    place = np.arange(records.num_examples) - records.offsets[client]
    halves = np.empty((num_models, records.num_examples), bool)
    for number in range(0, num_models, 2):
        shuffled = np.lexsort((rng.random(records.num_examples), client))
        halves[number, shuffled] = place < records.sizes[client] // 2
        halves[number + 1] = ~halves[number]
    return halves
