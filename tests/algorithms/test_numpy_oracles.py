"""FedAvg, FedProx and FedAdam on four real hospitals, against loops anybody can read."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_med import algorithms, datasets, models, tasks
from fedjax_med.engine import epochs, simulate
from fedjax_med.engine.minibatch import client_keys
from fedjax_med.engine.shuffle import epoch_order, hash32

ROUNDS, BATCH_SIZE, RATE, SEED = 20, 32, 0.05, 11


@pytest.fixture(scope="module")
def hospitals(shared_data_dir):
    return datasets.load("heart-disease", data_dir=shared_data_dir)


def stored_order(client, size, epoch):
    del client, epoch
    return np.arange(size)


def shuffled_order(client, size, epoch):
    """The order the engine shuffles a client's epoch into, from its own definition of it."""
    salt = client_keys(jnp.uint32(SEED), jnp.int32(0), jnp.int32([client])).shuffle[0]
    salt = hash32(salt + jnp.uint32(epoch) * jnp.uint32(0x85EBCA6B))
    order = epoch_order(jnp.arange(size, dtype=jnp.int32), jnp.int32(size), salt)
    return np.asarray(order)


def train(hospitals, order, *, mu=0.0, server_step, rounds=ROUNDS):
    """Federated logistic regression in float64: (weights, bias) after `rounds`."""
    clients = [hospitals.train.client(i) for i in range(4)]
    total = sum(len(c["y"]) for c in clients)
    server = np.zeros(14)  # 13 weights and the bias
    for r in range(rounds):
        pseudo_gradient = np.zeros(14)
        for number, client in enumerate(clients):
            x = np.c_[np.float64(client["x"]), np.ones(len(client["y"]))]
            rows = order(number, len(x), r)
            local = server.copy()
            for start in range(0, len(x), BATCH_SIZE):
                chosen = rows[start : start + BATCH_SIZE]
                probability = 1 / (1 + np.exp(-(x[chosen] @ local)))
                gradient = x[chosen].T @ (probability - client["y"][chosen]) / len(chosen)
                local -= RATE * (gradient + mu * (local - server))
            pseudo_gradient += len(x) / total * (server - local)
        server = server_step(server, pseudo_gradient)
    return server


def plain(server, pseudo_gradient):
    return server - pseudo_gradient


def adam_of_the_paper(rate, b1=0.9, b2=0.99, tau=1e-3):
    m, v = np.zeros(14), np.zeros(14)

    def step(server, pseudo_gradient):
        nonlocal m, v
        delta = -pseudo_gradient  # Reddi et al. write Delta for the change of the clients
        m = b1 * m + (1 - b1) * delta
        v = b2 * v + (1 - b2) * delta**2
        return server + rate * m / (np.sqrt(v) + tau)

    return step


CASES = {
    "fed_avg": (lambda g: algorithms.fed_avg(g, optax.sgd(RATE)), dict(), lambda: plain),
    "fed_prox": (
        lambda g: algorithms.fed_prox(g, optax.sgd(RATE), mu=0.5),
        dict(mu=0.5),
        lambda: plain,
    ),
    "fed_adam": (
        lambda g: algorithms.fed_adam(g, optax.sgd(RATE), server_learning_rate=0.03),
        dict(),
        lambda: adam_of_the_paper(0.03),
    ),
}


ORDERS = {"stored_order": False, "shuffled": True}
# Each of both in one order at least; every order needs a compilation.
QUICK = {("fed_avg", "shuffled"), ("fed_prox", "stored_order"), ("fed_adam", "shuffled")}


@pytest.mark.parametrize(
    "name, shuffle",
    [
        pytest.param(
            name,
            shuffle,
            id=f"{name}-{order}",
            marks=[] if (name, order) in QUICK else pytest.mark.slow,
        )
        for name in CASES
        for order, shuffle in ORDERS.items()
    ],
)
def test_twenty_rounds_equal_a_numpy_loop(hospitals, name, shuffle):
    build, options, make_server_step = CASES[name]
    task = tasks.binary_classification(models.linear(), hospitals.train.examples)
    run = simulate(
        build(task.gradient),
        hospitals,
        task=task,
        rounds=ROUNDS,
        local_work=epochs(1, batch_size=BATCH_SIZE, shuffle=shuffle),
        seed=SEED,
        lanes=2,
    )
    order = shuffled_order if shuffle else stored_order
    want = train(hospitals, order, server_step=make_server_step(), **options)
    got = np.append(run.variables.params["kernel"], run.variables.params["bias"])
    # float32 against float64 over 20 rounds of about 7 steps, of parameters of order 0.1 to 1.
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    # The two oracles that could be confused differ by far more than that.
    other = train(hospitals, stored_order, server_step=plain, mu=0.0 if options else 0.5)
    assert np.abs(other - want).max() > 1e-3


def test_the_parameters_are_those_of_logistic_regression(hospitals):
    """One hospital with all the data, one step per round: gradient descent of its mean loss."""
    pooled = hospitals.pooled()
    task = tasks.binary_classification(models.linear(), hospitals.train.examples)
    run = simulate(
        algorithms.fed_avg(task.gradient, optax.sgd(RATE)),
        pooled,
        task=task,
        rounds=ROUNDS,
        local_work=epochs(1, batch_size=len(pooled.train.examples["y"])),
        lanes=1,
    )

    def mean_loss(params):
        logits = pooled.train.examples["x"] @ params["kernel"][:, 0] + params["bias"]
        labels = pooled.train.examples["y"].astype(np.float32)
        return jnp.mean(jnp.logaddexp(0.0, logits) - labels * logits)

    params = jax.tree.map(jnp.asarray, task.init(0).params)
    for _ in range(ROUNDS):
        params = jax.tree.map(lambda p, g: p - RATE * g, params, jax.grad(mean_loss)(params))
    for name, want in params.items():
        # Sums of 486 terms in another order, twenty times.
        np.testing.assert_allclose(run.variables.params[name], want, rtol=1e-5, atol=1e-6)
