"""Secure aggregation inside compiled rounds: equal sums on any placement, and nothing unmasked
crosses devices."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_med import aggregation, algorithms
from fedjax_med.algorithms.fed_opt import with_server_optimizer
from fedjax_med.engine import (
    ClientProgram,
    ClientResult,
    Variables,
    cohorts,
    epochs,
    gradient,
    grid,
    placement,
    simulate,
)
from fedjax_med.engine.lane_executor import LaneExecutor
from fedjax_med.secure import fixed_point_mean, masking, secure_mean
from tests.engine.hlo import Program, collectives
from tests.engine.toy import make_dataset, make_task, momentum, prepare_chunk, toy_loss
from tests.secure.test_masking import looks_uniform

SIZES = (5, 1, 12, 8, 3, 17, 2, 9)
WORK = epochs(1, batch_size=4)
DIM = 2048
TABLE = np.random.default_rng(0).normal(0, 0.2, (len(SIZES), DIM)).astype(np.float32)
PLACEMENTS = {
    "one": placement.one_device,
    "mesh_2": lambda: placement.mesh(2),
    "mesh_4": lambda: placement.mesh(4),
    "pmap_4": lambda: placement.pmap(4),
}
OPTIONS = {"bound": 1.0, "max_weight": 17}
GRAPH = {"neighbours": 4, "threshold": 3, "min_survivors": 3}
COHORTS = cohorts.listed([range(8), (1, 2, 4, 6, 7), (0, 3, 5, 6)])


def who_stays(roster):
    """Another one vanishes in every round; of the four of the third round recovery fails."""
    return jnp.arange(roster.members.shape[0]) != 1 + roster.round_index


def sends_its_row():
    """What clients send does not depend on float arithmetic, so any placement must agree to the bit."""
    return ClientProgram(
        begin=lambda shared, client: client.index,
        step=lambda shared, carry, batch: carry,
        end=lambda shared, carry, client: ClientResult(
            shared._replace(params=jnp.asarray(TABLE)[carry]),
            client.num_examples.astype(jnp.float32),
            metrics={"train_loss": jnp.float32(0)},
        ),
    )


def program_of(where, aggregator, program=None):
    """A chunk of three rounds; `program` in place of clients that send their row."""

    def build(hyperparameters):
        del hyperparameters
        algorithm = with_server_optimizer(program or sends_its_row(), optax.sgd(1.0), aggregator)
        zeros = Variables(jnp.zeros(DIM))
        return algorithm._replace(init=lambda variables: algorithm.init(zeros))

    return prepare_chunk(
        build, make_dataset(SIZES), WORK, PLACEMENTS[where](), 2, num_rounds=3, cohort=COHORTS
    )


@lru_cache
def secured(where):
    """The server's parameters and the metrics of a secured run, and its program's text."""
    program, args = program_of(where, secure_mean(8, **OPTIONS, **GRAPH, dropout=who_stays))
    executable = program.executable(*args)
    state, _, shared, _ = executable(*args)
    place = PLACEMENTS[where]()
    params = place.fetch(state.variables.params, "replicated")
    return params, place.fetch(shared.mean, "replicated"), executable.as_text()


def expected_params():
    """By NumPy: the integers of whoever stayed, and no step in a round that was rejected."""
    numbers = fixed_point_mean(8, **OPTIONS)
    params = np.zeros(DIM, np.float32)
    for round_index, cohort in enumerate(COHORTS.rounds[:2]):
        kept = [c for place, c in enumerate(sorted(cohort)) if place != 1 + round_index]
        state = numbers.init(jnp.zeros(DIM))
        words, weight = np.zeros(DIM, np.uint32), np.uint32(0)
        for c in kept:
            message = numbers.encode(
                jnp.asarray(TABLE[c]), jnp.float32(SIZES[c]), state, jax.random.key(0)
            )
            words, weight = words + np.asarray(message[0]), weight + np.uint32(message[1])
        mean, _ = numbers.decode((jnp.asarray(words), jnp.asarray(weight), jnp.uint32(0)), state)
        params = params - np.asarray(mean)
    return params


@pytest.mark.parametrize(
    "where",
    [w if w in ("one", "mesh_4") else pytest.param(w, marks=pytest.mark.slow) for w in PLACEMENTS],
)
def test_rounds_give_the_integer_sum_to_the_bit(where):
    params, mean, _ = secured(where)
    np.testing.assert_array_equal(params, expected_params())
    np.testing.assert_array_equal(mean["num_dropped"], [1, 1, 1])
    np.testing.assert_array_equal(mean["rejected"], [0, 0, 1])


def test_nothing_unmasked_crosses_devices():
    hlo = Program(secured("mesh_4")[2])
    crossing = collectives(hlo.reachable(hlo.entry))
    large = [(dtype, shape) for i in crossing for dtype, shape in i.shapes if np.prod(shape) > 16]
    # One vector of words: the update, a weight and a count; no float of the size of an update.
    assert large == [("u32", (DIM + 2,))]
    assert holds_masks(hlo)
    # The check sees updates that cross in the clear, and masks that are left out.
    program, args = program_of("mesh_4", fixed_point_mean(8, **OPTIONS))
    plain = Program(program.executable(*args).as_text())
    assert not holds_masks(plain)


def holds_masks(hlo):
    """Whether the loop that adds up a device's clients computes ChaCha20 ("expa", RFC 8439)."""
    sums = hlo.loops_with(rf"u32\[{DIM + 2}\].* (add|fusion|dynamic-update-slice)\(")
    constant = str(0x61707865)
    return any(constant in i.text for body in sums for i in hlo.reachable(body))


