"""`run_study`: methods x seeds x splits, baselines and hospitals left out, in a few compiled calls."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fedjax_med import preprocessing, tasks
from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.engine import Variables, epochs
from fedjax_med.evaluation import judged_by, repeated_splits
from fedjax_med.studies import baselines, training
from fedjax_med.studies.judging import Judge, mean_of_defined, values
from fedjax_med.studies.methods import METHODS
from fedjax_med.studies.populations import (
    Fit,
    Fitted,
    Population,
    hospitals_left_out,
    splits,
    to_tune_on,
)
from fedjax_med.studies.settings import Settings
from fedjax_med.studies.training import Learner, Outputs
from fedjax_med.tasks.defaults import TAKE_MISSING

# Baselines in the order of tables, beside the keys of `METHODS`.
BASELINES = {
    "site_rate": "hospital's own rate",
    "local": "local only",
    "best_site": "best single site",
    "pooled": "pooled",
}
_TUNING_SHARE = 0.25


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
      learning_rates: chosen for each method and trained baseline.
      tuned: the main metric of each with its learning rate on the patients it was chosen on.
      best_sites: the best single site of every split.
      seconds: where the time went.
    """

    settings: Settings
    dataset: FederatedDataset
    kind: str
    judge: Judge
    learner: Learner
    populations: list[Population]
    left_out: list[Population]
    outputs: dict[str, Outputs]
    outputs_left_out: dict[str, Outputs]
    models: dict[str, Variables]
    learning_rates: dict[str, float]
    tuned: dict[str, float]
    best_sites: list[str]
    seconds: dict[str, float]

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

    Patients are divided into training and test patients `num_splits` times. For each division, all
    preprocessing is fitted federatedly to the training patients; the learning rate of each method is
    chosen by the main metric on a quarter of them, with one seed; then every method is trained with
    every seed. All divisions, seeds and learning rates of a method are one compiled call.

    Args:
      dataset: in natural units, NaN where a value is missing.
      settings: see there.
      tell: called with what is being done.

    Raises:
      DataError: if the data cannot be learned from, or there are fewer than two hospitals.
    """
    if dataset.num_clients < 2:
        raise DataError(f"a study needs at least 2 hospitals, {dataset.name} has 1.")
    start = time.perf_counter()
    kind = tasks.kind_of(dataset)
    key = "event" if kind == "survival" else None if kind in ("regression", "multilabel") else "y"
    tell("preprocessing")
    first = next(
        repeated_splits(dataset, repeats=1, test=settings.test, seed=settings.seed, stratify=key)
    )
    fit = _fit(settings, first, kind)
    divide = {"seed": settings.seed, "stratify": key}
    populations = splits(dataset, fit, repeats=settings.num_splits, test=settings.test, **divide)
    tuning = to_tune_on(populations, fit, share=_TUNING_SHARE, **divide)
    left_out = hospitals_left_out(dataset, fit) if settings.leave_one_out else []
    learner = _learner(settings, populations[0])
    judge = Judge(*judged_by(kind, times=_times(first) if kind == "survival" else ()))
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


def _fit(settings: Settings, dataset: FederatedDataset, kind: str) -> Fit:
    """Preprocessing as the settings ask for, always with the same columns.

    Which columns have indicators of missing values, and which have too few values to be used, may
    differ between populations; those of the first split decide for all.
    """
    impute = None if settings.model in TAKE_MISSING else settings.impute

    def fit_table(raw: FederatedDataset) -> preprocessing.Preprocessor:
        return preprocessing.Preprocessor.fit(raw, impute=impute, standardize=settings.standardize)

    names = fit_table(dataset).feature_names

    def fit(raw: FederatedDataset) -> Fitted:
        fitted = fit_table(raw)
        if kind != "regression":
            return Fitted(lambda data: _with_columns(fitted.apply(data), names), _as_it_is)
        center, scale = preprocessing.fit_target(raw)

        def scaled(examples: Any) -> Any:
            return {**examples, "y": ((examples["y"] - center) / scale).astype(np.float32)}

        return Fitted(
            lambda data: _with_columns(fitted.apply(data), names).map_examples(scaled),
            lambda outputs: outputs * scale + center,
        )

    return fit


def _times(dataset: FederatedDataset) -> tuple[float, ...]:
    """Times by which a quarter, half and three quarters of the training events happened."""
    examples = dataset.train.examples
    events = np.quantile(examples["time"][examples["event"] == 1], [0.25, 0.5, 0.75])
    return tuple(float(f"{time:.3g}") for time in events)


def _as_it_is(outputs: np.ndarray) -> np.ndarray:
    return outputs


def _with_columns(dataset: FederatedDataset, names: tuple[str, ...]) -> FederatedDataset:
    """The dataset with these columns, those that it does not have being 0."""
    if dataset.feature_names == names:
        return dataset
    place = {name: i for i, name in enumerate(dataset.feature_names)}
    have = [i for i, name in enumerate(names) if name in place]
    take = [place[names[i]] for i in have]

    def chosen(examples: Any) -> Any:
        x = np.zeros((len(examples["x"]), len(names)), examples["x"].dtype)
        x[:, have] = examples["x"][:, take]
        return {**examples, "x": x}

    return dataset.map_examples(chosen, names)


def _learner(settings: Settings, population: Population) -> Learner:
    table = tasks.for_table(population.train, settings.model, hidden=settings.hidden)
    largest = int(population.train.train.sizes.max())
    batch_size = settings.batch_size or largest
    return Learner(
        table.model,
        table.task,
        settings.rounds,
        epochs(settings.local_epochs, batch_size=min(batch_size, largest)),
    )


def _seeds(study: Study) -> range:
    first = study.settings.seed
    return range(first, first + study.settings.num_seeds)


def _run_method(
    study: Study, name: str, tuning: Sequence[Population], tell: Callable[[str], None]
) -> None:
    start = time.perf_counter()
    method, learner, settings = METHODS[name], study.learner, study.settings
    tell(f"{method.title}: choosing its learning rate")
    tried = training.federated(
        learner,
        method,
        tuning,
        seeds=[settings.seed],
        learning_rates=settings.learning_rates,
    )
    rate = _choose(study, name, tried.outputs, tuning)
    chosen = {"seeds": _seeds(study), "learning_rates": [rate]}
    tell(f"{method.title}: {settings.num_splits} splits, {settings.num_seeds} seeds")
    trained = training.federated(learner, method, study.populations, **chosen)
    study.outputs[name], study.models[name] = trained
    if study.left_out and not method.is_personal:
        tell(f"{method.title}: each hospital left out")
        left_out = training.federated(learner, method, study.left_out, **chosen)
        study.outputs_left_out[name] = left_out.outputs
    study.seconds[name] = time.perf_counter() - start


def _run_baselines(study: Study, tuning: Sequence[Population], tell: Callable[[str], None]) -> None:
    start = time.perf_counter()
    learner, settings, populations = study.learner, study.settings, study.populations
    tell("baselines")
    study.outputs["site_rate"] = [baselines.site_rate(p, study.kind) for p in populations]
    rates = {"seeds": [settings.seed], "learning_rates": settings.learning_rates}
    tried = training.alone(learner, tuning, **rates).own
    chosen = {"seeds": _seeds(study), "learning_rates": [_choose(study, "local", tried, tuning)]}
    alone = training.alone(learner, populations, **chosen)
    study.outputs["local"] = alone.own
    best = [
        baselines.best_site(study.judge, learner.model, p, models)
        for p, models in zip(populations, alone.models, strict=True)
    ]
    study.outputs["best_site"] = [outputs for _, outputs in best]
    study.best_sites.extend(name for name, _ in best)
    tried = training.all_pooled(learner, tuning, **rates)
    chosen["learning_rates"] = [_choose(study, "pooled", tried, tuning)]
    study.outputs["pooled"] = training.all_pooled(learner, populations, **chosen)
    if study.left_out:
        study.outputs_left_out["site_rate"] = [
            baselines.site_rate(p, study.kind) for p in study.left_out
        ]
        study.outputs_left_out["pooled"] = training.all_pooled(learner, study.left_out, **chosen)
    study.seconds["baselines"] = time.perf_counter() - start


def _choose(study: Study, name: str, tried: Outputs, tuning: Sequence[Population]) -> float:
    """The learning rate whose models are the best, by the mean over splits and hospitals."""
    main = study.judge.main
    judge = study.judge._replace(metrics={main: study.judge.metrics[main]})
    by_rate = mean_of_defined(values(judge, tried, tuning)[main].mean.T)  # [rates]
    distance = np.abs(by_rate - judge.metrics[main].ideal)
    if np.isnan(distance).all():
        raise DataError(
            f"{main} is not defined for the patients that learning rates are chosen on; "
            f"{study.dataset.name} has too few of them."
        )
    best = int(np.nanargmin(distance))
    study.learning_rates[name] = study.settings.learning_rates[best]
    study.tuned[name] = float(by_rate[best])
    return study.learning_rates[name]
