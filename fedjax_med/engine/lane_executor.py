"""`run_clients` of the engine: lanes vmapped on a device, devices side by side.

A round is a loop over segments: stretches of local steps in which no lane begins or ends a
client. Before a segment, lanes that begin a client take what the server sent; after it, lanes that
end one hand their result to the aggregation. So the inner loop, where the time goes, is nothing but
local steps, with no masks and no conditionals, and its carry is updated in place. Lanes that have
run out of clients compute on, but nothing of theirs is read.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from fedjax_med.engine.channel import Roster, add_sealed, call_roll, seal_one
from fedjax_med.engine.contracts import (
    Aggregator,
    Batch,
    Client,
    ClientProgram,
    ClientResult,
    Cohort,
    CohortMetrics,
    CohortResult,
    PyTree,
    Stacked,
)
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.engine.minibatch import (
    DeviceData,
    client_keys,
    reduce_over,
    step_positions,
    take_rows,
)
from fedjax_med.engine.rewriting import Rewriting


@dataclasses.dataclass(frozen=True)
class Axes:
    """Names of the mapped axes that the executor runs under; None where there is none.

    Attributes:
      devices: client axis of the devices.
      splits: axis over which minibatches are split.
      experiments: axis of the vmapped experiments.
      num_devices: size of `devices`.
      num_splits: size of `splits`.
    """

    devices: str | None = None
    splits: str | None = None
    experiments: str | None = None
    num_devices: int = 1
    num_splits: int = 1


class _Slots(NamedTuple):
    """What the loop needs to know of the clients in the slots of a cohort.

    The integers are columns of one table, so that a step fetches them with one gather.
    """

    table: jax.Array  # int32 [slots, len(_SlotRow._fields)]
    key: jax.Array  # PRNG keys [slots]

    def at(self, slot: jax.Array) -> tuple[_SlotRow, jax.Array]:
        rows = self.table.at[slot].get(mode="clip")
        return _SlotRow(*jnp.moveaxis(rows, -1, 0)), self.key.at[slot].get(mode="clip")


class _SlotRow(NamedTuple):
    client_id: jax.Array
    size: jax.Array
    num_steps: jax.Array
    offset: jax.Array
    first_epoch: jax.Array
    first_step: jax.Array
    state_row: jax.Array
    salt: jax.Array
    staleness: jax.Array


class _Lanes(NamedTuple):
    """Where each lane stands; both fields are int32 `[lanes]`."""

    slot: jax.Array
    step: jax.Array  # local steps of the current client that are done


class _Totals(NamedTuple):
    """What clients add to when they end."""

    message: PyTree  # sum of the messages; for a stack ([slots, dim], sum of the rest)
    slots: jax.Array  # [slots, 2 + metrics]: weight, excluded, and the metrics by name
    states: PyTree


def _over_lanes(fn: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """`jax.vmap`, or for a single lane `fn` itself.

    A batched matrix product, be it a batch of one, gives the gradient of a weight in another order
    than the weight has, and bringing it back took a seventh of a step of `femnist-cnn` on a CPU.
    """

    def over_lanes(*args: PyTree) -> PyTree:
        if jax.tree.leaves(args)[0].shape[0] > 1:
            return jax.vmap(fn)(*args)
        return jax.tree.map(lambda x: x[None], fn(*jax.tree.map(lambda x: x[0], args)))

    return over_lanes


def _select(flags: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
    def select(a, b):
        return jnp.where(flags.reshape(flags.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(select, yes, no)


def _sum_where(flags: jax.Array, tree: PyTree) -> PyTree:
    """Sums over the lanes whose flag is set; keeps integer dtypes as they are."""
    chosen = _select(flags, tree, jax.tree.map(jnp.zeros_like, tree))
    return jax.tree.map(lambda x: jnp.sum(x, axis=0, dtype=x.dtype), chosen)


def _zeros(shapes: PyTree) -> PyTree:
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


def _add(a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(jnp.add, a, b)


def all_finite(tree: PyTree) -> jax.Array:
    """Whether every inexact number of a pytree is finite, bool `[]`."""
    finite = jnp.array(True)
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            finite &= jnp.all(jnp.isfinite(leaf))
    return finite


def finish_client(
    result: ClientResult, aggregator: Aggregator, aggregator_state: PyTree, key: jax.Array
) -> tuple[PyTree, jax.Array, jax.Array]:
    """Encodes one client's result; one that is not finite becomes a zero update of weight 0.

    Returns:
      The message, the weight, and whether the client was excluded.
    """
    # The state too: what only a client keeps (a model of its own) may diverge as well.
    finite = all_finite((result.update, result.weight, result.state))
    update = jax.tree.map(lambda u: jnp.where(finite, u, jnp.zeros_like(u)), result.update)
    weight = jnp.where(finite, jnp.asarray(result.weight, jnp.result_type(float)), 0)
    encode_key = jax.random.fold_in(key, 0x656E63)  # apart from the keys of local steps
    return aggregator.encode(update, weight, aggregator_state, encode_key), weight, ~finite


def summarise(totals: dict[str, jax.Array], weight: jax.Array) -> dict[str, jax.Array]:
    """Weighted means from weighted sums; 0 where nobody has weight."""
    return {name: total / jnp.where(weight > 0, weight, 1) for name, total in totals.items()}


def _empty_totals(
    message: PyTree, weight: Any, result: ClientResult, cohort: Cohort, aggregator: Aggregator
) -> _Totals:
    """Totals before the first client, from the shapes of one client's results."""
    slots = cohort.client.shape
    if aggregator.reduction == "stack":
        leaves = jax.tree.leaves(message[0])
        dim = sum(leaf.size for leaf in leaves)
        message = (jax.ShapeDtypeStruct((*slots, dim), jnp.result_type(*leaves)), message[1])
    return _Totals(
        message=_zeros(message),
        slots=jnp.zeros((*slots, 2 + len(result.metrics)), weight.dtype),
        states=cohort.states,
    )


