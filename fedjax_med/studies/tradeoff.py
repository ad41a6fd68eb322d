"""Utility against epsilon: all epsilons, clip bounds, learning rates, splits and seeds in one call each.

Every training is under a plan of `fedjax_med.privacy`, from which its sampling, its noise and its epsilon
come. What is not accounted for is that clip bounds and learning rates are chosen, on patients kept for it.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from fedjax_med import algorithms, tasks
from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.engine import Experiments, FederatedAlgorithm, epochs, simulate
from fedjax_med.evaluation import corrected_t_test, judge, judged_by, repeated_splits
from fedjax_med.privacy import ClientLevel, RecordLevel, private
from fedjax_med.studies import baselines, training
from fedjax_med.studies.fitting import fit_of
from fedjax_med.studies.judging import (
    Judge,
    mean_of_defined,
    over_seeds,
    seeds_together,
    values,
)
from fedjax_med.studies.methods import METHODS
from fedjax_med.studies.populations import (
    Population,
    own_division,
    splits,
    to_tune_on,
    to_tune_on_own,
    union,
)
from fedjax_med.studies.settings import Settings
from fedjax_med.studies.tradeoff_settings import TradeoffSettings, Unit, default_delta
from fedjax_med.studies.training import Learner, Outputs, outputs_of
from fedjax_med.tasks.kinds import Kind

LEVEL = 0.95
_TUNING_SHARE = 0.25
# Of discrete survival times, in which patients' losses do not depend on each other.
_NUM_INTERVALS = 4
_LARGEST_BATCH = 1024


class Candidate(NamedTuple):
    """Numbers of a private training."""

    epsilon: float
    noise_multiplier: float
    clip_norm: float
    learning_rate: float


class Setup(NamedTuple):
    """What all trainings of a study share."""

    settings: TradeoffSettings
    kind: Kind
    judge: Judge
    learner: Learner
    populations: list[Population]
    tuning: list[Population]


def run_tradeoff(
    dataset: FederatedDataset,
    settings: TradeoffSettings,
    *,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Utility at every epsilon and unit, beside the same without privacy and each hospital alone.

    Returns:
      JSON-able: `points`, one for each unit and epsilon, with what was spent and chosen, and the main
      metric's `mean` over hospitals and `pooled` over patients with 95 % intervals; `references`
      without privacy; `statements` of the plans, by unit.

    Raises:
      DataError: if the data cannot be learned from, or there are fewer than two hospitals.
      ValueError: if an epsilon cannot be reached, or delta is not below one over the units.
    """
    if dataset.num_clients < 2:
        raise DataError(f"a study needs at least 2 hospitals, {dataset.name} has 1.")
    start = time.perf_counter()
    tell("preprocessing")
    setup = _set_up(dataset, settings)
    for (
        unit
    ) in settings.units:  # what cannot be accounted for is refused before anything is trained
        _plan(setup, unit, setup.populations, Candidate(1.0, 1.0, 1.0, 1.0))
    result: dict[str, Any] = {
        "dataset": dataset.name,
        "clients": list(dataset.client_names),
        "kind": setup.kind,
        "main_metric": setup.judge.main,
        "ideal": setup.judge.metrics[setup.judge.main].ideal,
        "settings": settings.as_dict(),
        "references": _references(setup, tell),
        "points": [],
        "statements": {},
    }
    for unit in settings.units:
        points, statement = _points(setup, unit, tell)
        result["points"] += points
        result["statements"][unit] = statement
    result["seconds"] = time.perf_counter() - start
    return result


def _set_up(dataset: FederatedDataset, settings: TradeoffSettings) -> Setup:
    kind = tasks.kind_of(dataset)
    key = {"survival": "event", "binary": "y", "multiclass": "y"}.get(kind)
    divide = {"seed": settings.seed, "stratify": key}
    of_study = Settings(methods=("fedavg",), model=settings.model)
    if settings.division == "own":
        fit = fit_of(of_study, dataset, kind)
        populations = [own_division(dataset, fit)]
        tuning = to_tune_on_own(populations[0], fit, share=_TUNING_SHARE, **divide)
    else:
        first = next(repeated_splits(dataset, repeats=1, test=settings.test, **divide))
        fit = fit_of(of_study, first, kind)
        populations = splits(
            dataset, fit, repeats=settings.num_splits, test=settings.test, **divide
        )
        tuning = to_tune_on(populations, fit, share=_TUNING_SHARE, **divide)
    data = populations[0].train
    if kind == "survival":
        edges = tuple(tasks.interval_edges(data.train, _NUM_INTERVALS).tolist())
        made = tasks.for_table(data, settings.model, edges=edges)
        found = judged_by(kind, times=edges, discrete=True)
    else:
        made = tasks.for_dataset(data, settings.model)
        found = judged_by(kind, label_names=dataset.label_names)
    main = next(iter(found.metrics))
    only = Judge(found.link, found.labels, {main: found.metrics[main]})
    batch_size = min(settings.batch_size, int(data.train.sizes.max()))
    learner = Learner(
        made.model,
        made.task,
        settings.rounds,
        epochs(settings.local_epochs, batch_size=batch_size),
    )
    return Setup(settings, kind, only, learner, populations, tuning)


