"""What the engine's tests share: a small ragged population, a model with everything in it
(dropout, state that is not trained), one list of all algorithms and one of all aggregators,
and the reference that every placement is compared with."""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_med import aggregation, algorithms
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import (
    ClientProgram,
    ClientResult,
    FederatedAlgorithm,
    RoundResult,
    SequentialExecutor,
    Task,
    Variables,
    cohorts,
    epochs,
    gradient,
    placement,
    simulate,
    steps,
)
from fedjax_med.engine.layout import from_rows, gather, spread, to_rows
from fedjax_med.engine.rounds import compile_rounds
from fedjax_med.engine.schedule import Scheduler, build_chunk

# Sizes below, at and above the batch, 1 among them, and no two devices with the same load.
SIZES = (5, 1, 12, 8, 3, 17, 2, 9, 1, 11)
BATCH_SIZE = 4  # so that most clients end an epoch with a partial minibatch
FEATURES, HIDDEN = 5, 6


def make_dataset(sizes=SIZES, *, dtype=np.float32, seed=0, test=False):
    rng = np.random.default_rng([seed, len(sizes)])

    def clients():
        teacher = rng.standard_normal(FEATURES)
        out = {}
        for i, n in enumerate(sizes):
            x = rng.standard_normal((n, FEATURES)) + 0.5 * rng.standard_normal(FEATURES)
            out[f"hospital {i}"] = {
                "x": x.astype(dtype),
                "y": (x @ teacher + rng.standard_normal(n) > 0).astype(np.int32),
            }
        return out

    return FederatedDataset.from_clients(clients(), test=clients() if test else None, name="toy")


def toy_loss(variables, batch, *, dropout=0.2):
    """Logistic loss of a network with dropout, whose hidden mean is followed by a running mean."""
    (w1, b1, w2, b2), x = variables.params, batch.examples["x"]
    hidden = jnp.tanh(x @ w1 + b1[None])
    mean = jnp.sum(jnp.where(batch.mask[:, None], hidden, 0), axis=0)
    mean = mean / jnp.maximum(jnp.sum(batch.mask), 1).astype(x.dtype)
    state = 0.75 * variables.state + 0.25 * mean
    kept = batch.bernoulli(1 - dropout, (HIDDEN,))
    # The running mean enters the loss, so an error in it is an error in the parameters.
    hidden = jnp.where(kept, hidden - 0.1 * variables.state[None], 0) / (1 - dropout)
    logits = hidden @ w2 + b2
    labels = batch.examples["y"].astype(logits.dtype)
    return optax.sigmoid_binary_cross_entropy(logits, labels), state


def toy_metrics(variables, batch):
    (w1, b1, w2, b2), x = variables.params, batch.examples["x"]
    logits = (jnp.tanh(x @ w1 + b1[None]) - 0.1 * variables.state[None]) @ w2 + b2
    right = (logits > 0) == (batch.examples["y"] > 0)
    return {"accuracy": (right.astype(x.dtype), jnp.ones_like(logits))}


def initial_variables(dtype=np.float32):
    rng = np.random.default_rng(3)
    shapes = ((FEATURES, HIDDEN), (HIDDEN,), (HIDDEN,), ())
    params = tuple(np.asarray(0.5 * rng.standard_normal(shape), dtype) for shape in shapes)
    return Variables(params, np.zeros(HIDDEN, dtype))


def make_task(dtype=np.float32):
    return Task(lambda seed: initial_variables(dtype), toy_loss, toy_metrics, ("accuracy",))


class PersistentState(NamedTuple):
    variables: Variables
    opt_state: tuple
    aggregator_state: tuple


