"""What personalised algorithms become in known cases, whom they judge by what, and what they refuse."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_med import aggregation, algorithms, models, tasks
from fedjax_med.algorithms.clustered_fl import bipartition
from fedjax_med.algorithms.knn_per import Datastore, nearest_neighbours
from fedjax_med.algorithms.parts import merge, split
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import (
    Task,
    Variables,
    cohorts,
    epochs,
    frozen,
    placement,
    simulate,
    steps,
)
from tests.algorithms import numpy_world as world
from tests.algorithms.families.personal import ALGORITHMS, hidden
from tests.engine.toy import LOCAL_WORK, assert_close, assert_identical, make_dataset, make_task

SGD = optax.sgd(0.4)
GRADIENT = world.task().gradient
# Two ways to the same number differ by the last bit of a float32 of each of a few dozen steps.
SAME = 1e-6


def params(run):
    return run.variables.params["w"]


def judged(algorithm, run):
    """The parameters that clients are judged by, `[clients, dim]`; without an adaptation."""
    models = jax.vmap(algorithm.personal, in_axes=(None, 0))(run.state, run.client_states)
    return models.params["w"]


@lru_cache
def fed_avg(weighting=algorithms.equal, rate=1.0):
    algorithm = algorithms.fed_avg(GRADIENT, SGD, server_learning_rate=rate, weighting=weighting)
    return world.run(algorithm)


@lru_cache
def alone():
    """What clients learn by themselves, `[clients, dim]`."""
    run = world.run(algorithms.local_only(GRADIENT, SGD))
    return run.client_states.variables.params["w"]


def test_ditto_without_pull_trains_beside_fed_avg():
    algorithm = algorithms.ditto(GRADIENT, SGD, lam=0.0)
    run = world.run(algorithm)
    np.testing.assert_allclose(params(run), params(fed_avg()), atol=SAME)
    np.testing.assert_allclose(judged(algorithm, run), alone(), atol=SAME)


def test_mr_mtl_without_pull_is_local_training_and_a_mean():
    algorithm = algorithms.mr_mtl(GRADIENT, SGD, lam=0.0)
    run = world.run(algorithm)
    np.testing.assert_allclose(judged(algorithm, run), alone(), atol=SAME)
    np.testing.assert_allclose(params(run), alone().mean(axis=0), atol=SAME)


def test_apfl_with_fixed_shares_is_fed_avg_or_local_training():
    build = lambda alpha: algorithms.apfl(GRADIENT, SGD, alpha=alpha)
    runs = {a: world.run(build, hyperparameters={"alpha": a}) for a in (0.0, 1.0)}
    for run in runs.values():  # the server knows nothing of the mixtures
        np.testing.assert_allclose(params(run), params(fed_avg()), atol=SAME)
    together = np.broadcast_to(params(fed_avg()), alone().shape)
    np.testing.assert_allclose(judged(build(0.0), runs[0.0]), together, atol=SAME)
    np.testing.assert_allclose(judged(build(1.0), runs[1.0]), alone(), atol=SAME)


def test_p_fed_me_that_follows_theta_is_fed_avg():
    algorithm = algorithms.p_fed_me(GRADIENT, SGD, learning_rate=0.5, lam=2.0, inner_steps=1)
    run = world.run(algorithm)
    np.testing.assert_allclose(params(run), params(fed_avg()), atol=SAME)


def test_p_fed_me_with_a_strong_pull_moves_little():
    """With lam large, theta solves for w - grad / lam, so w moves by the learning rate only."""
    algorithm = algorithms.p_fed_me(
        GRADIENT, optax.sgd(1e-3), learning_rate=0.4, lam=1e3, inner_steps=2
    )
    run = world.run(algorithm, rounds=1, work=steps(1, batch_size=64, shuffle=False))
    want = np.mean(
        [world.start() - 0.4 * world.grad(world.start(), h) for h in world.hospitals()], 0
    )
    np.testing.assert_allclose(params(run), want, atol=2e-3)
    assert np.abs(params(run) - world.start()).max() > 0.02


@pytest.mark.parametrize("second_order", [False, True])
def test_per_fed_avg_without_inner_step_is_fed_avg(second_order):
    algorithm = algorithms.per_fed_avg(
        GRADIENT, SGD, inner_learning_rate=0.0, second_order=second_order
    )
    np.testing.assert_allclose(params(world.run(algorithm)), params(fed_avg()), atol=SAME)


def test_reptile_trains_like_fed_avg_with_a_server_learning_rate():
    run = world.run(algorithms.reptile(GRADIENT, SGD, outer_learning_rate=0.6))
    np.testing.assert_allclose(params(run), params(fed_avg(rate=0.6)), atol=SAME)


def test_one_cluster_is_fed_avg():
    key = jax.random.key(0)
    run = world.run(algorithms.ifca(GRADIENT, SGD, num_clusters=1, key=key))
    np.testing.assert_allclose(params(run), params(fed_avg()), atol=SAME)
    clustered = algorithms.clustered_fl(
        GRADIENT, SGD, num_clients=4, max_clusters=1, max_mean_norm=np.inf, min_norm=0.0
    )
    by_examples = fed_avg(algorithms.by_examples)
    np.testing.assert_allclose(params(world.run(clustered)), params(by_examples), atol=SAME)


def test_fed_per_and_lg_fed_avg_are_each_others_mirror():
    task = make_task()
    body = algorithms.layers(0, 1)
    work, dataset = LOCAL_WORK["epochs"], make_dataset()
    kept = {}
    for name, algorithm in {
        # The model state stays with the client in one and is shared in the other, so it is named.
        "fed_per": algorithms.fed_per(
            task.gradient, SGD, is_personal=lambda p: body(p) or p.startswith(".state")
        ),
        "lg_fed_avg": algorithms.lg_fed_avg(task.gradient, SGD, is_global=algorithms.layers(2, 3)),
    }.items():
        run = simulate(algorithm, dataset, task=task, rounds=2, local_work=work, lanes=2)
        kept[name] = (run.state, run.client_states)
    assert_close(*kept.values(), SAME)


def test_fine_tuning_leaves_the_training_alone():
    """And what clients are judged by is the server's model, trained on for as long as it says."""
    algorithm = algorithms.fine_tuned(
        algorithms.fed_avg(GRADIENT, SGD, weighting=algorithms.equal),
        GRADIENT,
        optax.sgd(0.2),
        local_work=epochs(2, batch_size=64, shuffle=False),
    )
    run = world.run(algorithm, evaluate_every=world.ROUNDS)
    assert run.client_states == ()  # tuned models exist while they are judged, and only then
    np.testing.assert_allclose(params(run), params(fed_avg()), atol=SAME)
    want = []
    for hospital in world.hospitals():
        w = np.float64(params(run))
        for _ in range(2):
            w = w - 0.2 * world.grad(w, hospital)
        want.append(world.loss(w, hospital))
    np.testing.assert_allclose(run.evaluations[-1].per_client["loss"], want, rtol=1e-5)


