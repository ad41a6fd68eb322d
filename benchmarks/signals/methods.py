"""Trains every method of a comparison; outputs of its models for those who are judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.signals.cases import Case
from benchmarks.signals.judge import main_value
from fedjax_med import algorithms
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import (
    Experiments,
    FederatedAlgorithm,
    Task,
    Variables,
    grid,
    simulate,
)
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.studies.methods import METHODS, Method
from fedjax_med.studies.populations import Population
from fedjax_med.studies.training import (
    Learner,
    all_pooled,
    alone,
    federated,
    own_outputs,
)

ADAPT_ROUNDS = 5  # epochs over a patient's own examples, after the federated training
_HEAD_SHARE = 10 / 11  # FedRep's: ten epochs of the head for one of the body
_ALPHA = 0.5  # of APFL, the middle


def _personal(build: Callable[[Task, Any, Any], FederatedAlgorithm], title: str) -> Method:
    def made(task: Task, optimizer: Any, rate: Any, num_clients: int) -> FederatedAlgorithm:
        del rate, num_clients
        return build(task, optimizer, algorithms.last_layer(task.init(0).params))

    return Method(title, made, is_personal=True)


FEDERATED: Mapping[str, Method] = {
    **{name: METHODS[name] for name in ("fedavg", "fedprox", "scaffold", "fedadam", "ditto")},
    "fedper": _personal(
        lambda task, optimizer, head: algorithms.fed_per(
            task.gradient, optimizer, is_personal=head
        ),
        "FedPer (personal)",
    ),
    "fedrep": _personal(
        lambda task, optimizer, head: algorithms.fed_rep(
            task.gradient,
            optimizer,
            is_head=head,
            head_share=_HEAD_SHARE,
            weighting=algorithms.by_examples,
        ),
        "FedRep (personal)",
    ),
    "apfl": _personal(
        lambda task, optimizer, head: algorithms.apfl(
            task.gradient, optimizer, alpha=_ALPHA, weighting=algorithms.by_examples
        ),
        "APFL (personal)",
    ),
}
TITLES = {
    **{name: method.title for name, method in FEDERATED.items()},
    "fine-tuned": "FedAvg, then fine-tuned (personal)",
    "local": "local only",
    "pooled": "pooled",
}


def names(case: Case) -> list[str]:
    """The methods, FedAvg first."""
    others = (name for name in case.methods if name != "fedavg")
    return ["fedavg", *others, "fine-tuned", "local", "pooled"]


def outputs(
    name: str,
    case: Case,
    populations: Sequence[Population],
    *,
    seeds: Iterable[int],
    rates: Iterable[float],
) -> list[np.ndarray]:
    """For each population `[seeds * rates, N, outputs]`, rates varying fastest.

    Those who were not trained on are judged by shared models; alone, by models of their own training
    examples; fine-tuned, by shared models that adapted to these.
    """
    learner = Learner(case.model, case.task, case.rounds, case.work)
    if name == "pooled":
        return all_pooled(learner, populations, seeds=seeds, chosen=rates)
    if name == "local":
        at_home = [p._replace(raw=p.raw_judged, train=p.judged) for p in populations]
        return alone(learner, at_home, seeds=seeds, chosen=rates).own
    if name == "fine-tuned":
        return [_fine_tuned(case, p, [*seeds], [*rates]) for p in populations]
    return federated(learner, FEDERATED[name], populations, seeds=seeds, chosen=rates).outputs


def _fine_tuned(
    case: Case, population: Population, seeds: list[int], rates: list[float]
) -> np.ndarray:
    """FedAvg, whose model every one of the judged trains on, with the same learning rate."""
    experiments = grid(seed=seeds, rate=rates)
    fed_avg = lambda rate: algorithms.fed_avg(case.task.gradient, optax.sgd(rate))
    shared = simulate(
        fed_avg,
        population.train,
        task=case.task,
        rounds=case.rounds,
        local_work=case.work,
        experiments=experiments,
    ).variables
    models = adapted(
        case.task,
        shared,
        population.judged,
        rates=experiments.hyperparameters["rate"],
        rounds=ADAPT_ROUNDS,
        work=case.work,
    )
    return own_outputs(case.model, models, population.test)


def adapted(
    task: Task,
    models: Variables,
    dataset: FederatedDataset,
    *,
    rates: np.ndarray,
    rounds: int,
    work: LocalWork,
) -> Variables:
    """Models `[models, clients, ...]`: every client has trained every model on for a while."""
    count = len(jax.tree.leaves(models)[0])
    models = jax.tree.map(jnp.asarray, models)

    def build(rate: Any, which: Any) -> FederatedAlgorithm:
        alone = algorithms.local_only(task.gradient, optax.sgd(rate))
        begin = jax.tree.map(lambda x: x[which], models)
        return alone._replace(init_client=lambda variables: alone.init_client(begin))

    # Whole numbers of 64 bits would be cut to 32 with a warning.
    which = np.arange(count, dtype=np.int32)
    experiments = Experiments((0,) * count, {"rate": np.asarray(rates), "which": which})
    run = simulate(
        build,
        dataset,
        task=task,
        rounds=rounds,
        local_work=work,
        experiments=experiments,
    )
    return run.client_states.variables


def best_rate(case: Case, name: str) -> float:
    """The learning rate whose models have the best main metric, mean over the populations."""
    made = outputs(name, case, case.to_tune, seeds=[0], rates=case.rates)
    judgings = [case.judging(p) for p in case.to_tune]
    values = np.array(
        [[main_value(j, o) for o in each] for j, each in zip(judgings, made, strict=True)]
    )
    distance = np.abs(values.mean(axis=0) - next(iter(case.metrics.values())).ideal)
    if np.isnan(distance).all():
        raise RuntimeError(f"{name} of {case.title!r} diverged with every learning rate.")
    ties = np.zeros(len(case.rates))
    if case.tie_break is not None:
        for judging, each in zip(judgings, made, strict=True):
            ones = np.ones(len(judging.labels))
            ties += [case.tie_break.compute(judging.link(o), judging.labels, ones) for o in each]
    order = np.lexsort((ties, np.round(distance, 6)))  # NaN is sorted behind all numbers
    return case.rates[int(order[0])]