def _references(setup: Setup, tell: Callable[[str], None]) -> dict[str, Any]:
    """FedAvg without clip and noise, and what hospitals have without federation."""
    settings, learner = setup.settings, setup.learner
    rates, first = settings.learning_rates, {"seeds": [settings.seed]}
    tell("without privacy")
    method = METHODS["fedavg"]
    tried = training.federated(learner, method, setup.tuning, chosen=rates, **first)
    rate = rates[_best(setup, tried.outputs)[0]]
    free = training.federated(
        learner, method, setup.populations, seeds=_seeds(settings), chosen=[rate]
    )
    references = {"no privacy": {"learning_rate": rate, **_judged(setup, free.outputs)}}
    tell("each hospital alone")
    tried = training.alone(learner, setup.tuning, chosen=rates, **first)
    rate = rates[_best(setup, tried.own)[0]]
    alone = training.alone(learner, setup.populations, seeds=_seeds(settings), chosen=[rate])
    references["each hospital alone"] = {"learning_rate": rate, **_judged(setup, alone.own)}
    if setup.kind != "survival":  # equal risks have a concordance of a half
        nothing = [baselines.site_rate(p, setup.kind) for p in setup.populations]
        references["no model"] = _judged(setup, nothing)
    return references


def _points(
    setup: Setup, unit: Unit, tell: Callable[[str], None]
) -> tuple[list[dict[str, Any]], str]:
    """A point for every epsilon, and the statement of the plan of the smallest."""
    settings = setup.settings
    tell(f"{unit} level: choosing clip bounds and learning rates")
    noise = _noise(setup, unit, setup.tuning)
    tried = [
        Candidate(*numbers)
        for epsilon, sigma in zip(settings.epsilons, noise, strict=True)
        for numbers in itertools.product(
            [epsilon], [sigma], settings.clip_norms, settings.learning_rates
        )
    ]
    outputs = _trained(setup, unit, setup.tuning, tried, [settings.seed])
    best = _best(setup, outputs, groups=len(settings.epsilons))
    each = len(tried) // len(settings.epsilons)
    noise = _noise(setup, unit, setup.populations)
    chosen = [
        tried[number * each + place]._replace(noise_multiplier=sigma)
        for number, (place, sigma) in enumerate(zip(best, noise, strict=True))
    ]
    tell(f"{unit} level: {len(chosen)} epsilons, {settings.num_seeds} seeds")
    outputs = _trained(setup, unit, setup.populations, chosen, _seeds(settings))
    points = []
    for number, candidate in enumerate(chosen):
        plan = _plan(setup, unit, setup.populations, candidate)
        spent = plan.epsilon_after(plan.rounds)
        # Experiments are ordered by seed, then candidate.
        mine = [of_population[number :: len(chosen)] for of_population in outputs]
        points.append(
            {
                "unit": unit,
                "delta": plan.ledger.delta,
                "spent": spent.value,
                "spent_rdp": spent.rdp,
                "rounds": plan.rounds,
                **candidate._asdict(),
                **_judged(setup, mine),
            }
        )
    return points, _plan(setup, unit, setup.populations, chosen[0]).statement(plan.rounds)


def _plan(
    setup: Setup,
    unit: Unit,
    populations: Sequence[Population],
    candidate: Any,
) -> Any:
    """The privacy plan of a training on one of the populations, which are of the same sizes."""
    settings, train = setup.settings, populations[0].train.train
    if unit == "hospital":
        delta = settings.delta or default_delta(train.num_clients)
        of_clients = ClientLevel(
            clip_norm=candidate.clip_norm, delta=delta, noise_multiplier=candidate.noise_multiplier
        )
        return of_clients.plan(population=train.num_clients, rounds=settings.hospital_rounds)
    of_records = RecordLevel(
        clip_norm=candidate.clip_norm,
        delta=settings.delta or default_delta(int(train.sizes.max())),
        batch_size=settings.batch_size,
        steps=settings.steps,
        noise_multiplier=candidate.noise_multiplier,
        # Whole hospitals where they fit: a sample that is never cut costs less epsilon, and its
        # loss distribution is made in a tenth of the time.
        largest_batch=max(settings.batch_size, min(int(train.sizes.max()), _LARGEST_BATCH)),
    )
    return of_records.plan(sizes=train.sizes.tolist(), rounds=settings.rounds)


