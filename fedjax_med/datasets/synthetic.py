"""Generated populations, for benchmarks and for trying things out. No patients."""

import numpy as np

from fedjax_med.data import ClientArrays, DataError, FederatedDataset


def ragged_population(
    num_clients: int = 1000,
    num_features: int = 8,
    min_size: int = 1,
    max_size: int = 20,
    seed: int = 0,
) -> FederatedDataset:
    """Many clients of uneven size with a binary label, made in a few vectorised steps.

        size[c] ~ uniform{min_size, ..., max_size}
        x ~ normal(0, 1), float32 [N, num_features]
        logit = x @ teacher + shift[c],  teacher, shift ~ normal(0, 1)
        y = 1 with probability sigmoid(logit), int32 [N]

    A million clients of 1 to 20 examples with 8 features take some seconds and about
    0.4 GB, nearly all of it `x`. Training examples only.

    Args:
      num_clients: number of clients.
      num_features: number of features.
      min_size: smallest size, at least 1.
      max_size: largest size.
      seed: non-negative integer; the same one gives the same population on one NumPy
        version.

    Raises:
      DataError: if a number is out of range.
    """
    for argument, value in (("num_clients", num_clients), ("num_features", num_features)):
        if value < 1:
            raise DataError(f"{argument} must be at least 1, got {value}.")
    if not 1 <= min_size <= max_size:
        raise DataError(f"need 1 <= min_size <= max_size, got {min_size} and {max_size}.")
    rng = np.random.default_rng(seed)
    sizes = rng.integers(min_size, max_size, num_clients, np.int64, endpoint=True)
    teacher = rng.standard_normal(num_features, np.float32)
    shift = rng.standard_normal(num_clients, np.float32)
    x = rng.standard_normal((int(sizes.sum()), num_features), np.float32)
    logit = x @ teacher
    logit += np.repeat(shift, sizes)
    # A logistic variate above -logit has probability sigmoid(logit).
    uniform = rng.random(len(logit), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # exp may be inf: then y is 0
        y = (uniform * (1 + np.exp(-logit)) < 1).astype(np.int32)
    return FederatedDataset(
        "synthetic",
        tuple(f"client {i}" for i in range(num_clients)),
        ClientArrays({"x": x, "y": y}, sizes),
        label_names=("0", "1"),
        source="generated",
    )