@dataclasses.dataclass(frozen=True)
class LaneExecutor:
    """Runs client programs on one device's data; an instance is a `RunClients`.

    Attributes:
      data: this device's clients.
      local_work: minibatch size and order.
      axes: names of the mapped axes.
      rewriting: how models are computed, for one client side by side; None as they are.
      max_clients: no cohort is announced to be larger; None if that is not known.
      passes: counts the calls. An executor serves one round, so that each of its passes over
        the cohort has a number of its own and no mask of a channel serves twice.
    """

    data: DeviceData
    local_work: LocalWork
    axes: Axes = Axes()
    rewriting: Rewriting | None = None
    max_clients: int | None = None
    passes: Iterator[int] = dataclasses.field(default_factory=itertools.count, compare=False)

    def __call__(
        self,
        program: ClientProgram,
        shared: PyTree,
        cohort: Cohort,
        aggregator: Aggregator,
        aggregator_state: PyTree = (),
        *,
        local_work: LocalWork | None = None,
    ) -> CohortResult:
        """See `RunClients`."""
        work = local_work or self.local_work
        slots, trip_count = self._slots(cohort, work, scheduled=local_work is None)
        roster = self._roster(cohort, aggregator)
        totals, message_like, result_like = self._run_lanes(
            program, shared, cohort, slots, trip_count, work, aggregator, aggregator_state, roster
        )
        with jax.named_scope("aggregate"):
            return self._reduce(
                totals, message_like, result_like, cohort, aggregator, aggregator_state, roster
            )

    def _roster(self, cohort: Cohort, aggregator: Aggregator) -> Roster | None:
        """Who takes part, if the aggregator's channel has to know."""
        if aggregator.channel is None:
            return None
        if self.max_clients is not None:
            aggregator.channel.check(self.max_clients)
        return call_roll(
            cohort.client_id,
            cohort.lane_start[-1],
            cohort.round_index,
            cohort.seed,
            devices=self.axes.devices,
            passes=next(self.passes),
            max_clients=self.max_clients,
        )

    def _slots(self, cohort: Cohort, work: LocalWork, scheduled: bool) -> tuple[_Slots, jax.Array]:
        """Looks up the cohort's clients once per round, and the loop's trip count."""
        data = self.data
        size = data.size[cohort.client]
        keys = client_keys(cohort.seed, cohort.round_index, cohort.client_id)
        if scheduled:
            num_steps, trip_count = cohort.num_steps, cohort.trip_count
            first_epoch, first_step = cohort.first_epoch, cohort.first_step
        else:
            num_steps = work.num_steps(size)
            first_epoch = first_step = jnp.zeros_like(num_steps)
            ends = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(num_steps)])
            lane_ends = ends[cohort.lane_start]
            trip_count = jnp.max(lane_ends[1:] - lane_ends[:-1])
        if self.axes.experiments is not None:
            # One trip count for all experiments: one that differs inside a vmap would turn the
            # loop's whole carry into a select.
            trip_count = lax.pmax(trip_count, self.axes.experiments)
        row = _SlotRow(
            client_id=cohort.client_id,
            size=size,
            num_steps=num_steps,
            offset=data.offset[cohort.client],
            first_epoch=first_epoch,
            first_step=first_step,
            state_row=data.state_row[cohort.client],
            salt=lax.bitcast_convert_type(keys.shuffle, jnp.int32),
            staleness=cohort.staleness,
        )
        return _Slots(jnp.stack(row, axis=1), keys.step), trip_count

    def _batch(
        self,
        row: _SlotRow,
        key: jax.Array,
        step: jax.Array,
        work: LocalWork,
        rewriting: Rewriting | None,
    ) -> Batch:
        """The minibatch of one lane."""
        step_key = jax.random.fold_in(key, step)
        position, mask, count = step_positions(
            work,
            step_key,
            row.first_epoch,
            row.first_step + step,
            row.size,
            lax.bitcast_convert_type(row.salt, jnp.uint32),
            split_index=0 if self.axes.splits is None else lax.axis_index(self.axes.splits),
            num_splits=self.axes.num_splits,
        )
        return Batch(
            examples=take_rows(self.data.examples, row.offset + position),
            mask=mask,
            count=jnp.maximum(count, 1).astype(jnp.result_type(float)),
            key=step_key,
            split_axis=self.axes.splits,
            num_splits=self.axes.num_splits,
            rewriting=rewriting,
        )

    def _rewriting(self, num_lanes: int) -> Rewriting | None:
        if self.rewriting is None or self.axes.experiments is None:
            return self.rewriting and self.rewriting.for_clients(num_lanes)
        return self.rewriting.for_clients(num_lanes * lax.axis_size(self.axes.experiments))

    def _run_lanes(
        self,
        program: ClientProgram,
        shared: PyTree,
        cohort: Cohort,
        slots: _Slots,
        trip_count: jax.Array,
        work: LocalWork,
        aggregator: Aggregator,
        aggregator_state: PyTree,
        roster: Roster | None,
    ) -> tuple[_Totals, PyTree, ClientResult]:
        num_slots = cohort.client.shape[0]
        lane_end = cohort.lane_start[1:]
        batch_of = partial(self._batch, work=work, rewriting=self._rewriting(lane_end.shape[0]))

        def describe(row: _SlotRow, key: jax.Array, states: PyTree) -> Client:
            state = jax.tree.map(lambda s: s[row.state_row], states)
            return Client(row.client_id, row.size, row.num_steps, key, state, row.staleness)

        def begin(row, key, states):
            return program.begin(shared, describe(row, key, states))

        def finish(row, key, carry, states):
            result = program.end(shared, carry, describe(row, key, states))
            message, weight, excluded = finish_client(result, aggregator, aggregator_state, key)
            return message, weight, excluded, result

        def collect(ends, lanes, row, key, carry, totals: _Totals) -> _Totals:
            message, weight, excluded, result = jax.vmap(finish, in_axes=(0, 0, 0, None))(
                row, key, carry, totals.states
            )
            counted = ends & ~excluded
            # Slots of lanes that do not end here lie outside the arrays: nothing is written.
            slot = jnp.where(ends, lanes.slot, num_slots)

            def store(array, values):
                return array.at[slot].set(values.astype(array.dtype), mode="drop")

            def store_state(array, values):
                target = jnp.where(counted, row.state_row, array.shape[0])
                return array.at[target].set(values.astype(array.dtype), mode="drop")

            if aggregator.reduction == "stack":
                vectors = jax.vmap(lambda tree: ravel_pytree(tree)[0])(message[0])
                extra = _add(totals.message[1], _sum_where(ends, message[1]))
                summed = (store(totals.message[0], vectors), extra)
            elif roster is not None:
                assert aggregator.channel is not None
                summed = add_sealed(
                    aggregator.channel,
                    totals.message,
                    message,
                    ends,
                    row.client_id,
                    roster,
                    self.axes.experiments,
                )
            else:
                summed = _add(totals.message, _sum_where(ends, message))
            # One table, because every array stored into is a dispatch of its own.
            columns = (weight, excluded, *(value for _, value in sorted(result.metrics.items())))
            dtype = totals.slots.dtype
            return _Totals(
                message=summed,
                slots=store(totals.slots, jnp.stack([c.astype(dtype) for c in columns], axis=1)),
                states=jax.tree.map(store_state, totals.states, result.state),
            )

        def segment(loop):
            t, lanes, carry, totals = loop
            row, key = slots.at(lanes.slot)
            active = lanes.slot < lane_end
            with jax.named_scope("begin"):
                fresh = jax.vmap(begin, in_axes=(0, 0, None))(row, key, totals.states)
                carry = _select(active & (lanes.step == 0), fresh, carry)
            left = jnp.where(active, row.num_steps - lanes.step, trip_count)
            # Like the trip count the same for all experiments, so that the loop stays a loop.
            length = reduce_over(self.axes.experiments, lax.pmin, jnp.min(left))

            def local_step(i, carry):
                with jax.named_scope("minibatch"):
                    batch = _over_lanes(batch_of)(row, key, lanes.step + i)
                with jax.named_scope("local_step"):
                    return _over_lanes(partial(program.step, shared))(carry, batch)

            carry = lax.fori_loop(0, length, local_step, carry)
            ends = active & (left == length)
            with jax.named_scope("end"):
                totals = collect(ends, lanes, row, key, carry, totals)
            lanes = _Lanes(lanes.slot + ends, jnp.where(ends, 0, lanes.step + length))
            return t + length, lanes, carry, totals

        lanes = _Lanes(cohort.lane_start[:-1], jnp.zeros_like(lane_end))
        row, key = slots.at(lanes.slot)
        per_lane = jax.vmap(begin, in_axes=(0, 0, None))
        carry = _zeros(jax.eval_shape(per_lane, row, key, cohort.states))
        one = jax.tree.map(lambda x: x[0], (row, key, carry))
        message, weight, _, result = jax.eval_shape(finish, *one, cohort.states)
        sealed = message
        if roster is not None:
            assert aggregator.channel is not None
            seal = partial(seal_one, aggregator.channel, roster=roster)
            sealed = jax.eval_shape(seal, message, cohort.client_id[0])
        totals = _empty_totals(sealed, weight, result, cohort, aggregator)
        loop = (jnp.zeros((), jnp.int32), lanes, carry, totals)
        loop = lax.while_loop(lambda loop: loop[0] < trip_count, segment, loop)
        return loop[-1], message, result

    def _reduce(
        self,
        totals: _Totals,
        message_like: PyTree,
        result_like: ClientResult,
        cohort: Cohort,
        aggregator: Aggregator,
        aggregator_state: PyTree,
        roster: Roster | None,
    ) -> CohortResult:
        """The one reduction over devices of a round."""
        weight, excluded, *columns = jnp.moveaxis(totals.slots, 1, 0)
        per_client = dict(zip(sorted(result_like.metrics), columns, strict=True))
        # An excluded client has weight 0, but its metrics may be NaN.
        weighted = {
            name: jnp.sum(jnp.where(weight > 0, weight * values, 0))
            for name, values in per_client.items()
        }
        summed = totals.message[1] if aggregator.reduction == "stack" else totals.message
        summed, weighted, total_weight, num_clients, num_excluded = reduce_over(
            self.axes.devices,
            lax.psum,
            (
                summed,
                weighted,
                jnp.sum(weight),
                cohort.lane_start[-1],
                jnp.sum(excluded > 0, dtype=jnp.int32),
            ),
        )
        delivery = None
        if roster is not None:
            assert aggregator.channel is not None
            summed, delivery = aggregator.channel.open(summed, message_like, roster)
        if aggregator.reduction == "stack":
            stacked = self._spread_stack(totals.message[0], weight)
            slice_, state = aggregator.decode((stacked, summed), aggregator_state)
            aggregate = self._join_slices(slice_, message_like[0])
        else:
            aggregate, state = aggregator.decode(summed, aggregator_state)
        return CohortResult(
            aggregate=aggregate,
            aggregator_state=state,
            client_states=totals.states,
            metrics=CohortMetrics(
                mean=summarise(weighted, total_weight),
                weight=total_weight,
                num_clients=num_clients,
                num_excluded=num_excluded,
                per_client=per_client,
                excluded=excluded > 0,
                delivery=delivery,
            ),
        )

    def _spread_stack(self, values: jax.Array, weight: jax.Array) -> Stacked:
        """Gives each device a slice of the parameters for all clients, never everything to one."""
        axes = self.axes
        if axes.devices is None:
            return Stacked(values, weight, lambda tree: tree)
        padding = -values.shape[1] % axes.num_devices
        values = jnp.pad(values, ((0, 0), (0, padding)))
        values = lax.all_to_all(values, axes.devices, split_axis=1, concat_axis=0, tiled=True)
        weight = lax.all_gather(weight, axes.devices, tiled=True)
        return Stacked(values, weight, lambda tree: lax.psum(tree, axes.devices))

    def _join_slices(self, slice_: jax.Array, stacked_like: PyTree) -> PyTree:
        unravel = ravel_pytree(_zeros(stacked_like))[1]
        size = sum(leaf.size for leaf in jax.tree.leaves(stacked_like))
        joined = reduce_over(self.axes.devices, partial(lax.all_gather, tiled=True), slice_)
        return unravel(joined[:size])