def with_persistent_state(gradient_fn, client_optimizer, aggregator):
    """A test's own algorithm: what a client remembers turns its gradient and its update.

    Every client keeps a decayed sum of its own updates and a count of its rounds. It is the
    shape of SCAFFOLD and its relatives without being one of them.
    """

    def init(variables):
        variables = jax.tree.map(lambda v: jnp.array(v, copy=True), variables)
        return PersistentState(variables, (), aggregator.init(variables))

    def init_client(variables):
        return jax.tree.map(jnp.zeros_like, variables.params), jnp.int32(0)

    def begin(shared, client):
        memory, _ = client.state
        return shared, client_optimizer.init(shared.params), memory

    def step(shared, carry, batch):
        variables, opt_state, memory = carry
        result = gradient_fn(variables, batch)
        grads = jax.tree.map(lambda g, m: g + 0.3 * m, result.grads, memory)
        updates, opt_state = client_optimizer.update(grads, opt_state, variables.params)
        params = optax.apply_updates(variables.params, updates)
        return Variables(params, result.state), opt_state, memory

    def end(shared, carry, client):
        variables, _, memory = carry
        update = jax.tree.map(jnp.subtract, shared, variables)
        memory = jax.tree.map(lambda m, u: 0.5 * m + u, memory, update.params)
        return ClientResult(
            update=update,
            weight=client.num_examples.astype(jnp.result_type(float)),
            state=(memory, client.state[1] + 1),
        )

    program = ClientProgram(begin, step, end)

    def run_round(state, cohort, run_clients):
        result = run_clients(program, state.variables, cohort, aggregator, state.aggregator_state)
        variables = jax.tree.map(jnp.subtract, state.variables, result.aggregate)
        new = PersistentState(variables, (), result.aggregator_state)
        return RoundResult(new, result.client_states, result.metrics)

    return FederatedAlgorithm(init, run_round, init_client)


def momentum():
    return optax.sgd(0.1, momentum=0.9)


# (gradient_fn, aggregator) -> algorithm. Every client optimizer but one has momentum.
ALGORITHMS = {
    "fed_avg": lambda g, a: algorithms.fed_avg(g, momentum(), aggregator=a),
    "fed_avg_server_momentum": lambda g, a: algorithms.fed_avg(
        g, momentum(), server_learning_rate=0.5, server_momentum=0.9, aggregator=a
    ),
    "fed_avg_unweighted": lambda g, a: algorithms.fed_avg(
        g, momentum(), aggregator=a, weighting=algorithms.equal
    ),
    "fed_sgd": lambda g, a: algorithms.fed_sgd(g, optax.sgd(0.3, momentum=0.9), aggregator=a),
    "fed_prox": lambda g, a: algorithms.fed_prox(g, momentum(), mu=0.3, aggregator=a),
    "fed_adagrad": lambda g, a: algorithms.fed_adagrad(
        g, momentum(), server_learning_rate=0.05, aggregator=a
    ),
    "fed_adam": lambda g, a: algorithms.fed_adam(
        g, momentum(), server_learning_rate=0.05, aggregator=a
    ),
    "fed_yogi": lambda g, a: algorithms.fed_yogi(
        g, momentum(), server_learning_rate=0.05, aggregator=a
    ),
    "fed_opt_adam_both_sides": lambda g, a: algorithms.fed_opt(
        g, optax.adam(0.02), optax.adam(0.05), aggregator=a
    ),
    "local_only": lambda g, a: algorithms.local_only(g, momentum()),
    "with_persistent_state": lambda g, a: with_persistent_state(g, momentum(), a),
}

AGGREGATORS = {
    "weighted_mean": aggregation.weighted_mean,
    "median": aggregation.coordinate_median,
    # The bound lies among the norms of the updates, so that some are clipped and some are not.
    "clip_mean": lambda: aggregation.chain(
        aggregation.clip_by_client_norm(0.3), then=aggregation.weighted_mean()
    ),
    "clip_median": lambda: aggregation.chain(
        aggregation.clip_by_client_norm(0.3), then=aggregation.coordinate_median()
    ),
}

# Name: (placement, lanes per device).
PLACEMENTS = {
    "one_lane": (placement.one_device, 1),
    "three_lanes": (placement.one_device, 3),
    "more_lanes_than_clients": (placement.one_device, 16),
    "pmap": (lambda: placement.pmap(4), 2),
    "mesh": (lambda: placement.mesh(4), 3),
    "mesh_split": (lambda: placement.mesh(2, splits=2), 2),
}

