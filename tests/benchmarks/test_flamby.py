"""FLamby's protocol against loops written from its code, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.flamby import judging, protocol, settings, strategies
from benchmarks.flamby.strategies import Rates
from fedjax_med import algorithms, models, tasks
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import Batch, Cohort, CohortResult, Variables, cohorts, epochs, steps
from fedjax_med.evaluation import Outcome, concordance
from tests.algorithms import numpy_world
from tests.algorithms.numpy_world import BATCH_SIZE, FEATURES, Hospital, grad, hessian

SEEDS, ROUNDS, LOCAL_STEPS, EPOCHS = 2, 5, 3, 2
RATES = {
    "FedAvg": Rates(0.3),
    "FedProx": Rates(0.3, mu=0.7),
    "SCAFFOLD": Rates(0.2),
    "Cyclic": Rates(0.4),
    "FedAdagrad": Rates(0.3, server=0.2),
    "FedAdam": Rates(0.2, server=0.05),
    "FedYogi": Rates(0.2, server=0.05),
}
ADAM = 0.05
HOSPITALS = numpy_world.hospitals((7, 12, 5))
CENTRES = {  # the same patients on another scale
    "FLamby's": HOSPITALS,
    "federated": [Hospital(h.x * [0.5, 2.0, 0.25, 1.0], h.y) for h in HOSPITALS],
}


def together(hospitals):
    return Hospital(*(np.concatenate(field) for field in zip(*hospitals, strict=True)))


def dataset(hospitals):
    arrays = {
        f"centre {i}": {"x": h.x[:, :-1].astype(np.float32), "y": h.y.astype(np.int32)}
        for i, h in enumerate(hospitals)
    }
    return FederatedDataset.from_clients(arrays, test=arrays, name="toy")


@pytest.fixture(scope="module")
def setting():
    inputs = {how: dataset(hospitals) for how, hospitals in CENTRES.items()}
    examples = inputs["federated"].train.examples
    logistic = tasks.binary_classification(models.linear(), examples)
    return settings.Setting(
        name="toy",
        metric_name="accuracy",
        centres=("centre 0", "centre 1", "centre 2"),
        inputs=inputs,
        pooled_inputs=inputs,
        task=settings.started_as_in_pytorch(logistic, FEATURES),
        likelihood=logistic,
        labels=lambda examples: examples["y"],
        score=settings.accuracy,
        rates=RATES,
        rounds=ROUNDS,
        local_work=steps(LOCAL_STEPS, batch_size=BATCH_SIZE, shuffle=False),
        alone_work=epochs(EPOCHS, batch_size=BATCH_SIZE, shuffle=False),
        adam_rate=ADAM,
    )


@pytest.fixture(scope="module")
def trained(setting):
    return {(t.method, t.inputs): t for t in protocol.train_all(setting, SEEDS)}


class Loader:
    """A hospital's minibatches without end, the last one of an epoch short."""

    def __init__(self, hospital):
        self._batches, self._next = list(hospital.minibatches()), 0

    def train(self, w, rate, direction=lambda g, y: g):
        y = w.copy()
        for _ in range(LOCAL_STEPS):
            batch = self._batches[self._next % len(self._batches)]
            y, self._next = y - rate * direction(grad(y, batch), y), self._next + 1
        return y


def averaging(name, w, hospitals):
    rates, loaders = RATES[name], [Loader(h) for h in hospitals]
    shares = np.array([len(h.y) for h in hospitals]) / sum(len(h.y) for h in hospitals)
    m, v = np.zeros_like(w), np.zeros_like(w)
    for _ in range(ROUNDS):

        def proximal(g, y, w=w):
            return g + rates.mu * (y - w)

        delta = shares @ np.stack([c.train(w, rates.client, proximal) - w for c in loaders])
        m, d2 = 0.9 * m + 0.1 * delta, delta**2
        if name == "FedAdagrad":
            v = v + d2
        elif name == "FedAdam":
            v = 0.999 * v + 0.001 * d2
        elif name == "FedYogi":
            v = v - 0.001 * d2 * np.sign(v - d2)
        w = w + (rates.server * m / (np.sqrt(v) + 1e-8) if v.any() else delta)
    return w


def scaffold(w, hospitals):
    """With FLamby's one correction per centre in place of two control variates."""
    rate, loaders = RATES["SCAFFOLD"].client, [Loader(h) for h in hospitals]
    shares = np.array([len(h.y) for h in hospitals]) / sum(len(h.y) for h in hospitals)
    corrections = np.zeros((len(hospitals), len(w)))
    for _ in range(ROUNDS):
        local = np.stack(
            [
                c.train(w, rate, lambda g, y, own=own: g - own)
                for c, own in zip(loaders, corrections, strict=True)
            ]
        )
        w = shares @ local
        corrections += (w - local) / (rate * LOCAL_STEPS)
    return w


