"""What a plan makes of a run: metrics, budget, refusals; bad settings end before any training."""

import json

import numpy as np
import optax
import pytest

from fedjax_med.aggregation import chain, clip_by_client_norm, weighted_mean
from fedjax_med.algorithms import fed_avg
from fedjax_med.engine import CheckpointError, FederatedAlgorithm, cohorts, frozen, grid, simulate
from fedjax_med.engine.callbacks import JsonLines
from fedjax_med.engine.run import CheckpointPolicy
from fedjax_med.privacy import (
    Banded,
    ClientLevel,
    CyclicPoisson,
    LocalLevel,
    Passes,
    PrivacyError,
    QuantileClipping,
    Relation,
    SimulatedCohort,
    Tree,
    TruncatedPoisson,
    everyone,
    poisson,
    private,
    uniform,
)
from tests.privacy.world import ONE_STEP, build, dataset_of, run, task_of

ROWS = np.random.default_rng(0).normal(size=(6, 3))


def plan_of(population=6, rounds=6, **settings):
    settings = {"clip_norm": 1.0, "delta": 1e-2, "noise_multiplier": 2.0, **settings}
    return ClientLevel(**settings).plan(population=population, rounds=rounds)


def test_epsilon_after_every_round_is_a_metric(tmp_path):
    plan = plan_of(sampling=poisson(0.5))
    lines = JsonLines(tmp_path / "rounds.jsonl")
    result = run(plan, ROWS, rounds=5, rounds_per_call=2, callbacks=(lines,))
    exact = [plan.epsilon_after(r) for r in range(1, 6)]
    # Fine in the last round, coarser before; both are upper bounds.
    assert result.history["epsilon"][-1] == exact[-1].pld
    np.testing.assert_allclose(result.history["epsilon"], [e.pld for e in exact], rtol=1e-4)
    np.testing.assert_allclose(result.history["epsilon_rdp"], [e.rdp for e in exact], rtol=1e-6)
    told = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    assert [line["epsilon"] for line in told] == result.history["epsilon"].tolist()
    (described,) = result.configuration["privacy"]
    assert described["unit"] == "hospital" and described["noise_multiplier"] == 2.0
    # The plan's sampler is the run's.
    assert result.configuration["cohort"] == repr(poisson(0.5))


def test_a_run_ends_before_the_round_that_would_exceed_its_budget(caplog):
    budget = plan_of().epsilon_after(3).value + 1e-6
    plan = plan_of(epsilon=budget)
    # Chunks of four would go beyond.
    result = run(plan, ROWS, rounds=6, rounds_per_call=4, evaluate_every=2, evaluate_on=["train"])
    assert result.rounds == 3 and len(result.history["epsilon"]) == 3
    assert result.history["epsilon"][-1] <= budget < plan.epsilon_after(4).value
    assert [e.round for e in result.evaluations] == [2, 3]
    assert "ends after 3 of 6 rounds" in caplog.text


def test_calibrated_noise_uses_the_budget_up():
    plan = ClientLevel(1.0, 1e-2, epsilon=3.0).plan(population=6, rounds=4)
    assert plan.limit(4) == 4 and plan.limit(5) == 4
    assert 2.99 < plan.epsilon_after(4).value <= 3.0


@pytest.mark.slow  # three runs to compile
def test_resumed_runs_go_on_with_noise_and_ledger(tmp_path):
    sampling, correlation = CyclicPoisson(1.0, 2), Banded(2)
    plan = plan_of(sampling=sampling, correlation=correlation)
    whole = run(plan, ROWS, rounds=4)
    policy = CheckpointPolicy(tmp_path, every=2, resume=True)
    run(plan, ROWS, rounds=2, checkpoint=policy)
    resumed = run(plan, ROWS, rounds=4, checkpoint=policy)
    np.testing.assert_array_equal(resumed.variables.params, whole.variables.params)
    assert resumed.history["epsilon"][-1] == whole.history["epsilon"][-1]
    other = plan_of(sampling=sampling, correlation=correlation, noise_multiplier=1.0)
    with pytest.raises(CheckpointError, match="privacy was"):
        run(other, ROWS, rounds=4, checkpoint=policy)


