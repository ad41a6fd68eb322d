"""Small hospitals, and a mechanism that can be broken."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_med import algorithms, models, tasks
from fedjax_med.aggregation import chain, clip_by_client_norm
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import cohorts, epochs, simulate
from fedjax_med.engine.contracts import Aggregator


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


def gaussian_sum(noise, divisor, seed=0):
    """The sum of the updates plus noise of a standard deviation, over a fixed number of clients."""

    def init(update_like):
        return jax.random.key_data(jax.random.key(seed))

    def encode(update, weight, state, key):
        keep = (weight > 0).astype(weight.dtype)
        return jax.tree.map(lambda u: keep * u, update), jax.random.bits(key) // 1024

    def decode(reduced, state):
        # Every experiment has its own cohort keys, and so its own noise.
        total, salt = reduced
        key = jax.random.fold_in(jax.random.wrap_key_data(state), salt)
        leaves, structure = jax.tree.flatten(total)
        keys = jax.random.split(key, len(leaves))
        noisy = [
            (leaf + noise * jax.random.normal(k, leaf.shape, leaf.dtype)) / divisor
            for leaf, k in zip(leaves, keys, strict=True)
        ]
        return jax.tree.unflatten(structure, noisy), jax.random.key_data(key)

    return Aggregator(init, encode, decode, "sum")


def private_training(
    num_clients, *, clip=1.0, noise_multiplier=1.0, rate=1.0, rounds=1, bound=None
):
    """A `Train` that clips updates to `bound` and adds noise for `clip`: a mutant if they differ."""

    def train(task, dataset, experiments):
        then = gaussian_sum(clip * noise_multiplier, num_clients * rate)
        aggregator = chain(clip_by_client_norm(bound or clip), then=then)
        algorithm = algorithms.fed_avg(
            task.gradient,
            optax.sgd(0.1),
            aggregator=aggregator,
            weighting=algorithms.equal,
        )
        return simulate(
            algorithm,
            dataset,
            task=task,
            rounds=rounds,
            local_work=epochs(1, batch_size=8),
            cohort=cohorts.everyone() if rate == 1 else cohorts.poisson(rate),
            experiments=experiments,
        )

    return train


def flat(tree):
    """All leaves in one vector."""
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