def partial_sums(monkeypatch, aggregator, where):
    """What each device holds before the reduction, of one round of everybody."""
    seen = []
    reduce = LaneExecutor._reduce

    def watch(self, totals, *args):
        jax.debug.callback(lambda words: seen.append(np.array(words)), totals.message)
        return reduce(self, totals, *args)

    monkeypatch.setattr(LaneExecutor, "_reduce", watch)
    program, args = program_of(where, aggregator)
    args = (*args[:4], jax.device_put(np.int32(1), args[4].sharding), args[5])
    jax.block_until_ready(program(*args))
    jax.effects_barrier()
    assert len(seen) == PLACEMENTS[where]().num_devices
    return [words[:DIM] for words in seen]


@pytest.mark.parametrize("where", ["one", pytest.param("mesh_4", marks=pytest.mark.slow)])
def test_what_a_device_holds_is_masked(monkeypatch, where):
    for words in partial_sums(monkeypatch, secure_mean(8, **OPTIONS, **GRAPH), where):
        assert looks_uniform(words) > 1e-3


@pytest.mark.slow
def test_without_masks_what_a_device_holds_is_not(monkeypatch):
    monkeypatch.setattr(
        masking, "sum_of_masks", lambda k, c, n, words: jnp.zeros(words, jnp.uint32)
    )
    for words in partial_sums(monkeypatch, secure_mean(8, **OPTIONS, **GRAPH), "mesh_4"):
        assert looks_uniform(words) < 1e-100


def train(algorithm, aggregator, **options):
    g = gradient(toy_loss)
    return simulate(
        algorithm(g, aggregator),
        make_dataset(SIZES),
        task=make_task(),
        rounds=3,
        local_work=WORK,
        lanes=1,
        **options,
    )


ALGORITHMS = {
    "scaffold": lambda g, a: algorithms.scaffold(
        g, num_clients=len(SIZES), learning_rate=0.1, aggregator=a
    ),
    "fed_avg": lambda g, a: algorithms.fed_avg(g, momentum(), aggregator=a),
    "fed_nova": lambda g, a: algorithms.fed_nova(g, learning_rate=0.1, aggregator=a),
    "q_ffl": lambda g, a: algorithms.q_ffl(g, learning_rate=0.1, q=1.0, aggregator=a),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_it_takes_the_place_of_a_mean_in_any_algorithm(name):
    """Control variates and losses beside the update are masked as well."""
    mean = aggregation.weighted_mean()
    secure = secure_mean(8, bound=8.0, max_weight=17, **GRAPH, extras_bound=200.0)
    got, want = (train(ALGORITHMS[name], a) for a in (secure, mean))
    # A unit of the update is 2**-20, of what is beside it 2**-19 divided by the weight; over three
    # rounds errors grow with the model's curvature.
    for a, b in zip(jax.tree.leaves(got.variables), jax.tree.leaves(want.variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_experiments_are_what_they_are_alone():
    secure = secure_mean(8, **OPTIONS, **GRAPH, dropout=0.1)
    both = train(ALGORITHMS["fed_avg"], secure, experiments=grid(seed=[3, 4]))
    for index, seed in enumerate((3, 4)):
        alone = train(ALGORITHMS["fed_avg"], secure, seed=seed)
        np.testing.assert_array_equal(
            both.history["num_dropped"][index], alone.history["num_dropped"]
        )
        for a, b in zip(
            jax.tree.leaves(both.variables), jax.tree.leaves(alone.variables), strict=True
        ):
            np.testing.assert_allclose(a[index], b, rtol=0, atol=1e-5)  # vmapped gradients round


def test_a_cohort_that_could_wrap_the_modulus_is_refused_before_training():
    def never(variables, batch):
        raise AssertionError("nothing may be trained")

    algorithm = algorithms.fed_avg(
        gradient(never), momentum(), aggregator=secure_mean(7, bound=1.0)
    )
    with pytest.raises(ValueError, match=r"A cohort may have 8 clients, but .* at most 7"):
        simulate(algorithm, make_dataset(SIZES), task=make_task(), rounds=1, local_work=WORK)
    few = algorithms.fed_avg(
        gradient(never), momentum(), aggregator=secure_mean(8, bound=1.0, neighbours=6)
    )
    with pytest.raises(ValueError, match="at most 3 clients, so none has the 4 neighbours"):
        simulate(
            few,
            make_dataset(SIZES),
            task=make_task(),
            rounds=1,
            local_work=WORK,
            cohort=cohorts.uniform(3),
        )


def test_comparing_single_updates_is_refused():
    with pytest.raises(ValueError, match="compares the updates of single clients"):
        algorithms.clustered_fl(
            gradient(toy_loss),
            momentum(),
            num_clients=8,
            max_clusters=2,
            max_mean_norm=1.0,
            min_norm=1.0,
            aggregator=secure_mean(8, bound=1.0),
        )
