"""Clustered federated learning: clients whose updates disagree are parted.

References:
  Sattler et al., "Clustered Federated Learning: Model-Agnostic Distributed Multi-Task Optimization
  under Privacy Constraints", IEEE TNNLS 2020. https://arxiv.org/abs/1910.01991
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from fedjax_med.aggregation import weighted_mean
from fedjax_med.algorithms.cluster_models import least_loss, per_cluster, pick, send_to, start_in
from fedjax_med.algorithms.fed_opt import server_step
from fedjax_med.algorithms.local_training import (
    LocalState,
    Weighting,
    by_examples,
    local_training,
)
from fedjax_med.engine.contracts import (
    Adaptation,
    Aggregator,
    Client,
    ClientProgram,
    ClientResult,
    Cohort,
    FederatedAlgorithm,
    GradientFn,
    PyTree,
    RoundResult,
    RunClients,
    Stacked,
    Variables,
)
from fedjax_med.engine.hyperparameters import require
from fedjax_med.engine.local_work import LocalWork


class ClusteredState(NamedTuple):
    """Server state.

    Attributes:
      variables: model of the largest cluster.
      models: all models, `[max_clusters, ...]`.
      cluster: int32 `[num_clients]`, the cluster each client is in.
      num_clusters: int32 `[]`, clusters so far.
      round: int32 `[]`, rounds so far.
      opt_state: of the server optimizer, `[max_clusters, ...]`.
      aggregator_state: of the aggregator, `[max_clusters, ...]`.
    """

    variables: Variables
    models: Variables
    cluster: jax.Array
    num_clusters: jax.Array
    round: jax.Array
    opt_state: optax.OptState
    aggregator_state: PyTree


class Member(NamedTuple):
    """A client's persistent state.

    Attributes:
      index: int32 `[]`, its position in `ClusteredState.cluster`.
      last_round: int32 `[]`, the server's round when it last took part, at first a late one.
      choice: int32 `[]`, the model of least loss, if the server does not know the client.
    """

    index: jax.Array
    last_round: jax.Array
    choice: jax.Array

    def known_to(self, server: ClusteredState) -> jax.Array:
        """Whether the server has moved on since: a frozen one never does."""
        return self.last_round < server.round


class _Trained(NamedTuple):
    """What the server learns from a round, as state of its aggregator."""

    products: jax.Array  # [slots, slots], inner products of updates
    weight: jax.Array  # [slots]
    change: PyTree  # aggregate of each cluster, [max_clusters, ...]
    state: PyTree


def bipartition(similarity: jax.Array, members: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Parts `members` in two so that the most similar pair across is as dissimilar as can be.

    That is to cut the weakest edge of a maximum spanning tree (Prim's algorithm): single linkage,
    as the paper's optimal bipartition.

    Args:
      similarity: float `[n, n]`, symmetric.
      members: bool `[n]`; with fewer than two there is no second side.

    Returns:
      Bool `[n]`, who is on the second side, and float `[]`, the similarity of that pair (infinity
      without a second side).
    """
    n = members.shape[0]
    root = jnp.argmax(members)
    nodes = jnp.arange(n)

    def grow(_: jax.Array, loop: tuple) -> tuple:
        inside, best, nearest, parent, edge = loop
        outside = members & ~inside
        new = jnp.argmax(jnp.where(outside, best, -jnp.inf))
        here = (nodes == new) & outside  # nobody, once all members are inside
        parent, edge = jnp.where(here, nearest, parent), jnp.where(here, best, edge)
        closer = similarity[new] > best
        best, nearest = jnp.where(closer, similarity[new], best), jnp.where(closer, new, nearest)
        return inside | here, best, nearest, parent, edge

    at_root = jnp.full(n, root)
    loop = (nodes == root, similarity[root], at_root, at_root, jnp.full(n, jnp.inf))
    *_, parent, edge = lax.fori_loop(0, n - 1, grow, loop)
    weakest = jnp.argmin(edge)
    below = (nodes == weakest) & jnp.isfinite(edge)
    below = lax.fori_loop(0, n, lambda _, below: below | below[parent], below)
    return below, edge[weakest]


