import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med import algorithms, models, tasks
from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.engine import cohorts, epochs, simulate
from fedjax_med.engine.arguments import Arguments
from fedjax_med.engine.chunk_source import ChunkSource
from fedjax_med.engine.lanes import Packing, choose_lane_count, pack, useful_fraction
from fedjax_med.engine.layout import from_rows, gather, spread, to_rows
from fedjax_med.engine.placement import one_device

STEPS = st.lists(st.integers(1, 1000), min_size=1, max_size=200).map(np.array)
LANES = st.integers(1, 40)


def loads(packing, steps):
    queues = np.split(packing.order, packing.lane_start[1:-1])
    return [int(steps[queue].sum()) for queue in queues]


@given(STEPS, LANES)
def test_every_client_is_in_exactly_one_lane(steps, num_lanes):
    packing = pack(steps, num_lanes)
    assert sorted(packing.order.tolist()) == list(range(len(steps)))
    assert packing.lane_start[0] == 0 and packing.lane_start[-1] == len(steps)
    assert (np.diff(packing.lane_start) >= 0).all() and len(packing.lane_start) == num_lanes + 1
    assert packing.trip_count == max(loads(packing, steps))


@given(STEPS, LANES)
def test_the_longest_lane_is_a_client_from_the_mean_at_most(steps, num_lanes):
    # Whichever client ends last began on the shortest lane of then (Graham, 1966).
    trip_count = pack(steps, num_lanes).trip_count
    mean, longest = steps.sum() / num_lanes, steps.max()
    assert max(mean, longest) <= trip_count <= mean + longest * (1 - 1 / num_lanes) + 1e-9


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6).map(np.array), st.integers(1, 3))
def test_the_longest_lane_is_at_most_a_third_above_the_optimum(steps, num_lanes):
    # Longest first (Graham, 1969). The bound is on the optimum, here the best of all packings;
    # the larger of mean load and longest client can be below it: four equal clients on three
    # lanes take two of them in any packing.
    everywhere = itertools.product(range(num_lanes), repeat=len(steps))
    best = min(np.bincount(lane, steps, num_lanes).max() for lane in everywhere)
    bound = (4 / 3 - 1 / (3 * num_lanes)) * best
    assert best <= pack(steps, num_lanes).trip_count <= bound + 1e-9


@given(STEPS, LANES, st.randoms(use_true_random=False))
def test_the_order_of_the_cohort_does_not_matter(steps, num_lanes, random):
    client = np.arange(len(steps)) + 1000
    shuffled = np.array(random.sample(range(len(steps)), len(steps)))
    one = pack(steps, num_lanes, client)
    other = pack(steps[shuffled], num_lanes, client[shuffled])
    np.testing.assert_array_equal(client[one.order], client[shuffled][other.order])
    np.testing.assert_array_equal(one.lane_start, other.lane_start)


def test_an_empty_cohort_packs_to_empty_lanes():
    packing = pack(np.array([], np.int64), 3)
    assert packing.trip_count == 0 and packing.lane_start.tolist() == [0, 0, 0, 0]


def test_longest_first_beats_the_order_of_arrival():
    # 5 + 1 + 1 + 1 + 4 + 4 over two lanes: as they come 9 and 7, longest first 8 and 8.
    assert pack(np.array([5, 1, 1, 1, 4, 4]), 2).trip_count == 8


def test_useful_fraction_counts_waiting_lanes_and_devices():
    two_devices = [Packing(np.arange(2), np.array([0, 1, 2]), t) for t in (10, 6)]
    # Both devices run two lanes for 10 steps; 30 of those 40 train a client.
    assert useful_fraction([two_devices], [30]) == 30 / 40
    assert useful_fraction([], []) == 1.0


def test_more_lanes_are_chosen_only_while_they_are_useful():
    equal = [[np.full(64, 10)]]
    assert choose_lane_count(equal, 64) == 64  # every lane is full
    one_giant = [[np.array([1000, *[1] * 100])]]
    assert choose_lane_count(one_giant, 64) == 1  # a second lane would wait for the giant
    assert choose_lane_count(equal, 10) == 8  # no more than the device bears