def test_fed_bn_keeps_normalisation_and_statistics_at_home():
    task = make_task()
    algorithm = algorithms.fed_bn(task.gradient, SGD, is_personal=algorithms.layers(1))
    run = simulate(
        algorithm, make_dataset(), task=task, rounds=2, local_work=LOCAL_WORK["epochs"], lanes=2
    )
    first, last = task.init(0), run.variables
    moved = lambda a, b: float(np.abs(np.asarray(a) - b).max())
    assert moved(first.params[1], last.params[1]) == moved(first.state, last.state) == 0
    assert all(moved(first.params[i], last.params[i]) > 1e-4 for i in (0, 2, 3))
    own = run.client_states
    assert own.params[0] is None and own.params[1].shape == (10, 6) and own.state.shape == (10, 6)
    assert np.std(own.params[1], axis=0).min() > 1e-4 and np.std(own.state, axis=0).min() > 1e-4


def test_layers_are_chosen_by_name():
    model = models.from_linen(_normalised())
    variables = model.init(jax.random.key(0), jnp.zeros((1, 3)))
    paths = lambda part: {
        jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(part)
    }
    norm = split(variables, algorithms.normalisation_layers)
    assert paths(norm.personal) == {
        ".params['BatchNorm_0']['bias']",
        ".params['BatchNorm_0']['scale']",
        ".state['batch_stats']['BatchNorm_0']['mean']",
        ".state['batch_stats']['BatchNorm_0']['var']",
    }
    assert_identical(merge(*norm), variables)
    # Of more than ten layers, the last is not the last of the alphabet.
    head = split(variables, algorithms.last_layer(variables.params))
    assert paths(head.personal) == {".params['Dense_10']['bias']", ".params['Dense_10']['kernel']"}
    assert paths(split(Variables([1, 2]), algorithms.last_layer([1, 2])).personal) == {".params[1]"}


