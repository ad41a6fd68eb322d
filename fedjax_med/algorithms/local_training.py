"""Local training: the client program that most algorithms share, with a place to correct it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_med.engine.contracts import (
    Batch,
    Client,
    ClientProgram,
    ClientResult,
    GradientFn,
    PyTree,
    Variables,
)

Weighting = Callable[[Client], jax.Array]


def by_examples(client: Client) -> jax.Array:
    """Weight of a client in the aggregate: its number of training examples."""
    return client.num_examples.astype(jnp.result_type(float))


def equal(client: Client) -> jax.Array:
    """The same weight for every client."""
    return jnp.ones_like(by_examples(client))


class LocalState(NamedTuple):
    """A client's model in the middle of its local training.

    Attributes:
      variables: the local model.
      opt_state: state of the client optimizer, new every round.
      seen: `[2]`, loss summed over the examples seen so far, and their number.
    """

    variables: Variables
    opt_state: optax.OptState
    seen: jax.Array


def nothing_seen() -> jax.Array:
    """`LocalState.seen` before the first step."""
    return jnp.zeros(2, jnp.result_type(float))


def loss_and_count(mean_loss: jax.Array, batch: Batch) -> jax.Array:
    """What a minibatch adds to `LocalState.seen`; one array, to be one dispatch per step."""
    return jnp.stack([mean_loss.astype(batch.count.dtype) * batch.count, batch.count])


def keep_gradient(grads: PyTree, params: PyTree, server_params: PyTree) -> PyTree:
    """The correction that corrects nothing."""
    del params, server_params
    return grads


def local_training(
    gradient_fn: GradientFn,
    client_optimizer: optax.GradientTransformation,
    weighting: Weighting = by_examples,
    correct: Callable[[PyTree, PyTree, PyTree], PyTree] = keep_gradient,
) -> ClientProgram:
    """Trains the server's `Variables` on the client and returns server minus client.

    Args:
      gradient_fn: from `engine.gradient`.
      client_optimizer: any optax optimizer; its state starts new every round.
      weighting: `(client) -> weight` in the aggregate.
      correct: `(grads, params, server_params) -> grads`, applied at every local step.
    """

    def begin(shared: Variables, client: Client) -> LocalState:
        del client
        return LocalState(shared, client_optimizer.init(shared.params), nothing_seen())

    def step(shared: Variables, carry: LocalState, batch: Batch) -> LocalState:
        params = carry.variables.params
        result = gradient_fn(carry.variables, batch)
        grads = correct(result.grads, params, shared.params)
        with jax.named_scope("optimizer"):
            updates, opt_state = client_optimizer.update(grads, carry.opt_state, params)
            params = optax.apply_updates(params, updates)
        return LocalState(
            variables=Variables(params, result.state),
            opt_state=opt_state,
            seen=carry.seen + loss_and_count(result.loss, batch),
        )

    def end(shared: Variables, carry: LocalState, client: Client) -> ClientResult:
        return ClientResult(
            update=jax.tree.map(jnp.subtract, shared, carry.variables),
            weight=weighting(client),
            metrics={"train_loss": carry.seen[0] / carry.seen[1]},
        )

    return ClientProgram(begin, step, end)