def _roll_call() -> tuple[ClientProgram, Aggregator]:
    """A pass that trains nothing; the aggregator's state is the client in each slot, or -1.

    A stack says nothing of who is in its slots but their weights, so here these are names.
    """

    def end(shared: PyTree, carry: tuple, client: Client) -> ClientResult:
        del shared, carry
        name = (client.index + 1).astype(jnp.result_type(float))
        return ClientResult(jnp.zeros(1), name, client.state)

    def decode(reduced: tuple[Stacked, PyTree], state: PyTree) -> tuple[jax.Array, PyTree]:
        del state
        stacked, _ = reduced
        return jnp.zeros(stacked.values.shape[1]), stacked.weight.astype(jnp.int32) - 1

    program = ClientProgram(lambda shared, client: (), lambda shared, carry, batch: carry, end)
    encode = lambda update, weight, state, key: (update, ())
    return program, Aggregator(lambda update: (), encode, decode, "stack")


def _with_products(grouped: Aggregator) -> Aggregator:
    """`grouped`, of `per_cluster`, with the inner products of all updates as `_Trained`."""

    def encode(
        update: tuple[Variables, jax.Array], weight: jax.Array, state: PyTree, key: jax.Array
    ) -> PyTree:
        return update[0].params, grouped.encode(update, weight, state, key)

    def decode(reduced: tuple[Stacked, PyTree], state: PyTree) -> tuple[jax.Array, _Trained]:
        stacked, summed = reduced
        products = jnp.matmul(stacked.values, stacked.values.T, precision="highest")
        change, state = grouped.decode(summed, state)
        trained = _Trained(stacked.sum_over_slices(products), stacked.weight, change, state)
        return jnp.zeros_like(stacked.values[0]), trained

    return Aggregator(grouped.init, encode, decode, "stack")


