"""Simulated hospitals for pooled data that come with a division into training and held-out examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedjax_med.data import ClientArrays, DataError, FederatedDataset, partition

PARTITIONS = ("iid", "dirichlet")
_MIN_SIZE = 10  # of the training examples of a hospital


def simulated_hospitals(
    parts: Mapping[str, Mapping[str, np.ndarray]],
    num_clients: int,
    *,
    how: str = "iid",
    alpha: float = 0.5,
    seed: int = 0,
    **metadata: Any,
) -> FederatedDataset:
    """Divides training examples over hospitals, and held-out examples likewise.

    The training examples are divided by `partition.iid` or `partition.dirichlet_label_skew`, ten at
    least to each hospital. Held-out examples of each class are then dealt out at random in the shares
    in which the training examples of that class were, so a hospital is judged on such patients as it
    trained on.

    Args:
      parts: by split, "train" among them, examples with the labels `y`, int `[N]` of classes or
        `[N, labels]`. All examples of several labels count as one class, and are IID only.
      num_clients: number of hospitals.
      how: "iid" or "dirichlet".
      alpha: concentration of "dirichlet", the smaller the more uneven.
      seed: of the division.
      **metadata: fields of `FederatedDataset`.

    Raises:
      DataError: for another value of `how`, or as of the partitions.
    """
    if how not in PARTITIONS:
        raise DataError(f"partition must be {' or '.join(map(repr, PARTITIONS))}, got {how!r}.")
    y = parts["train"]["y"]
    rows = {"row": np.arange(len(y)), "y": y}
    if how == "iid":
        divided = partition.iid(rows, num_clients, seed=seed)
    else:
        least = max(1, min(_MIN_SIZE, len(y) // max(1, num_clients)))
        divided = partition.dirichlet_label_skew(
            rows, num_clients, alpha=alpha, min_size=least, seed=seed
        )
    dealt = {"train": (divided.train.examples["row"], divided.train.sizes)}
    owner = np.repeat(np.arange(num_clients), divided.train.sizes)
    shares = _shares(_classes(divided.train.examples["y"]), owner, num_clients)
    rng = np.random.default_rng([seed, 1])  # not the numbers that dealt the training examples
    for split in (name for name in parts if name != "train"):
        client = _deal(_classes(parts[split]["y"]), shares, num_clients, rng)
        dealt[split] = (
            np.argsort(client, kind="stable"),
            np.bincount(client, minlength=num_clients),
        )
    arrays = {
        split: ClientArrays({key: leaf[rows] for key, leaf in parts[split].items()}, sizes)
        for split, (rows, sizes) in dealt.items()
    }
    names = tuple(f"Hospital {number + 1}" for number in range(num_clients))
    return FederatedDataset(client_names=names, **arrays, **metadata)


def _classes(y: np.ndarray) -> np.ndarray:
    return y if y.ndim == 1 else np.zeros(len(y), np.int64)


def _shares(classes: np.ndarray, owner: np.ndarray, num_clients: int) -> dict[int, np.ndarray]:
    """Of each class, the share of each hospital `[num_clients]`."""
    return {
        int(value): np.bincount(owner[classes == value], minlength=num_clients)
        / np.sum(classes == value)
        for value in np.unique(classes)
    }


def _deal(
    classes: np.ndarray,
    shares: Mapping[int, np.ndarray],
    num_clients: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """The hospital of each held-out example `[N]`."""
    client = np.empty(len(classes), np.int64)
    equal = np.full(num_clients, 1 / num_clients)  # of a class that nobody trained on
    for value in np.unique(classes):
        rows = rng.permutation(np.flatnonzero(classes == value))
        # Cumulative sums are rounded, so that every example goes to somebody.
        cuts = np.floor(np.cumsum(shares.get(int(value), equal)) * len(rows) + 0.5).astype(int)
        sizes = np.diff(np.concatenate([[0], cuts[:-1], [len(rows)]]))
        client[rows] = np.repeat(np.arange(num_clients), sizes)
    return client
