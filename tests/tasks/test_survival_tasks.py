"""Survival tasks against float64 definitions, hand-worked numbers and known limits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med import algorithms, models, tasks
from fedjax_med.data import ClientArrays, DataError, FederatedDataset
from fedjax_med.engine import Batch, epochs, placement, simulate
from fedjax_med.tasks.partial_likelihood import cox_losses, cumulative_log_sum_exp
from tests.draws import draws
from tests.tasks.survival_oracles import concordance, discrete_likelihood, partial_likelihood

N = 12
TIES = pytest.mark.parametrize("ties", ["efron", "breslow", "order"])
COX = {ties: jax.jit(partial(cox_losses, ties=ties)) for ties in ("efron", "breslow", "order")}
CUMULATIVE = jax.jit(cumulative_log_sum_exp)
EPS = np.finfo(np.float32).eps


def patients(seed, n=N, distinct=5):
    """Scores, times with ties, and events."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(scale=rng.choice([0.1, 1, 30]), size=n).astype(np.float32)
    time = rng.integers(0, distinct, n).astype(np.float32)
    return scores, time, (rng.random(n) < rng.random()).astype(np.int32)


def batch_of(x, time, event, mask=None):
    examples = {"x": jnp.asarray(x), "time": jnp.asarray(time), "event": jnp.asarray(event)}
    mask = np.ones(len(time), bool) if mask is None else mask
    return Batch(examples, jnp.asarray(mask), jnp.float32(mask.sum()), jax.random.key(0))


def identity(width=1):
    """A model whose outputs are the first columns of `x` times a parameter that is 1."""
    return models.from_function(
        lambda key, x: jnp.ones((), x.dtype), lambda params, x: params * x[:, :width]
    )


@TIES
@draws(60, 500)
@given(seed=st.integers(0, 2**31 - 1))
def test_terms_sum_to_the_partial_likelihood(ties, seed):
    scores, time, event = patients(seed)
    mask = np.random.default_rng(seed).random(N) < 0.8
    got = np.float64(COX[ties](scores, time, event, mask)).sum()
    want = partial_likelihood(scores[mask], time[mask], event[mask], ties)
    # Every term is a difference of numbers of the size of the scores, rounded a few times; with
    # d tied events, log1p loses a factor of up to d.
    bound = 8 * N * EPS * (np.abs(scores).max() + 5) * N
    assert abs(got - want) <= bound


@TIES
def test_terms_of_more_patients_than_a_block_in_float64(ties):
    rng = np.random.default_rng(3)
    scores, time = 20 * rng.standard_normal(150), rng.integers(0, 40, 150).astype(float)
    event = rng.integers(0, 2, 150)
    with jax.enable_x64(True):
        got = COX[ties](scores, time, event, np.ones(150, bool))
        assert got.dtype == np.float64
    want = partial_likelihood(scores, time, event, ties)
    np.testing.assert_allclose(np.asarray(got).sum(), want, rtol=1e-12)


def test_likelihoods_worked_by_hand():
    """Equal risks; two die at time 1, one is censored at 2: 3 at risk, then Efron's 3 - 1."""
    scores, time = np.zeros(3, np.float32), np.array([1, 1, 2], np.float32)
    event, mask = np.array([1, 1, 0]), np.ones(3, bool)
    sums = {ties: float(COX[ties](scores, time, event, mask).sum()) for ties in COX}
    assert sums["breslow"] == pytest.approx(2 * np.log(3), rel=1e-6)
    assert sums["efron"] == pytest.approx(np.log(3) + np.log(2), rel=1e-6)
    terms = COX["order"](scores, time, event, mask)
    np.testing.assert_allclose(terms, np.log([2, 3, 1]), rtol=1e-6)


@TIES
def test_the_gradient_is_that_of_the_definition(ties):
    scores, time, event = patients(12)
    scores = np.float64(scores) / 10
    assert len(np.unique(time[event > 0])) < (event > 0).sum()  # there are tied events
    with jax.enable_x64(True):
        total = lambda s: COX[ties](s, np.float64(time), event, np.ones(N, bool)).sum()
        got, hessian = np.asarray(jax.grad(total)(scores)), np.asarray(jax.hessian(total)(scores))
    step = 1e-5 * np.eye(N)
    value = lambda s: partial_likelihood(s, time, event, ties)
    want = [(value(scores + h) - value(scores - h)) / 2e-5 for h in step]
    # Central differences: step squared, and rounding of the values over the step.
    np.testing.assert_allclose(got, want, atol=1e-9)
    np.testing.assert_allclose(hessian.sum(axis=1), 0, atol=1e-12)  # a shift of all changes nothing
    assert np.linalg.eigvalsh(hessian).min() > -1e-12  # convex