def _normalised():
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.BatchNorm(use_running_average=not train)(x)
            for _ in range(11):
                x = nn.Dense(2)(x)
            return x

    return Net()


@pytest.mark.parametrize(
    "path, is_one",
    [
        (".params['LayerNorm_0']['scale']", True),
        (".params['encoder']['pre_norm']['scale']", True),
        (".params['layers'][2]['bn1']['scale']", True),
        (".params['group_normalization']['bias']", True),
        (".params['abnormal']['kernel']", False),
        (".params['normal_head']['kernel']", False),
        (".params['Dense_0']['kernel']", False),
    ],
)
def test_normalisation_layers_are_known_by_their_names(path, is_one):
    assert algorithms.normalisation_layers(path) == is_one


def test_bipartition_cuts_where_the_clients_are_least_alike():
    """By trying all: no other parting has a less similar closest pair across."""
    rng = np.random.default_rng(0)
    for trial in range(20):
        vectors = rng.standard_normal((6, 3))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        similarity = np.float32(vectors @ vectors.T)
        members = np.arange(6) != trial % 7
        leaves, across = bipartition(jnp.asarray(similarity), jnp.asarray(members))
        inside = np.flatnonzero(members)
        leaves = np.flatnonzero(leaves)
        stays = np.setdiff1d(inside, leaves)
        assert len(leaves) and len(stays) and set(leaves) <= set(inside)
        closest = lambda a, b, s=similarity: s[np.ix_(a, b)].max()
        assert closest(leaves, stays) == across
        for mask in range(1, 2 ** len(inside) - 1):
            side = (mask >> np.arange(len(inside))) & 1 == 1
            assert closest(inside[side], inside[~side]) >= across


def test_nobody_leaves_a_cluster_of_one():
    leaves, across = bipartition(jnp.ones((3, 3)), jnp.array([False, True, False]))
    assert not leaves.any() and across == np.inf


def test_neighbours_vote_by_their_distance():
    rng = np.random.default_rng(0)
    keys, labels = np.float32(rng.standard_normal((7, 2))), np.array([0, 1, 2, 0, 1, 2, 0])
    queries = np.float32(rng.standard_normal((4, 2)))
    store = Datastore(jnp.asarray(keys), jnp.asarray(labels), jnp.int32(6))  # the last is empty
    got = nearest_neighbours(store, jnp.asarray(queries), 3, 3)
    for q, p in zip(queries, got, strict=True):
        distance = np.linalg.norm(keys[:6] - q, axis=1)
        near = np.argsort(distance)[:3]
        votes = np.bincount(labels[near], np.exp(-distance[near]), minlength=3)
        np.testing.assert_allclose(p, votes / votes.sum(), atol=1e-5)
    empty = store._replace(count=jnp.int32(0))
    np.testing.assert_allclose(nearest_neighbours(empty, jnp.asarray(queries), 3, 3), 1 / 3)


