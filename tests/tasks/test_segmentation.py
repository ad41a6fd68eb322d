"""Loss and metrics of segmentation, against NumPy in float64, one scan at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_med import tasks
from fedjax_med.data import ClientArrays, DataError, FederatedDataset, check
from fedjax_med.engine import Batch, Variables
from fedjax_med.evaluation import judged_by
from fedjax_med.models import Model, from_function
from fedjax_med.tasks.kinds import num_outputs

NAMES = ("background", "kidney", "tumour")
AS_IT_IS = from_function(lambda key, x: {}, lambda params, x: x)


def make(size, num=5, seed=0):
    """Logits as the examples of a model that leaves them alone; masks, of which the last is empty."""
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 3, (num, *size))
    mask[0][mask[0] == 2] = 0
    mask[-1] = 0
    logits = 2 * rng.standard_normal((num, *size, 3)) + 3 * np.eye(3)[mask]
    return logits.astype(np.float32), mask.astype(np.int32)


def batch_of(logits, mask, real=None):
    real = len(mask) if real is None else real
    examples = {"x": jnp.asarray(logits), "mask": jnp.asarray(mask)}
    return Batch(examples, jnp.arange(len(mask)) < real, jnp.float32(real), jax.random.key(0))


def reference_loss(logits, mask):
    logits = logits.astype(np.float64).reshape(-1, 3)
    true = np.eye(3)[mask.reshape(-1)]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    cross_entropy = -np.log((p * true).sum(axis=1)).mean()
    dice = [
        (2 * (p[:, c] * true[:, c]).sum() + 1) / (p[:, c].sum() + true[:, c].sum() + 1)
        for c in (1, 2)
    ]
    return cross_entropy + 1 - np.mean(dice)


@pytest.mark.parametrize("size", [(7, 5), (3, 4, 5)], ids=["2-D", "3-D"])
def test_loss_is_that_of_its_definition_scan_by_scan(size):
    logits, mask = make(size)
    task = tasks.segmentation(AS_IT_IS, {"x": logits, "mask": mask})
    losses, _ = jax.jit(task.loss)(Variables({}, ()), batch_of(logits, mask))
    want = [reference_loss(one, of) for one, of in zip(logits, mask, strict=True)]
    # Sums of 60 float32 numbers of order 1.
    np.testing.assert_allclose(losses, want, rtol=1e-5)


def test_metrics_are_those_of_the_judgement_on_the_host():
    logits, mask = make((6, 6), num=8, seed=1)
    mask[5] = 0
    logits[5, ..., 0] += 20  # nothing is marked where there is nothing
    task = tasks.segmentation(AS_IT_IS, {"x": logits, "mask": mask}, label_names=NAMES)
    found = jax.jit(task.metrics)(Variables({}, ()), batch_of(logits, mask))
    got = {name: float(top.sum() / bottom.sum()) for name, (top, bottom) in found.items()}
    link, labels, metrics = judged_by("segmentation", label_names=NAMES)
    assert task.metric_names == ("loss", "dice", "false_alarm_rate", "dice_kidney", "dice_tumour")
    for name in task.metric_names[1:]:
        want = metrics[name].compute(link(logits), labels({"mask": mask}), np.ones(8))
        assert got[name] == pytest.approx(float(want), rel=1e-5)
    assert got["false_alarm_rate"] == 0.5
    assert set(metrics) > set(task.metric_names[1:])


def test_padding_changes_nothing():
    logits, mask = make((4, 4), num=4)
    model = from_function(lambda key, x: jnp.ones(3), lambda params, x: x * params)
    model = Model(model.init, lambda v, b, t: (b.examples["x"] * v.params[None, None, None], ()))
    task = tasks.segmentation(model, {"x": logits, "mask": mask})
    variables = Variables(jnp.array([1.0, 0.5, 2.0]), ())
    gradient = jax.jit(task.gradient)
    want = gradient(variables, batch_of(logits[:3], mask[:3]))
    got = gradient(variables, batch_of(logits[[0, 1, 2, 3]], mask[[0, 1, 2, 3]], real=3))
    np.testing.assert_allclose(got.grads, want.grads, rtol=1e-6)
    assert np.abs(got.grads - gradient(variables, batch_of(logits, mask)).grads).max() > 1e-4


def test_a_gradient_moves_an_empty_scan_to_empty():
    mask = np.zeros((1, 4, 4), np.int32)
    logits = np.zeros((1, 4, 4, 2), np.float32)
    task = tasks.segmentation(AS_IT_IS, {"x": logits, "mask": mask})
    slope = jax.jit(jax.grad(lambda x: task.loss(Variables({}, ()), batch_of(x, mask))[0].sum()))(
        logits
    )
    assert (np.asarray(slope)[..., 1] > 0).all()


def dataset(**examples):
    return FederatedDataset("scans", ("A",), ClientArrays(examples, np.array([2])))


X = np.zeros((2, 4, 4, 1), np.float32)


def test_kind_and_outputs_come_from_the_mask():
    mask = np.zeros((2, 4, 4), np.int32)
    assert tasks.kind_of(dataset(x=X, mask=mask)) == "segmentation"
    assert num_outputs(dataset(x=X, mask=mask), "segmentation") == 2
    assert num_outputs(dataset(x=X, mask=mask + 3), "segmentation") == 4
    named = dataset(x=X, mask=mask).replace(label_names=NAMES)
    assert num_outputs(named, "segmentation") == 3
    check(named)
    with pytest.raises(DataError, match=r"mask 3 of client 'A' \(train, row 0 of that client\)"):
        check(dataset(x=X, mask=mask + 3).replace(label_names=NAMES))


@pytest.mark.parametrize(
    "mask, message",
    [
        (
            np.zeros((2, 4, 5), np.int32),
            "mask of scans must have the shape of x without its last axis, got [2, 4, 5] for x "
            "[2, 4, 4, 1].",
        ),
        (
            np.full((2, 4, 4), -1),
            "mask of scans must be whole numbers of 0 and above, got int64 from -1 on.",
        ),
    ],
)
def test_masks_that_are_none_are_refused(mask, message):
    with pytest.raises(DataError) as error:
        tasks.kind_of(dataset(x=X, mask=mask))
    assert str(error.value) == message


def test_a_model_of_another_size_is_refused():
    logits, mask = make((4, 4))
    task = tasks.segmentation(AS_IT_IS, {"x": logits, "mask": mask})
    with pytest.raises(ValueError, match=r"two logits for each of \[5, 4, 3\] voxels, got shape"):
        jax.eval_shape(task.loss, Variables({}, ()), batch_of(logits, mask[:, :, :3]))