NOBODY_TO_COMPARE = {
    "no event": (np.arange(N), np.zeros(N, int), np.ones(N, bool)),
    "one patient": (np.arange(N), np.ones(N, int), np.arange(N) == 4),
    "only the last dies": (np.arange(N), (np.arange(N) == N - 1).astype(int), np.ones(N, bool)),
    "nobody": (np.arange(N), np.ones(N, int), np.zeros(N, bool)),
}


@TIES
@pytest.mark.parametrize(
    "time, event, mask", NOBODY_TO_COMPARE.values(), ids=NOBODY_TO_COMPARE.keys()
)
def test_without_a_comparison_loss_and_gradient_are_exactly_zero(ties, time, event, mask):
    scores = np.linspace(-40, 40, N).astype(np.float32)
    total = lambda s: COX[ties](s, time.astype(np.float32), event, mask).sum()
    value, gradient = jax.value_and_grad(total)(scores)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros(N, np.float32))


@TIES
def test_extreme_scores_keep_loss_and_gradient_finite(ties):
    scores = np.where(np.arange(N) % 2, 1e4, -1e4).astype(np.float32)
    _, time, event = patients(12)
    total = lambda s: COX[ties](s, time, event, np.ones(N, bool)).sum()
    value, gradient = jax.value_and_grad(total)(scores)
    assert value > 1e3 and np.isfinite(gradient).all()


@TIES
def test_padding_changes_nothing_at_all(ties):
    scores, time, event = patients(12)
    mask = np.arange(N) < 9
    junk = np.where(mask, scores, np.float32(50)), np.where(mask, time, 2), np.where(mask, event, 1)
    total = lambda s, t, e: COX[ties](s, np.float32(t), e, mask).sum()
    got = jax.value_and_grad(total)(*junk)
    want = jax.value_and_grad(total)(scores, time, event)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    np.testing.assert_array_equal(COX[ties](*junk, mask)[9:], np.zeros(3))


@draws(30, 300)
@given(seed=st.integers(0, 2**31 - 1), size=st.sampled_from([1, 7, 9]))
def test_cumulative_sums_of_exponentials(seed, size):
    values = np.random.default_rng(seed).uniform(-100, 100, size).astype(np.float32)
    want = np.logaddexp.accumulate(np.float64(values))
    # Relative to the largest number; exponentials that are smaller by 1e-40 are lost as they should.
    np.testing.assert_allclose(CUMULATIVE(jnp.asarray(values)), want, atol=4 * EPS * 100)


def test_the_cox_task():
    scores, time, event = patients(12)
    mask = np.arange(N) < 10
    batch = batch_of(scores[:, None], time, event, mask)
    task = tasks.cox(identity(), batch.examples)
    variables = task.init(0)
    sums = jax.jit(task.metrics)(variables, batch)
    assert set(sums) == set(task.metric_names) and task.higher_is_better == (False, True)
    got = {name: [float(batch.masked_sum(v)) for v in pair] for name, pair in sums.items()}
    want = partial_likelihood(scores[mask], time[mask], event[mask], "efron")
    assert got["loss"] == pytest.approx([want, 10], rel=1e-5)
    # Counts of pairs are exact.
    assert tuple(got["c_index"]) == concordance(scores[mask], time[mask], event[mask])
    # The mean over patients, not over events.
    assert float(jax.jit(task.gradient)(variables, batch).loss) == pytest.approx(
        want / 10, rel=1e-5
    )
    # A TypeError of the checked annotations, a ValueError without them.
    with pytest.raises((ValueError, TypeError), match="exact"):
        tasks.cox(identity(), batch.examples, ties="exact")


def hospitals(sizes=(7, 12, 5)):
    rng = np.random.default_rng(2)

    def one(n):
        x = rng.standard_normal((n, 2)).astype(np.float32)
        time = np.ceil(5 * rng.exponential(np.exp(-x[:, 0]))).astype(np.float32)
        return {"x": x, "time": time, "event": (rng.random(n) < 0.7).astype(np.int32)}

    clients = {f"hospital {i}": one(n) for i, n in enumerate(sizes)}
    return FederatedDataset.from_clients(clients, test=clients, name="survival")