# --- refusals ----------------------------------------------------------------------------------


def test_another_sampler_is_refused():
    with pytest.raises(ValueError, match=r"cohort must be .*Poisson\(rate=0.5\), got Uniform"):
        run(plan_of(sampling=poisson(0.5)), ROWS, cohort=uniform(3))
    with pytest.raises(ValueError, match="cohort must be what the privacy plan accounts for"):
        run(plan_of(sampling=poisson(0.5)), ROWS, cohort=poisson(0.6))


def test_another_population_is_refused():
    with pytest.raises(ValueError, match="num_clients=7"):
        run(plan_of(population=7), ROWS)


def test_the_state_of_another_run_is_refused():
    first = run(plan_of(), ROWS)
    with pytest.raises(ValueError, match="cannot begin with the state of another"):
        run(plan_of(), ROWS, state=first.state)


def wrapped(gradient_fn, aggregator):
    return build(gradient_fn, chain(clip_by_client_norm(1.0), then=aggregator))


def another_aggregator(gradient_fn, aggregator):
    return build(gradient_fn, weighted_mean())


def two_passes(gradient_fn, aggregator) -> FederatedAlgorithm:
    algorithm = build(gradient_fn, aggregator)

    def run_round(state, cohort, run_clients):
        once = algorithm.run_round(state, cohort, run_clients)
        return algorithm.run_round(once.state, cohort, run_clients)

    return algorithm._replace(run_round=run_round)


def reading_states(gradient_fn, aggregator) -> FederatedAlgorithm:
    algorithm = build(gradient_fn, aggregator)

    def run_round(state, cohort, run_clients):
        return algorithm.run_round(state, cohort._replace(seed=cohort.states[0]), run_clients)

    return algorithm._replace(run_round=run_round)


@pytest.mark.parametrize(
    "algorithm, message",
    [
        (wrapped, "something else than the aggregator of its privacy plan"),
        (another_aggregator, "something else than the aggregator of its privacy plan"),
        (two_passes, "more than once a round"),
        (reading_states, "looks into the clients' states"),
    ],
)
def test_algorithms_that_are_not_accounted_for(algorithm, message):
    task = task_of(3)
    with pytest.raises(PrivacyError, match=message):
        simulate(
            private(algorithm, plan_of(), task=task),
            dataset_of(ROWS),
            task=task,
            rounds=1,
            local_work=ONE_STEP,
        )


def test_the_aggregator_of_a_plan_is_of_no_use_without_private():
    task = task_of(3)
    algorithm = fed_avg(task.gradient, optax.sgd(1.0), aggregator=plan_of().aggregator)
    with pytest.raises(PrivacyError, match=r"only inside `private"):
        simulate(algorithm, dataset_of(ROWS), task=task, rounds=1, local_work=ONE_STEP)