def clustered_fl(
    gradient_fn: GradientFn,
    client_optimizer: optax.GradientTransformation,
    *,
    num_clients: int,
    max_clusters: int,
    max_mean_norm: float | jax.Array,
    min_norm: float | jax.Array,
    max_similarity: float | jax.Array = 1.0,
    selection_work: LocalWork | None = None,
    server_optimizer: optax.GradientTransformation | None = None,
    aggregator: Aggregator | None = None,
    weighting: Weighting = by_examples,
) -> FederatedAlgorithm:
    """Builds clustered federated learning.

    Every cluster of clients runs FedAvg on a model of its own; at first all are in one. With u_c
    the update of client c (of the parameters), a cluster is parted in two once it is stationary as
    a whole while its clients are not:

        |mean of u_c| < max_mean_norm   and   max |u_c| > min_norm

    (the paper's eps_1 and eps_2) by the cosines of the u_c: so that the most similar pair across is
    as dissimilar as can be. It stays whole if that pair is more similar than `max_similarity`.
    Weights are the paper's, by examples. With `max_clusters=1` it is FedAvg.

    Departs from the paper, which recurses on the host, to keep shapes: at most `max_clusters`, one
    cluster (the oldest that qualifies) parted per round, training goes on at once with both halves
    starting from the same model, and rounds in which somebody of a cluster is missing or excluded
    do not part it. The server holds the updates of a cohort (a stack, spread over the devices),
    and a message per client of `max_clusters` models.

    A client is judged by its cluster's model. One that the server does not know, new or never
    there, is judged by the model of least loss on its own training examples, where the paper
    compares its update with remembered ones.

    Args:
      gradient_fn: from `engine.gradient`.
      client_optimizer: any optax optimizer, its state new every round.
      num_clients: size of the population.
      max_clusters: most clusters there will ever be.
      max_mean_norm: of a cluster that may be parted.
      min_norm: of the largest update in it.
      max_similarity: cosine, at most which two halves may agree.
      selection_work: examples on which unknown clients choose; that of the run if None.
      server_optimizer: one state per cluster, `optax.sgd(1.0)` if None.
      aggregator: run on every cluster by itself, `weighted_mean()` if None.
      weighting: `by_examples` or `equal`, or a function of the client.

    Raises:
      ValueError: if `num_clients` or `max_clusters` is below 1, a norm is negative,
        `max_similarity` not between -1 and 1, the aggregator's reduction is a stack, or it hides
        single updates from the server.
    """
    require("num_clients", num_clients, "at least 1", lambda v: v >= 1)
    require("max_clusters", max_clusters, "at least 1", lambda v: v >= 1)
    require("max_mean_norm", max_mean_norm, "0 or more", lambda v: v >= 0)
    require("min_norm", min_norm, "0 or more", lambda v: v >= 0)
    require("max_similarity", max_similarity, "between -1 and 1", lambda v: -1 <= v <= 1)
    optimizer = server_optimizer or optax.sgd(1.0)
    grouped = per_cluster(aggregator or weighted_mean(), max_clusters)
    if grouped.channel is not None:
        raise ValueError(
            "aggregator must not have a channel: clustered federated learning compares the updates "
            "of single clients, which secure aggregation hides."
        )
    call, names = _roll_call()

    def cluster_of(server: ClusteredState, client: Client) -> tuple[Variables, jax.Array]:
        return server.models, server.cluster[client.index]

    send = send_to(cluster_of)

    def finish(
        server: ClusteredState, trained: LocalState, client: Client
    ) -> tuple[PyTree, PyTree]:
        update, _ = send(server, trained, client)
        return update, Member(client.index, server.round, jnp.int32(0))

    train = local_training(
        gradient_fn, client_optimizer, weighting, start=start_in(cluster_of), finish=finish
    )
    select = least_loss(
        gradient_fn,
        lambda server: server.models,
        remember=lambda client, cluster: client.state._replace(choice=cluster),
        allowed=lambda server: jnp.arange(max_clusters) < server.num_clusters,
        weighting=weighting,
    )

    def init(variables: Variables) -> ClusteredState:
        copy = jax.tree.map(lambda x: jnp.array(x, copy=True), variables)
        models = jax.tree.map(lambda x: jnp.stack([x] * max_clusters), copy)
        return ClusteredState(
            copy,
            models,
            jnp.zeros(num_clients, jnp.int32),
            jnp.int32(1),
            jnp.int32(0),
            jax.vmap(optimizer.init)(models.params),
            grouped.init((copy, jnp.int32(0))),
        )

    def init_client(variables: Variables) -> Member:
        del variables
        return Member(jnp.int32(0), jnp.int32(jnp.iinfo(jnp.int32).max), jnp.int32(0))

    def part(
        server: ClusteredState, client: jax.Array, trained: _Trained
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Whether a cluster is to be parted, which, and who leaves it."""
        place = jnp.where(client >= 0, client, num_clients)  # empty slots: nothing is written
        products = jnp.zeros((num_clients, num_clients), trained.products.dtype)
        products = products.at[place[:, None], place[None, :]].set(trained.products, mode="drop")
        weight = jnp.zeros(num_clients).at[place].set(trained.weight, mode="drop")
        norm = jnp.sqrt(jnp.diagonal(products))

        def qualifies(cluster: jax.Array) -> jax.Array:
            members = server.cluster == cluster
            share = jnp.where(members, weight, 0)
            share = share / jnp.maximum(jnp.sum(share), jnp.finfo(share.dtype).tiny)
            mean_norm = jnp.sqrt(jnp.maximum(share @ products @ share, 0))
            largest = jnp.max(jnp.where(members, norm, 0))
            complete = jnp.all(~members | (weight > 0)) & (jnp.sum(members) > 1)
            return complete & (mean_norm < max_mean_norm) & (largest > min_norm)

        may = jax.vmap(qualifies)(jnp.arange(max_clusters))
        parted = jnp.argmax(may)
        unit = jnp.where(norm > 0, norm, 1)
        cosine = products / unit[:, None] / unit[None, :]
        leaves, across = bipartition(cosine, server.cluster == parted)
        fits = jnp.any(may) & (across <= max_similarity) & (server.num_clusters < max_clusters)
        return fits, parted, leaves & fits

    def run_round(server: ClusteredState, cohort: Cohort, run_clients: RunClients) -> RoundResult:
        client = run_clients(call, (), cohort, names).aggregator_state
        result = run_clients(
            train, server, cohort, _with_products(grouped), server.aggregator_state
        )
        trained: _Trained = result.aggregator_state
        models, opt_state = jax.vmap(server_step, in_axes=(0, 0, 0, None))(
            server.models, server.opt_state, trained.change, optimizer
        )
        fits, parted, leaves = part(server, client, trained)
        # The new cluster begins as a copy of the one it leaves.
        new = (jnp.arange(max_clusters) == server.num_clusters) & fits
        source = jnp.where(new, parted, jnp.arange(max_clusters))
        models, opt_state, state = pick((models, opt_state, trained.state), source)
        cluster = jnp.where(leaves, server.num_clusters, server.cluster)
        largest = jnp.argmax(jnp.bincount(cluster, length=max_clusters))
        server = ClusteredState(
            pick(models, largest),
            models,
            cluster,
            server.num_clusters + fits.astype(jnp.int32),
            server.round + 1,
            opt_state,
            state,
        )
        return RoundResult(server, result.client_states, result.metrics)

    def personal(server: ClusteredState, member: Member) -> Variables:
        own = server.cluster[member.index]
        return pick(server.models, jnp.where(member.known_to(server), own, member.choice))

    return FederatedAlgorithm(
        init,
        run_round,
        init_client,
        personal,
        Adaptation(select, selection_work),
        num_clients,
    )
