"""Simulated clients from pooled data; every example goes to exactly one client.

All partitioners take a pytree of arrays `[N, ...]` and a seed, and return a
`FederatedDataset` with training examples only (`split` divides them) and clients named
`client 0`, `client 1`, ... The same seed gives the same partition on one NumPy version;
`FederatedDataset.save` keeps one for longer than that.
"""

import heapq
from typing import Any

import numpy as np

from fedjax_med.data._tree import PyTree, leaves_with_paths, map_leaves
from fedjax_med.data.errors import DataError
from fedjax_med.data.federated_dataset import FederatedDataset


def iid(examples: PyTree, num_clients: int, *, seed: int = 0, **metadata: Any) -> FederatedDataset:
    """Deals the examples out at random; client sizes differ by at most one.

    Args:
      examples: pytree of arrays `[N, ...]`.
      num_clients: number of clients, at most `N`.
      seed: non-negative integer.
      **metadata: fields of `FederatedDataset`, such as `name` and `feature_names`.

    Raises:
      DataError: if there are fewer examples than clients.
    """
    n = _num_rows(examples, num_clients, min_size=1)
    client = np.random.default_rng(seed).permutation(np.arange(n) % num_clients)
    return _build(examples, client, num_clients, metadata)


def dirichlet_label_skew(
    examples: PyTree,
    num_clients: int,
    *,
    alpha: float,
    min_size: int = 1,
    seed: int = 0,
    label: str = "y",
    **metadata: Any,
) -> FederatedDataset:
    """Gives every client its own mix of labels, the more uneven the smaller `alpha` is.

    The examples of each class are divided over the clients in shares drawn from
    Dirichlet(alpha, ..., alpha), as in NIID-Bench (after Hsu et al., who draw the classes of
    a client instead). `alpha` of 0.1 leaves most clients one or two classes, 100 is nearly
    IID. Sizes become uneven as well.

    Departure from NIID-Bench: it draws again until the smallest client has 10 examples,
    which may never happen. Here, while a client is below `min_size`, it gets a random
    example of the client that is largest at that moment, so at most
    `num_clients * min_size` examples move and the end is certain.

    Args:
      examples: pytree with a leaf `label`.
      num_clients: number of clients.
      alpha: concentration, positive and finite.
      min_size: every client gets at least so many examples.
      seed: non-negative integer.
      label: key of a 1-D leaf of class labels (integers or booleans) in `examples`.
      **metadata: fields of `FederatedDataset`.

    Raises:
      DataError: if `alpha` is not positive and finite, if there is no such leaf, or if
        there are fewer than `num_clients * min_size` examples.

    References:
      Hsu, Qi, Brown, 2019. https://arxiv.org/abs/1909.06335
      Li, Diao, Chen, He, ICDE 2022 (NIID-Bench). https://arxiv.org/abs/2102.02079
    """
    _check_positive("alpha", alpha)
    n = _num_rows(examples, num_clients, min_size)
    labels = _leaf(examples, label)
    if labels.ndim != 1 or labels.dtype.kind not in "biu":
        raise DataError(
            f"examples[{label!r}] must hold one integer label per example, got shape "
            f"{labels.shape} and dtype {labels.dtype}."
        )
    rng = np.random.default_rng(seed)
    client = np.empty(n, np.int64)
    for value in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == value))
        share = _dirichlet(rng, alpha, num_clients)
        cuts = np.floor(np.cumsum(share)[:-1] * len(rows) + 0.5).astype(np.int64)
        sizes = np.diff(np.concatenate([[0], np.minimum(cuts, len(rows)), [len(rows)]]))
        client[rows] = np.repeat(np.arange(num_clients), sizes)
    _raise_to_min_size(client, num_clients, min_size, rng)
    return _build(examples, client, num_clients, metadata)


