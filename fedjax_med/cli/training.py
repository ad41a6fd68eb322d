"""Builds the pieces of a run from its configuration."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optax

from fedjax_med import aggregation, algorithms, tasks
from fedjax_med.cli.configuration import RunConfig, parse_cohort
from fedjax_med.cli.errors import UsageError, bad_arguments
from fedjax_med.cli.preparation import Prepared
from fedjax_med.cli.privacy import make_plan
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import (
    Aggregator,
    FederatedAlgorithm,
    Task,
    cohorts,
    epochs,
    mixed_precision,
    steps,
)
from fedjax_med.engine import placement as placements
from fedjax_med.engine.callbacks import EarlyStopping
from fedjax_med.engine.cohorts import CohortSampler
from fedjax_med.engine.contracts import GradientFn
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.engine.placement import Placement
from fedjax_med.privacy import ClientPlan, RecordPlan, private
from fedjax_med.studies.graphs import fed_e
from fedjax_med.tasks.kinds import Kind

# Each simulated device is a thread with its own copy of the model; more than this is a slip.
_MAX_SIMULATED_DEVICES = 256

_OPTIMIZERS: dict[str, Callable[[float], optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "yogi": optax.yogi,
    "adagrad": optax.adagrad,
    "rmsprop": optax.rmsprop,
}


class Pieces(NamedTuple):
    """What `simulate` and the baselines are called with."""

    dataset: FederatedDataset
    kind: Kind
    task: Task
    algorithm: FederatedAlgorithm
    client_optimizer: optax.GradientTransformation
    local_work: LocalWork
    sampler: CohortSampler
    placement: Placement
    early_stopping: EarlyStopping | None
    privacy: ClientPlan | RecordPlan | None = None


def quiet_jax() -> None:
    """Keeps back warnings of JAX and Orbax that tell the user nothing."""
    # Without an accelerator JAX warns about its absence, which is no news to most users.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)
    # Orbax logs tracebacks of its threads through absl; their errors reach us as exceptions too.
    logging.getLogger("absl").setLevel(logging.CRITICAL)


def quiet_start(config: RunConfig) -> None:
    """Prepares JAX for the configuration; has to come before its first use."""
    quiet_jax()
    wanted = (config.devices or 1) * config.splits
    fixed = "JAX_NUM_CPU_DEVICES" in os.environ or (
        "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    )
    if wanted == 1 or fixed:
        return
    if wanted > _MAX_SIMULATED_DEVICES:
        raise UsageError(
            f"{wanted} devices were asked for (--devices x --splits); allowed are 1 to "
            f"{_MAX_SIMULATED_DEVICES}."
        )
    try:
        jax.config.update("jax_num_cpu_devices", wanted)
    except RuntimeError:
        pass  # JAX is in use: there are as many devices as there are, and `build` counts them


def build(config: RunConfig, prepared: Prepared) -> Pieces:
    """Makes all pieces.

    Raises:
      UsageError: if the configuration does not fit the data or the machine.
    """
    dataset = prepared.dataset
    if config.precision == "float64":
        dataset = dataset.map_examples(_in_float64, dataset.feature_names)
    with bad_arguments():
        task = _task(config, dataset, prepared)
        placement = _placement(config)
        sampler = _sampler(config)
        sampler.max_size(dataset.num_clients)
        work = {"batch_size": _batch_size(config, dataset), "shuffle": config.shuffle}
        local_work = (
            steps(config.local_steps, **work)
            if config.local_steps is not None
            else epochs(config.local_epochs or 1, **work)
        )
        client_optimizer = _client_optimizer(config)
        plan = None
        if config.unit is None:
            algorithm = _algorithm(config, task, client_optimizer)
        else:
            plan = make_plan(config, dataset, sampler, work["batch_size"])
            local_work = plan.local_work or local_work
            algorithm = private(
                lambda *parts: _algorithm(config, task, client_optimizer, parts),
                plan,
                task=task,
            )
    return Pieces(
        dataset,
        prepared.kind,
        task,
        algorithm,
        client_optimizer,
        local_work,
        sampler,
        placement,
        _early_stopping(config, task),
        plan,
    )


def _in_float64(examples):
    return jax.tree.map(lambda x: x.astype(np.float64) if x.dtype.kind == "f" else x, examples)


def _task(config: RunConfig, dataset: FederatedDataset, prepared: Prepared) -> Task:
    task = tasks.for_dataset(
        dataset,
        config.model,
        hidden=config.hidden,
        center=prepared.center,
        scale=prepared.scale,
    ).task
    if config.precision == "bfloat16":
        return task._replace(loss=mixed_precision(task.loss))
    return task


def _batch_size(config: RunConfig, dataset: FederatedDataset) -> int:
    """Patients of a minibatch: all of the largest hospital where none are asked for."""
    largest = int(dataset.train.sizes.max())
    return config.batch_size or -(-largest // config.splits) * config.splits


def _placement(config: RunConfig) -> Placement:
    if config.placement == "one-device":
        return placements.one_device()
    if config.placement == "pmap":
        return placements.pmap(config.devices)
    return placements.mesh(config.devices, splits=config.splits)


def _sampler(config: RunConfig) -> CohortSampler:
    kind, number = parse_cohort(config.cohort)
    if kind == "uniform":
        return cohorts.uniform(int(number))
    return cohorts.everyone() if kind == "all" else cohorts.poisson(number)


def _client_optimizer(config: RunConfig) -> optax.GradientTransformation:
    if config.client_optimizer == "sgd":
        return optax.sgd(config.client_lr, momentum=config.momentum or None)
    return _OPTIMIZERS[config.client_optimizer](config.client_lr)


def _aggregator(config: RunConfig) -> Aggregator:
    aggregator = (
        aggregation.coordinate_median()
        if config.aggregator == "median"
        else aggregation.weighted_mean()
    )
    if config.clip_norm is not None:
        clip = aggregation.clip_by_client_norm(config.clip_norm)
        aggregator = aggregation.chain(clip, then=aggregator)
    return aggregator


def _algorithm(
    config: RunConfig,
    task: Task,
    client_optimizer: optax.GradientTransformation,
    parts: tuple[GradientFn, Aggregator] | None = None,
) -> FederatedAlgorithm:
    """The algorithm, of a gradient and an aggregator that a privacy plan may have made."""
    gradient, aggregator = parts or (task.gradient, _aggregator(config))
    common = {
        "aggregator": aggregator,
        "weighting": (algorithms.equal if config.weighting == "equal" else algorithms.by_examples),
    }
    if config.algorithm == "fede":
        return fed_e(gradient, client_optimizer)
    adaptive = {
        "fedadam": algorithms.fed_adam,
        "fedyogi": algorithms.fed_yogi,
        "fedadagrad": algorithms.fed_adagrad,
    }
    if config.algorithm in adaptive:
        return adaptive[config.algorithm](
            gradient, client_optimizer, server_learning_rate=config.server_lr, **common
        )
    if config.algorithm == "fedavgm":
        return algorithms.fed_avg(
            gradient,
            client_optimizer,
            server_learning_rate=config.server_lr,
            server_momentum=config.server_momentum,
            **common,
        )
    server = _OPTIMIZERS[config.server_optimizer](config.server_lr)
    if config.algorithm == "fedsgd":
        return algorithms.fed_sgd(gradient, server, **common)
    if config.algorithm == "fedprox":
        return algorithms.fed_prox(
            gradient, client_optimizer, mu=config.mu or 0.0, server_optimizer=server, **common
        )
    return algorithms.fed_opt(gradient, client_optimizer, server, **common)


def _early_stopping(config: RunConfig, task: Task) -> EarlyStopping | None:
    if config.early_stopping is None:
        return None
    metric, patience = config.early_stopping
    if metric not in task.metric_names:
        raise UsageError(
            f"--early-stop names the metric {metric!r}; allowed are {', '.join(task.metric_names)}."
        )
    higher = task.higher_is_better[task.metric_names.index(metric)]
    return EarlyStopping(metric, patience, "max" if higher else "min")