@pytest.mark.parametrize("place", [placement.one_device, lambda: placement.mesh(2, splits=2)])
def test_a_memory_of_everything_knows_the_training_examples(place):
    dataset = make_dataset(test=True)
    train = FederatedDataset.from_clients(
        {n: dataset.train.client(i) for i, n in enumerate(dataset.client_names)}, name="train"
    )
    model = algorithms.knn_model(
        models.mlp((6,)), lambda v, batch: batch.examples["x"], neighbours=1
    )
    task = tasks.binary_classification(model, dataset.train.examples)
    algorithm = algorithms.knn_per(
        algorithms.fed_avg(task.gradient, SGD),
        lambda v, batch: batch.examples["x"],
        feature_size=5,
        sizes=dataset.train.sizes,
        lam=1.0,
        batch_size=4,
    )
    run = simulate(
        algorithm,
        train,
        task=task,
        rounds=1,
        local_work=LOCAL_WORK["steps"],
        placement=place(),
        lanes=2,
        evaluate_every=1,
        evaluate_on=("train",),
    )
    np.testing.assert_array_equal(run.evaluations[-1].per_client["accuracy"], 1)


@pytest.mark.parametrize("name", ["ditto", "mr_mtl", "p_fed_me", "apfl"])
def test_who_never_took_part_is_judged_by_the_servers_model(name):
    listed = ALGORITHMS[name]
    task = listed.task()
    algorithm = listed.build(task, **listed.hyperparameters)
    server = algorithm.init(jax.tree.map(jnp.asarray, task.init(0)))
    trained = server._replace(variables=jax.tree.map(lambda x: x + 1, server.variables))
    newcomer = algorithm.init_client(jax.tree.map(jnp.asarray, task.init(0)))
    assert_close(algorithm.personal(trained, newcomer), trained.variables, 0)


def toy_gradient():
    return make_task().gradient


def initial_of_toy():
    return jax.tree.map(jnp.asarray, make_task().init(0))


def fed_per_of(is_personal):
    return algorithms.fed_per(toy_gradient(), SGD, is_personal=is_personal).init(initial_of_toy())


def lg_fed_avg_of(is_global):
    return algorithms.lg_fed_avg(toy_gradient(), SGD, is_global=is_global).init(initial_of_toy())


def knn_per_of(**options):
    base = algorithms.fed_avg(toy_gradient(), SGD)
    defaults = {"feature_size": 6, "sizes": (3, 8), "lam": 0.5}
    return algorithms.knn_per(base, hidden, **(defaults | options))


def ifca_of(**options):
    return algorithms.ifca(toy_gradient(), SGD, key=jax.random.key(0), **options)


def clustered_fl_of(**options):
    defaults = {"num_clients": 4, "max_clusters": 2, "max_mean_norm": 1.0, "min_norm": 0.0}
    return algorithms.clustered_fl(toy_gradient(), SGD, **(defaults | options))


def of_toy(name, **options):
    return getattr(algorithms, name)(toy_gradient(), SGD, **options)


