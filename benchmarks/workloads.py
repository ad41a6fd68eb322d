"""Four federated workloads that other engines have been timed on as well.

One round: every client of the cohort starts from the global model, goes once through its own
examples in minibatches, and the server takes the mean of the clients' models weighted by their
examples (FedAvg with a server learning rate of 1). All in float32.

| | cifar-cnn | femnist-cnn | tabular-logreg | ehr-mlp |
| --- | --- | --- | --- | --- |
| clients | 1000 | 500 | 1000 | 4 |
| examples of a client | 50 | lognormal, 20..400 | lognormal, 10..1000 | 5000 |
| input | 32x32x3 | 28x28x1 | 32 | 64 |
| model | CNN, 1,626,442 parameters | CNN, 1,206,590 | logistic regression, 33 | MLP, 24,961 |
| cohort | 50 | 20 | 100 | 4 |
| minibatch | 10 | 20 | 32 | 64 |
| client optimizer | SGD 0.1 | SGD 0.1 | SGD 0.1 | Adam 0.001, new every round |
| local steps of a round | 250 | 90 to 140 | 440 to 550 | 316 |

The CNN: 3x3x32 and 3x3x64 convolutions without padding, max-pooling 2x2, dense 128, dense.
`cifar-cnn` has dropout (0.25 after pooling, 0.5 after the dense layer) and is the benchmark
model of pfl-research; `femnist-cnn` is that of LEAF.

Everything is made by NumPy from fixed seeds, so any engine can be given the same arrays, and in
stored order without shuffling the parameters of two engines can be compared after any number of
rounds. Images are `[height, width, channels]`, kernels of convolutions `[height, width, inputs,
outputs]`, those of dense layers `[inputs, outputs]`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from fedjax_med import algorithms
from fedjax_med import engine as fm
from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.models import Model
from fedjax_med.tasks import binary_classification, multiclass_classification

Params = dict[str, Any]


class Lognormal(NamedTuple):
    """Sizes of clients, rounded and held between two bounds."""

    median: float
    sigma: float
    least: int
    most: int


@dataclasses.dataclass(frozen=True)
class Workload:
    """What a workload is made of; `load` makes it.

    Attributes:
      name: as in results.
      number: goes into the seeds of its arrays and cohorts.
      input_shape: of one example.
      num_outputs: classes, or 1 for the logit of a binary label.
      num_clients: clients of the population.
      sizes: examples of a client.
      cohort_size: clients of a round.
      batch_size: examples of a minibatch.
      client_optimizer: makes the optimizer of the clients.
      hidden: widths of the hidden dense layers; None for the CNN.
      dropout: rates after the pooling and after the first dense layer of the CNN.
      num_judged: the first clients, over whose examples the final loss is taken.
    """

    name: str
    number: int
    input_shape: tuple[int, ...]
    num_outputs: int
    num_clients: int
    sizes: int | Lognormal
    cohort_size: int
    batch_size: int
    client_optimizer: Callable[[], optax.GradientTransformation]
    hidden: tuple[int, ...] | None
    dropout: tuple[float, float]
    num_judged: int


_SGD = partial(optax.sgd, 0.1)

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            name="cifar-cnn",
            number=1,
            input_shape=(32, 32, 3),
            num_outputs=10,
            num_clients=1000,
            sizes=50,
            cohort_size=50,
            batch_size=10,
            client_optimizer=_SGD,
            hidden=None,
            dropout=(0.25, 0.5),
            num_judged=20,
        ),
        Workload(
            name="femnist-cnn",
            number=2,
            input_shape=(28, 28, 1),
            num_outputs=62,
            num_clients=500,
            sizes=Lognormal(90.0, 0.7, 20, 400),
            cohort_size=20,
            batch_size=20,
            client_optimizer=_SGD,
            hidden=None,
            dropout=(0.0, 0.0),
            num_judged=10,
        ),
        Workload(
            name="tabular-logreg",
            number=3,
            input_shape=(32,),
            num_outputs=1,
            num_clients=1000,
            sizes=Lognormal(100.0, 1.0, 10, 1000),
            cohort_size=100,
            batch_size=32,
            client_optimizer=_SGD,
            hidden=(),
            dropout=(0.0, 0.0),
            num_judged=1000,
        ),
        Workload(
            name="ehr-mlp",
            number=4,
            input_shape=(64,),
            num_outputs=1,
            num_clients=4,
            sizes=5000,
            cohort_size=4,
            batch_size=64,
            client_optimizer=partial(optax.adam, 1e-3, b1=0.9, b2=0.999, eps=1e-8),
            hidden=(128, 128),
            dropout=(0.0, 0.0),
            num_judged=4,
        ),
    )
}


# -- arrays ----------------------------------------------------------------------------------


def client_sizes(workload: Workload) -> np.ndarray:
    """Examples of each client, int64 `[clients]`."""
    if isinstance(workload.sizes, int):
        return np.full(workload.num_clients, workload.sizes, np.int64)
    median, sigma, least, most = workload.sizes
    drawn = np.random.default_rng(0).lognormal(np.log(median), sigma, workload.num_clients)
    return np.clip(np.rint(drawn), least, most).astype(np.int64)


def make_examples(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Inputs `[examples, *input_shape]` float32 and labels `[examples]` int32, all clients.

    Images are unit normal noise over a tenth of a prototype of their class. Tables are unit
    normal; their labels follow a random linear teacher with a shift per client, for `ehr-mlp`
    with 16 saturating terms besides.
    """
    sizes = client_sizes(workload)
    rng = np.random.default_rng([0, workload.number])
    width = int(np.prod(workload.input_shape))
    # The order of the draws is part of the definition.
    x = rng.standard_normal((int(sizes.sum()), width), dtype=np.float32)
    if workload.hidden is None:
        y = rng.integers(0, workload.num_outputs, len(x)).astype(np.int32)
        prototypes = rng.standard_normal((workload.num_outputs, width), dtype=np.float32)
        for start in range(0, len(x), 4096):  # in pieces, to need no second array of this size
            rows = slice(start, start + 4096)
            x[rows] += np.float32(0.1) * prototypes[y[rows]]
    else:
        linear = rng.standard_normal(width).astype(np.float32) / np.sqrt(width)
        saturating = rng.standard_normal((width, 16)).astype(np.float32) / np.sqrt(width)
        shift = 0.5 * rng.standard_normal(workload.num_clients).astype(np.float32)
        score = 2.0 * (x @ linear) + np.repeat(shift, sizes)
        if workload.hidden:
            score = score + np.tanh(x @ saturating).sum(1)
        y = (rng.random(len(x)) < 1.0 / (1.0 + np.exp(-score))).astype(np.int32)
    return x.reshape(-1, *workload.input_shape), y


