"""What every algorithm of the library keeps to, one contract over one list."""

import dataclasses
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_med import algorithms
from fedjax_med.engine import (
    Adapted,
    CheckpointPolicy,
    ClientProgram,
    FederatedAlgorithm,
    SequentialExecutor,
    cohorts,
    placement,
    simulate,
)
from fedjax_med.engine.layout import from_rows, gather, spread, to_rows
from fedjax_med.engine.schedule import Scheduler, build_chunk
from tests.algorithms.catalogue import ALGORITHMS
from tests.engine.toy import LOCAL_WORK, assert_close, assert_identical

NAMES = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if listed.variant else [])
        for name, listed in ALGORITHMS.items()
    ],
)
# One of every kind in the quick tests; each compiles for seconds. Servers with an optimizer and
# clients with a state are in `tests/engine/test_equivalence.py` as well.
REPRESENTATIVES = """
fed_avg scaffold fed_lin q_ffl fed_mgda fed_per ifca knn_per fine_tuned fed_buff fed_md
boosted_trees k_means skeleton
""".split()
RUN = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in REPRESENTATIVES else [pytest.mark.slow])
        for name in ALGORITHMS
    ],
)
WORK = LOCAL_WORK["steps"]
ROUNDS, SEED = 4, 7


@dataclasses.dataclass(frozen=True)
class WithEmptySlots(cohorts.Listed):
    """Listed cohorts, with room in the schedule that no client fills."""

    def max_size(self, num_clients):
        return super().max_size(num_clients) + 3


COHORTS = WithEmptySlots((tuple(range(10)), (9, 0, 4, 5), (8, 7, 6, 5, 1, 0, 2), tuple(range(10))))


class Outcome(NamedTuple):
    """What a run leaves, on the host."""

    state: tuple
    client_states: tuple


def run(name, *, place=None, lanes=3, rounds=ROUNDS, **options):
    """The engine, two rounds a call, hyperparameters traced."""
    listed = ALGORITHMS[name]
    task = listed.task()
    return simulate(
        lambda **values: listed.build(task, **values) if values else listed.build(task),
        listed.dataset(),
        task=task,
        rounds=rounds,
        local_work=WORK,
        cohort=COHORTS,
        placement=place or placement.one_device(),
        lanes=lanes,
        seed=SEED,
        hyperparameters=listed.hyperparameters,
        rounds_per_call=2,
        rewrite=False,
        **options,
    )


@lru_cache(maxsize=4)
def one_client_after_the_other(name):
    """The reference: plain Python over the clients of every cohort, the last one first."""
    listed = ALGORITHMS[name]
    task, dataset = listed.task(), listed.dataset()
    train = dataset.train
    layout = spread(train.sizes, 1)
    resident = gather(train, layout)
    scheduler = Scheduler(train.sizes, layout, COHORTS, WORK, SEED)
    chunk = build_chunk(
        [[scheduler.draw(r) for r in range(ROUNDS)]],
        [SEED],
        0,
        table_row=resident.table_row,
        num_lanes=1,
        num_slots=scheduler.max_slots,
        max_rounds=ROUNDS,
        experiments=False,
    )
    data = jax.tree.map(lambda x: jnp.asarray(x[0]), resident.data)
    one_by_one = SequentialExecutor(data, WORK, dataset.client_names)
    compiled = {}

    def run_clients(program, shared, cohort, aggregator, state=(), *, local_work=None):
        # Only what one client does in one step is compiled.
        if program not in compiled:
            compiled[program] = ClientProgram(*map(jax.jit, program))
        return one_by_one(
            compiled[program], shared, cohort, aggregator, state, local_work=local_work
        )

    algorithm = listed.build(task, **listed.hyperparameters)
    variables = jax.tree.map(jnp.asarray, task.init(SEED))
    state = algorithm.init(variables)
    rows = jax.tree.map(
        lambda x: np.broadcast_to(x, (train.num_clients, *np.shape(x))),
        algorithm.init_client(variables),
    )
    client_states = jax.tree.map(lambda x: jnp.asarray(x[0]), to_rows(rows, layout))
    for r in range(ROUNDS):
        schedule = jax.tree.map(lambda x, r=r: jnp.asarray(x[0, r]), chunk.cohorts)
        schedule = reversed_slots(schedule)._replace(states=client_states)
        result = algorithm.run_round(state, schedule, run_clients)
        state, client_states = result.state, result.client_states
    client_states = from_rows(jax.tree.map(lambda x: x[None], client_states), layout)
    return Outcome(jax.tree.map(np.asarray, state), client_states)


