"""Many trainings in one call: each is what it would be alone."""

import jax
import numpy as np
import optax
import pytest

from fedjax_med import aggregation, algorithms, datasets, models, tasks
from fedjax_med.engine import (
    Experiments,
    cohorts,
    epochs,
    gradient,
    grid,
    placement,
    simulate,
)
from tests.draws import THOROUGH
from tests.engine.hlo import Program
from tests.engine.test_compiled_chunk import IN_LOSS, marked_loss
from tests.engine.toy import (
    AGGREGATORS,
    LOCAL_WORK,
    PLACEMENTS,
    assert_close,
    make_dataset,
    make_task,
    prepare_chunk,
    toy_loss,
    with_persistent_state,
)

# An experiment differs from the same run alone in the shapes that are compiled, so in the order
# of sums and nothing else.
RTOL = 1e-5


def part(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def check_each_alone(build, dataset, task, experiments, *, chosen=None, **options):
    """Compares all experiments, or those that are chosen by index, with their runs alone."""
    together = simulate(build, dataset, task=task, experiments=experiments, **options)
    assert together.num_traces == 1
    for index in range(len(experiments)) if chosen is None else chosen:
        seed, settings = experiments.seeds[index], experiments.settings(index)
        assert settings.pop("seed") == seed
        alone = simulate(build, dataset, task=task, seed=seed, hyperparameters=settings, **options)
        got = part((together.state, together.client_states), index)
        assert_close(got, (alone.state, alone.client_states), RTOL, f"experiment {index}: ")
        assert_close(part(together.history, index), alone.history, RTOL)
        for one, many in zip(alone.evaluations, together.evaluations, strict=True):
            assert (one.split, one.round) == (many.split, many.round)
            for name in one.pooled:
                np.testing.assert_allclose(many.pooled[name][index], one.pooled[name], rtol=1e-4)
                np.testing.assert_allclose(
                    many.per_client[name][index], one.per_client[name], rtol=1e-4
                )
    return together


def check_heart_disease(shared_data_dir, num_seeds, rates, rounds, chosen=None):
    hospitals = datasets.load("heart-disease", data_dir=shared_data_dir)
    task = tasks.binary_classification(models.mlp([4]), hospitals.train.examples)

    def build(rate):
        return algorithms.fed_avg(task.gradient, optax.sgd(rate))

    run = check_each_alone(
        build,
        hospitals,
        task,
        grid(seed=range(num_seeds), rate=rates),
        chosen=chosen,
        rounds=rounds,
        local_work=epochs(1, batch_size=32),
        lanes=2,
        evaluate_every=rounds,
    )
    final = run.variables.params[0]["kernel"].reshape(num_seeds * len(rates), -1)
    # All are different trainings: seeds have other initial models, rates other steps.
    assert len(np.unique(final.round(6), axis=0)) == len(final)


def test_seeds_and_learning_rates_of_heart_disease_equal_their_runs_alone(shared_data_dir):
    # The first seed with the second rate, and the second seed with the first.
    check_heart_disease(shared_data_dir, 2, [0.03, 0.1], 10, chosen=(1, 2))


@pytest.mark.slow
def test_sixteen_seeds_and_four_learning_rates_equal_their_runs_alone(shared_data_dir):
    check_heart_disease(shared_data_dir, 16, [0.01, 0.03, 0.05, 0.1], 20)


@pytest.mark.parametrize(
    "where, aggregator, work",
    [("three_lanes", "clip_median", "steps"), ("mesh", "weighted_mean", "epochs")],
)
def test_experiments_have_cohorts_and_client_states_of_their_own(where, aggregator, work):
    make, lanes = PLACEMENTS[where]

    def build(rate):
        return with_persistent_state(
            gradient(toy_loss), optax.sgd(rate, momentum=0.9), AGGREGATORS[aggregator]()
        )

    run = check_each_alone(
        build,
        make_dataset(test=True),
        make_task(),
        Experiments((5, 6, 7), {"rate": np.array([0.1, 0.1, 0.05])}),
        chosen=None if THOROUGH else (0, 2),
        rounds=4,
        local_work=LOCAL_WORK[work],
        cohort=cohorts.uniform(4),
        placement=make(),
        lanes=lanes,
        evaluate_every=2,
    )
    rounds_of_clients = run.client_states[1]
    assert (rounds_of_clients.sum(axis=1) == 4 * 4).all()
    assert (rounds_of_clients[0] != rounds_of_clients[1]).any()


def test_hyperparameters_of_server_and_aggregator_are_traced_too():
    def build(rate, mu, clip):
        return algorithms.fed_prox(
            gradient(toy_loss),
            optax.sgd(rate),
            mu=mu,
            server_optimizer=optax.sgd(1.0),
            aggregator=aggregation.chain(
                aggregation.clip_by_client_norm(clip), then=aggregation.weighted_mean()
            ),
        )

    experiments = grid(seed=[1], rate=[0.1], mu=[0.0, 0.5], clip=[0.1, 1.0])
    run = check_each_alone(
        build,
        make_dataset(),
        make_task(),
        experiments,
        chosen=None if THOROUGH else (1, 2),  # either of the two other than in the first
        rounds=3,
        local_work=LOCAL_WORK["epochs"],
        lanes=2,
    )
    moved = run.variables.params[0].reshape(4, -1)
    assert len(np.unique(moved.round(5), axis=0)) == 4


@pytest.mark.parametrize("cohort", [cohorts.uniform(4), cohorts.everyone()], ids=repr)
def test_the_local_loop_stays_one_loop_without_conditionals(cohort):
    def build(hyperparameters):
        return algorithms.fed_avg(
            gradient(marked_loss), optax.sgd(hyperparameters["rate"], momentum=0.9)
        )

    program, args = prepare_chunk(
        build,
        make_dataset(),
        LOCAL_WORK["epochs"],
        placement.one_device(),
        2,
        cohort=cohort,
        seeds=(0, 1, 2),
        hyperparameters={"rate": [0.1, 0.2, 0.3]},
    )
    hlo = Program(program.executable(*args).as_text())
    rounds, segments, local = hlo.loops_with(IN_LOSS)  # each for all experiments together
    assert not any(i.opcode == "conditional" for i in hlo.reachable(local))
    # A trip count of each experiment's own would turn the whole carry into a select, and the
    # condition of the loop into a reduction over the experiments.
    for outer, inner in ((rounds, segments), (segments, local)):
        loop = next(
            i for i in hlo.reachable(outer) if i.opcode == "while" and f"body=%{inner}," in i.text
        )
        condition = next(c for c in loop.called if c != inner)
        assert not any(i.opcode == "reduce" for i in hlo.reachable(condition))


def test_grid_is_every_combination_the_last_name_fastest():
    experiments = grid(seed=[3, 4], a=[1.0, 2.0], b=[5])
    assert experiments.seeds == (3, 3, 4, 4)
    assert experiments.hyperparameters["a"].tolist() == [1.0, 2.0, 1.0, 2.0]
    assert experiments.settings(1) == {"seed": 3, "a": 2.0, "b": 5}
    assert len(grid()) == 1 and grid().settings(0) == {"seed": 0}


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Experiments((), {}), "experiments must name at least one experiment"),
        (lambda: Experiments((1, 2), {"mu": np.zeros(3)}), "mu has 3 values, but there are 2"),
        (lambda: grid(seed=[]), "at least one"),
        (lambda: grid(seed=[1], mu=[]), "at least one"),
    ],
)
def test_bad_experiments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("where", ["three_lanes", pytest.param("pmap", marks=pytest.mark.slow)])
def test_an_experiment_on_members_is_a_run_on_the_clients_selected(where):
    make, lanes = PLACEMENTS[where]
    dataset, task = make_dataset(test=True), make_task()
    # Overlapping, in no order, and one that holds neither the first nor the last client.
    populations = [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [7, 2, 5], [9, 8, 0, 2]]

    def build(rate):
        return with_persistent_state(
            gradient(toy_loss), optax.sgd(rate), AGGREGATORS["weighted_mean"]()
        )

    options = {
        "task": task,
        "rounds": 3,
        "local_work": LOCAL_WORK["steps"],
        "cohort": cohorts.uniform(3),
        "placement": make(),
        "lanes": lanes,
    }
    experiments = grid(seed=[5, 6], rate=[0.1]).for_each(populations)
    together = simulate(build, dataset, experiments=experiments, **options)
    assert together.num_traces == 1 and len(experiments) == 6
    for index in (2, 5):  # neither of everybody; one of either seed
        members = experiments.members[index]
        selected = dataset.select([dataset.client_names[m] for m in members])
        alone = simulate(
            build, selected, seed=experiments.seeds[index], hyperparameters={"rate": 0.1}, **options
        )
        states = jax.tree.map(lambda x, i=index, m=members: x[i][m], together.client_states)
        got = (part(together.state, index), states)
        assert_close(got, (alone.state, alone.client_states), RTOL, f"experiment {index}: ")
        assert_close(part(together.history, index), alone.history, RTOL)


def test_members_that_do_not_fit_are_refused():
    dataset, task = make_dataset(), make_task()
    with pytest.raises(ValueError, match=r"members of experiment 1 must be .* got \[3, 3\]"):
        grid(seed=[0]).for_each([[1], [3, 3]])
    with pytest.raises(ValueError, match="members has 1 entries, but there are 2 seeds"):
        Experiments((0, 1), {}, (np.array([0]),))
    with pytest.raises(ValueError, match="clients 0 to 9 of toy, got 0 to 10"):
        simulate(
            algorithms.fed_avg(task.gradient, optax.sgd(0.1)),
            dataset,
            task=task,
            rounds=1,
            local_work=epochs(1, batch_size=4),
            experiments=grid(seed=[0]).for_each([[0, 10]]),
        )
    with pytest.raises(ValueError, match="num_clients=10, but an experiment has 2 clients"):
        simulate(
            algorithms.scaffold(task.gradient, learning_rate=0.1, num_clients=10),
            dataset,
            task=task,
            rounds=1,
            local_work=epochs(1, batch_size=4),
            experiments=grid(seed=[0]).for_each([[0, 1]]),
        )
