"""`run_study`: methods x seeds x splits, baselines and hospitals left out, in a few compiled calls."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from fedjax_med import tasks
from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.engine import Variables, epochs
from fedjax_med.evaluation import judged_by, repeated_splits
from fedjax_med.studies import baselines, training
from fedjax_med.studies.fitting import fit_of
from fedjax_med.studies.judging import Judge, mean_of_defined, values
from fedjax_med.studies.methods import METHODS, Method
from fedjax_med.studies.populations import (
    Population,
    hospitals_left_out,
    own_division,
    splits,
    to_tune_on,
    to_tune_on_own,
)
from fedjax_med.studies.settings import OPTIMIZERS, Settings
from fedjax_med.studies.training import Learner, Outputs
from fedjax_med.tasks.kinds import Kind

# Baselines in the order of tables, beside the keys of `METHODS`.
BASELINES = {
    "site_rate": "hospital's own rate",
    "local": "local only",
    "best_site": "best single site",
    "pooled": "pooled",
}
_TUNING_SHARE = 0.25
_EXACT_BATCH = 1024
_HIDDEN = (32, 16)
# Of exact methods, whose hospitals send the square of it.
MOST_PARAMETERS = 1000


@dataclasses.dataclass(frozen=True)
class Study:
    """What was trained and what its models say; `summarise` makes a result of it.

    Attributes:
      settings: of the study.
      dataset: as it was given, in natural units.
      kind: of the task.
      judge: how outputs are judged.
      learner: what was trained.
      populations: the splits.
      left_out: each hospital left out; empty if that was not asked for.
      outputs: for each method and baseline those of every split `[seeds, N, ...]`.
      outputs_left_out: the same for every hospital left out.
      models: shared model of each method, of the first split and seed.
      numbers: learning rate (or ridge) chosen for each method and trained baseline.
      tuned: the main metric of each with that number on the patients it was chosen on.
      best_sites: the best single site of every split.
      seconds: where the time went.
    """

    settings: Settings
    dataset: FederatedDataset
    kind: Kind
    judge: Judge
    learner: Learner
    populations: list[Population]
    left_out: list[Population]
    outputs: dict[str, Outputs]
    outputs_left_out: dict[str, Outputs]
    models: dict[str, Variables]
    numbers: dict[str, float]
    tuned: dict[str, float]
    best_sites: list[str]
    seconds: dict[str, float]

    @property
    def is_own(self) -> bool:
        """Whether training and test patients are the dataset's own."""
        return self.settings.division == "own"

    @property
    def names(self) -> list[str]:
        """Baselines, then methods."""
        return [*BASELINES, *self.settings.methods]

    @property
    def chosen(self) -> str:
        """The federated method that was best on the patients that learning rates were chosen on."""
        ideal = self.judge.metrics[self.judge.main].ideal
        return min(self.settings.methods, key=lambda name: abs(self.tuned[name] - ideal))


def run_study(
    dataset: FederatedDataset,
    settings: Settings,
    *,
    tell: Callable[[str], None] = lambda text: None,
) -> Study:
    """Compares methods with each other and with what hospitals have without them.

    Patients are divided into training and test patients `num_splits` times, or as the dataset does. For each division, all
    preprocessing is fitted federatedly to the training patients; the learning rate of each method is
    chosen by the main metric on a quarter of them, with one seed; then every method is trained with
    every seed. All divisions, seeds and learning rates of a method are one compiled call.

    Args:
      dataset: in natural units, NaN where a value is missing.
      settings: see there.
      tell: called with what is being done.

    Raises:
      DataError: if the data cannot be learned from, there are fewer than two hospitals, or the model
        is too large for a method.
    """
    if dataset.num_clients < 2:
        raise DataError(f"a study needs at least 2 hospitals, {dataset.name} has 1.")
    start = time.perf_counter()
    kind = tasks.kind_of(dataset)
    key = {"survival": "event", "binary": "y", "multiclass": "y"}.get(kind)
    tell("preprocessing")
    divide = {"seed": settings.seed, "stratify": key}
    if settings.division == "own":
        first = dataset
        fit = fit_of(settings, first, kind)
        populations = [own_division(dataset, fit)]
        tuning = to_tune_on_own(populations[0], fit, share=_TUNING_SHARE, **divide)
    else:
        first = next(repeated_splits(dataset, repeats=1, test=settings.test, **divide))
        fit = fit_of(settings, first, kind)
        populations = splits(
            dataset, fit, repeats=settings.num_splits, test=settings.test, **divide
        )
        tuning = to_tune_on(populations, fit, share=_TUNING_SHARE, **divide)
    left_out = hospitals_left_out(dataset, fit) if settings.leave_one_out else []
    learner = _learner(settings, populations[0])
    _refuse_large_exact(settings, learner)
    times = _times(first) if kind == "survival" else ()
    judge = Judge(*judged_by(kind, times=times, label_names=dataset.label_names))
    seconds = {"preprocessing": time.perf_counter() - start}
    study = Study(
        settings,
        dataset,
        kind,
        judge,
        learner,
        populations,
        left_out,
        {},
        {},
        {},
        {},
        {},
        [],
        seconds,
    )
    _run_baselines(study, tuning, tell)
    for name in settings.methods:
        _run_method(study, name, tuning, tell)
    seconds["total"] = time.perf_counter() - start
    return study