def cyclic(w, hospitals, seed, handed_on):
    loaders, own = [Loader(h) for h in hospitals], [w] * len(hospitals)
    for r in range(ROUNDS):
        (turn,) = cohorts.cyclic().draw(len(hospitals), r, seed)
        w = loaders[turn].train(w if handed_on else own[turn], RATES["Cyclic"].client)
        own[turn] = w
    return w if handed_on else own[0]


def adam(w, hospital):
    m, v, t = np.zeros_like(w), np.zeros_like(w), 0
    for _ in range(EPOCHS):
        for batch in hospital.minibatches():
            g, t = grad(w, batch), t + 1
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            w = w - ADAM * step
    return w


def newton(hospital):
    """The bias, which comes last, is not penalised."""
    penalised = protocol.RIDGE * np.r_[np.ones(FEATURES), 0.0]
    w = np.zeros(FEATURES + 1)
    for _ in range(protocol.NEWTON_ROUNDS):
        n = len(hospital.y)
        slope = n * grad(w, hospital) + penalised * w
        w = w - np.linalg.solve(n * hessian(w, hospital) + np.diag(penalised), slope)
    return w


def test_every_row_is_that_of_a_loop_written_from_flambys_code(setting, trained):
    names = [*RATES, "Cyclic, not handed on", "Local 0", "Local 1", "Local 2", "Pooled"]
    both = {(name, how) for name in names for how in CENTRES}
    assert set(trained) == both | {("Newton", "federated")}
    for (name, how), row in trained.items():
        hospitals = CENTRES[how]
        for seed in range(len(row.params["bias"])):
            first = settings.torch_linear(seed, FEATURES).params
            w = np.r_[first["kernel"][:, 0], first["bias"]].astype(np.float64)
            if name == "SCAFFOLD":
                want = scaffold(w, hospitals)
            elif name.startswith("Cyclic"):
                want = cyclic(w, hospitals, seed, name == "Cyclic")
            elif name.startswith("Local"):
                want = adam(w, hospitals[int(name[-1])])
            elif name == "Newton":
                want = newton(together(hospitals))
            elif name == "Pooled":
                want = adam(w, together(hospitals))
            else:
                want = averaging(name, w, hospitals)
            got = np.r_[row.params["kernel"][seed, :, 0], row.params["bias"][seed]]
            # Float32 against float64; adaptive steps divide by roots of small squares.
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5, err_msg=f"{name}, {how}")


def test_rows_are_judged_with_baselines_and_intervals(setting, trained):
    rows = judging.rows(setting, list(trained.values()))
    by_name = {(row.method, row.inputs): row for row in rows}
    yogi = by_name["FedYogi", "federated"]
    record = judging.judged(setting, yogi, by_name["FedYogi", "FLamby's"], intervals=True)
    y = [h.y for h in CENTRES["federated"]]
    cuts = np.cumsum([len(part) for part in y])[:-1]
    by_centre = [
        [np.mean((z > 0) == label) for z, label in zip(np.split(o, cuts), y, strict=True)]
        for o in yogi.outputs
    ]
    np.testing.assert_allclose(record["centres"], np.mean(by_centre, axis=0))
    assert record["mean"] == pytest.approx(np.mean(by_centre))
    assert record["sd_over_seeds"] == pytest.approx(np.mean(by_centre, axis=1).std(ddof=1))
    # Two seeds: Student's quantile with one degree of freedom, 12.706.
    half = 12.706 * record["sd_over_seeds"] / 2**0.5
    assert record["half_width_over_seeds"] == pytest.approx(half, rel=1e-4)
    assert record["over_patients"]["low"] < record["mean"] < record["over_patients"]["high"]
    theirs = judging.scores(setting, by_name["FedYogi", "FLamby's"].outputs).mean()
    assert record["gain"]["value"] == pytest.approx(record["mean"] - theirs)
    # Everybody gets what most of the own centre's training patients have (here also the test's).
    (majority,) = (row for row in rows if row.method.startswith("majority"))
    want = [max(part.mean(), 1 - part.mean()) for part in (h.y for h in CENTRES["FLamby's"])]
    np.testing.assert_allclose(judging.scores(setting, majority.outputs)[0], want)
    # Each centre by its own model, so the second centre has what that model has there.
    own = judging.scores(setting, by_name["each centre its own model", "federated"].outputs)
    one = judging.scores(setting, by_name["Local 1", "federated"].outputs)
    np.testing.assert_array_equal(own[:, 1], one[:, 1])