def quantity_skew(
    examples: PyTree,
    num_clients: int,
    *,
    alpha: float | None = None,
    sigma: float | None = None,
    min_size: int = 1,
    seed: int = 0,
    **metadata: Any,
) -> FederatedDataset:
    """Deals the examples out at random to clients of very different size.

    Every client gets `min_size` examples; the rest is divided in shares that are
    Dirichlet(alpha, ..., alpha), or proportional to exp(sigma * normal). Labels and
    features are IID.

    Args:
      examples: pytree of arrays `[N, ...]`.
      num_clients: number of clients.
      alpha: concentration of the Dirichlet shares; small is uneven.
      sigma: standard deviation of the log-size; 0 is even, 1 is common among hospitals.
      min_size: every client gets at least so many examples.
      seed: non-negative integer.
      **metadata: fields of `FederatedDataset`.

    Raises:
      DataError: if not exactly one of `alpha` and `sigma` is given or it is out of range,
        or if there are fewer than `num_clients * min_size` examples.
    """
    if (alpha is None) is (sigma is None):
        raise DataError(f"give either alpha or sigma, got {alpha=} and {sigma=}.")
    n = _num_rows(examples, num_clients, min_size)
    rng = np.random.default_rng(seed)
    if sigma is not None:
        if not 0 <= sigma < np.inf:
            raise DataError(f"sigma must be finite and not negative, got {sigma!r}.")
        log_size = sigma * rng.standard_normal(num_clients)
        share = np.exp(log_size - log_size.max())  # the largest is 1: no overflow
        share /= share.sum()
    elif alpha is not None:
        _check_positive("alpha", alpha)
        share = _dirichlet(rng, alpha, num_clients)
    rest = n - num_clients * min_size
    sizes = min_size + np.floor(share * rest).astype(np.int64)
    # What rounding down left over goes to those who lost most by it.
    lost = np.argsort(np.floor(share * rest) - share * rest, kind="stable")
    sizes[lost[: n - sizes.sum()]] += 1
    client = rng.permutation(np.repeat(np.arange(num_clients), sizes))
    return _build(examples, client, num_clients, metadata)


def feature_shift(
    examples: PyTree,
    num_clients: int,
    *,
    shift: float = 0.5,
    log_scale: float = 0.1,
    seed: int = 0,
    features: str = "x",
    **metadata: Any,
) -> FederatedDataset:
    """Deals the examples out IID, then measures them with a different device per client.

    As between scanners or laboratories, each feature `j` of client `c` is scaled about its
    pooled mean and shifted by a constant of that client (the location and scale model of
    ComBat):

        x' = mean[j] + (x - mean[j]) * exp(log_scale * u[c, j]) + shift * std[j] * v[c, j]

    with `u` and `v` standard normal and `mean`, `std` over all examples. Features are the
    last axis of the leaf (channels of an image); mean and std run over all other axes.
    Labels stay as they are.

    Args:
      examples: pytree with a floating leaf `features` `[N, ..., F]`.
      num_clients: number of clients, at most `N`.
      shift: size of the shifts in pooled standard deviations.
      log_scale: standard deviation of the logarithm of the scales.
      seed: non-negative integer.
      features: key of the leaf.
      **metadata: fields of `FederatedDataset`.

    Raises:
      DataError: if `shift` or `log_scale` is negative or not finite, if there is no such
        leaf or it is not floating, or if there are fewer examples than clients.

    References:
      Johnson, Li, Rabinovic, Biostatistics 2007. https://doi.org/10.1093/biostatistics/kxj037
    """
    for argument, value in (("shift", shift), ("log_scale", log_scale)):
        if not 0 <= value < np.inf:
            raise DataError(f"{argument} must be finite and not negative, got {value!r}.")
    x = _leaf(examples, features)
    if x.ndim < 2 or x.dtype.kind != "f":
        raise DataError(
            f"examples[{features!r}] must be floating with a last axis of features, got "
            f"shape {x.shape} and dtype {x.dtype}."
        )
    dataset = iid(examples, num_clients, seed=seed, **metadata)
    x = np.asarray(dataset.train.examples[features], np.float64)
    axes = tuple(range(x.ndim - 1))
    mean, std = x.mean(axis=axes), x.std(axis=axes)
    rng = np.random.default_rng([seed, 1])  # not the numbers that dealt the rows
    u = rng.standard_normal((num_clients, x.shape[-1]))
    v = rng.standard_normal((num_clients, x.shape[-1]))
    per_row = (len(x),) + (1,) * (x.ndim - 2) + (x.shape[-1],)
    sizes = dataset.train.sizes
    scale = np.repeat(np.exp(log_scale * u), sizes, axis=0).reshape(per_row)
    offset = np.repeat(shift * std * v, sizes, axis=0).reshape(per_row)
    shifted = (mean + (x - mean) * scale + offset).astype(_leaf(examples, features).dtype)
    return dataset.map_examples(lambda e: {**e, features: shifted})