# Populations of the published workloads: log-normal sizes, their median, spread and limits.
WORKLOADS = {
    "tabular-logreg": dict(
        median=100, sigma=1.0, low=10, high=1000, clients=1000, cohort=100, batch=32,
        model=lambda: models.linear(), shape=(32,),
    ),
    "femnist-cnn": dict(
        median=90, sigma=0.7, low=20, high=400, clients=500, cohort=20, batch=20,
        # As many parameters as that network has (1.2 million): what decides the lanes is memory.
        model=lambda: models.mlp([1400, 62], 62), shape=(784,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_lanes_that_are_chosen_waste_less_than_a_twentieth(name):
    w = WORKLOADS[name]
    raw = np.random.default_rng(0).lognormal(np.log(w["median"]), w["sigma"], w["clients"])
    sizes = np.clip(np.rint(raw), w["low"], w["high"]).astype(np.int64)
    # Only the sizes matter here: features of one column stand for the examples.
    examples = {
        "x": np.broadcast_to(np.float32(0), (sizes.sum(), *w["shape"])),
        "y": np.zeros(sizes.sum(), np.int32),
    }
    dataset = FederatedDataset(
        name, tuple(map(str, range(w["clients"]))), ClientArrays(examples, sizes)
    )
    drawn = cohorts.listed(
        np.random.default_rng([7, r]).choice(w["clients"], w["cohort"], replace=False)
        for r in range(50)
    )
    variables = w["model"]().init(jax.random.key(0), jnp.zeros((1, *w["shape"])))
    source, num_lanes = chosen_lanes(dataset, drawn, w["batch"], variables)
    packings, useful = [], []
    for r in range(50):
        draws = source.schedulers[0].draw(r)
        packings.append([pack(d.num_steps, num_lanes, d.client) for d in draws])
        useful.append(sum(int(d.num_steps.sum()) for d in draws))
    assert useful_fraction(packings, useful) >= 0.95
    # And it is no trick of having one lane where more would do.
    assert num_lanes >= {"tabular-logreg": 8, "femnist-cnn": 1}[name]


def chosen_lanes(dataset, cohort, batch_size, variables):
    task = tasks.binary_classification(models.linear(), dataset.train.examples)
    arguments = Arguments(
        algorithm=algorithms.fed_avg(task.gradient, optax.sgd(0.1)),
        dataset=dataset,
        task=task,
        rounds=50,
        local_work=epochs(1, batch_size=batch_size),
        sampler=cohort,
        placement=one_device(),
        lanes=None,
        seed=0,
        variables=None,
        hyperparameters={},
        experiments=None,
        evaluate_every=0,
        evaluate_on=(),
        callbacks=(),
        checkpoint=None,
        rounds_per_call=8,
        stream=True,  # so that no examples are moved to the device
        description={},
    )
    source = ChunkSource(arguments)
    return source, source.choose_lanes(variables)


def test_a_run_reports_the_lanes_and_the_useful_fraction_it_had():
    sizes = np.full(24, 8)
    rng = np.random.default_rng(0)
    examples = {
        "x": rng.standard_normal((sizes.sum(), 3)).astype(np.float32),
        "y": rng.integers(0, 2, sizes.sum()).astype(np.int32),
    }
    dataset = FederatedDataset("even", tuple(map(str, range(24))), ClientArrays(examples, sizes))
    task = tasks.binary_classification(models.linear(), dataset.train.examples)

    def run(lanes):
        return simulate(
            algorithms.fed_avg(task.gradient, optax.sgd(0.1)),
            dataset,
            task=task,
            rounds=2,
            local_work=epochs(1, batch_size=4),
            lanes=lanes,
        )

    automatic = run(None)
    assert automatic.num_lanes == 24 and automatic.useful_fraction == 1.0
    # Sixteen lanes hold one or two of the 24 clients; all of them wait for those with two.
    assert run(16).useful_fraction == 24 / 32


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30).map(np.array), st.integers(1, 5))
def test_clients_are_spread_over_devices_and_states_come_back(sizes, num_devices):
    layout = spread(sizes, num_devices)
    assert sorted(np.concatenate(layout.members).tolist()) == list(range(len(sizes)))
    on_device = [sizes[members].sum() for members in layout.members]
    assert max(on_device) <= sizes.sum() / num_devices + sizes.max()
    values = {"a": np.arange(len(sizes)), "b": np.random.default_rng(0).random((len(sizes), 2))}
    rows = to_rows(values, layout)
    assert rows["b"].shape == (num_devices, layout.rows_per_device, 2)
    for name, value in from_rows(rows, layout).items():
        np.testing.assert_array_equal(value, values[name])


@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=12).map(np.array).filter(np.any),
    st.integers(1, 3),
    st.booleans(),
)
def test_every_client_finds_its_own_rows_on_its_device(sizes, num_devices, everyone):
    arrays = ClientArrays({"row": np.arange(sizes.sum())}, sizes)
    layout = spread(sizes, num_devices)
    chosen = None if everyone else tuple(m[sizes[m] > 0][::2] for m in layout.members)
    resident = gather(arrays, layout, chosen)
    wanted = np.flatnonzero(sizes) if everyone else np.concatenate(chosen)
    assert (np.flatnonzero(resident.table_row >= 0) == np.sort(wanted)).all()
    for client in wanted:
        device, row = layout.device[client], resident.table_row[client]
        data = jax.tree.map(lambda x, d=device: x[d], resident.data)
        start = data.offset[row]
        assert data.size[row] == sizes[client]
        assert data.state_row[row] == layout.row[client]
        got = data.examples["row"][start : start + sizes[client]]
        np.testing.assert_array_equal(got, arrays.client(int(client))["row"])
