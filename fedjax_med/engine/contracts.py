"""The contracts between algorithms, aggregators and the engine.

An algorithm describes what *one* client does (`ClientProgram`), an aggregator what becomes of
the clients' updates (`Aggregator`), and `run_clients` lays the clients of a cohort over lanes
and devices. None of the three knows how the others work:

    run_clients(program, shared, cohort, aggregator, aggregator_state) -> CohortResult

Everything here is a pure function or a pytree of arrays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_med.engine.channel import Channel, Delivery
from fedjax_med.engine.guarantee import Guarantee
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.engine.rewriting import Part, Rewriting

PyTree = Any
# `jax.Array` inside compiled code; schedules and tables are `numpy.ndarray` on the host.
Array = Any


class Variables(NamedTuple):
    """All of a model that travels between server and clients.

    Attributes:
      params: pytree of trained arrays.
      state: pytree of arrays that are carried but not trained (batch statistics); `()` if none.
    """

    params: PyTree
    state: PyTree = ()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """One minibatch of one client, padded to a fixed number of examples.

    Attributes:
      examples: pytree of arrays `[batch, ...]`. Padding repeats a real example of the client.
      mask: bool `[batch]`, False on padding.
      count: float `[]`, real examples of the whole minibatch, over all devices that share it.
      key: PRNG key of this client's local step, the same on all devices that share the batch.
      split_axis: name of the mesh axis over which the minibatch is split, None if it is whole.
      num_splits: number of devices that share the minibatch.
      rewriting: how the engine computes models that are given this minibatch; None as they are.
    """

    examples: PyTree
    mask: jax.Array
    count: jax.Array
    key: jax.Array
    split_axis: str | None = dataclasses.field(default=None, metadata={"static": True})
    num_splits: int = dataclasses.field(default=1, metadata={"static": True})
    rewriting: Rewriting | None = dataclasses.field(default=None, metadata={"static": True})

    def sum_over_splits(self, tree: PyTree) -> PyTree:
        """Sums a pytree over the devices that share this minibatch (identity if none do)."""
        return tree if self.split_axis is None else lax.psum(tree, self.split_axis)

    def rewritten(self, fn: Callable[..., Any], part: Part = "training") -> Callable[..., Any]:
        """`fn` as the engine wants it computed. To be called before `fn` is differentiated.

        `gradient` and evaluation do; an algorithm that differentiates by itself may as well.
        """
        return fn if self.rewriting is None else self.rewriting(fn, part)

    def masked_sum(self, values: jax.Array) -> jax.Array:
        """Sum over the real examples of the whole minibatch, of values `[batch]`."""
        return self.sum_over_splits(jnp.sum(jnp.where(self.mask, values, 0)))

    def split_key(self) -> jax.Array:
        """A key of its own for each device that shares the minibatch."""
        if self.split_axis is None:
            return self.key
        return jax.random.fold_in(self.key, lax.axis_index(self.split_axis))

    def bernoulli(self, p: float, shape: tuple[int, ...], layer: int = 0) -> jax.Array:
        """Bernoulli(p) draws `[batch, *shape]` that do not depend on how the minibatch is split.

        The draws of the whole minibatch are made and this device's part is taken, so dropout
        with them gives the same result on any mesh. `layer` tells several draws of a step apart.
        """
        key = jax.random.fold_in(self.key, layer)
        size = self.mask.shape[0]
        draws = jax.random.bernoulli(key, p, (size * self.num_splits, *shape))
        if self.split_axis is None:
            return draws
        return lax.dynamic_slice_in_dim(draws, lax.axis_index(self.split_axis) * size, size)


class Client(NamedTuple):
    """What a client program is told about its client.

    Attributes:
      index: int32 `[]`, position of the client in the dataset, or among the `members` of its
        experiment.
      num_examples: int32 `[]`, training examples it holds.
      num_steps: int32 `[]`, local steps of this round.
      key: PRNG key of (seed, round, client).
      state: this client's persistent state, `()` if the algorithm keeps none.
      staleness: int32 `[]`, rounds between the server's model that the client began with and the
        present one; 0 but for asynchronous schedules.
    """

    index: jax.Array
    num_examples: jax.Array
    num_steps: jax.Array
    key: jax.Array
    state: PyTree = ()
    staleness: jax.Array | int = 0


class ClientResult(NamedTuple):
    """What a client hands back at its last local step.

    Attributes:
      update: pytree like the parameters; server minus client by convention, so that the
        aggregate is a pseudo-gradient.
      weight: float `[]`, the client's share in the aggregate.
      state: the client's new persistent state (same structure as `Client.state`).
      metrics: dict of scalars.
    """

    update: PyTree
    weight: jax.Array
    state: PyTree = ()
    metrics: dict[str, jax.Array] = {}  # noqa: RUF012 (a NamedTuple default is never mutated)


class ClientProgram(NamedTuple):
    """One client's pass over its data, as three pure functions.

    Attributes:
      begin: `(shared, client) -> carry`, at the client's first step.
      step: `(shared, carry, batch) -> carry`, once per minibatch; shapes and dtypes are kept.
      end: `(shared, carry, client) -> ClientResult`, after its last step.
    """

    begin: Callable[[PyTree, Client], PyTree]
    step: Callable[[PyTree, PyTree, Batch], PyTree]
    end: Callable[[PyTree, PyTree, Client], ClientResult]


class Stacked(NamedTuple):
    """A slice of all clients' updates, as a stacked reduction's `decode` receives it.

    Attributes:
      values: `[slots, dim_slice]`; each device sees all clients for its slice of the parameters.
      weight: `[slots]`; 0 marks an empty slot or an excluded client.
      sum_over_slices: sums partial results (for example a Gram matrix) over the other slices.
    """

    values: jax.Array
    weight: jax.Array
    sum_over_slices: Callable[[PyTree], PyTree]


class Aggregator(NamedTuple):
    """What clients send, how it is reduced, and what the server makes of it.

    Attributes:
      init: `(update_like) -> state`, from a pytree of the update's shapes and dtypes.
      encode: `(update, weight, state, key) -> message`, per client. Excluded and padding
        clients are passed as zero updates with weight 0, and their messages are zeroed for
        `"sum"`; for `"stack"` it is a pair of the pytree to be stacked and one to be summed.
      decode: `(reduced, state) -> (aggregate, state)`. For `"sum"`, `reduced` is the sum of the
        messages; for `"stack"` it is a pair of `Stacked` and the sum of `message[1]`, and the
        aggregate is `[dim_slice]`, which the engine gives the shape of `message[0]`.
      reduction: `"sum"` streams (nothing of size clients x params is held), `"stack"` holds
        `[slots, dim]`, spread over the devices by parameters.
      channel: how the messages of a `"sum"` get to the server; None in the clear. Whoever wraps
        an aggregator keeps it (`aggregator._replace(...)`): all of the message then is sealed.
    """

    init: Callable[[PyTree], PyTree]
    encode: Callable[[PyTree, jax.Array, PyTree, jax.Array], PyTree]
    decode: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
    reduction: Literal["sum", "stack"]
    channel: Channel | None = None


class Cohort(NamedTuple):
    """The clients of one round as one device sees them, queued into lanes (a CSR layout).

    Slot `s` with `lane_start[l] <= s < lane_start[l + 1]` belongs to lane `l`; slots from
    `lane_start[-1]` on are empty. The leading `[rounds]`, `[experiments]` and `[devices]` axes
    of a schedule are gone when a round sees its cohort.

    Attributes:
      round_index: int32 `[]`.
      seed: uint32 `[]`, root of every key.
      client: int32 `[slots]`, row of the device's client table.
      client_id: int32 `[slots]`, `Client.index`; randomness is drawn by it.
      first_epoch: int32 `[slots]`, epochs over its data that the client finished before.
      first_step: int32 `[slots]`, minibatches already used of the current epoch.
      num_steps: int32 `[slots]`, local steps of this round.
      staleness: int32 `[slots]`, see `Client.staleness`.
      lane_start: int32 `[lanes + 1]`.
      trip_count: int32 `[]`, steps of the longest lane.
      states: persistent client states `[clients on this device, ...]`.
    """

    round_index: Array
    seed: Array
    client: Array
    client_id: Array
    first_epoch: Array
    first_step: Array
    num_steps: Array
    staleness: Array
    lane_start: Array
    trip_count: Array
    states: PyTree = ()


class CohortMetrics(NamedTuple):
    """Metrics of one pass over a cohort.

    Attributes:
      mean: dict of weighted means over the included clients, replicated over devices.
      weight: total weight of the included clients.
      num_clients: clients that took part, the excluded ones counted.
      num_excluded: clients left out because their update was not finite.
      per_client: dict of `[slots]`, this device's clients; 0 in empty slots.
      excluded: bool `[slots]`.
      delivery: what became of the messages in the aggregator's channel, None without one.
    """

    mean: dict[str, jax.Array]
    weight: jax.Array
    num_clients: jax.Array
    num_excluded: jax.Array
    per_client: dict[str, jax.Array]
    excluded: jax.Array
    delivery: Delivery | None = None


class CohortResult(NamedTuple):
    """What `run_clients` returns."""

    aggregate: PyTree
    aggregator_state: PyTree
    client_states: PyTree
    metrics: CohortMetrics


@runtime_checkable
class RunClients(Protocol):
    """Runs a client program over a cohort. `lanes` and `sequential` have this signature."""

    def __call__(
        self,
        program: ClientProgram,
        shared: PyTree,
        cohort: Cohort,
        aggregator: Aggregator,
        aggregator_state: PyTree = ...,
        *,
        local_work: Any = None,
    ) -> CohortResult:
        """Runs `program` for every client of `cohort`; `local_work` overrides the schedule's."""
        ...