def _noise(setup: Setup, unit: Unit, populations: Sequence[Population]) -> list[float]:
    """The noise multiplier of every epsilon, by the plan's own accountant."""
    plan = _plan(setup, unit, populations, Candidate(1.0, 1.0, 1.0, 1.0))
    # Of records, those of the smallest hospital: the larger the share that is sampled, the more is spent.
    size = (
        {"population": plan.population} if unit == "hospital" else {"sizes": [min(plan.population)]}
    )
    calibrated = [
        dataclasses.replace(plan.settings, epsilon=epsilon, noise_multiplier=None)
        for epsilon in setup.settings.epsilons
    ]
    return [float(s.plan(rounds=plan.rounds, **size).noise_multiplier) for s in calibrated]


def _trained(
    setup: Setup,
    unit: Unit,
    populations: Sequence[Population],
    candidates: Sequence[Candidate],
    seeds: Sequence[int],
) -> Outputs:
    """Outputs `[seeds * candidates, N, ...]` for every population, candidates varying fastest."""
    learner, whole = setup.learner, union(populations)

    def build(noise_multiplier: Any, clip_norm: Any, learning_rate: Any) -> FederatedAlgorithm:
        numbers = Candidate(0.0, noise_multiplier, clip_norm, learning_rate)
        plan = _plan(setup, unit, populations, numbers)
        made = private(
            lambda gradient, aggregator: algorithms.fed_avg(
                gradient,
                optax.sgd(learning_rate),
                aggregator=aggregator,
                weighting=algorithms.equal,
            ),
            plan,
            task=learner.task,
        )
        # Epsilon is accounted for once for each point, not after every round of every experiment.
        return made._replace(privacy=None)

    names = ("noise_multiplier", "clip_norm", "learning_rate")
    repeated = [candidate for _ in seeds for candidate in candidates]
    experiments = Experiments(
        tuple(int(seed) for seed in seeds for _ in candidates),
        {name: np.array([getattr(c, name) for c in repeated], np.float32) for name in names},
    ).for_each([members.tolist() for members in whole.members])
    plan = _plan(setup, unit, populations, candidates[0])
    run = simulate(
        build,
        whole.dataset,
        task=learner.task,
        rounds=plan.rounds,
        local_work=plan.local_work or learner.local_work,
        cohort=plan.sampler,
        experiments=experiments,
    )
    times = len(repeated)
    return [
        outputs_of(
            learner.model,
            jax.tree.map(lambda x, n=number: x[n * times : (n + 1) * times], run.variables),
            population.test,
        )
        for number, population in enumerate(populations)
    ]


def _seeds(settings: TradeoffSettings) -> range:
    return range(settings.seed, settings.seed + settings.num_seeds)


def _best(setup: Setup, outputs: Outputs, groups: int = 1) -> list[int]:
    """Of each group of candidates the place of the one that is best, by the mean over hospitals."""
    judge = setup.judge
    found = values(judge, outputs, setup.tuning)[judge.main].mean.T  # [candidates, populations]
    distance = np.abs(mean_of_defined(found) - judge.metrics[judge.main].ideal)
    by_group = np.where(np.isnan(distance), np.inf, distance).reshape(groups, -1)
    return np.argmin(by_group, axis=1).tolist()


def _judged(setup: Setup, outputs: Outputs) -> dict[str, Any]:
    """The main metric with 95 % intervals: over splits, or over patients of the own division."""
    settings, main = setup.settings, setup.judge.main
    found = values(setup.judge, outputs, setup.populations)[main]
    described: dict[str, Any] = {}
    if settings.division == "own":
        predicted = seeds_together(setup.judge, outputs, setup.populations)
        metrics = {main: over_seeds(setup.judge.metrics[main])}
        judged = judge(
            predicted,
            metrics,
            level=LEVEL,
            num_resamples=settings.num_resamples,
            seed=settings.seed,
            method="percentile",
        )
        described["mean"] = _estimate(*judged.mean[main][:3])
        described["pooled"] = _estimate(*judged.pooled.metrics[main][:3])
    else:
        first = setup.populations[0]
        sizes = {
            "num_train": first.raw.train.num_examples,
            "num_test": first.test.num_examples,
        }
        for name in ("mean", "pooled"):
            by_split = mean_of_defined(getattr(found, name))
            value, low, high, _ = corrected_t_test(by_split, level=LEVEL, **sizes)
            # Intervals of shares stay among the values that there are.
            most = 1.0 if setup.judge.metrics[main].ideal == 1 else np.inf
            described[name] = _estimate(value, np.maximum(low, 0.0), np.minimum(high, most))
    hospitals = mean_of_defined(
        np.moveaxis(found.per_hospital, -1, 0).reshape(found.per_hospital.shape[-1], -1)
    )
    described["per_hospital"] = [_number(value) for value in hospitals]
    return described


def _estimate(value: float, low: float, high: float) -> dict[str, float | None]:
    return {"value": _number(value), "low": _number(low), "high": _number(high)}


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