def test_server_rules_are_those_of_the_library():
    variables = Variables({"w": jnp.array([0.3, -0.2, 0.0])})
    deltas = [jnp.array(d) for d in ([0.1, -2.0, 0.0], [-0.4, 1.0, 0.5], [0.2, 0.1, 0.5])]
    constants = {"server_learning_rate": 0.1, "b1": strategies.B1, "tau": strategies.TAU}
    clients = (numpy_world.task().gradient, optax.sgd(0.1))
    library = {
        "FedAvg": algorithms.fed_avg(*clients),
        "FedAdagrad": algorithms.fed_adagrad(*clients, **constants),
        "FedAdam": algorithms.fed_adam(*clients, b2=strategies.B2, **constants),
        "FedYogi": algorithms.fed_yogi(*clients, b2=strategies.B2, **constants),
    }
    nobody = Cohort(*[0] * 10)
    for name, algorithm in library.items():
        rule = strategies.server_rule(strategies.RULES[name], 0.1)
        state, ours = algorithm.init(variables), variables.params
        rule_state = rule.init(ours)
        for delta in deltas:

            def all_sent(program, shared, cohort, aggregator, aggregator_state, delta=delta):
                return CohortResult(Variables({"w": delta}), aggregator_state, (), None)

            state = algorithm.run_round(state, nobody, all_sent).state
            step, rule_state = rule.update({"w": delta}, rule_state)
            ours = jax.tree.map(jnp.add, ours, step)
            # The order of operations may differ by a few roundings.
            np.testing.assert_allclose(ours["w"], state.variables.params["w"], rtol=1e-5, atol=1e-7)


def cox_by_hand(risk, time, event):
    """FLamby's loop: times descending, the first element 0, the mean over all of the minibatch."""
    order = np.argsort(-time, kind="stable")
    risk, event = np.asarray(risk, np.float64)[order], event[order]
    losses = np.zeros(len(risk))
    for i in range(1, len(risk)):
        losses[order[i]] = event[i] * np.log(np.sum(np.exp(risk[: i + 1] - risk[i])))
    return losses


def test_the_loss_of_survival_is_flambys():
    time = np.array([5.0, 2.0, 9.0, 2.0, 7.0, 7.0], np.float32)
    event = np.array([1, 1, 1, 0, 0, 1], np.int32)
    risk = np.array([0.3, -1.0, 2.0, 0.5, 1.5, 0.0], np.float32)
    # The minibatch is short: two rows of padding, one with a time of its own.
    examples = {
        "x": jnp.asarray(np.r_[risk, 3.0, -3.0].astype(np.float32))[:, None],
        "time": jnp.asarray(np.r_[time, 2.0, 8.0].astype(np.float32)),
        "event": jnp.asarray(np.r_[event, 1, 1].astype(np.int32)),
    }
    task = tasks.cox(models.linear(), examples, ties="order")
    batch = Batch(examples, jnp.arange(8) < 6, jnp.float32(6), jax.random.key(0))
    as_is = Variables({"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)})
    result = jax.jit(task.gradient)(as_is, batch)
    want = cox_by_hand(risk, time, event)
    np.testing.assert_allclose(result.loss, want.mean(), rtol=1e-5)
    steps_of = [cox_by_hand(risk * (1 + h), time, event).mean() for h in (1e-3, -1e-3)]
    # A central difference of a smooth function of order 1 is right to about 1e-6.
    slope = (steps_of[0] - steps_of[1]) / 2e-3
    np.testing.assert_allclose(result.grads["kernel"][0, 0], slope, rtol=1e-4)
    np.testing.assert_allclose(result.grads["bias"], 0, atol=1e-6)
    assert abs(slope) > 0.1


def test_concordance_of_many_models_is_the_mean_of_each():
    rng = np.random.default_rng(0)
    outcome = Outcome(rng.integers(1, 8, 30).astype(float), rng.random(30) < 0.4)
    risk = rng.integers(0, 5, (3, 30)).astype(float)  # times and risks with ties
    weight = rng.integers(0, 3, (4, 30)).astype(float)
    weight[3] = ~outcome.event  # nobody with an event was drawn
    want = np.mean([concordance.c_index(r, outcome, weight) for r in risk], axis=0)
    np.testing.assert_allclose(settings.concordance(risk, outcome, weight), want)
    assert np.isnan(want).tolist() == [False] * 3 + [True]


def test_initial_models_are_uniform_as_in_pytorch():
    drawn = [settings.torch_linear(seed, 4).params for seed in range(500)]
    values = np.concatenate([np.r_[p["kernel"][:, 0], p["bias"]] for p in drawn])
    assert np.abs(values).max() <= 0.5 and len(np.unique(values)) > 2400
    # Standard error of the mean 0.006, of the variance 1/12 about 0.0015.
    assert abs(values.mean()) < 0.02 and abs(values.var() - 1 / 12) < 0.005
