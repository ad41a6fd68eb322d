"""Small hospitals, and a mechanism that can be broken."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_med import models, tasks
from fedjax_med.attacks.protection import Protection, fed_avg_training
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import cohorts, epochs
from fedjax_med.privacy import ClientLevel


def hospitals(num_clients=4, size=12, features=3, seed=0, noise=0.5):
    """Binary outcomes that a linear model can learn; no two hospitals of a size."""
    rng = np.random.default_rng(seed)
    clients = {}
    for number in range(num_clients):
        x = rng.normal(size=(size + number, features)).astype(np.float32)
        y = (x[:, 0] + noise * rng.normal(size=len(x)) > 0).astype(np.int32)
        clients[f"H{number}"] = {"x": x, "y": y}
    return FederatedDataset.from_clients(clients, name="toy")


def task_of(dataset, model=None):
    return tasks.binary_classification(model or models.linear(), dataset.train.examples)


def protection(*, clip=1.0, noise_multiplier=1.0, rate=1.0, bound=None):
    """Of hospitals; a mutant that clips to `bound` but adds the noise of `clip` if they differ."""
    bound = bound or clip
    return Protection(
        ClientLevel(
            clip_norm=bound,
            noise_multiplier=noise_multiplier * clip / bound,
            delta=1e-5,
            sampling=cohorts.everyone() if rate == 1 else cohorts.poisson(rate),
        )
    )


def training(rounds=1, learning_rate=0.1):
    """FedAvg with minibatches of 8."""
    return fed_avg_training(
        optax.sgd(learning_rate), rounds=rounds, local_work=epochs(1, batch_size=8)
    )


def flat(tree):
    """All leaves in one vector."""
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
