"""Which task and model a table gets, multi-label and scaled targets, and how each is judged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from fedjax_med import models, tasks
from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.engine import Batch
from fedjax_med.evaluation import Outcome, judged_by, predict
from fedjax_med.tasks.defaults import MODELS
from fedjax_med.tasks.kinds import num_outputs

N = 20
RNG = np.random.default_rng(0)
NAMES = ("age", "stage=I", "stage=II", "stage=III")
X = np.column_stack([RNG.standard_normal(N), np.eye(3)[np.arange(N) % 3]]).astype(np.float32)
LABELS = (RNG.random((N, 3)) < 0.4).astype(np.int32)
TIMES = RNG.exponential(100, N).astype(np.float32)
OUTCOMES = {
    "binary": {"y": LABELS[:, 0]},
    "multiclass": {"y": np.arange(N, dtype=np.int32) % 4},
    "multilabel": {"y": LABELS},
    "regression": {"y": (50 + 10 * X[:, 0]).astype(np.float32)},
    "survival": {"time": TIMES, "event": LABELS[:, 0]},
}
WIDTH = {"binary": 1, "multiclass": 4, "multilabel": 3, "regression": 1, "survival": 1}
KINDS = pytest.mark.parametrize("kind", OUTCOMES)


def table(kind="binary", x=X, **metadata):
    examples = {"x": x, **OUTCOMES[kind]}
    parts = {
        "North": {k: v[:12] for k, v in examples.items()},
        "South": {k: v[12:] for k, v in examples.items()},
    }
    metadata = {"feature_names": NAMES, "name": "toy", **metadata}
    return FederatedDataset.from_clients(parts, test=parts, **metadata)


def batch_of(examples, mask=None):
    mask = np.ones(N, bool) if mask is None else mask
    examples = jax.tree.map(jnp.asarray, examples)
    return Batch(examples, jnp.asarray(mask), jnp.float32(mask.sum()), jax.random.key(0))


@KINDS
def test_every_kind_has_a_task_for_every_model(kind):
    dataset = table(kind)
    assert tasks.kind_of(dataset) == kind
    batch = batch_of(dataset.train.examples)
    for model in MODELS:
        made = tasks.for_table(dataset, model, hidden=(3,), dim=4, depth=1)
        assert made.kind == kind
        outputs, losses, sums = jax.eval_shape(
            lambda made=made: (
                made.model.apply(made.task.init(0), batch, False)[0],
                made.task.loss(made.task.init(0), batch)[0],
                made.task.metrics(made.task.init(0), batch),
            )
        )
        assert outputs.shape == (N, WIDTH[kind]) and losses.shape == (N,)
        assert set(sums) == set(made.task.metric_names)
        assert len(sums) == len(made.task.metric_names) == len(made.task.higher_is_better)


def test_classes_are_those_of_all_splits_and_names():
    dataset = table(label_names=("none", "mild", "severe"))
    assert tasks.kind_of(dataset) == "multiclass"
    assert num_outputs(dataset, "multiclass") == 3
    rare = table("multiclass")
    rare.train.examples["y"][:] = rare.train.examples["y"] % 3  # class 3 is among the tests only
    assert num_outputs(rare, "multiclass") == 4


NOTHING_FITS = {
    "negative": ({"y": np.array([0, -1])}, "0 or above where it is whole, got -1"),
    "three of several": ({"y": np.array([[0, 3]] * 2)}, "0 or 1 for several labels, got 3"),
    "three axes": ({"y": np.ones((2, 2, 2))}, r"got float64 \[2, 2, 2\]"),
    "time alone": ({"time": np.ones(2)}, "or 'time' and 'event', got time, x"),
}


@pytest.mark.parametrize("outcome, message", NOTHING_FITS.values(), ids=NOTHING_FITS.keys())
def test_no_kind_fits(outcome, message):
    examples = {"x": np.ones((2, 1), np.float32), **outcome}
    dataset = FederatedDataset.from_clients({"A": examples}, name="toy")
    with pytest.raises(DataError, match=message):
        tasks.kind_of(dataset)


def test_what_a_model_cannot_take_is_named():
    x = X.copy()
    x[3, 1:] = np.nan
    dataset = table(x=x)
    for model in ("linear", "mlp"):
        with pytest.raises(DataError, match=r"column 'stage=I' of toy has missing .* 'embeddings'"):
            tasks.for_table(dataset, model)
    task = tasks.default_for(dataset, hidden=(3,))  # takes them
    losses, _ = task.loss(task.init(0), batch_of(dataset.train.examples))
    assert np.isfinite(losses).all()
    kernel = tasks.default_for(table()).init(0).params["kernel"]  # linear where nothing is missing
    assert kernel.shape == (4, 1)
    own = models.mlp((2,))
    assert tasks.for_table(dataset, own).model is own
    with pytest.raises(ValueError, match="one of linear, mlp, embeddings, transformer, got 'lstm'"):
        tasks.for_table(dataset, "lstm")
    with pytest.raises(
        ValueError, match="edges are for survival, but the outcome of toy is binary"
    ):
        tasks.for_table(dataset, edges=(1.0,))
    images = table(x=np.zeros((N, 2, 2), np.float32), feature_names=())
    with pytest.raises(
        DataError, match=r"must be floating \[N, features\], got float32 \[20, 2, 2"
    ):
        tasks.for_table(images)


def test_columns_without_names_are_numbers():
    made = tasks.for_table(table(feature_names=()), "embeddings", hidden=(2,))
    params = made.task.init(0).params
    assert params["embeddings"] == {} and params["layers"][0]["kernel"].shape == (8, 2)


@pytest.mark.parametrize("mask", [np.ones(N, bool), np.arange(N) < 11], ids=["all", "half"])
def test_multilabel_classification(mask):
    batch = batch_of({"x": X, "y": LABELS}, mask)
    model = models.linear(3)
    task = tasks.multilabel_classification(model, batch.examples)
    variables = task.init(0)
    kernel = jax.random.normal(jax.random.key(2), (4, 3))
    variables = variables._replace(params={**variables.params, "kernel": kernel})
    sums = task.metrics(variables, batch)
    got = {k: float(batch.masked_sum(a) / batch.masked_sum(b)) for k, (a, b) in sums.items()}
    logits = (np.float64(X) @ np.float64(kernel))[mask]
    y, probability = LABELS[mask], 1 / (1 + np.exp(-logits))
    want = np.mean([sklearn_metrics.log_loss(y[:, k], probability[:, k]) for k in range(3)])
    assert got["loss"] == pytest.approx(want, rel=1e-5)
    assert got["accuracy"] == pytest.approx(((logits > 0) == y).mean())
    assert got["exact_match"] == pytest.approx(sklearn_metrics.accuracy_score(y, logits > 0))
    assert got["exact_match"] < got["accuracy"] < 1
    loss = task.gradient(variables, batch).loss
    assert float(loss) == pytest.approx(want, rel=1e-5)
    wrong = tasks.multilabel_classification(models.linear(1), batch.examples)
    with pytest.raises(ValueError, match=r"got shape \[20, 1\] for labels of shape \[20, 3\]"):
        wrong.loss(wrong.init(0), batch)


def test_a_scaled_target_is_judged_in_natural_units():
    dataset = table("regression")
    batch = batch_of(dataset.train.examples)
    y = np.float64(dataset.train.examples["y"])
    made = tasks.for_table(dataset, center=float(y.mean()), scale=10.0)
    variables = made.task.init(0)  # a linear model starts at 0: it predicts the mean
    sums = made.task.metrics(variables, batch)
    assert float(sums["mse"][0].mean()) == pytest.approx(y.var(), rel=1e-5)
    assert float(sums["mae"][0].mean()) == pytest.approx(np.abs(y - y.mean()).mean(), rel=1e-5)
    losses, _ = made.task.loss(variables, batch)
    assert float(losses.mean()) == pytest.approx(y.var() / 200, rel=1e-5)
    link, labels, metrics = judged_by("regression", center=float(y.mean()), scale=10.0)
    predicted = predict(variables, dataset, made.model, "train", link=link, labels=labels)
    np.testing.assert_allclose(predicted.outputs, y.mean(), rtol=1e-12)
    assert metrics["rmse"].compute(
        predicted.outputs, predicted.labels, np.ones(N)
    ) == pytest.approx(y.std(), rel=1e-6)
    for bad in ({"scale": 0.0}, {"scale": np.inf}, {"center": np.nan}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))} must be finite"):
            tasks.regression(made.model, batch.examples, **bad)


@KINDS
def test_every_kind_can_be_judged(kind):
    dataset = table(kind)
    made = tasks.for_table(dataset)
    link, labels, metrics = judged_by(kind, times=(50.0, 100.0))
    predicted = predict(made.task.init(0), dataset, made.model, link=link, labels=labels)
    values = {
        name: metric.compute(predicted.outputs, predicted.labels, np.ones(N))
        for name, metric in metrics.items()
    }
    # All outputs are 0, which says nothing: half of the pairs are in order.
    half = {"survival": "c_index", "regression": None}.get(kind, "auroc")
    assert half is None or values[half] == pytest.approx(0.5)
    if kind == "survival":
        assert isinstance(predicted.labels, Outcome) and "auc_at_50" in values
    if kind == "regression":
        assert values["mae"] == pytest.approx(OUTCOMES[kind]["y"].mean(), rel=1e-6)


def test_curves_of_a_discrete_model_are_judged():
    dataset = table("survival")
    edges = tasks.interval_edges(dataset.train, 3)
    made = tasks.for_table(dataset, edges=edges)
    assert made.task.init(0).params["kernel"].shape == (4, 3)
    link, labels, metrics = judged_by("survival", times=edges, discrete=True)
    predicted = predict(made.task.init(0), dataset, made.model, link=link, labels=labels)
    # Logits of 0 are hazards of one half.
    np.testing.assert_allclose(predicted.outputs.survival, np.tile([0.5, 0.25, 0.125], (N, 1)))
    brier = metrics["integrated_brier"].compute(predicted.outputs, predicted.labels, np.ones(N))
    assert 0 < brier < 1
    with pytest.raises(ValueError, match=r"must have 3 outputs, one for each .* shape \[5, 2\]"):
        link(np.zeros((5, 2)))
    with pytest.raises(ValueError, match="times must be the edges"):
        judged_by("survival", discrete=True)