class RoundResult(NamedTuple):
    """What an algorithm returns for a round.

    Attributes:
      state: the server state of the next round; structure, shapes and dtypes are kept.
      client_states: persistent client states, as `run_clients` returned them.
      metrics: `CohortMetrics`.
    """

    state: PyTree
    client_states: PyTree
    metrics: CohortMetrics


class Adapted(NamedTuple):
    """A client's state during an evaluation whose `Adaptation` has room for more than training.

    Attributes:
      own: the persistent state.
      made: what the adaptation makes.
    """

    own: PyTree
    made: PyTree


class Adaptation(NamedTuple):
    """What a client does with its own training examples before it is judged.

    Attributes:
      program: its `shared` is the server state; the `state` of its result is handed to
        `FederatedAlgorithm.personal` and then forgotten. Nothing is sent: updates are `()`.
      local_work: how long; that of the run if None.
      room: `(variables) -> made`, what a client has made before it begins. With it, the program
        and `personal` are given an `Adapted`, and return one; its `made` exists during evaluations
        only. Without, they are given the persistent state, whose structure is kept.
    """

    program: ClientProgram
    local_work: LocalWork | None = None
    room: Callable[[Variables], PyTree] | None = None


def no_client_state(variables: Variables) -> tuple[()]:
    """The persistent state of a client that keeps none."""
    del variables
    return ()


