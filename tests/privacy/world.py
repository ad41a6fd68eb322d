"""Clients whose updates are chosen: one step of SGD on `params . x` sends the mean of their x."""

import jax.numpy as jnp
import numpy as np
import optax
from scipy import stats

from fedjax_med.algorithms import fed_avg
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import Task, Variables, epochs, simulate
from fedjax_med.privacy import private

ONE_STEP = epochs(1, batch_size=1)


def dataset_of(rows):
    """One client for each entry of `rows`, with these examples `[n, dim]`."""
    clients = {f"hospital {i}": {"x": np.atleast_2d(np.float32(x))} for i, x in enumerate(rows)}
    return FederatedDataset.from_clients(clients, name="chosen updates")


def task_of(dim, dtype=jnp.float32):
    def loss(variables, batch):
        x = batch.examples["x"].astype(dtype)
        return jnp.sum(x * variables.params[None], axis=1).astype(jnp.float32), variables.state

    def metrics(variables, batch):
        return {"x": (batch.examples["x"][:, 0], jnp.ones(batch.mask.shape))}

    return Task(lambda seed: Variables(jnp.zeros(dim, dtype)), loss, metrics, ("x",))


def build(gradient_fn, aggregator):
    return fed_avg(gradient_fn, optax.sgd(1.0), aggregator=aggregator)


def run(plan, rows, *, rounds=1, seed=0, **options):
    """Trains under a plan; the final parameters are minus the sum of what was released."""
    dataset, task = dataset_of(rows), task_of(np.shape(rows[0])[-1])
    options.setdefault("local_work", plan.local_work or ONE_STEP)
    algorithm = private(build, plan, task=task)
    return simulate(algorithm, dataset, task=task, rounds=rounds, seed=seed, **options)


def assert_scale(sample, scale):
    """The sample is N(0, scale^2): its variance lies within 5 standard errors, and KS agrees.

    With 20,000 draws a scale of 2/3 or 3/2 is hundreds of standard errors away; the seeds of the
    tests are fixed, so what is accepted once always is.
    """
    sample = np.asarray(sample, np.float64).ravel() / scale
    error = np.sqrt(2 / sample.size)
    assert abs(np.mean(sample**2) - 1) < 5 * error
    assert stats.kstest(sample, "norm").pvalue > 1e-3
