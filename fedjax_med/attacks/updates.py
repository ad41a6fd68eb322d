"""What a client sends, as a function of its records: what inversion attacks try to undo."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_med.engine import Task, Variables
from fedjax_med.engine.contracts import Batch, PyTree


def whole_batch(examples: PyTree) -> Batch:
    """All of the examples `[N, ...]` as one minibatch without padding."""
    examples = jax.tree.map(jnp.asarray, examples)
    size = jax.tree.leaves(examples)[0].shape[0]
    mask = jnp.ones(size, bool)
    return Batch(examples, mask, jnp.float32(size), jax.random.key(0))


def gradient_of(task: Task, variables: Variables, examples: PyTree) -> PyTree:
    """The gradient of the mean loss of all examples, like the parameters; what FedSGD sends."""
    return task.gradient(variables, whole_batch(examples)).grads


def update_of(
    task: Task, variables: Variables, examples: PyTree, *, learning_rate: float, num_steps: int
) -> PyTree:
    """Server minus client after steps of gradient descent on all examples; what FedAvg sends."""
    params = variables.params
    for _ in range(num_steps):  # unrolled: attacks differentiate through the few steps there are
        gradient = gradient_of(task, Variables(params, variables.state), examples)
        params = jax.tree.map(lambda p, g: p - learning_rate * g, params, gradient)
    return jax.tree.map(jnp.subtract, variables.params, params)


def clipped_and_noised(
    update: PyTree, *, clip_norm: float, noise_multiplier: float, key: jax.Array
) -> PyTree:
    """An update of a norm of at most `clip_norm`, with Gaussian noise in multiples of that.

    As a client would send it that trusts nobody (local differential privacy), or the server see it
    that aggregates one client alone.
    """
    leaves, structure = jax.tree.flatten(update)
    norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in leaves))
    scale = jnp.where(norm > clip_norm, clip_norm / norm, 1.0)
    keys = jax.random.split(key, len(leaves))
    noise = clip_norm * noise_multiplier
    return jax.tree.unflatten(
        structure,
        [
            scale * leaf + noise * jax.random.normal(k, leaf.shape, leaf.dtype)
            for leaf, k in zip(leaves, keys, strict=True)
        ],
    )
