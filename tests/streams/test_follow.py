"""Following a stream against plain gradient descent in NumPy, period by period, and against `simulate`."""

from functools import lru_cache

import jax
import numpy as np
import optax
import pytest

from fedjax_med.algorithms import ditto, fed_avg, fine_tuned, local_only
from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.engine import epochs, grid, simulate
from fedjax_med.models import linear
from fedjax_med.streams import Stream, follow, in_periods
from fedjax_med.tasks import regression

RATE, ROUNDS = 0.1, 2
# Periods by clients: one client is silent in the middle, one begins late.
ARRIVALS = np.array([[3, 0, 2], [2, 3, 0], [4, 1, 0], [1, 2, 3]])


def make_stream(arrivals=ARRIVALS, seed=0):
    rng = np.random.default_rng(seed)
    sizes = arrivals.sum(axis=0)
    x = rng.normal(size=(sizes.sum(), 2)).astype(np.float32)
    y = (x @ [1.0, -2.0] + rng.normal(size=len(x))).astype(np.float32)
    names = tuple("ABC"[: arrivals.shape[1]])
    dataset = FederatedDataset("toy", names, ClientArrays({"x": x, "y": y}, sizes))
    zero = np.zeros((1, len(names)), np.int64)
    return Stream(dataset, np.concatenate([zero, arrivals.cumsum(axis=0)]))


STREAM = make_stream()
MODEL = linear(1)
TASK = regression(MODEL, STREAM.dataset.train.examples)
# Minibatches hold all that a client has: plain gradient descent.
WORK = epochs(1, batch_size=32, shuffle=False)


def run(algorithm, stream=STREAM, **options):
    given = {"task": TASK, "model": MODEL, "rounds": ROUNDS, "local_work": WORK}
    return follow(algorithm, stream, **{**given, **options})


def initial():
    layer = jax.tree.leaves(TASK.init(0).params)
    kernel = next(np.float64(x) for x in layer if x.size == 2).reshape(2)
    return kernel, float(next(x for x in layer if x.size == 1).reshape(()))


def by_hand(window=None, until=None, alone=False):
    """Prequential outputs and final models, in float64."""
    stream, train = STREAM, STREAM.dataset.train
    models = [initial()] * 3
    outputs = []
    for period in range(stream.num_periods):
        if period:
            for c in range(3):
                x = train.client(c)["x"][stream.ends[period, c] : stream.ends[period + 1, c]]
                outputs.append(np.float64(x) @ models[c][0] + models[c][1])
        if until is not None and period > until:
            continue
        first = 0 if window is None else max(0, period + 1 - window)
        for _ in range(ROUNDS):
            moved, weight = {}, {}
            for c in range(3):
                rows = slice(stream.ends[first, c], stream.ends[period + 1, c])
                x, y = (np.float64(train.client(c)[key][rows]) for key in ("x", "y"))
                if not len(x):
                    continue
                kernel, bias = models[c]
                error = x @ kernel + bias - y
                moved[c] = (kernel - RATE * x.T @ error / len(x), bias - RATE * error.mean())
                weight[c] = len(x)
            if alone:
                models = [moved.get(c, models[c]) for c in range(3)]
            else:
                total = sum(weight.values())
                shared = tuple(sum(weight[c] * moved[c][i] for c in moved) / total for i in (0, 1))
                models = [shared] * 3
    return np.concatenate(outputs), models


def sgd(rate=RATE):
    return fed_avg(TASK.gradient, optax.sgd(rate))


@pytest.mark.parametrize(
    "options", [{}, {"window": 2}, {"window": 1, "until": 2}], ids=["all", "window", "until"]
)
def test_it_is_gradient_descent_on_what_has_come(options):
    got = run(sgd(), **options) if options else plain()
    outputs, models = by_hand(**options)
    # Float32 sums of three products, eight rounds long.
    np.testing.assert_allclose(got.outputs[0, :, 0], outputs, atol=1e-5)
    final = {x.size: np.ravel(x) for x in jax.tree.leaves(got.variables.params)}
    np.testing.assert_allclose(final[2], models[0][0], atol=1e-5)
    assert got.num_traces == 1


def test_clients_that_train_alone_keep_their_models():
    got = run(local_only(TASK.gradient, optax.sgd(RATE)))
    outputs, _ = by_hand(alone=True)
    np.testing.assert_allclose(got.outputs[0, :, 0], outputs, atol=1e-5)


@lru_cache
def plain():
    return run(sgd())


