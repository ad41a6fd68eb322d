"""The same parameters however a cohort is run: one client after the other, in lanes, on several
devices, with minibatches split over devices."""

import itertools

import jax
import numpy as np
import pytest

from fedjax_med.engine import gradient
from tests.engine.toy import (
    AGGREGATORS,
    ALGORITHMS,
    LOCAL_WORK,
    PLACEMENTS,
    assert_close,
    dataset_of,
    reference,
    run_placed,
    toy_loss,
)

# Executors differ in the order of their sums only. Five rounds of about 20 dependent steps each
# at float32 (eps 1.2e-7) and float64 (eps 2.2e-16) stay well below these.
RTOL = {"float32": 1e-5, "float64": 1e-10}


def check(algorithm, aggregator, work, placement, dtype):
    built = ALGORITHMS[algorithm](gradient(toy_loss), AGGREGATORS[aggregator]())
    with jax.enable_x64(dtype == "float64"):
        want = reference(algorithm, aggregator, work, dtype)
        got = run_placed(built, dataset_of(dtype), LOCAL_WORK[work], placement)
    assert {x.dtype for x in jax.tree.leaves(got.state.variables)} == {np.dtype(dtype)}
    context = f"{placement} against one client after the other: "
    assert_close(got.state.variables, want.state.variables, RTOL[dtype], context)
    # Optimizer states, client states and losses as well.
    assert_close(got, want, RTOL[dtype], context, siblings=True)


def all_cases():
    """Algorithms x aggregators x placements; the kinds of local work take turns."""
    cases = []
    for (i, algorithm), (j, aggregator), (k, placement) in itertools.product(
        enumerate(ALGORITHMS), enumerate(AGGREGATORS), enumerate(PLACEMENTS)
    ):
        if algorithm == "local_only" and j > 0:
            continue  # nothing is aggregated
        work = list(LOCAL_WORK)[(i + j + k // 2) % len(LOCAL_WORK)]
        cases.append((algorithm, aggregator, work, placement))
    return cases


# By the kind of their reduction.
SUMS, STACKS = ("weighted_mean", "clip_mean"), ("median", "clip_median")


def covering_cases():
    """A part of `all_cases`: every placement with a sum and with a stack, every algorithm once."""
    chosen, names = [], list(ALGORITHMS)
    for k, placement in enumerate(PLACEMENTS):
        for stacked, kind in enumerate((SUMS, STACKS)):
            i = (2 * k + stacked + 1) % len(names)
            aggregator = kind[k % 2]
            work = list(LOCAL_WORK)[(i + list(AGGREGATORS).index(aggregator) + k // 2) % 3]
            chosen.append((names[i], aggregator, work, placement))
    return chosen


@pytest.mark.parametrize("algorithm, aggregator, work, placement", covering_cases())
def test_every_placement_gives_the_parameters_of_the_sequential_executor(
    algorithm, aggregator, work, placement
):
    check(algorithm, aggregator, work, placement, "float32")


@pytest.mark.parametrize(
    "algorithm, aggregator, work, placement",
    [
        ("fed_opt_adam_both_sides", "weighted_mean", "epochs", "pmap"),
        ("with_persistent_state", "median", "steps", "mesh_split"),
    ],
)
def test_every_placement_agrees_in_double_precision(algorithm, aggregator, work, placement):
    check(algorithm, aggregator, work, placement, "float64")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("algorithm, aggregator, work, placement", all_cases())
def test_all_algorithms_aggregators_and_placements_agree(
    algorithm, aggregator, work, placement, dtype
):
    check(algorithm, aggregator, work, placement, dtype)


def test_the_cases_cover_every_pair_they_promise():
    cases = covering_cases()
    assert set(cases) < set(all_cases())
    assert {c[0] for c in cases} == set(ALGORITHMS) and {c[2] for c in cases} == set(LOCAL_WORK)
    assert set(SUMS + STACKS) == set(AGGREGATORS)
    pairs = {(c[1] in STACKS, c[3]) for c in cases}
    assert pairs == set(itertools.product((False, True), PLACEMENTS))
    # Every aggregator on one device and on several.
    several = {(c[1], PLACEMENTS[c[3]][0]().num_devices > 1) for c in cases}
    assert several == set(itertools.product(AGGREGATORS, (False, True)))


def test_the_comparison_sees_what_it_should():
    # Another order of minibatches, or a memory that does not enter, is no rounding error.
    want = reference("with_persistent_state", "weighted_mean", "epochs")
    for other in (
        reference("with_persistent_state", "weighted_mean", "stored_order"),
        reference("with_persistent_state", "clip_mean", "epochs"),
        reference("fed_avg", "weighted_mean", "epochs"),
    ):
        with pytest.raises(AssertionError):
            assert_close(other.state.variables, want.state.variables, 1e-3)