class FederatedAlgorithm(NamedTuple):
    """A federated algorithm, as pure functions over a server state of arrays.

    Attributes:
      init: `(variables) -> state`. The state has a field `variables`, the current model.
      run_round: `(state, cohort, run_clients) -> RoundResult`.
      init_client: `(variables) -> client_state`, one client's persistent state before its
        first round; the engine keeps one for every client of the population.
      personal: `(state, client_state) -> Variables`, the model a client is judged by.
      adaptation: a pass over its training examples that comes before, None if there is none.
      num_clients: clients of the population that the algorithm was built for, None for any.
      max_staleness: age in rounds of the oldest model that clients may begin with.
      privacy: what is promised about privacy and the conditions on which it holds, None if nothing.
    """

    init: Callable[[Variables], PyTree]
    run_round: Callable[[PyTree, Cohort, RunClients], RoundResult]
    init_client: Callable[[Variables], PyTree] = no_client_state
    personal: Callable[[PyTree, PyTree], Variables] = lambda state, client_state: state.variables
    adaptation: Adaptation | None = None
    num_clients: int | None = None
    max_staleness: int = 0
    privacy: Guarantee | None = None


def frozen(algorithm: FederatedAlgorithm, state: PyTree) -> FederatedAlgorithm:
    """`algorithm` with a server that stays at `state`: only what clients keep changes.

    For hospitals that did not train together. Simulated on their data, it gives each what the
    algorithm gives a new client (a head, a mixture, a cluster), and evaluates it:

        simulate(frozen(algorithm, run.state), new_hospitals, rounds=1, evaluate_every=1, ...)
    """

    def init(variables: Variables) -> PyTree:
        del variables
        return jax.tree.map(lambda x: jnp.array(x, copy=True), state)

    def run_round(server: PyTree, cohort: Cohort, run_clients: RunClients) -> RoundResult:
        result = algorithm.run_round(server, cohort, run_clients)
        return result._replace(state=server)

    def init_client(variables: Variables) -> PyTree:
        del variables
        return algorithm.init_client(jax.tree.map(jnp.asarray, state.variables))

    return algorithm._replace(
        init=init, run_round=run_round, init_client=init_client, num_clients=None, privacy=None
    )


class GradientResult(NamedTuple):
    """Gradient of the mean loss of a minibatch, that loss, and the model's new state."""

    grads: PyTree
    loss: jax.Array
    state: PyTree


# `(variables, batch) -> (losses [batch], new model state)`
Loss = Callable[[Variables, Batch], tuple[jax.Array, PyTree]]
GradientFn = Callable[[Variables, Batch], GradientResult]


def gradient(loss: Loss) -> GradientFn:
    """Gradient of the mean of `loss` over the real examples of a minibatch.

        sum_i mask[i] * loss[i] / count

    Padding contributes exactly 0. If the minibatch is split over devices, the sums run over all
    of them (one reduction), and model state is averaged over the devices by their examples.
    """

    def gradient_fn(variables: Variables, batch: Batch) -> GradientResult:
        losses_of = batch.rewritten(loss)

        def mean_loss(params):
            losses, state = losses_of(Variables(params, variables.state), batch)
            return jnp.sum(jnp.where(batch.mask, losses, 0)) / batch.count, state

        (value, state), grads = jax.value_and_grad(mean_loss, has_aux=True)(variables.params)
        if batch.split_axis is not None:
            share = jnp.sum(batch.mask) / batch.count
            state = jax.tree.map(lambda s: (s * share).astype(s.dtype), state)
            value, grads, state = batch.sum_over_splits((value, grads, state))
        return GradientResult(grads, value, state)

    return gradient_fn
