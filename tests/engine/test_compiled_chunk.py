"""What one compiled call of many rounds promises: it is compiled once, nothing goes to the host
in between, and the parameters cross devices once per round."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_med import aggregation, algorithms, models, tasks
from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.engine import cohorts, epochs, gradient, placement, simulate
from tests.engine.hlo import Program, collectives
from tests.engine.toy import (
    LOCAL_WORK,
    initial_variables,
    make_dataset,
    make_task,
    momentum,
    prepare_chunk,
    toy_loss,
)

# Name: (placement, lanes per device).
PLACEMENTS = {
    "one_device": (placement.one_device, 2),
    "one_device_three_lanes": (placement.one_device, 3),
    "pmap": (lambda: placement.pmap(4), 2),
    "mesh": (lambda: placement.mesh(4), 2),
    "mesh_split": (lambda: placement.mesh(2, splits=2), 2),
}
MARKER = "loss_of_a_local_step"
IN_LOSS = rf"{MARKER}.*tanh"  # not the loops that draw random bits for dropout
NUM_VARIABLES = sum(x.size for x in jax.tree.leaves(initial_variables()))


@pytest.fixture(autouse=True)
def names_in_programs():
    """Keeps the compilation cache from giving an equal program with other names in its text."""
    option = "jax_compilation_cache_include_metadata_in_key"
    before = getattr(jax.config, option)
    jax.config.update(option, True)
    yield
    jax.config.update(option, before)


def marked_loss(variables, batch):
    with jax.named_scope(MARKER):
        return toy_loss(variables, batch)


def chunk_of(where, aggregator=aggregation.weighted_mean):
    """A program and its arguments; as it donates its states, they are made anew."""

    def build(hyperparameters):
        del hyperparameters
        return algorithms.fed_avg(gradient(marked_loss), momentum(), aggregator=aggregator())

    make, lanes = PLACEMENTS[where]
    return prepare_chunk(build, make_dataset(), LOCAL_WORK["epochs"], make(), lanes)


@lru_cache
def executable_of(where, aggregator):
    program, args = chunk_of(where, aggregator)
    return program.executable(*args)


def read_program(where, aggregator):
    hlo = Program(executable_of(where, aggregator).as_text())
    loops = hlo.loops_with(IN_LOSS)
    assert len(loops) == 3, "there should be rounds, in them segments, in them local steps"
    return hlo, *loops


def num_elements(instructions):
    return sum(int(np.prod(shape)) for i in instructions for _, shape in i.shapes)


def test_a_thousand_rounds_of_ragged_cohorts_compile_once():
    calls = 0
    task = make_task()

    def counting(variables, batch):
        nonlocal calls
        calls += 1
        return task.gradient(variables, batch)

    dataset = make_dataset(np.random.default_rng(0).integers(1, 30, 40))

    def train(rounds):
        return simulate(
            algorithms.fed_avg(counting, optax.sgd(0.1)),
            dataset,
            task=task,
            rounds=rounds,
            local_work=epochs(1, batch_size=4),
            cohort=cohorts.poisson(0.2),  # another number of clients every round
            lanes=2,
        )

    train(1)
    calls_for_one_round, calls = calls, 0
    run = train(1000)
    assert run.num_traces == 1
    # JAX traces a loop's body more than once; what counts is that rounds add nothing to it.
    assert calls == calls_for_one_round
    assert len(set(run.history["num_clients"].tolist())) > 5
    assert len(run.seconds_per_round) > 10  # not one call but many, all of the same program


@pytest.mark.parametrize("where", ["one_device", "pmap", "mesh", "mesh_split"])
def test_a_chunk_moves_nothing_between_host_and_devices(where):
    _, args = chunk_of(where)
    executable = executable_of(where, aggregation.weighted_mean)
    text = executable.as_text()
    for opcode in ("infeed(", "outfeed(", " send(", " recv(", "callback"):
        assert opcode not in text
    with jax.transfer_guard("disallow"):
        results = executable(*args)
    jax.block_until_ready(results)


def test_the_transfer_guard_sees_a_schedule_left_on_the_host():
    _, args = chunk_of("one_device")
    on_host = (*args[:4], np.int32(5), args[5])
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match=r"[Dd]isallow"):
        executable_of("one_device", aggregation.weighted_mean)(*on_host)


@pytest.mark.parametrize("where", ["pmap", "mesh"])
def test_a_sum_crosses_devices_once_per_round(where):
    hlo, round_body, segment_body, _ = read_program(where, aggregation.weighted_mean)
    assert collectives(hlo.reachable(segment_body)) == []
    crossing = collectives(hlo.reachable(round_body))
    assert {i.opcode.removesuffix("-start") for i in crossing} == {"all-reduce"}
    leaves = jax.tree.leaves(initial_variables())
    # One reduction or one per leaf; and one of counts, which are integers.
    assert len(crossing) <= len(leaves) + 1
    crossed = [shape for i in crossing for dtype, shape in i.shapes if dtype == "f32" and shape]
    assert sorted(crossed) == sorted(x.shape for x in leaves if x.shape)
    # All the rest are a few numbers: weights, the sum of losses, counts.
    assert num_elements(crossing) - NUM_VARIABLES <= 8
    # And nothing crosses outside of the rounds.
    assert collectives(hlo.reachable(hlo.entry, stop=(round_body,))) == []


@pytest.mark.parametrize("where", ["pmap", "mesh"])
def test_a_stack_is_spread_by_parameters_and_joined_once_per_round(where):
    hlo, round_body, segment_body, _ = read_program(where, aggregation.coordinate_median)
    assert collectives(hlo.reachable(segment_body)) == []
    crossing = collectives(hlo.reachable(round_body))
    kinds = [i.opcode.removesuffix("-start") for i in crossing]
    assert kinds.count("all-to-all") == 1
    # Gathered are the weights of the slots and the joined slices, never the clients' updates.
    gathered = [i for i in crossing if i.opcode.startswith("all-gather")]
    assert len(gathered) == 2
    padded = -(-NUM_VARIABLES // 4) * 4
    assert max(num_elements([i]) for i in gathered) == padded
    summed = [i for i in crossing if i.opcode.startswith("all-reduce")]
    assert num_elements(summed) <= 8


def test_split_minibatches_are_summed_inside_the_loop_and_clients_outside():
    hlo, round_body, segment_body, local_body = read_program(
        "mesh_split", aggregation.weighted_mean
    )
    inside = collectives(hlo.reachable(local_body))
    assert collectives(hlo.reachable(segment_body, stop=(local_body,))) == []
    outside = collectives(hlo.reachable(round_body, stop=(segment_body,)))
    # Devices 0, 1 share the minibatches of one client, as do 2, 3; 0, 2 and 1, 3 have other ones.
    # Newer versions of XLA print the axes of the mesh instead of the groups.
    batch = "replica_groups={{0,1},{2,3}}", "['clients'=2,'batch'=2] {'batch'}"
    clients = "replica_groups={{0,2},{1,3}}", "['clients'=2,'batch'=2] {'clients'}"
    assert inside and all(any(text in i.text for text in batch) for i in inside)
    assert outside and all(any(text in i.text for text in clients) for i in outside)
    floats = [i for i in outside if i.shapes[0][0] == "f32"]
    assert 0 <= num_elements(floats) - NUM_VARIABLES <= 8


def test_one_device_has_no_collectives():
    hlo, *_ = read_program("one_device_three_lanes", aggregation.weighted_mean)
    assert collectives(hlo.reachable(hlo.entry)) == []


@pytest.mark.parametrize("make", [aggregation.weighted_mean, aggregation.coordinate_median])
def test_local_steps_have_no_conditionals_and_mask_no_parameters(make):
    hlo, _, segment_body, local_body = read_program("one_device_three_lanes", make)
    of_all_lanes = [
        (3, *x.shape) for x in jax.tree.leaves(initial_variables().params) if x.ndim > 1
    ]

    def selects_parameters(instructions):
        return any(i.opcode == "select" and i.shapes[0][1] in of_all_lanes for i in instructions)

    local = hlo.reachable(local_body)
    assert not any(i.opcode == "conditional" for i in local) and not selects_parameters(local)
    # Clients begin between the segments, where parameters are selected.
    assert selects_parameters(hlo.reachable(segment_body, stop=(local_body,)))


def temporaries(cohort, num_clients=1000):
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, num_clients)
    examples = {
        "x": rng.standard_normal((sizes.sum(), 64)).astype(np.float32),
        "y": rng.integers(0, 2, sizes.sum()).astype(np.int32),
    }
    names = tuple(map(str, range(num_clients)))
    dataset = FederatedDataset("many", names, ClientArrays(examples, sizes))
    task = tasks.binary_classification(models.mlp([128, 128]), dataset.train.examples)
    run = simulate(
        algorithms.fed_avg(task.gradient, optax.sgd(0.1)),
        dataset,
        task=task,
        rounds=1,
        local_work=epochs(1, batch_size=4),
        cohort=cohorts.uniform(cohort),
        lanes=4,
        rounds_per_call=4,
    )
    return run.memory_bytes["temporaries"]


def test_memory_does_not_grow_with_the_cohort():
    small, large = temporaries(100), temporaries(1000)
    num_params = 64 * 128 + 128 * 128 + 3 * 128 + 1
    assert small > 4 * 4 * num_params  # the lanes' own parameters are in it
    assert large <= 1.1 * small


def test_a_second_chunk_continues_from_donated_states():
    program, args = chunk_of("one_device")
    state, clients, *_ = program(*args)
    assert all(x.is_deleted() for x in jax.tree.leaves(args[0].variables))
    again, *_ = program(state, clients, *args[2:])
    assert program.num_traces == 1
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(again))