def reversed_slots(cohort):
    """The same clients, listed the other way round (one lane, so any order is allowed)."""
    filled = int(cohort.lane_start[-1])
    turn = lambda x: jnp.concatenate([x[:filled][::-1], x[filled:]])
    columns = ("client", "client_id", "first_epoch", "first_step", "num_steps", "staleness")
    return cohort._replace(**{c: turn(getattr(cohort, c)) for c in columns})


def assert_same(name, got, context):
    want = one_client_after_the_other(name)
    got = Outcome(got.state, got.client_states)
    assert_close(got, want, ALGORITHMS[name].rtol, context, siblings=True)


@RUN
def test_lanes_agree_with_one_client_after_the_other(name):
    """Covers the order of a cohort, empty slots, lanes, traced hyperparameters, and retracing."""
    got = run(name)
    assert got.num_traces == 1  # in two calls of two rounds
    initial = ALGORITHMS[name].task().init(SEED)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), got.variables.params, initial.params)
    assert (max(jax.tree.leaves(moved), default=0) > 1e-3) == ALGORITHMS[name].moves
    assert_same(name, got, "three lanes against one client after the other: ")


@NAMES
def test_a_server_state_is_arrays_around_the_variables(name):
    listed = ALGORITHMS[name]
    task = listed.task()
    variables = jax.tree.map(jnp.asarray, task.init(SEED))
    algorithm = listed.build(task, **listed.hyperparameters)
    assert isinstance(algorithm, FederatedAlgorithm)
    state = algorithm.init(variables)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(state))
    assert jax.tree.structure(state.variables) == jax.tree.structure(variables)
    client_state = algorithm.init_client(variables)
    if algorithm.adaptation is not None and algorithm.adaptation.room is not None:
        client_state = Adapted(client_state, algorithm.adaptation.room(variables))
    personal = algorithm.personal(state, client_state)
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert shapes(personal.params) == shapes(variables.params)


@pytest.mark.slow
@NAMES
@pytest.mark.parametrize(
    "place, lanes",
    [
        (placement.one_device, 16),
        (lambda: placement.pmap(4), 2),
        (lambda: placement.mesh(4), 3),
        (lambda: placement.mesh(2, splits=2), 2),
    ],
    ids=["more_lanes_than_clients", "pmap", "mesh", "mesh_split"],
)
def test_every_placement_agrees(name, place, lanes):
    assert_same(name, run(name, place=place(), lanes=lanes), "another placement: ")


@pytest.mark.slow
@NAMES
def test_a_run_cut_in_two_goes_on_bit_for_bit(name, tmp_path):
    whole = run(name, evaluate_every=2)
    policy = CheckpointPolicy(tmp_path, every=2)
    run(name, rounds=2, checkpoint=policy, evaluate_every=2)
    policy = CheckpointPolicy(tmp_path, every=2, resume=True)
    resumed = run(name, checkpoint=policy, evaluate_every=2)
    assert_identical(
        (resumed.state, resumed.client_states, resumed.history),
        (whole.state, whole.client_states, whole.history),
    )
    pairs = zip(whole.evaluations, resumed.evaluations, strict=True)
    for a, b in pairs:
        assert_identical(b.pooled, a.pooled)


def test_every_public_builder_is_listed():
    """A function of `fedjax_med.algorithms` that builds an algorithm has its entry here."""
    hints = {
        name: getattr(algorithms, name).__annotations__.get("return")
        for name in algorithms.__all__
        if callable(getattr(algorithms, name)) and not isinstance(getattr(algorithms, name), type)
    }
    builders = {
        n for n, hint in hints.items() if hint in (FederatedAlgorithm, "FederatedAlgorithm")
    }
    # Listed as what they make; `re_estimated` needs batch statistics (`test_re_estimated.py`).
    wrappers = {"fed_opt", "with_server_optimizer", "re_estimated"}
    missing = builders - wrappers - set(ALGORITHMS)
    assert not missing, f"not in the list of the contract: {sorted(missing)}"
