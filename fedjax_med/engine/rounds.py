"""Many federated rounds, or an evaluation, as one compiled call."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_med.engine.contracts import (
    Adapted,
    Aggregator,
    Batch,
    Client,
    ClientProgram,
    ClientResult,
    Cohort,
    CohortMetrics,
    FederatedAlgorithm,
    PyTree,
    Variables,
)
from fedjax_med.engine.lane_executor import LaneExecutor
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.engine.minibatch import DeviceData
from fedjax_med.engine.placement import EXPERIMENT_AXIS, Placement, Role
from fedjax_med.engine.rewriting import Rewriting

# `(hyperparameters) -> algorithm`; called while tracing, so the values may be traced arrays.
AlgorithmBuilder = Callable[[Mapping[str, Any]], FederatedAlgorithm]

# `(variables, batch) -> {name: (numerators [batch], denominators [batch])}`; a metric is the sum
# of its numerators over the sum of its denominators.
MetricsFn = Callable[[Variables, Batch], dict[str, tuple[jax.Array, jax.Array]]]


class SharedMetrics(NamedTuple):
    """The part of `CohortMetrics` that is the same on every device, `[rounds]`."""

    mean: dict[str, jax.Array]
    weight: jax.Array
    num_clients: jax.Array
    num_excluded: jax.Array


class SlotMetrics(NamedTuple):
    """The part of `CohortMetrics` that each device has of its own, `[rounds, slots]`."""

    per_client: dict[str, jax.Array]
    excluded: jax.Array


def split_metrics(metrics: CohortMetrics) -> tuple[SharedMetrics, SlotMetrics]:
    """Takes `CohortMetrics` apart by where they live."""
    mean = metrics.mean
    if metrics.delivery is not None:
        told = metrics.delivery._asdict()
        mean = {**mean, **{name: x.astype(metrics.weight.dtype) for name, x in told.items()}}
    return (
        SharedMetrics(mean, metrics.weight, metrics.num_clients, metrics.num_excluded),
        SlotMetrics(metrics.per_client, metrics.excluded),
    )


class Compiled:
    """A program for one placement: compiled per argument shapes, and every trace counted.

    Attributes:
      num_traces: times the Python function was traced.
      compile_s: seconds spent tracing and compiling.
    """

    def __init__(
        self,
        fn: Callable[..., tuple],
        placement: Placement,
        inputs: tuple[Role, ...],
        outputs: tuple[Role, ...],
        donate: tuple[int, ...] = (),
    ):
        """Prepares `fn`; see `Placement.jit` for the roles."""
        self.num_traces = 0
        self.compile_s = 0.0
        self._executables: dict[Any, Any] = {}

        def counted(*args):
            self.num_traces += 1
            return fn(*args)

        counted.__name__ = fn.__name__
        self._jitted = placement.jit(counted, inputs, outputs, donate)

    def executable(self, *args: PyTree) -> Any:
        """The compiled program for arguments of these shapes (arrays or shape structs)."""
        leaves, structure = jax.tree.flatten(args)
        signature = (structure, tuple((x.shape, x.dtype) for x in leaves))
        if signature not in self._executables:
            start = time.perf_counter()
            self._executables[signature] = self._jitted.lower(*args).compile()
            self.compile_s += time.perf_counter() - start
        return self._executables[signature]

    def executables(self) -> list[Any]:
        """The programs compiled so far, one per argument shapes."""
        return list(self._executables.values())

    def __call__(self, *args: PyTree) -> tuple:
        """Runs the program; returns before the devices have finished."""
        return self.executable(*args)(*args)


def compile_rounds(
    build: AlgorithmBuilder,
    local_work: LocalWork,
    placement: Placement,
    *,
    experiments: bool,
    rewriting: Rewriting | None = None,
    max_clients: int | None = None,
) -> Compiled:
    """The program that runs a chunk of rounds.

    Its arguments are the server state (donated), the persistent client states (donated), the
    `DeviceData`, the cohorts `[rounds, ...]`, the number of rounds to run (at most those), and
    the traced hyperparameters; its results the two states and the metrics of the rounds. With
    `experiments`, states, cohorts, hyperparameters and metrics have a leading experiments axis.
    `max_clients` is what the sampler announces, see `Channel.check`. A round whose messages could
    not be opened leaves the server as it was.
    """
    axes = placement.axes(experiments)

    def run_chunk(
        state: PyTree,
        client_states: PyTree,
        data: DeviceData,
        cohorts: Cohort,
        num_rounds: jax.Array,
        hyperparameters: Mapping[str, Any],
    ):
        algorithm = build(hyperparameters)

        def run_round(r, state, client_states):
            run_clients = LaneExecutor(data, local_work, axes, rewriting, max_clients)
            cohort = jax.tree.map(lambda x: x[r], cohorts)._replace(states=client_states)
            result = algorithm.run_round(state, cohort, run_clients)
            if (delivery := result.metrics.delivery) is not None:
                kept = jax.tree.map(
                    lambda old, new: jnp.where(delivery.rejected, old, new), state, result.state
                )
                result = result._replace(state=kept)
            return result.state, result.client_states, split_metrics(result.metrics)

        shapes = jax.eval_shape(run_round, jnp.int32(0), state, client_states)
        _check_kept("state", state, shapes[0])
        _check_kept("client_states", client_states, shapes[1])
        max_rounds = cohorts.round_index.shape[0]
        history = jax.tree.map(lambda m: jnp.zeros((max_rounds, *m.shape), m.dtype), shapes[2])

        def body(r, loop):
            state, client_states, history = loop
            state, client_states, metrics = run_round(r, state, client_states)
            history = jax.tree.map(lambda h, m: h.at[r].set(m), history, metrics)
            return state, client_states, history

        loop = lax.fori_loop(0, num_rounds, body, (state, client_states, history))
        state, client_states, (shared, slots) = loop
        return state, client_states, shared, slots

    if experiments:
        run_chunk = jax.vmap(run_chunk, in_axes=(0, 0, None, 0, None, 0), axis_name=EXPERIMENT_AXIS)
    return Compiled(
        run_chunk,
        placement,
        inputs=(
            "replicated",
            "per_device",
            "per_device",
            "per_device",
            "replicated",
            "replicated",
        ),
        outputs=("replicated", "per_device", "replicated", "per_device"),
        donate=(0, 1),
    )


def _check_kept(name: str, before: PyTree, after: PyTree) -> None:
    """Raises TypeError if a round would change structure, shapes or dtypes of a state."""
    old, new = jax.tree.structure(before), jax.tree.structure(after)
    if old != new:
        raise TypeError(f"A round must keep the structure of {name}: {old} became {new}.")
    for (path, a), (_, b) in zip(
        jax.tree_util.tree_leaves_with_path(before),
        jax.tree_util.tree_leaves_with_path(after),
        strict=True,
    ):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise TypeError(
                f"A round must keep shapes and dtypes of {name}: "
                f"{name}{jax.tree_util.keystr(path)} was {a.dtype}{list(a.shape)} and became "
                f"{b.dtype}{list(b.shape)}."
            )


def evaluation_program(
    metrics_fn: MetricsFn, personal: Callable[[PyTree, PyTree], Variables], names: tuple
) -> ClientProgram:
    """The client program that judges a model on each client's own examples.

    The update is `{name: (sum of numerators, sum of denominators)}`, so that its sum over
    clients gives the pooled metrics; each client's own ratios are its metrics (NaN where the
    denominator is 0). `shared` is the server state, `names` are the names that `metrics_fn` returns.
    """

    def begin(shared: PyTree, client: Client):
        zero = jnp.zeros((), jnp.result_type(float))
        return personal(shared, client.state), {name: (zero, zero) for name in names}

    def step(shared: PyTree, carry: PyTree, batch: Batch) -> PyTree:
        del shared
        variables, sums = carry
        values = batch.rewritten(metrics_fn, "evaluation")(variables, batch)
        return variables, {
            name: (
                sums[name][0] + batch.masked_sum(top),
                sums[name][1] + batch.masked_sum(bottom),
            )
            for name, (top, bottom) in values.items()
        }

    def end(shared: PyTree, carry: PyTree, client: Client) -> ClientResult:
        del shared
        sums = carry[1]
        return ClientResult(
            update=sums,
            weight=client.num_examples.astype(jnp.result_type(float)),
            state=client.state,
            metrics={name: top / bottom for name, (top, bottom) in sums.items()},
        )

    return ClientProgram(begin, step, end)


class Pass(NamedTuple):
    """Client data and a cohort that goes over it once."""

    data: DeviceData
    cohort: Cohort


def sum_of_updates() -> Aggregator:
    """The unweighted sum of what clients send; for statistics and evaluation."""
    return Aggregator(
        init=lambda update: (),
        encode=lambda update, weight, state, key: update,
        decode=lambda total, state: (total, state),
        reduction="sum",
    )


def compile_evaluation(
    build: AlgorithmBuilder,
    metrics_fn: MetricsFn,
    metric_names: tuple[str, ...],
    local_work: LocalWork,
    placement: Placement,
    *,
    experiments: bool,
    adaptation_work: LocalWork | None = None,
    clients_per_device: int = 1,
    rewriting: Rewriting | None = None,
) -> Compiled:
    """The program that judges the current models on a cohort (usually everybody).

    Its arguments are the server state, the persistent client states, the `Pass` over the examples
    to judge on, the hyperparameters, and with `adaptation_work` the `Pass` over the examples that
    clients adapt to before (`()` without). Its results are `{name: (numerator, denominator)}`
    summed over clients, and the per-client metrics `[slots]`. Experiments have a leading axis, but
    share both passes.
    """
    axes = placement.axes(experiments)

    def evaluate(state, client_states, judged, hyperparameters, adapted_to):
        algorithm = build(hyperparameters)
        if adaptation_work is not None:
            assert algorithm.adaptation is not None
            run_clients = LaneExecutor(adapted_to.data, adaptation_work, axes, rewriting)
            program, _, room = algorithm.adaptation
            if room is not None:
                made = jax.tree.map(
                    lambda x: jnp.broadcast_to(x[None], (clients_per_device, *x.shape)),
                    room(state.variables),
                )
                client_states = Adapted(client_states, made)
            cohort = adapted_to.cohort._replace(states=client_states)
            client_states = run_clients(program, state, cohort, sum_of_updates()).client_states
        run_clients = LaneExecutor(judged.data, local_work, axes, rewriting)
        cohort = judged.cohort._replace(states=client_states)
        program = evaluation_program(metrics_fn, algorithm.personal, metric_names)
        result = run_clients(program, state, cohort, sum_of_updates(), ())
        return result.aggregate, split_metrics(result.metrics)[1]

    if experiments:
        evaluate = jax.vmap(evaluate, in_axes=(0, 0, None, 0, None), axis_name=EXPERIMENT_AXIS)
    return Compiled(
        evaluate,
        placement,
        inputs=("replicated", "per_device", "per_device", "replicated", "per_device"),
        outputs=("replicated", "per_device"),
    )
