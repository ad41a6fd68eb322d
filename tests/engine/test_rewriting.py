"""The engine computes models by the client-batched kernels, says so, and can leave them alone."""

import dataclasses
import logging
from functools import lru_cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_med import algorithms, models, tasks
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import (
    Batch,
    CheckpointError,
    CheckpointPolicy,
    SequentialExecutor,
    Variables,
    cohorts,
    epochs,
    evaluate,
    grid,
    mixed_precision,
    placement,
    simulate,
)
from fedjax_med.engine.layout import gather, spread
from fedjax_med.engine.rewriting import Notes, Rewriting, make_rewriting
from fedjax_med.engine.schedule import Scheduler, build_chunk
from fedjax_med_kernels.client_batched import KEEP, Record
from tests.engine.toy import assert_close

FOUND = "1 convolution by patches, 1 max-pooling by separable; 0 left as they were"


class Cnn(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Conv(3, (3, 3), use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.8)(x)
        x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        return nn.Dense(1)(nn.Dropout(0.2, deterministic=not train)(x.reshape(x.shape[0], -1)))


@lru_cache
def hospitals():
    rng = np.random.default_rng(0)

    def client(n):
        x = rng.standard_normal((n, 6, 6, 1)).astype(np.float32)
        return {"x": x, "y": (x.mean(axis=(1, 2, 3)) > 0).astype(np.int32)}

    return FederatedDataset.from_clients({f"h{n}": client(n) for n in (5, 9, 3)})


@lru_cache
def cnn_task():
    model = models.from_linen(Cnn())
    return tasks.binary_classification(model, hospitals().train.examples)


def train(algorithm=None, task=None, **options):
    task = task or cnn_task()
    defaults = dict(rounds=2, local_work=epochs(1, batch_size=4), lanes=2)
    return simulate(
        algorithm or algorithms.fed_avg(task.gradient, optax.sgd(0.1)),
        hospitals(),
        task=task,
        **(defaults | options),
    )


@lru_cache
def one_round(rewrite, lanes=2):
    return train(rounds=1, lanes=lanes, rewrite=rewrite)


def test_training_is_the_same_and_the_log_says_what_was_rewritten(caplog):
    caplog.set_level(logging.INFO, logger="fedjax_med")
    evaluations = dict(evaluate_every=1, evaluate_on=("train",), rounds_per_call=1)
    on = train(**evaluations)
    assert on.rewritten == {"training": FOUND, "evaluation": FOUND}
    assert caplog.messages.count(f"training: {FOUND}") == 1
    assert caplog.messages.count(f"evaluation: {FOUND}") == 1
    assert on.num_traces == 1  # although every round was a chunk of its own
    caplog.clear()
    off = train(**evaluations, rewrite=False)
    assert off.rewritten == {} and not any("convolution" in m for m in caplog.messages)
    assert (on.configuration["rewrite"], off.configuration["rewrite"]) == (True, False)
    # Parameters and batch statistics; only the order of sums differs, but a sum of a convolution
    # near 0 may fall on the other side of the ReLU's corner for a few examples.
    assert_close(on.variables, off.variables, 1e-4)
    for a, b in zip(on.evaluations, off.evaluations, strict=True):
        np.testing.assert_allclose(a.pooled["loss"], b.pooled["loss"], rtol=1e-4)


def make_batch(rewriting):
    examples = {name: jnp.asarray(x[:4]) for name, x in hospitals().train.examples.items()}
    key = jax.random.key(0)
    return Batch(examples, jnp.ones(4, bool), jnp.float32(4), key, rewriting=rewriting)


def test_gradients_of_clients_contain_no_convolution():
    variables = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), cnn_task().init(0))
    x = jnp.stack([make_batch(None).examples["x"]] * 2)

    def lowered(rewriting):
        def gradient(variables, x):
            batch = make_batch(rewriting)
            batch = dataclasses.replace(batch, examples={**batch.examples, "x": x})
            return cnn_task().gradient(variables, batch)

        return jax.jit(jax.vmap(gradient)).lower(variables, x).as_text()

    assert "feature_group_count = 2" in lowered(None)
    for operation in ("convolution", "reduce_window", "select_and_scatter"):
        assert f"stablehlo.{operation}" in lowered(None)
        assert f"stablehlo.{operation}" not in lowered(make_rewriting(True, "cpu"))


def test_a_model_without_convolutions_is_the_same_program():
    task = tasks.binary_classification(
        models.from_linen(nn.Sequential([lambda x: x.reshape(x.shape[0], -1), nn.Dense(1)])),
        hospitals().train.examples,
    )
    variables = task.init(0)
    texts = [
        jax.jit(lambda v, r=r: task.gradient(v, make_batch(r))).lower(variables).as_text()
        for r in (None, make_rewriting(True, "cpu"))
    ]
    assert texts[0] == texts[1]
    run = train(task=task, rounds=1)
    assert run.rewritten == {"training": "no convolution or pooling"}


def test_implementations_can_be_chosen():
    def choice(operation):
        return KEEP if operation.name == "convolution" else "library"

    run = train(rewrite=choice, rounds=1)
    assert run.rewritten == {"training": "1 max-pooling by library; 1 left as it was"}
    assert run.configuration["rewrite"] == "chosen"
    # Nothing is replaced, so bit for bit the program of a run that rewrites nothing.
    assert_close(run.variables, one_round(False).variables, 0)