def test_risk_sets_reach_over_devices_that_share_a_minibatch():
    dataset = hospitals()
    task = tasks.cox(models.linear(), dataset.train.examples)
    run = lambda place: simulate(
        algorithms.fed_sgd(task.gradient, optax.sgd(0.5)),
        dataset,
        task=task,
        rounds=2,
        local_work=epochs(1, batch_size=12),
        placement=place,
        evaluate_every=2,
    )
    whole, split = run(placement.one_device()), run(placement.mesh(1, splits=2))
    assert np.abs(whole.variables.params["kernel"]).max() > 0.05
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)  # sums in another order
    jax.tree.map(close, whole.variables.params, split.variables.params)
    jax.tree.map(close, whole.evaluations[-1].pooled, split.evaluations[-1].pooled)


EDGES = (1.0, 2.0, 4.0)


def test_discrete_time_likelihood():
    """Times before, at and after every edge, seen and censored."""
    time = np.tile(np.array([0, 0.5, 1, 1.5, 2, 3, 4, 5], np.float32), 2)
    event = np.repeat([1, 0], 8)
    logits = np.random.default_rng(0).standard_normal((16, 3)).astype(np.float32)
    batch = batch_of(logits, time, event)
    task = tasks.discrete_time_survival(identity(3), batch.examples, edges=EDGES)
    variables = task.init(0)
    losses, _ = jax.jit(task.loss)(variables, batch)
    want = discrete_likelihood(logits, time, event, EDGES)
    np.testing.assert_allclose(losses, want, rtol=1e-5, atol=1e-6)  # a few float32 softplus
    assert want[8] == want[9] == 0  # censored inside the first interval: nothing is known
    curves = tasks.survival_curve(logits)
    np.testing.assert_allclose(curves, np.cumprod(1 - 1 / (1 + np.exp(-logits)), axis=1), rtol=1e-6)
    sums = jax.jit(task.metrics)(variables, batch)
    assert float(sums["loss"][0].sum()) == pytest.approx(want.sum(), rel=1e-5)
    pairs = [float(v.sum()) for v in sums["c_index"]]
    assert pairs == list(concordance(-curves.sum(axis=1), time, event))


def test_the_best_constant_hazards_are_those_of_a_life_table():
    rng = np.random.default_rng(1)
    time, event = rng.integers(0, 7, 40).astype(np.float32), rng.integers(0, 2, 40)
    lower = (-np.inf, *EDGES[:-1])
    died = [
        ((a < time) & (time <= b) & (event > 0)).sum() for a, b in zip(lower, EDGES, strict=True)
    ]
    survived = [((time > b) | ((time == b) & (event == 0))).sum() for b in EDGES]
    hazard = np.array(died) / (np.array(died) + survived)
    assert ((hazard > 0) & (hazard < 1)).all()
    constant = models.from_function(
        lambda key, x: jnp.asarray(np.log(hazard / (1 - hazard)), jnp.float32),
        lambda params, x: jnp.broadcast_to(params[None], (len(x), 3)),
    )
    batch = batch_of(np.zeros((40, 1), np.float32), time, event)
    task = tasks.discrete_time_survival(constant, batch.examples, edges=EDGES)
    gradient = jax.jit(task.gradient)(task.init(0), batch).grads
    np.testing.assert_allclose(gradient, np.zeros(3), atol=1e-6)  # of sums of numbers below 1


@pytest.mark.parametrize("edges", [(), (2.0, 1.0), (1.0, np.inf)])
def test_edges_must_ascend(edges):
    batch = batch_of(np.zeros((2, 3), np.float32), np.ones(2, np.float32), np.ones(2, int))
    with pytest.raises(ValueError, match="edges must be finite and ascending"):
        tasks.discrete_time_survival(identity(3), batch.examples, edges=edges)
    task = tasks.discrete_time_survival(identity(2), batch.examples, edges=EDGES)
    with pytest.raises(ValueError, match=r"each of the 3 intervals, got shape \[2, 2\]"):
        task.loss(task.init(0), batch)


def test_interval_edges_divide_the_events():
    time = np.arange(60, dtype=np.float32)
    event = np.where(time < 30, 1, 0).astype(np.int32)  # events at 0 to 29
    train = ClientArrays({"time": time, "event": event}, np.array([20, 0, 40]))
    edges = tasks.interval_edges(train, 4)
    counts = np.histogram(time[event > 0], [-np.inf, *edges, np.inf])[0]
    np.testing.assert_array_equal(counts, [6, 6, 6, 6, 6])
    two = ClientArrays({"time": np.float32([3, 5, 9]), "event": np.array([1, 1, 0])}, np.array([3]))
    np.testing.assert_array_equal(tasks.interval_edges(two, 4), [4])
    with pytest.raises(DataError, match="two different times"):
        tasks.interval_edges(two.take([]), 4)
    with pytest.raises(DataError, match="num must be at least 1, got 0"):
        tasks.interval_edges(two, 0)