# Ten steps of a client do not fall together with its epochs, so its place carries over.
LOCAL_WORK = {
    "epochs": epochs(2, batch_size=BATCH_SIZE),
    "steps": steps(5, batch_size=BATCH_SIZE),
    "stored_order": epochs(1, batch_size=BATCH_SIZE, shuffle=False),
}

NUM_ROUNDS = 5
# Ragged cohorts: other clients, and another number of them, every round.
COHORTS = cohorts.listed([range(10), (9, 0, 4, 5), (3,), (8, 7, 6, 5, 1, 0, 2), (1, 2, 5, 8, 9, 3)])


class Outcome(NamedTuple):
    """What a run leaves, however it was run; everything on the host."""

    state: tuple
    client_states: tuple
    train_loss: np.ndarray


def run_sequentially(algorithm, dataset, work, *, num_rounds=NUM_ROUNDS, cohort=COHORTS, seed=0):
    """Plain Python, one client after the other: the reference."""
    train = dataset.train
    layout = spread(train.sizes, 1)
    resident = gather(train, layout)
    scheduler = Scheduler(train.sizes, layout, cohort, work, seed)
    chunk = build_chunk(
        [[scheduler.draw(r) for r in range(num_rounds)]],
        [seed],
        0,
        table_row=resident.table_row,
        num_lanes=1,
        num_slots=scheduler.max_slots,
        max_rounds=num_rounds,
        experiments=False,
    )
    data = jax.tree.map(lambda x: jnp.asarray(x[0]), resident.data)
    run_clients = SequentialExecutor(data, work, dataset.client_names)
    dtype = train.examples["x"].dtype
    variables = jax.tree.map(jnp.asarray, initial_variables(dtype))
    state = algorithm.init(variables)
    one = algorithm.init_client(variables)
    rows = jax.tree.map(lambda x: np.broadcast_to(x, (train.num_clients, *np.shape(x))), one)
    client_states = jax.tree.map(lambda x: jnp.asarray(x[0]), to_rows(rows, layout))
    losses = []
    for r in range(num_rounds):
        schedule = jax.tree.map(lambda x, r=r: jnp.asarray(x[0, r]), chunk.cohorts)
        result = algorithm.run_round(state, schedule._replace(states=client_states), run_clients)
        state, client_states = result.state, result.client_states
        losses.append(result.metrics.mean.get("train_loss", 0.0))
    client_states = from_rows(jax.tree.map(lambda x: x[None], client_states), layout)
    return Outcome(jax.tree.map(np.asarray, state), client_states, np.asarray(losses))


def run_placed(algorithm, dataset, work, name, *, num_rounds=NUM_ROUNDS, cohort=COHORTS, seed=0):
    """The engine, on one of `PLACEMENTS`."""
    make, lanes = PLACEMENTS[name]
    run = simulate(
        algorithm,
        dataset,
        task=make_task(dataset.train.examples["x"].dtype),
        rounds=num_rounds,
        local_work=work,
        cohort=cohort,
        placement=make(),
        lanes=lanes,
        seed=seed,
        rounds_per_call=num_rounds,
    )
    assert run.num_traces == 1
    loss = run.history.get("train_loss", np.zeros(num_rounds))
    return Outcome(run.state, run.client_states, loss)


@lru_cache
def dataset_of(dtype):
    return make_dataset(dtype=np.dtype(dtype))


@lru_cache
def compiled_gradient(dtype):
    """For the reference: its clients and steps are plain Python, only the gradient is compiled."""
    del dtype  # a compiled function of its own per precision
    return jax.jit(gradient(toy_loss))


@lru_cache(maxsize=64)
def reference(algorithm, aggregator, work, dtype="float32"):
    """What `run_sequentially` gives for named entries of the lists above; kept per process."""
    built = ALGORITHMS[algorithm](compiled_gradient(dtype), AGGREGATORS[aggregator]())
    return run_sequentially(built, dataset_of(dtype), LOCAL_WORK[work])


