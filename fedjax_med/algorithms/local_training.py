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
      loss_sum: loss summed over the examples seen so far.
      num_seen: examples seen so far.
    """

    variables: Variables
    opt_state: optax.OptState
    loss_sum: jax.Array
    num_seen: jax.Array


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
        zero = jnp.zeros((), jnp.result_type(float))
        return LocalState(shared, client_optimizer.init(shared.params), zero, zero)

    def step(shared: Variables, carry: LocalState, batch: Batch) -> LocalState:
        params = carry.variables.params
        result = gradient_fn(carry.variables, batch)
        grads = correct(result.grads, params, shared.params)
        updates, opt_state = client_optimizer.update(grads, carry.opt_state, params)
        return LocalState(
            variables=Variables(optax.apply_updates(params, updates), result.state),
            opt_state=opt_state,
            loss_sum=carry.loss_sum + result.loss * batch.count,
            num_seen=carry.num_seen + batch.count,
        )

    def end(shared: Variables, carry: LocalState, client: Client) -> ClientResult:
        return ClientResult(
            update=jax.tree.map(jnp.subtract, shared, carry.variables),
            weight=weighting(client),
            metrics={"train_loss": carry.loss_sum / carry.num_seen},
        )

    return ClientProgram(begin, step, end)