@pytest.mark.parametrize(
    "build, message",
    [
        (
            lambda: fed_per_of(lambda path: False),
            r"is_personal must .* chooses nothing .*\.params\[3\]",
        ),
        (lambda: fed_per_of(lambda path: True), "is_personal must .* chooses everything"),
        (lambda: of_toy("fed_bn").init(initial_of_toy()), "is_personal must .* nothing"),
        (
            lambda: lg_fed_avg_of(lambda path: path.startswith(".params")),
            "is_global must .* everything",
        ),
        (lambda: algorithms.last_layer([{}]), "at least two layers, got 1"),
        (
            lambda: of_toy("fed_rep", is_head=len, head_share=2.0),
            "head_share must be between 0 and 1, got 2",
        ),
        (lambda: of_toy("ditto", lam=-1.0), "lam must be 0 or more, got -1"),
        (lambda: of_toy("mr_mtl", lam=np.nan), "lam must be 0 or more, got nan"),
        (
            lambda: of_toy("p_fed_me", learning_rate=0.1, lam=0.0),
            "lam must be positive, got 0",
        ),
        (lambda: of_toy("apfl", alpha=1.5), "alpha must be between 0 and 1, got 1.5"),
        (
            lambda: of_toy("per_fed_avg", inner_learning_rate=-1.0),
            "inner_learning_rate must be 0 or more",
        ),
        (
            lambda: of_toy("reptile", outer_learning_rate=0.0),
            "outer_learning_rate must be positive",
        ),
        (lambda: ifca_of(num_clusters=0), "num_clusters must be at least 1, got 0"),
        (
            lambda: ifca_of(num_clusters=2, aggregator=aggregation.coordinate_median()),
            "reduction 'sum'",
        ),
        (lambda: clustered_fl_of(max_clusters=0), "max_clusters must be at least 1, got 0"),
        (
            lambda: clustered_fl_of(max_similarity=2.0),
            "max_similarity must be between -1 and 1, got 2",
        ),
        (
            lambda: knn_per_of(capacity=7),
            "capacity must be at least the largest hospital, 8, got 7",
        ),
        (lambda: knn_per_of(lam=2.0), "lam must be between 0 and 1, got 2"),
        (
            lambda: algorithms.fine_tuned(knn_per_of(), toy_gradient(), SGD),
            "no adaptation of its own",
        ),
    ],
)
def test_what_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_hospital_without_training_examples_is_named():
    clients = world.hospitals()
    clients[2] = world.Hospital(clients[2].x[:0], clients[2].y[:0])
    with pytest.raises(ValueError, match="'hospital 2' has no training examples"):
        world.run(algorithms.ditto(GRADIENT, SGD, lam=1.0), clients=clients)


# Hospitals of two schools: the same measurements, opposite diagnoses.


def schools(num_clients, seed) -> FederatedDataset:
    rng = np.random.default_rng(seed)
    teacher = np.array([1.0, -1.0, 0.5, 0.0])

    def clients():
        out = {}
        for i in range(num_clients):
            x = rng.standard_normal((60, 4)).astype(np.float32)
            school = 1 if i % 2 == 0 else -1
            out[f"hospital {i}"] = {"x": x, "y": (school * (x @ teacher) > 0).astype(np.int32)}
        return out

    return FederatedDataset.from_clients(clients(), test=clients(), name="schools")


def representation(variables, batch):
    p = variables.params["hidden"]
    return jax.nn.relu(batch.examples["x"] @ p["kernel"] + p["bias"][None])


def school_task() -> Task:
    """A hidden layer, a scale and a shift in the place of a normalisation, and a head."""

    def init(key, x):
        a, b = jax.random.split(key)
        return {
            "hidden": {"kernel": jax.random.normal(a, (4, 16)) / 2, "bias": jnp.zeros(16)},
            "norm": {"scale": jnp.ones(16), "shift": jnp.zeros(16)},
            "head": {"kernel": jax.random.normal(b, (16,)) / 4, "bias": jnp.zeros(())},
        }

    def apply(variables, batch, train):
        del train
        norm, head = variables.params["norm"], variables.params["head"]
        x = representation(variables, batch) * norm["scale"][None] + norm["shift"][None]
        return x @ head["kernel"] + head["bias"], variables.state

    model = models.Model(lambda key, x: Variables(init(key, x)), apply)
    model = algorithms.knn_model(model, representation)
    return tasks.binary_classification(model, schools(1, 0).train.examples)