@pytest.mark.parametrize("rewrite", [None, "patches", 1])
def test_what_rewrite_cannot_be(rewrite):
    with pytest.raises(TypeError, match=f"rewrite must be True, False.*got {rewrite!r}"):
        make_rewriting(rewrite, "cpu")


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(lambda: placement.pmap(2), id="pmap", marks=pytest.mark.slow),
        pytest.param(lambda: placement.mesh(2, splits=2), id="mesh"),
    ],
)
def test_placements_rewrite_alike(place):
    # Without dropout and batch statistics, which a split minibatch draws and takes differently.
    task = cnn_task()
    quiet = lambda variables, batch: (task.metrics(variables, batch)["loss"][0], variables.state)
    task = task._replace(loss=quiet)
    one, other = train(task=task), train(task=task, placement=place(), lanes=1)
    assert other.rewritten == one.rewritten == {"training": FOUND}
    assert_close(other.variables, one.variables, 1e-4)


def test_experiments_and_mixed_precision_are_rewritten():
    task = cnn_task()._replace(loss=mixed_precision(cnn_task().loss))
    run = train(
        lambda lr: algorithms.fed_avg(task.gradient, optax.sgd(lr)),
        task,
        experiments=grid(seed=[0], lr=[0.1, 0.2]),
        rounds=1,
        lanes=1,
    )
    assert run.rewritten == {"training": FOUND}
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(run.variables))


def test_the_report_knows_how_many_clients_train_side_by_side():
    rewriting = Rewriting(Notes(), platform="cpu")
    assert rewriting.for_clients(3).num_clients == 3
    assert rewriting.for_clients(3).notes is rewriting.notes
    assert rewriting.for_clients(3) == rewriting.for_clients(3) != rewriting
    assert Rewriting(Notes()) != Rewriting(Notes())


def test_notes_take_the_largest_count_of_a_function():
    notes, conv = Notes(), Record("convolution", "shapes", "patches", "", "Conv_0")
    pool = conv._replace(operation="max-pooling", implementation=None)
    for records in ([conv, conv], [conv], [conv, pool], []):
        report = notes.trace("training")
        for record in records:
            report(record)
    assert notes.records("training") == {conv: 2, pool: 1}
    assert notes.described() == {"training": "2 convolutions by patches; 1 left as it was"}
    notes.start("training")
    assert notes.described() == {"training": "no convolution or pooling"}


def test_algorithms_that_differentiate_by_themselves_may_rewrite():
    notes = Notes()

    def own_gradient(variables, batch):
        losses = batch.rewritten(cnn_task().loss)
        mean = lambda params: jnp.mean(losses(Variables(params, variables.state), batch)[0])
        return jax.grad(mean)(variables.params)

    variables = cnn_task().init(0)
    jax.eval_shape(lambda v: own_gradient(v, make_batch(Rewriting(notes))), variables)
    assert notes.described() == {"training": FOUND}


def test_evaluation_alone():
    variables = cnn_task().init(0)
    on, off = (
        evaluate(variables, hospitals(), task=cnn_task(), split="train", rewrite=rewrite)
        for rewrite in (True, False)
    )
    np.testing.assert_allclose(on.pooled["loss"], off.pooled["loss"], rtol=1e-5)


def test_a_resumed_run_must_agree(tmp_path):
    train(checkpoint=CheckpointPolicy(tmp_path))
    with pytest.raises(CheckpointError, match="rewrite was True, now it is False"):
        train(rounds=3, checkpoint=CheckpointPolicy(tmp_path, resume=True), rewrite=False)


@pytest.mark.parametrize("rewritten", [True, False])
def test_the_sequential_executor_rewrites_only_if_told(rewritten):
    train_set = hospitals().train
    layout = spread(train_set.sizes, 1)
    data = jax.tree.map(lambda x: jnp.asarray(x[0]), gather(train_set, layout).data)
    work, notes = epochs(1, batch_size=4), Notes()
    executor = SequentialExecutor(data, work, rewriting=Rewriting(notes) if rewritten else None)
    scheduler = Scheduler(train_set.sizes, layout, cohorts.everyone(), work, 0)
    chunk = build_chunk(
        [[scheduler.draw(0)]],
        [0],
        0,
        table_row=gather(train_set, layout).table_row,
        num_lanes=1,
        num_slots=scheduler.max_slots,
        max_rounds=1,
        experiments=False,
    )
    cohort = jax.tree.map(lambda x: jnp.asarray(x[0, 0]), chunk.cohorts)._replace(states=())
    # Compiled, as the reference of other tests is: a trace per minibatch would take long.
    algorithm = algorithms.fed_avg(jax.jit(cnn_task().gradient), optax.sgd(0.1))
    variables = jax.tree.map(jnp.asarray, cnn_task().init(0))
    result = algorithm.run_round(algorithm.init(variables), cohort, executor)
    lanes = train(rounds=1, lanes=1, rewrite=rewritten)
    assert_close(result.state.variables, lanes.variables, 1e-4)
    assert notes.described() == ({"training": FOUND} if rewritten else {})