def test_a_frozen_server_promises_nothing():
    task = task_of(3)
    algorithm = private(build, plan_of(), task=task)
    assert algorithm.privacy is not None and algorithm.num_clients == 6
    state = algorithm.init(task.init(0))
    assert frozen(algorithm, state).privacy is None


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"delta": 0.5}, "delta must be positive and below 1/6, .* hospitals, got 0.5"),
        ({"delta": 1 / 6}, "delta must be positive and below 1/6"),
        ({"delta": 0.0}, "delta must be positive"),
        ({"delta": float("nan")}, "delta must be positive"),
        ({"clip_norm": 0.0}, "clip_norm must be positive and finite, got 0.0"),
        ({"clip_norm": float("nan")}, "clip_norm must be positive and finite, got nan"),
        ({"clip_norm": float("inf")}, "clip_norm must be positive and finite, got inf"),
        ({"noise_multiplier": -1.0}, "noise_multiplier must be 0 or more"),
        ({"noise_multiplier": float("nan")}, "noise_multiplier must be 0 or more"),
        ({"noise_multiplier": None}, "Give noise_multiplier, or epsilon"),
        ({"epsilon": 0.0}, "epsilon must be positive"),
        (
            {"noise_multiplier": None, "epsilon": 1e-9, "delta": 1e-9},
            "epsilon 1e-09 cannot be reached in 6 rounds",
        ),
        ({"sampling": cohorts.cyclic()}, "accounting of Cyclic sampling is not known"),
        ({"sampling": cohorts.weighted(1, [1.0] * 6)}, "accounting of Weighted sampling"),
        (
            {"sampling": uniform(3), "relation": Relation.ADD_OR_REMOVE},
            "Uniform .* allowed is REPLACE",
        ),
        ({"sampling": TruncatedPoisson(0.5, 3), "relation": Relation.REPLACE}, "is ZERO_OUT"),
        ({"correlation": Tree()}, "Tree noise is accounted for Passes sampling"),
        ({"sampling": Passes(2)}, "Passes sampling for Tree noise"),
        ({"correlation": Banded(3), "sampling": CyclicPoisson(0.5, 2)}, "at least as many"),
        ({"correlation": Banded(3), "sampling": poisson(0.5)}, "CyclicPoisson"),
        (
            {"correlation": Tree(), "sampling": Passes(2), "clipping": QuantileClipping()},
            "Tree noise with a clip bound that moves is not known",
        ),
        (
            {
                "correlation": Tree(),
                "sampling": Passes(2),
                "simulated_cohort": SimulatedCohort(10, 100),
                "delta": 1e-3,
            },
            "Tree noise with a simulated cohort is not known",
        ),
    ],
)
def test_bad_settings_end_before_anything_is_trained(settings, message):
    with pytest.raises(ValueError, match=message):
        plan_of(**settings)


def test_a_budget_that_not_even_one_round_keeps():
    with pytest.raises(ValueError, match=r"epsilon 0\.1 cannot be reached: the first round"):
        run(plan_of(epsilon=0.1), ROWS)


def test_correlated_noise_does_not_go_on():
    plan = plan_of(rounds=4, sampling=Passes(2), correlation=Tree())
    with pytest.raises(ValueError, match="over the 4 rounds of its plan, got 5"):
        run(plan, ROWS, rounds=5)


def test_a_count_that_costs_more_than_the_plan():
    plan = plan_of(clipping=QuantileClipping(count_noise=0.9))
    with pytest.raises(ValueError, match=r"count_noise 0.9 is too small for .* 2.0"):
        run(plan, ROWS)


def test_bad_values_of_a_grid_are_refused_before_anything_is_compiled():
    task = task_of(3)

    def algorithm(noise_multiplier):
        return private(build, plan_of(noise_multiplier=noise_multiplier), task=task)

    with pytest.raises(
        ValueError, match=r"noise_multiplier must be 0 or more and finite, got -1\.0"
    ):
        simulate(
            algorithm,
            dataset_of(ROWS),
            task=task,
            rounds=1,
            local_work=ONE_STEP,
            experiments=grid(noise_multiplier=[1.0, -1.0]),
        )


def test_statements_name_unit_relation_and_both_epsilons():
    told = plan_of(unit="patient", sampling=everyone()).statement(6)
    epsilon = plan_of().epsilon_after(6)
    assert "one patient added or removed" in told
    assert f"{epsilon.pld:.4g} by PLD and {epsilon.rdp:.4g} by RDP" in told
    assert "Not covered" in told
    local = LocalLevel(1.0, 1e-2, 3.0).plan(population=6, rounds=2).statement(2)
    assert "nobody has to be trusted" in local and "replaced by another" in local


def test_a_missing_accountant_is_named(monkeypatch):
    import sys

    from fedjax_med.privacy import accounting

    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(ImportError, match=r"install fedjax-med\[privacy\]"):
        accounting.library()
