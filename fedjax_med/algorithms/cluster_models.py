"""Several models side by side on the server, of which every client trains one.

Models are stacked: a `Variables` whose arrays have a leading axis `[clusters, ...]`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_med.algorithms.local_training import Finish, LocalState, Start, Weighting, by_examples
from fedjax_med.engine.contracts import (
    Aggregator,
    Batch,
    Client,
    ClientProgram,
    ClientResult,
    GradientFn,
    PyTree,
    Variables,
)


def pick(models: PyTree, cluster: jax.Array) -> PyTree:
    """The model of one cluster."""
    return jax.tree.map(lambda m: m[cluster], models)


def start_in(cluster_of: Callable[[PyTree, Client], tuple[PyTree, jax.Array]]) -> Start:
    """Starts with the model of a client's cluster; `cluster_of` gives (models, cluster)."""

    def start(shared: PyTree, client: Client) -> tuple[Variables, PyTree]:
        return pick(*cluster_of(shared, client)), ()

    return start


def send_to(cluster_of: Callable[[PyTree, Client], tuple[PyTree, jax.Array]]) -> Finish:
    """Sends `(change of the cluster's model, cluster)`, for `per_cluster`; keeps its state."""

    def finish(shared: PyTree, trained: LocalState, client: Client) -> tuple[PyTree, PyTree]:
        models, cluster = cluster_of(shared, client)
        change = jax.tree.map(jnp.subtract, pick(models, cluster), trained.variables)
        return (change, cluster), client.state

    return finish


def least_loss(
    gradient_fn: GradientFn,
    models_of: Callable[[PyTree], Variables],
    remember: Callable[[Client, jax.Array], PyTree],
    allowed: Callable[[PyTree], jax.Array] | None = None,
    weighting: Weighting = by_examples,
) -> ClientProgram:
    """A pass in which clients find the model of least loss on their examples; nothing is trained.

    Costs a forward pass per model and minibatch. The update is one-hot `[clusters]`, so that its
    mean is how clients spread over the clusters.

    Args:
      gradient_fn: from `engine.gradient`; the loss is that of training.
      models_of: `(shared) -> stacked models`.
      remember: `(client, cluster) -> state`, the client's new one.
      allowed: `(shared) -> bool [clusters]`, which models may be chosen; all if None.
      weighting: weight of a client in that mean.
    """

    def begin(shared: PyTree, client: Client) -> jax.Array:
        del client
        num_clusters = jax.tree.leaves(models_of(shared))[0].shape[0]
        return jnp.zeros(num_clusters, jnp.result_type(float))

    def step(shared: PyTree, carry: jax.Array, batch: Batch) -> jax.Array:
        # The gradient is not used, so the compiler leaves the backward pass out.
        losses = jax.vmap(lambda model: gradient_fn(model, batch).loss)(models_of(shared))
        return carry + losses.astype(carry.dtype) * batch.count

    def end(shared: PyTree, carry: jax.Array, client: Client) -> ClientResult:
        if allowed is not None:
            carry = jnp.where(allowed(shared), carry, jnp.inf)
        cluster = jnp.argmin(carry).astype(jnp.int32)
        return ClientResult(
            update=jax.nn.one_hot(cluster, carry.shape[0], dtype=carry.dtype),
            weight=weighting(client),
            state=remember(client, cluster),
        )

    return ClientProgram(begin, step, end)


def per_cluster(aggregator: Aggregator, num_clusters: int) -> Aggregator:
    """`aggregator` for updates `(change, cluster)`, run on every cluster by itself.

    To each cluster's aggregation, the clients of the others are as if absent: a zero update of
    weight 0. The aggregate and the state are stacked, `[clusters, ...]`.

    Raises:
      ValueError: if the aggregator's reduction is a stack.
    """
    if aggregator.reduction != "sum":
        raise ValueError(
            "aggregator must have the reduction 'sum' to be run on every cluster by itself, got "
            f"{aggregator.reduction!r}."
        )

    def init(update: tuple[PyTree, jax.Array]) -> PyTree:
        state = aggregator.init(update[0])
        return jax.tree.map(lambda x: jnp.stack([x] * num_clusters), state)

    def encode(
        update: tuple[PyTree, jax.Array], weight: jax.Array, state: PyTree, key: jax.Array
    ) -> PyTree:
        change, cluster = update

        def for_cluster(index: jax.Array, state: PyTree) -> PyTree:
            mine = index == cluster
            here = jax.tree.map(lambda u: jnp.where(mine, u, jnp.zeros_like(u)), change)
            own_key = jax.random.fold_in(key, index)
            return aggregator.encode(here, jnp.where(mine, weight, 0), state, own_key)

        return jax.vmap(for_cluster)(jnp.arange(num_clusters), state)

    def decode(reduced: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        return jax.vmap(aggregator.decode)(reduced, state)

    return aggregator._replace(init=init, encode=encode, decode=decode)
