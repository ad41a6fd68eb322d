"""Records inside hospitals: Poisson samples, clipped gradients, noise, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from fedjax_med.algorithms import fed_sgd
from fedjax_med.engine import Batch, Task, Variables, placement, poisson_steps, simulate, steps
from fedjax_med.engine.minibatch import poisson_positions
from fedjax_med.privacy import PrivacyError, RecordLevel, private, record_gradient
from fedjax_med.privacy.record_gradient import clipped_gradient_sum
from tests.privacy.world import assert_scale, build, dataset_of, run, task_of

KEY = jax.random.key(3)


def plan_of(sizes, rounds=2, **settings):
    settings = {
        "clip_norm": 1.0,
        "delta": 1e-3,
        "noise_multiplier": 1.0,
        "batch_size": 4,
        "steps": 2,
        "largest_batch": 64,
        **settings,
    }
    return RecordLevel(**settings).plan(sizes=sizes, rounds=rounds)


# --- samples -----------------------------------------------------------------------------------


def draw(size, work, times=4000):
    keys = jax.random.split(KEY, times)
    one = jax.jit(jax.vmap(lambda key: poisson_positions(key, jnp.int32(size), work)))
    return tuple(np.asarray(x) for x in one(keys))


@pytest.mark.parametrize(
    "size, expected, largest", [(30, 8, 30), (1000, 32, 90), (9, 4, 5), (5, 8, 8)]
)
def test_poisson_samples(size, expected, largest):
    positions, mask, count = draw(size, poisson_steps(1, expected=expected, batch_size=largest))
    np.testing.assert_array_equal(mask.sum(axis=1), count)
    rate = min(1, expected / size)
    # Distinct records, all in range; padding reads record 0 and counts nothing.
    for places, inside in zip(positions[:200], mask[:200], strict=True):
        assert len(set(places[inside])) == inside.sum() and places.max() < size
        assert np.all(places[~inside] == 0)
    # Chi-square of the sizes against the truncated binomial, classes of at least 5 expected.
    pmf = stats.binom.pmf(np.arange(size + 1), size, rate)
    pmf = np.append(pmf[:largest], pmf[largest:].sum())
    seen = np.bincount(count, minlength=len(pmf))[: len(pmf)]
    assert seen.sum() == len(count)
    common = pmf * len(count) >= 5
    if common.sum() > 1:
        pmf, seen = (
            np.append(pmf[common], pmf[~common].sum()),
            np.append(seen[common], seen[~common].sum()),
        )
        keep = pmf > 1e-9
        assert stats.chisquare(seen[keep], len(count) * pmf[keep] / pmf[keep].sum()).pvalue > 1e-3
    # Every record as often as any other, and as often as accounted; not as with 1.5 times the rate.
    drawn = np.bincount(positions[mask], minlength=size) / len(count)
    wanted = count.mean() / size
    assert np.all(np.abs(drawn - wanted) < 5 * np.sqrt(wanted / len(count)))
    if largest >= size:
        assert abs(wanted - rate) < 5 * np.sqrt(rate / len(count) / size)


# --- gradients ---------------------------------------------------------------------------------


def logistic(variables, batch):
    x, (w, b) = batch.examples["x"], variables.params
    logits = x @ w + b
    return jnp.logaddexp(0, logits) - batch.examples["y"] * logits, variables.state


def reference(x, y, mask, w, b, bound):
    total_w, total_b = np.zeros_like(w), 0.0
    for row, label, counted in zip(np.float64(x), y, mask, strict=True):
        error = 1 / (1 + np.exp(-(row @ w + b))) - label
        norm = np.sqrt(np.sum((error * row) ** 2) + error**2)
        if counted and np.isfinite(norm):
            total_w += error * row * min(1, bound / norm)
            total_b += error * min(1, bound / norm)
    return total_w, total_b


@pytest.mark.parametrize("microbatch", [1, 3, 7, 50])
def test_clipped_sum_is_that_of_records_one_by_one(microbatch):
    rng = np.random.default_rng(0)
    x, y = np.float32(3 * rng.normal(size=(7, 4))), rng.integers(0, 2, 7).astype(np.float32)
    x[5] = np.nan  # a record whose gradient is not finite adds nothing
    mask = np.array([1, 1, 0, 1, 1, 1, 1], bool)
    w, b = rng.normal(size=4), 0.3
    batch = Batch(
        {"x": jnp.asarray(x), "y": jnp.asarray(y)}, jnp.asarray(mask), jnp.float32(6), KEY
    )
    variables = Variables((jnp.float32(w), jnp.float32(b)))
    total, _ = jax.jit(lambda v, m: clipped_gradient_sum(logistic, v, m, 0.7, microbatch))(
        variables, batch
    )
    want = reference(x, y, mask, np.float64(np.float32(w)), np.float64(np.float32(b)), 0.7)
    for got, right in zip(total, want, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-6)


def sum_of(rows, mask=None):
    """The clipped sum of the gradients of `params . x`, which are the rows."""
    rows = jnp.asarray(rows, jnp.float32)
    mask = jnp.ones(len(rows), bool) if mask is None else jnp.asarray(mask)
    batch = Batch({"x": rows}, mask, jnp.float32(len(rows)), KEY)
    loss = task_of(rows.shape[1]).loss
    return np.float64(clipped_gradient_sum(loss, Variables(jnp.zeros(3)), batch, 1.5, 2)[0])


def check_record_sensitivity():
    rng = np.random.default_rng(1)
    rows = 10 * rng.normal(size=(5, 3))
    whole = sum_of(rows)
    for i in range(5):
        removed = sum_of(rows, np.arange(5) != i)  # what padding is, too
        assert np.linalg.norm(whole - removed) <= 1.5 * (1 + 1e-6)
        for other in (-rows[i], np.full(3, np.inf), np.full(3, 1e25)):
            replaced = rows.copy()
            replaced[i] = other
            assert np.linalg.norm(whole - sum_of(replaced)) <= 3.0 * (1 + 1e-6)


def test_records_move_the_sum_by_no_more_than_the_clip_bound():
    check_record_sensitivity()


def test_mutant_without_clipping_of_records_is_caught(monkeypatch):
    original = record_gradient.clip_and_sum
    monkeypatch.setattr(
        record_gradient, "clip_and_sum", lambda g, w, bound, **kw: original(g, w, jnp.inf, **kw)
    )
    with pytest.raises(AssertionError):
        check_record_sensitivity()


# --- whole runs --------------------------------------------------------------------------------


def test_noise_of_every_local_step():
    plan = plan_of([3, 6], rounds=1, steps=2, clip_norm=2.0, noise_multiplier=1.5)
    # Hospitals of 3 and 6 records: two steps each, noise 3 over an expected 3 and 4 records; the
    # mean of models is weighted by records.
    rows = [np.zeros((3, 20_000)), np.zeros((6, 20_000))]
    result = run(plan, rows)
    scale = np.sqrt(2) * 3.0 * np.hypot(3 / 9 / 3, 6 / 9 / 4)
    assert_scale(result.variables.params, scale)


@pytest.mark.slow  # two placements to compile
def test_placements_agree():
    rng = np.random.default_rng(5)
    rows = [rng.normal(size=(n, 6)) for n in (5, 9, 2, 12)]
    plan = plan_of([5, 9, 2, 12], batch_size=4, largest_batch=12, microbatch_size=5)
    one, split = (
        run(plan, rows, rounds=2, placement=where)
        for where in (placement.one_device(), placement.mesh(2, splits=2))
    )
    # Float32 sums in another order.
    np.testing.assert_allclose(split.variables.params, one.variables.params, rtol=1e-5, atol=1e-5)
    assert np.isfinite(one.history["train_loss"]).all()


def test_each_hospital_has_its_own_epsilon():
    plan = plan_of([10, 40, 20], rounds=3, largest_batch=40)
    each = [e.value for e in plan.ledger.each_after(3)]
    assert each[0] > each[2] > each[1]
    assert plan.epsilon_after(3).value == each[0]
    assert "each record" in plan.statement(3)
    # Two steps a round are two releases.
    assert plan.epsilon_after(3).value == plan_of([10], 6, steps=1).epsilon_after(6).value


# --- refusals ----------------------------------------------------------------------------------


def simulated(build_algorithm, plan, **options):
    rows = [np.ones((5, 2)), np.ones((9, 2))]
    task = task_of(2)
    options.setdefault("local_work", plan.local_work)
    return simulate(
        private(build_algorithm, plan, task=task), dataset_of(rows), task=task, rounds=1, **options
    )


def test_other_local_work_is_refused():
    with pytest.raises(ValueError, match="local_work must be what the privacy plan accounts for"):
        simulated(build, plan_of([5, 9]), local_work=steps(2, batch_size=4))


def test_other_hospitals_are_refused():
    with pytest.raises(ValueError, match=r"hospitals with \[5, 10\] training records"):
        simulated(build, plan_of([5, 10]))


def reading_losses(gradient_fn, aggregator):
    algorithm = build(gradient_fn, aggregator)

    def run_round(state, cohort, run_clients):
        def looked_at(*args, **options):
            result = run_clients(*args, **options)
            return result._replace(aggregate=result.metrics.mean["train_loss"])

        return algorithm.run_round(state, cohort, looked_at)

    return algorithm._replace(run_round=run_round)


def reading_examples(gradient_fn, aggregator):
    def gradient(variables, batch):
        result = gradient_fn(variables, batch)
        return result._replace(grads=result.grads + batch.examples["x"][0])

    return build(gradient, aggregator)


def two_gradients(gradient_fn, aggregator):
    def gradient(variables, batch):
        first = gradient_fn(variables, batch)
        return first._replace(grads=first.grads + gradient_fn(variables, batch).grads)

    return build(gradient, aggregator)


@pytest.mark.parametrize(
    "algorithm, message",
    [
        (reading_examples, "looks into the examples of a hospital around the private gradient"),
        (reading_losses, "looks into the clients' metrics"),
        (two_gradients, "takes 2 gradients in a local step"),
    ],
)
def test_algorithms_that_read_around_the_private_gradient(algorithm, message):
    with pytest.raises(PrivacyError, match=message):
        simulated(algorithm, plan_of([5, 9]))


def test_no_algorithm_learns_how_many_records_were_drawn():
    """FedSGD weights its gradients by `count`; with one learning rate it is FedAvg of one step."""
    plan = plan_of([5, 9], steps=1, noise_multiplier=0.0, clip_norm=100.0)
    by_gradient = simulated(
        lambda g, a: fed_sgd(
            lambda v, batch: g(v, batch)._replace(grads=jnp.full(2, batch.count)), optax.sgd(1.0)
        ),
        plan,
    )
    # The mean over hospitals of an expected four records, whatever was drawn.
    np.testing.assert_allclose(by_gradient.variables.params, -4.0, rtol=1e-6)


def test_batch_statistics_are_refused():
    task = task_of(2)
    with_state = Task(
        lambda seed: Variables(jnp.zeros(2), {"mean": jnp.zeros(2)}),
        task.loss,
        task.metrics,
        ("x",),
    )
    plan = plan_of([5, 9])
    algorithm = private(build, plan, task=with_state)
    with pytest.raises(ValueError, match=r"records do not meet.*\['mean'\]"):
        simulate(
            algorithm,
            dataset_of([np.ones((5, 2)), np.ones((9, 2))]),
            task=with_state,
            rounds=1,
            local_work=plan.local_work,
        )


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"delta": 0.2}, "below 1/9, one over the number of records, got 0.2"),
        ({"clip_norm": 0.0}, "clip_norm must be positive and finite, got 0.0"),
        ({"largest_batch": 3}, "largest_batch must be at least batch_size 4, got 3"),
        ({"noise_multiplier": -1.0}, "noise_multiplier must be 0 or more and finite, got -1.0"),
        ({"steps": 0}, "steps must be positive"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        plan_of([5, 9], **settings)