def test_examples_come_with_period_client_and_label():
    got = plain()
    want = [(p, c) for p in range(1, 4) for c in range(3) for _ in range(ARRIVALS[p, c])]
    assert list(zip(got.period.tolist(), got.client.tolist(), strict=True)) == want
    rows = np.concatenate([STREAM.rows(p) for p in range(1, 4)])
    np.testing.assert_array_equal(got.labels, STREAM.dataset.train.examples["y"][rows])
    assert got.history["train_loss"].shape == (1, 4, ROUNDS)


def test_what_comes_later_changes_nothing_before():
    """Prediction first: the outputs of a period know neither its labels nor the future."""
    train = STREAM.dataset.train
    changed = train.examples["y"].copy()
    later = np.concatenate([STREAM.rows(2), STREAM.rows(3)])
    changed[later] += 50
    arrays = ClientArrays({"x": train.examples["x"], "y": changed}, train.sizes)
    other = Stream(STREAM.dataset.replace(train=arrays), STREAM.ends)
    before, after = plain(), run(sgd(), other)
    known = before.period <= 2
    np.testing.assert_array_equal(before.outputs[:, known], after.outputs[:, known])
    assert np.abs(before.outputs[:, ~known] - after.outputs[:, ~known]).max() > 1


def test_experiments_are_those_run_alone():
    work = epochs(1, batch_size=2)  # shuffled, so that seeds differ
    both = run(
        lambda rate: sgd(rate),
        experiments=grid(seed=[0, 3], rate=[0.05, RATE]),
        local_work=work,
    )
    assert both.num_traces == 1 and both.outputs.shape[0] == 4
    alone = run(sgd(), experiments=grid(seed=[3]), local_work=work)
    np.testing.assert_allclose(both.outputs[3], alone.outputs[0], atol=1e-6)
    for other in (0, 1, 2):
        assert np.abs(both.outputs[other] - both.outputs[3]).max() > 1e-3


def test_a_stream_of_everything_at_once_is_simulate():
    """One period with all examples, another with one more each, after which nobody trains."""
    arrivals = np.array([[6, 9, 5], [1, 1, 1]])
    stream = make_stream(arrivals, seed=1)
    first = stream.dataset.replace(
        train=ClientArrays(
            {k: v[stream.rows(0)] for k, v in stream.dataset.train.examples.items()}, arrivals[0]
        )
    )
    # Shuffled minibatches and states of clients: keys and cursors are the same, too.
    work = epochs(2, batch_size=2)
    algorithm = ditto(TASK.gradient, optax.sgd(0.05), lam=0.3)
    want = simulate(algorithm, first, task=TASK, rounds=ROUNDS, local_work=work)
    got = run(algorithm, stream, until=0, local_work=work)
    for a, b in zip(
        jax.tree.leaves((got.variables, got.client_states)),
        jax.tree.leaves((want.variables, want.client_states)),
        strict=True,
    ):
        # Lanes may differ, and with them the order of sums.
        np.testing.assert_allclose(a[0], b, atol=1e-6)


def test_pooled_clients_see_the_same_arrivals():
    pooled = STREAM.pooled()
    assert pooled.arrivals[:, 0].tolist() == ARRIVALS.sum(axis=1).tolist()
    for period in range(4):
        np.testing.assert_array_equal(
            pooled.dataset.train.examples["y"][pooled.rows(period)],
            STREAM.dataset.train.examples["y"][STREAM.rows(period)],
        )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"window": 0}, "window must be at least 1 period, or None, got 0"),
        ({"until": 4}, "until must be a period from 0 to 3, got 4"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"experiments": grid(seed=[0]).for_each([[0]])}, "about all clients"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        run(sgd(), **options)


def test_algorithms_that_adapt_before_judging_are_refused():
    algorithm = fine_tuned(sgd(), TASK.gradient, optax.sgd(0.1))
    with pytest.raises(ValueError, match="must not adapt before it is judged"):
        run(algorithm)


def test_streams_without_anybody_to_judge_are_refused():
    with pytest.raises(ValueError, match="must have examples after its first period"):
        run(sgd(), make_stream(np.array([[2, 3], [0, 0]])))


def test_in_periods_of_equal_parts():
    stream = in_periods(STREAM.dataset, 5)
    assert stream.arrivals.sum(axis=0).tolist() == STREAM.dataset.train.sizes.tolist()
    assert np.ptp(stream.arrivals, axis=0).max() <= 1