def _num_rows(examples: PyTree, num_clients: int, min_size: int) -> int:
    if num_clients < 1:
        raise DataError(f"num_clients must be at least 1, got {num_clients}.")
    if min_size < 1:
        raise DataError(f"min_size must be at least 1, got {min_size}.")
    first = next(leaves_with_paths(map_leaves(np.asanyarray, examples)), None)
    if first is None or first[1].ndim == 0:
        raise DataError("examples must hold an array with one row per example.")
    n = first[1].shape[0]
    if num_clients * min_size > n:
        raise DataError(
            f"{num_clients} clients of at least {min_size} example(s) need "
            f"{num_clients * min_size} examples, got {n}; lower num_clients or min_size."
        )
    return n


def _leaf(examples: PyTree, key: str) -> np.ndarray:
    if not isinstance(examples, dict) or key not in examples:
        raise DataError(f"examples must be a dict with the key {key!r}.")
    return np.asanyarray(examples[key])


def _check_positive(argument: str, value: float) -> None:
    if not 0 < value < np.inf:
        raise DataError(f"{argument} must be positive and finite, got {value!r}.")


def _dirichlet(rng: np.random.Generator, alpha: float, size: int) -> np.ndarray:
    share = rng.dirichlet(np.full(size, alpha))
    if not np.isfinite(share).all() or not share.sum() > 0.5:
        # The draws underflow for very small alpha, whose limit is one client with all.
        share = np.zeros(size)
        share[rng.integers(size)] = 1.0
    return share


def _raise_to_min_size(
    client: np.ndarray, num_clients: int, min_size: int, rng: np.random.Generator
) -> None:
    """Moves examples from the largest clients to those below `min_size`, in place."""
    sizes = np.bincount(client, minlength=num_clients)
    if sizes.min() >= min_size:
        return
    order = rng.permutation(len(client))  # random within a client after the stable sort
    order = order[np.argsort(client[order], kind="stable")]
    rows = np.split(order, np.cumsum(sizes)[:-1])
    remaining = sizes.copy()
    heap = [(-int(size), c) for c, size in enumerate(sizes) if size > min_size]
    heapq.heapify(heap)
    for receiver in np.flatnonzero(sizes < min_size):
        for _ in range(min_size - sizes[receiver]):
            # Never empty: N >= num_clients * min_size, so while one client is below the
            # minimum another is above it.
            _, donor = heapq.heappop(heap)
            remaining[donor] -= 1
            client[rows[donor][remaining[donor]]] = receiver
            if remaining[donor] > min_size:
                heapq.heappush(heap, (-int(remaining[donor]), donor))


def _build(
    examples: PyTree, client: np.ndarray, num_clients: int, metadata: dict[str, Any]
) -> FederatedDataset:
    names = tuple(f"client {i}" for i in range(num_clients))
    return FederatedDataset.from_assignment(examples, client, names, **metadata)
