"""`run_clients` in plain Python: one client after the other, nothing compiled.

The reference that the lane executor is tested against, and the place to look when a client
program misbehaves: errors name the client, and a debugger can step through it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fedjax_med.engine.channel import call_roll, seal_one
from fedjax_med.engine.contracts import (
    Aggregator,
    Batch,
    Client,
    ClientProgram,
    Cohort,
    CohortMetrics,
    CohortResult,
    PyTree,
    Stacked,
)
from fedjax_med.engine.lane_executor import finish_client, summarise
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.engine.minibatch import DeviceData, client_keys, step_positions, take_rows
from fedjax_med.engine.rewriting import Rewriting

# Compiled, because each call of its loop in plain Python would compile the loop again (measured:
# 50 ms a step); what a client program does stays plain Python.
_positions = jax.jit(step_positions, static_argnames=("work",))


class ClientError(RuntimeError):
    """A client program failed; the message names the client."""


@dataclasses.dataclass(frozen=True)
class SequentialExecutor:
    """Runs client programs one client and one local step at a time.

    Attributes:
      data: the clients of one device.
      local_work: minibatch size and order.
      client_names: names for error messages, by client index.
      rewriting: how models are computed; None, as is right for a reference, as they are.
      passes: counts the calls of a round, see `LaneExecutor`.
    """

    data: DeviceData
    local_work: LocalWork
    client_names: Sequence[str] = ()
    rewriting: Rewriting | None = None
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
        """See `RunClients`. The lanes of the cohort play no part; its slots are run in order."""
        work = local_work or self.local_work
        slots = range(int(cohort.lane_start[-1]))
        client_id = cohort.client_id
        keys = client_keys(cohort.seed, cohort.round_index, client_id)
        states = cohort.states
        messages, weights, excluded, metrics = [], [], [], []
        channel, roster, sealed = aggregator.channel, None, []
        if channel is not None:
            roster = call_roll(
                client_id,
                cohort.lane_start[-1],
                cohort.round_index,
                cohort.seed,
                passes=next(self.passes),
            )
        for slot in slots:
            row = int(cohort.client[slot])
            size = self.data.size[row]
            if local_work is None:
                num_steps = cohort.num_steps[slot]
                first = cohort.first_epoch[slot], cohort.first_step[slot]
            else:
                num_steps, first = work.num_steps(size), (jnp.int32(0), jnp.int32(0))
            state_row = int(self.data.state_row[row])
            state = jax.tree.map(lambda s, state_row=state_row: s[state_row], states)
            key = keys.step[slot]
            client = Client(client_id[slot], size, num_steps, key, state, cohort.staleness[slot])
            try:
                carry = program.begin(shared, client)
                for step in range(int(num_steps)):
                    batch = self._batch(row, first, step, keys.shuffle[slot], key, work)
                    carry = program.step(shared, carry, batch)
                result = program.end(shared, carry, client)
            except Exception as error:
                index = int(client_id[slot])
                name = f" ({self.client_names[index]})" if self.client_names else ""
                raise ClientError(f"Client {index}{name} failed: {error}") from error
            message, weight, out = finish_client(result, aggregator, aggregator_state, key)
            messages.append(message)
            if channel is not None and roster is not None:
                sealed.append(seal_one(channel, message, client_id[slot], roster))
            weights.append(weight)
            excluded.append(out)
            metrics.append(result.metrics)
            if not out:
                states = jax.tree.map(
                    lambda old, new, state_row=state_row: old.at[state_row].set(new),
                    states,
                    result.state,
                )
        if not messages:
            raise ClientError("The cohort is empty; the sequential executor needs a client.")
        delivery = None
        if channel is not None and roster is not None:
            total = jax.tree.map(lambda *s: sum(s[1:], start=s[0]), *sealed)
            total, delivery = channel.open(total, messages[0], roster)
            aggregate, aggregator_state = aggregator.decode(total, aggregator_state)
        else:
            aggregate, aggregator_state = self._aggregate(
                messages, weights, aggregator, aggregator_state
            )
        included = [not bool(out) for out in excluded]
        weight = sum(weights, start=jnp.zeros_like(weights[0]))
        totals = {
            name: sum(
                (w * m[name] for w, m, ok in zip(weights, metrics, included, strict=True) if ok),
                start=jnp.zeros_like(weight),
            )
            for name in metrics[0]
        }
        return CohortResult(
            aggregate=aggregate,
            aggregator_state=aggregator_state,
            client_states=states,
            metrics=CohortMetrics(
                mean=summarise(totals, weight),
                weight=weight,
                num_clients=jnp.int32(len(messages)),
                num_excluded=jnp.int32(len(included) - sum(included)),
                per_client={n: jnp.stack([m[n] for m in metrics]) for n in metrics[0]},
                excluded=jnp.array(excluded),
                delivery=delivery,
            ),
        )

    def _batch(self, row, first, step, salt, key, work: LocalWork) -> Batch:
        size = self.data.size[row]
        step_key = jax.random.fold_in(key, step)
        position, mask, count = _positions(work, step_key, first[0], first[1] + step, size, salt)
        return Batch(
            examples=take_rows(self.data.examples, self.data.offset[row] + position),
            mask=mask,
            # At least 1 as in the lanes: a Poisson sample may be empty.
            count=jnp.maximum(count, 1).astype(jnp.result_type(float)),
            key=step_key,
            rewriting=self.rewriting,
        )

    def _aggregate(self, messages, weights, aggregator, state):
        if aggregator.reduction == "stack":
            vectors = jnp.stack([ravel_pytree(message[0])[0] for message in messages])
            extra = jax.tree.map(lambda *m: sum(m[1:], start=m[0]), *(m[1] for m in messages))
            stacked = Stacked(vectors, jnp.stack(weights), lambda tree: tree)
            aggregate, state = aggregator.decode((stacked, extra), state)
            return ravel_pytree(messages[0][0])[1](aggregate), state
        total = jax.tree.map(lambda *m: sum(m[1:], start=m[0]), *messages)
        return aggregator.decode(total, state)