def assert_close(got, want, rtol, context="", *, siblings=False):
    """Compares pytrees leaf by leaf, relative to the largest number of a leaf.

    Relative to the leaf and not to each number: a number that is small because large ones
    cancel has the rounding errors of the large ones. With `siblings`, relative to the largest
    number of all leaves side by side, such as one moment of an optimizer for all parameters:
    a leaf may be a single number.
    """
    got_leaves, want_leaves = map(jax.tree_util.tree_leaves_with_path, (got, want))
    largest = {}
    for path, leaf in want_leaves:
        group = path[:-1] if siblings else path
        largest[group] = max(largest.get(group, 0), np.abs(leaf).max(initial=0))
    for (path, a), (want_path, b) in zip(got_leaves, want_leaves, strict=True):
        assert path == want_path
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape and a.dtype == b.dtype, f"{context}{path}: {a.dtype}, {b.dtype}"
        assert np.isfinite(b).all()
        atol = rtol * largest[path[:-1] if siblings else path]
        np.testing.assert_allclose(
            a, b, rtol=0, atol=atol, err_msg=f"{context}{jax.tree_util.keystr(path)}"
        )


def assert_identical(got, want):
    """Two pytrees of the same structure, bit for bit; not of no arrays at all."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    pairs = list(zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True))
    assert pairs, "nothing is compared"
    for (path, a), b in pairs:
        a, b = np.asarray(a), np.asarray(b)
        name = jax.tree_util.keystr(path)
        assert a.dtype == b.dtype, f"{name}: {a.dtype}, {b.dtype}"
        np.testing.assert_array_equal(a, b, err_msg=name, strict=True)


def prepare_chunk(
    build,
    dataset,
    work,
    place,
    lanes,
    *,
    num_rounds=NUM_ROUNDS,
    cohort=COHORTS,
    seeds=None,
    hyperparameters=None,
):
    """The program of a chunk of rounds and its arguments on the devices, as `simulate` makes them.

    `seeds` and `hyperparameters` `{name: [experiments]}` make it a program of experiments.
    """
    experiments = seeds is not None
    train = dataset.train
    layout = spread(train.sizes, place.num_devices)
    resident = gather(train, layout)
    schedulers = [Scheduler(train.sizes, layout, cohort, work, s) for s in seeds or (0,)]
    chunk = build_chunk(
        [[s.draw(r) for r in range(num_rounds)] for s in schedulers],
        seeds or (0,),
        0,
        table_row=resident.table_row,
        num_lanes=lanes,
        num_slots=schedulers[0].max_slots,
        max_rounds=num_rounds,
        experiments=experiments,
    )
    hyper = {n: np.asarray(v, np.float32) for n, v in (hyperparameters or {}).items()}
    first = {n: v[0] for n, v in hyper.items()} if experiments else hyper
    variables = jax.tree.map(jnp.asarray, initial_variables())
    algorithm = build(first)
    state, one = algorithm.init(variables), algorithm.init_client(variables)
    if experiments:
        state, one = jax.tree.map(lambda x: np.stack([x] * len(seeds)), (state, one))
    # Rows of the devices' client states lie behind the experiments.
    axis = 1 if experiments else 0
    rows = (place.num_devices, layout.rows_per_device)

    def spread_rows(x):
        x = np.expand_dims(np.asarray(x), axis)[None]
        return np.ascontiguousarray(
            np.broadcast_to(x, (rows[0], *x.shape[1 : axis + 1], rows[1], *x.shape[axis + 2 :]))
        )

    program = compile_rounds(build, work, place, experiments=experiments)
    args = (
        place.put(jax.tree.map(np.asarray, state), "replicated"),
        place.put(jax.tree.map(spread_rows, one), "per_device"),
        place.put(resident.data, "per_device"),
        place.put(chunk.cohorts, "per_device"),
        place.put(np.int32(num_rounds), "replicated"),
        place.put(hyper, "replicated"),
    )
    return program, args