def make_cohort(workload: Workload, round_index: int, size: int | None = None) -> np.ndarray:
    """Clients of a round, without replacement; `size` other than the workload's for trials."""
    size = workload.cohort_size if size is None else size
    if size == workload.num_clients:
        return np.arange(size)
    rng = np.random.default_rng([7, workload.number, round_index])
    return rng.choice(workload.num_clients, size, replace=False)


def param_shapes(workload: Workload) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter, in the order they are drawn."""
    if workload.hidden is None:
        height, width, channels = workload.input_shape
        layers: dict[str, tuple[int, ...]] = {
            "conv1": (3, 3, channels, 32),
            "conv2": (3, 3, 32, 64),
        }
        widths = ((height - 4) // 2 * ((width - 4) // 2) * 64, 128, workload.num_outputs)
    else:
        layers = {}
        widths = (*workload.input_shape, *workload.hidden, workload.num_outputs)
    for number, shape in enumerate(itertools.pairwise(widths), 1):
        layers[f"dense{number}"] = shape
    shapes = {}
    for layer, shape in layers.items():
        shapes[f"{layer}_w"], shapes[f"{layer}_b"] = shape, shape[-1:]
    return shapes


def initial_params(workload: Workload) -> Params:
    """Glorot-uniform kernels, biases of zero; float32."""
    rng = np.random.default_rng([11, workload.number])
    params = {}
    for name, shape in param_shapes(workload).items():
        if name.endswith("_b"):
            params[name] = np.zeros(shape, np.float32)
        else:
            fan_in_and_out = int(np.prod(shape[:-2])) * (shape[-2] + shape[-1])
            limit = np.sqrt(6.0 / fan_in_and_out)
            params[name] = rng.uniform(-limit, limit, shape).astype(np.float32)
    return params


# -- models ----------------------------------------------------------------------------------

# `(layer number, activations) -> activations`
Dropout = Callable[[int, jax.Array], jax.Array]


def no_dropout(layer: int, x: jax.Array) -> jax.Array:
    """Leaves everything in."""
    del layer
    return x


def forward(
    workload: Workload, params: Params, x: jax.Array, drop: Dropout = no_dropout
) -> jax.Array:
    """Outputs of the model `[batch, num_outputs]`, by the operations any model would use."""

    def dense(number: int, x: jax.Array) -> jax.Array:
        return x @ params[f"dense{number}_w"] + params[f"dense{number}_b"][None]

    def convolution(number: int, x: jax.Array) -> jax.Array:
        y = lax.conv_general_dilated(
            x,
            params[f"conv{number}_w"],
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + params[f"conv{number}_b"][None, None, None]

    def max_pool(x: jax.Array) -> jax.Array:
        window = (1, 2, 2, 1)
        return lax.reduce_window(x, -np.inf, lax.max, window, window, "VALID")

    if workload.hidden is None:
        x = jax.nn.relu(convolution(1, x))
        x = jax.nn.relu(convolution(2, x))
        x = drop(0, max_pool(x))
        x = jax.nn.relu(dense(1, x.reshape(len(x), -1)))
        return dense(2, drop(1, x))
    for number in range(1, len(workload.hidden) + 1):
        x = jax.nn.relu(dense(number, x))
    return dense(len(workload.hidden) + 1, x)


def _model(workload: Workload, dropout: bool) -> Model:
    def init(key: jax.Array, x: jax.Array) -> fm.Variables:
        del key, x
        return fm.Variables(jax.tree.map(jnp.asarray, initial_params(workload)))

    def apply(variables: fm.Variables, batch: fm.Batch, train: bool):
        def drop(layer: int, x: jax.Array) -> jax.Array:
            rate = workload.dropout[layer]
            if not (dropout and train and rate):
                return x
            keep = batch.bernoulli(1 - rate, x.shape[1:], layer)
            return jnp.where(keep, x / (1 - rate), 0)

        outputs = forward(workload, variables.params, batch.examples["x"], drop)
        return outputs, variables.state

    return Model(init, apply)


# -- workloads -------------------------------------------------------------------------------


class Loaded(NamedTuple):
    """A workload in memory, ready for `simulate`.

    Attributes:
      workload: what it was made from.
      dataset: the clients.
      task: model, loss and metrics.
      variables: the initial model.
      sampler: the cohorts.
      local_work: one epoch of minibatches.
      algorithm: FedAvg with the workload's client optimizer.
    """

    workload: Workload
    dataset: FederatedDataset
    task: fm.Task
    variables: fm.Variables
    sampler: fm.cohorts.Listed
    local_work: Any
    algorithm: fm.FederatedAlgorithm


def load(
    name: str,
    rounds: int,
    *,
    shuffle: bool = False,
    dropout: bool = True,
    cohort_size: int | None = None,
    cohorts: Sequence[Sequence[int]] | None = None,
) -> Loaded:
    """Makes a workload.

    Args:
      name: key of `WORKLOADS`.
      rounds: rounds that cohorts are listed for.
      shuffle: a new order every epoch instead of the stored one.
      dropout: whether `cifar-cnn` drops out.
      cohort_size: other than the workload's.
      cohorts: clients of every round, instead of the workload's.
    """
    workload = WORKLOADS[name]
    x, y = make_examples(workload)
    dataset = FederatedDataset(
        workload.name,
        tuple(f"client {number}" for number in range(workload.num_clients)),
        ClientArrays({"x": x, "y": y}, client_sizes(workload)),
        source="generated",
    )
    model = _model(workload, dropout)
    classification = (
        binary_classification if workload.num_outputs == 1 else multiclass_classification
    )
    task = classification(model, dataset.train.examples)
    if cohorts is None:
        cohorts = [make_cohort(workload, r, cohort_size).tolist() for r in range(rounds)]
    return Loaded(
        workload=workload,
        dataset=dataset,
        task=task,
        variables=fm.Variables(initial_params(workload)),
        sampler=fm.cohorts.listed(cohorts),
        local_work=fm.epochs(1, batch_size=workload.batch_size, shuffle=shuffle),
        algorithm=algorithms.fed_avg(task.gradient, workload.client_optimizer()),
    )


def final_loss(loaded: Loaded, params: Params) -> float:
    """Mean loss without dropout over the examples of the first `num_judged` clients [nats]."""
    workload, train = loaded.workload, loaded.dataset.train
    count = int(train.offsets[workload.num_judged])
    apply = jax.jit(partial(forward, workload))
    # The activations of a few images are megabytes already.
    step = 64 if workload.hidden is None else 4096
    total = 0.0
    for start in range(0, count, step):
        rows = slice(start, min(start + step, count))
        outputs = np.asarray(apply(params, train.examples["x"][rows]), np.float64)
        labels = train.examples["y"][rows]
        if workload.num_outputs == 1:
            logit = outputs[:, 0]
            total += float(np.sum(np.logaddexp(0, logit) - labels * logit))
        else:
            largest = outputs.max(axis=1)
            normaliser = largest + np.log(np.exp(outputs - largest[:, None]).sum(axis=1))
            total += float(np.sum(normaliser - outputs[np.arange(len(outputs)), labels]))
    return total / count