def _times(dataset: FederatedDataset) -> tuple[float, ...]:
    """Times by which a quarter, half and three quarters of the training events happened."""
    examples = dataset.train.examples
    events = np.quantile(examples["time"][examples["event"] == 1], [0.25, 0.5, 0.75])
    return tuple(float(f"{time:.3g}") for time in events)


def _learner(settings: Settings, population: Population) -> Learner:
    made = tasks.for_dataset(population.train, settings.model, hidden=settings.hidden or _HIDDEN)
    largest = int(population.train.train.sizes.max())
    batch_size = settings.batch_size or largest
    return Learner(
        made.model,
        made.task,
        settings.rounds,
        epochs(settings.local_epochs, batch_size=min(batch_size, largest)),
        OPTIMIZERS[settings.client_optimizer],
    )


def _refuse_large_exact(settings: Settings, learner: Learner) -> None:
    exact = [name for name in settings.methods if METHODS[name].exact]
    size = sum(x.size for x in jax.tree.leaves(learner.task.init(settings.seed).params))
    if exact and size > MOST_PARAMETERS:
        raise DataError(
            f"the model has {size:,} parameters, but {exact[0]} takes at most {MOST_PARAMETERS:,}: "
            "hospitals would send their square; leave it out of the methods."
        )


def _seeds(study: Study) -> range:
    first = study.settings.seed
    return range(first, first + study.settings.num_seeds)


def _run_method(
    study: Study, name: str, tuning: Sequence[Population], tell: Callable[[str], None]
) -> None:
    start = time.perf_counter()
    method, settings = METHODS[name], study.settings
    learner, candidates = _for_method(study, method)
    tell(f"{method.title}: choosing its learning rate")
    tried = training.federated(learner, method, tuning, seeds=[settings.seed], chosen=candidates)
    number = _choose(study, name, candidates, tried.outputs, tuning)
    final = {"seeds": _seeds(study), "chosen": [number]}
    tell(f"{method.title}: {settings.num_splits} splits, {settings.num_seeds} seeds")
    trained = training.federated(learner, method, study.populations, **final)
    study.outputs[name], study.models[name] = trained
    if study.left_out and not method.is_personal:
        tell(f"{method.title}: each hospital left out")
        left_out = training.federated(learner, method, study.left_out, **final)
        study.outputs_left_out[name] = left_out.outputs
    study.seconds[name] = time.perf_counter() - start


def _for_method(study: Study, method: Method) -> tuple[Learner, tuple[float, ...]]:
    """How long a method is trained, and the numbers of which it gets one."""
    if method.exact is None:
        return study.learner, study.settings.learning_rates
    largest = max(int(p.train.train.sizes.max()) for p in [*study.populations, *study.left_out])
    # Risk sets are those of the minibatch; other losses are sums over patients.
    batch_size = largest if study.kind == "survival" else min(largest, _EXACT_BATCH)
    learner = study.learner._replace(
        rounds=method.exact.rounds, local_work=epochs(1, batch_size=batch_size, shuffle=False)
    )
    return learner, method.exact.ridges


def _run_baselines(study: Study, tuning: Sequence[Population], tell: Callable[[str], None]) -> None:
    start = time.perf_counter()
    learner, settings, populations = study.learner, study.settings, study.populations
    tell("baselines")
    study.outputs["site_rate"] = [baselines.site_rate(p, study.kind) for p in populations]
    rates = settings.learning_rates
    first = {"seeds": [settings.seed], "chosen": rates}
    tried = training.alone(learner, tuning, **first).own
    number = _choose(study, "local", rates, tried, tuning)
    final = {"seeds": _seeds(study), "chosen": [number]}
    alone = training.alone(learner, populations, **final)
    study.outputs["local"] = alone.own
    best = [
        baselines.best_site(study.judge, learner.model, p, models)
        for p, models in zip(populations, alone.models, strict=True)
    ]
    study.outputs["best_site"] = [outputs for _, outputs in best]
    study.best_sites.extend(name for name, _ in best)
    tried = training.all_pooled(learner, tuning, **first)
    final["chosen"] = [_choose(study, "pooled", rates, tried, tuning)]
    study.outputs["pooled"] = training.all_pooled(learner, populations, **final)
    if study.left_out:
        study.outputs_left_out["site_rate"] = [
            baselines.site_rate(p, study.kind) for p in study.left_out
        ]
        study.outputs_left_out["pooled"] = training.all_pooled(learner, study.left_out, **final)
    study.seconds["baselines"] = time.perf_counter() - start


def _choose(
    study: Study,
    name: str,
    candidates: Sequence[float],
    tried: Outputs,
    tuning: Sequence[Population],
) -> float:
    """The number whose models are the best, by the mean over splits and hospitals."""
    main = study.judge.main
    judge = study.judge._replace(metrics={main: study.judge.metrics[main]})
    by_number = mean_of_defined(values(judge, tried, tuning)[main].mean.T)  # [candidates]
    distance = np.abs(by_number - judge.metrics[main].ideal)
    if np.isnan(distance).all():
        raise DataError(
            f"{main} is not defined for the patients that learning rates are chosen on; "
            f"{study.dataset.name} has too few of them."
        )
    best = int(np.nanargmin(distance))
    study.numbers[name], study.tuned[name] = candidates[best], float(by_number[best])
    return study.numbers[name]
