"""An algorithm of one's own: local training whose step shrinks with every local step.

A federated algorithm is a client program (begin, step, end) and a server step. This one trains
with a learning rate of `lr / (1 + t)` at local step t and returns server minus client, so the
library's server step applies.
"""

import jax
import jax.numpy as jnp
import optax

import fedjax_med as fm
from fedjax_med.engine import ClientProgram, ClientResult, Variables


def shrinking_steps(gradient_fn, lr):
    def begin(shared, client):
        return shared, jnp.zeros((), jnp.float32)

    def step(shared, carry, batch):
        (params, state), t = carry
        result = gradient_fn(Variables(params, state), batch)
        rate = lr / (1 + t)
        params = jax.tree.map(lambda p, g: p - rate * g, params, result.grads)
        return Variables(params, result.state), t + 1

    def end(shared, carry, client):
        update = jax.tree.map(jnp.subtract, shared, carry[0])
        return ClientResult(update, weight=client.num_examples.astype(jnp.float32))

    return fm.algorithms.with_server_optimizer(
        ClientProgram(begin, step, end), optax.sgd(1.0), fm.aggregation.weighted_mean()
    )


hospitals = fm.datasets.load("breast-cancer")
task = fm.tasks.binary_classification(fm.models.mlp([16]), hospitals.train.examples)
run = fm.simulate(
    shrinking_steps(task.gradient, lr=0.3),
    hospitals,
    task=task,
    rounds=50,
    local_work=fm.steps(5, batch_size=16),
    evaluate_every=50,
)
print(f"pooled accuracy {run.evaluations[-1].pooled['accuracy']:.3f}")
