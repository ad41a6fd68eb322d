"""The models that clients are judged by: the server's, their own, or what they adapt to themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.data import ClientArrays
from fedjax_med.engine import FederatedAlgorithm, Run, Variables
from fedjax_med.engine.contracts import Adapted, PyTree
from fedjax_med.engine.evaluator import pass_over_everybody
from fedjax_med.engine.lane_executor import LaneExecutor
from fedjax_med.engine.layout import from_rows, spread, to_rows
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.engine.placement import one_device
from fedjax_med.engine.rounds import Compiled, Pass, sum_of_updates

# `(server state, client states [clients, ...]) -> variables [clients, ...]`
Models = Callable[[PyTree, PyTree], Variables]


def num_experiments(run: Run) -> int | None:
    """Experiments of a run, None if it has no such axis."""
    lengths = [np.shape(values)[0] for values in run.history.values() if np.ndim(values) > 1]
    return lengths[0] if lengths else None


def one_experiment(run: Run, index: int) -> Run:
    """The models and states of one experiment.

    Raises:
      ValueError: if the run has no such experiment.
    """
    count = num_experiments(run)
    if count is None or not 0 <= index < count:
        has = "no experiments" if count is None else f"experiments 0, ..., {count - 1}"
        raise ValueError(f"experiment must be one of the run, which has {has}; got {index}.")
    take = lambda tree: jax.tree.map(lambda x: np.asarray(x)[index], tree)
    return dataclasses.replace(
        run,
        variables=take(run.variables),
        state=take(run.state),
        client_states=take(run.client_states),
        history={},
    )


def models_of_clients(
    algorithm: FederatedAlgorithm, train: ClientArrays, local_work: LocalWork | None
) -> Models:
    """What gives every client its model; compiled once for states of the same shapes.

    An adaptation runs as in the engine's evaluations: over the training examples, with their keys.

    Raises:
      NotImplementedError: if the algorithm adapts for as long as it trains, and nobody says how long
        that is.
    """
    if algorithm.adaptation is None:
        of_each = jax.jit(jax.vmap(algorithm.personal, in_axes=(None, 0)))
        return lambda state, states: of_each(jax.tree.map(jnp.asarray, state), states)
    program, own_work, room = algorithm.adaptation
    work = own_work or local_work
    if work is None:
        raise NotImplementedError(
            "algorithm adapts to a client's examples before it is judged, for as long as the run "
            "trained; give the local_work of the run, or hand over the adapted models with "
            "per_client=True."
        )
    placement, layout = one_device(), spread(train.sizes, 1)
    everybody, _ = pass_over_everybody(train, work, layout)
    everybody = placement.put(everybody, "per_device")

    def adapt(state: PyTree, states: PyTree, everybody: Pass) -> tuple[Variables]:
        if room is not None:
            shape = (layout.rows_per_device,)
            made = room(state.variables)
            states = Adapted(
                states, jax.tree.map(lambda x: jnp.broadcast_to(x[None], shape + x.shape), made)
            )
        run_clients = LaneExecutor(everybody.data, work, placement.axes(experiments=False))
        cohort = everybody.cohort._replace(states=states)
        adapted = run_clients(program, state, cohort, sum_of_updates()).client_states
        return (jax.vmap(algorithm.personal, in_axes=(None, 0))(state, adapted),)

    compiled = Compiled(
        adapt,
        placement,
        inputs=("replicated", "per_device", "per_device"),
        outputs=("per_device",),
    )

    def models(state: PyTree, states: PyTree) -> Variables:
        (rows,) = compiled(
            placement.put(state, "replicated"),
            placement.put(to_rows(states, layout), "per_device"),
            everybody,
        )
        return from_rows(placement.fetch(rows, "per_device"), layout)

    return models