IS_HEAD = algorithms.layers("head")
OPTIMIZER = optax.sgd(0.3)
PERSONALISED = {
    "fed_bn": lambda g: algorithms.fed_bn(g, OPTIMIZER),
    "fed_per": lambda g: algorithms.fed_per(g, OPTIMIZER, is_personal=IS_HEAD),
    "fed_rep": lambda g: algorithms.fed_rep(g, OPTIMIZER, is_head=IS_HEAD),
    "lg_fed_avg": lambda g: algorithms.lg_fed_avg(g, OPTIMIZER, is_global=IS_HEAD),
    "ditto": lambda g: algorithms.ditto(g, OPTIMIZER, lam=0.1),
    "mr_mtl": lambda g: algorithms.mr_mtl(g, OPTIMIZER, lam=0.1),
    "p_fed_me": lambda g: algorithms.p_fed_me(g, OPTIMIZER, learning_rate=0.1, lam=0.2),
    "apfl": lambda g: algorithms.apfl(g, OPTIMIZER, alpha=0.8, alpha_learning_rate=0.1),
    "fine_tuned": lambda g: algorithms.fine_tuned(algorithms.fed_avg(g, OPTIMIZER), g, OPTIMIZER),
    "reptile": lambda g: algorithms.reptile(g, OPTIMIZER, outer_learning_rate=0.5),
    "per_fed_avg": lambda g: algorithms.per_fed_avg(g, OPTIMIZER, inner_learning_rate=0.3),
    "per_fed_avg_second_order": lambda g: algorithms.per_fed_avg(
        g, OPTIMIZER, inner_learning_rate=0.3, second_order=True
    ),
    "ifca": lambda g: algorithms.ifca(
        g,
        OPTIMIZER,
        num_clusters=2,
        key=jax.random.key(3),
        initialise=algorithms.perturbed(0.5),
    ),
    "clustered_fl": lambda g: algorithms.clustered_fl(
        g, OPTIMIZER, num_clients=6, max_clusters=2, max_mean_norm=0.6, min_norm=0.8
    ),
    "knn_per": lambda g: algorithms.knn_per(
        algorithms.fed_avg(g, OPTIMIZER), representation, feature_size=16, sizes=[60], lam=0.9
    ),
}
SCHOOL_WORK = epochs(4, batch_size=20)


def accuracies(algorithm, task, dataset, rounds):
    run = simulate(
        algorithm,
        dataset,
        task=task,
        rounds=rounds,
        local_work=SCHOOL_WORK,
        lanes=2,
        evaluate_every=rounds,
    )
    return run, run.evaluations[-1].per_client["accuracy"]


def test_every_personalised_algorithm_goes_to_school():
    """`PERSONALISED` has what `families.personal` has."""
    assert set(PERSONALISED) == set(ALGORITHMS)


@pytest.mark.parametrize(
    "name",
    [n if n == "fed_per" else pytest.param(n, marks=pytest.mark.slow) for n in PERSONALISED],
)
def test_hospitals_that_disagree_each_have_their_own_model(name):
    """Trained together or not: FedAvg is at a loss where every school is right for itself.

    Half of the hospitals call ill what the others call healthy, so no single model is right more
    often than by chance over all of them.
    """
    task = school_task()
    algorithm = PERSONALISED[name](task.gradient)
    run, own = accuracies(algorithm, task, schools(6, seed=1), rounds=8)
    assert own.min() > 0.75 and own.mean() > 0.85
    # Two hospitals that were not there: a round that leaves the server as it is.
    _, new = accuracies(frozen(algorithm, run.state), task, schools(2, seed=2), rounds=2)
    assert new.min() > 0.75


@pytest.mark.slow
def test_a_single_model_cannot_please_both_schools():
    task = school_task()
    _, accuracy = accuracies(
        algorithms.fed_avg(task.gradient, OPTIMIZER), task, schools(6, seed=1), rounds=8
    )
    assert accuracy.mean() < 0.65


@pytest.mark.slow
def test_clusters_are_the_schools():
    task = school_task()
    run, _ = accuracies(PERSONALISED["clustered_fl"](task.gradient), task, schools(6, 1), rounds=8)
    school = np.arange(6) % 2
    assert run.state.num_clusters == 2
    assert list(run.state.cluster) in (list(school), list(1 - school))


@pytest.mark.slow
def test_a_cluster_is_parted_only_if_everybody_is_there():
    task = school_task()
    run = simulate(
        PERSONALISED["clustered_fl"](task.gradient),
        schools(6, seed=1),
        task=task,
        rounds=8,
        local_work=SCHOOL_WORK,
        cohort=cohorts.listed([range(5), range(1, 6)]),
        lanes=2,
    )
    assert run.state.num_clusters == 1
