"""Forecasts of weekly counts: federated methods, places alone, all places pooled, and simple rules.

Places are clients. Training, validation and test are seasons after each other. Intervals are over blocks
of test weeks, of all places together.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.datasets import flu_ili_counts
from fedjax_med.datasets.weekly import HORIZONS, WeeklyCounts
from fedjax_med.evaluation.forecasting import coverage, weighted_interval_score
from fedjax_med.studies import forecast_training as training
from fedjax_med.studies.forecast_training import FEDERATED, Seasons, Setup
from fedjax_med.studies.judging import mean_of_defined
from fedjax_med.studies.methods import METHODS
from fedjax_med.studies.scores import Metric, Row, over_weeks, result_of
from fedjax_med.tasks.forecasting import LEVELS
from fedjax_med.tasks.modalities import NETWORKS

BLOCK = 13  # weeks, a quarter of a year
MIDDLE = LEVELS.index(0.5)


class Source(NamedTuple):
    """Where the counts of a dataset of windows come from.

    Attributes:
      counts: loads them; has the option `data_dir`.
      seasons: how they are divided.
    """

    counts: Callable[..., WeeklyCounts]
    seasons: Seasons


# By name of the dataset: its windows alone do not say which season a week is of.
SOURCES: Mapping[str, Source] = MappingProxyType(
    {"flu-ili": Source(flu_ili_counts, Seasons(validation_from=2010, test_from=2012))}
)

_NAMED_HORIZONS = {1: "1_week_ahead", 5: "5_weeks_ahead", 15: "15_weeks_ahead"}
_METRICS = {
    "wis": Metric(0.0, 0.0, np.inf),
    **{f"score_{words}": Metric(0.0, 0.0, np.inf) for words in _NAMED_HORIZONS.values()},
    "absolute_error_5_weeks_ahead": Metric(0.0, 0.0, np.inf),
    "share_in_95_%_intervals": Metric(0.95),
    "share_in_50_%_intervals": Metric(0.5),
}
_EXPLAINED = {
    "persistence": "nothing changes; intervals from the changes of the place's training weeks",
    "seasonal": "quantiles of the same weeks of the year in all training seasons",
    "local": "each place trains a model on its own weeks and shares nothing",
    "pooled": "one model trained on the weeks of all places",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForecastSettings:
    """All choices of a study of forecasts.

    Attributes:
      methods: among `FEDERATED`.
      model: a key of `NETWORKS["series"]`.
      num_seeds: trainings that differ in nothing but the seed.
      rounds: federated rounds of one pass.
      learning_rates: of the places, one is chosen for each method on the validation seasons.
      leave_one_out: whether every place is left out once, by the method that is the best there.
      num_resamples: of blocks of weeks; 0 for no intervals.
      seed: the first.

    Raises:
      ValueError: names the setting that does not fit.
    """

    methods: tuple[str, ...] = FEDERATED
    model: str = "autoregression"
    num_seeds: int = 5
    rounds: int = 30
    learning_rates: tuple[float, ...] = training.LEARNING_RATES
    leave_one_out: bool = False
    num_resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the settings."""
        for name in self.methods:
            if name not in FEDERATED:
                raise ValueError(f"methods must be among {', '.join(FEDERATED)}, got {name!r}.")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods must name some, each once, got {self.methods!r}.")
        if self.model not in NETWORKS["series"]:
            raise ValueError(
                f"model must be one of {', '.join(NETWORKS['series'])}, got {self.model!r}."
            )
        if not self.learning_rates or not all(rate > 0 for rate in self.learning_rates):
            raise ValueError(f"learning_rates must be above 0, got {self.learning_rates}.")
        for name, least in (("num_seeds", 1), ("rounds", 1), ("num_resamples", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")


class Shown(NamedTuple):
    """What figures of a study show.

    Attributes:
      title: of the method that is shown.
      setup: test weeks and what came.
      quantiles: of `log(1 + counts)`, mean over seeds `[origins, places, horizons, levels]`.
    """

    title: str
    setup: Setup
    quantiles: np.ndarray


def study_forecasts(
    dataset: FederatedDataset,
    settings: ForecastSettings,
    *,
    data_dir: str | os.PathLike | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[dict[str, Any], Shown]:
    """Compares methods, with learning rates that are the best in the validation seasons.

    Args:
      dataset: windows, of which the name says where the counts are from.
      settings: see there.
      data_dir: folder with local copies of the counts.
      tell: called with what is being done.

    Returns:
      The result, as `summarise` gives it, and what figures show.

    Raises:
      DataError: if the counts of the dataset are not known.
    """
    start = time.perf_counter()
    series, seasons = _series_of(dataset, data_dir)
    to_tune = training.setup(series, seasons, to_tune=True, name=dataset.name)
    data = training.setup(series, seasons, to_tune=False, name=dataset.name)
    seeds = range(settings.seed, settings.seed + settings.num_seeds)
    quantiles = {
        "persistence": training.persistence(data)[None],
        "seasonal": training.seasonal(data)[None],
    }
    learn = training.learner(settings.model, data.dataset, settings.rounds)
    numbers: dict[str, float] = {}
    losses: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for name in ("local", "pooled", *settings.methods):
        began = time.perf_counter()
        tell(f"{_title(name)}: choosing its learning rate")
        rates = settings.learning_rates
        rate, tried = training.tuned(
            name, settings.model, to_tune, settings.rounds, rates, settings.seed
        )
        tell(f"{_title(name)}: {settings.num_seeds} seeds")
        (made,) = training.outputs(name, learn, [data.population], seeds=seeds, rates=(rate,))
        quantiles[name] = training.logarithms(data, made)
        numbers[name], losses[name] = rate, float(np.nanmin(tried))
        seconds[name] = time.perf_counter() - began
    chosen = min(settings.methods, key=lambda name: losses[name])
    interval = over_weeks(BLOCK, settings.num_resamples, settings.seed)
    rows = {name: _row(name, data, found) for name, found in quantiles.items()}
    left_out = {}
    if settings.leave_one_out:
        tell(f"{_title(chosen)}: each place left out")
        parts = training.outputs(
            chosen, learn, training.without_each(data), seeds=seeds, rates=(numbers[chosen],)
        )
        found = training.logarithms(data, np.concatenate(parts, axis=1))
        left_out[chosen] = _told_left_out(_row(chosen, data, found), dataset, interval)
    seconds["total"] = time.perf_counter() - start
    result = result_of(
        data.dataset,
        "forecast",
        rows,
        metrics=_METRICS,
        interval=interval,
        chosen=chosen,
        chosen_on="the validation seasons",
        against={
            "local": "places that train alone",
            "persistence": "saying that nothing changes",
            "seasonal": "what past seasons had in these weeks",
            "pooled": "a model of the weeks of all places",
        },
        settings=dataclasses.asdict(settings),
        about={
            "examples": "weeks",
            "divided": f"test seasons from autumn {seasons.test_from} on, {settings.num_seeds} seeds, "
            f"{settings.rounds} rounds",
            "how": f"Intervals are 95 % over blocks of {BLOCK} test weeks, all places together; they say "
            "nothing of other places. The weighted interval score (Bracher et al. 2021) is of logarithms "
            f"of counts, the mean over {', '.join(map(str, HORIZONS))} weeks ahead, lower is better. "
            "Absolute errors are of the median, in counts. Learning rates were chosen on the seasons "
            f"from autumn {seasons.validation_from} on, by models of the seasons before.",
            "numbers": "learning rate",
        },
        numbers=numbers,
        left_out=left_out,
        seconds=seconds,
    )
    title = rows[chosen].title
    return result, Shown(title, data, quantiles[chosen].mean(axis=0))


def _series_of(
    dataset: FederatedDataset, data_dir: str | os.PathLike | None
) -> tuple[WeeklyCounts, Seasons]:
    source = SOURCES.get(dataset.name)
    series = source and source.counts(data_dir=data_dir)
    if source is None or series is None or series.names != dataset.client_names:
        raise DataError(
            f"a study of forecasts needs the weekly counts themselves, which are known of "
            f"{', '.join(SOURCES)} only, not of {dataset.name} with {dataset.num_clients} clients."
        )
    return series, source.seasons


def _title(name: str) -> str:
    own = {"local": "local only", "pooled": "pooled", "persistence": "no change"}
    return own.get(name) or (METHODS[name].title if name in METHODS else name)


def _row(name: str, data: Setup, quantiles: np.ndarray) -> Row:
    """Metrics by test week, of quantiles `[seeds, origins, places, horizons, levels]`."""
    truth = data.truth("test")
    score = weighted_interval_score(
        quantiles, truth[None], LEVELS
    )  # [seeds, weeks, places, horizons]
    inside = {
        level: coverage(quantiles[..., low], quantiles[..., -1 - low], truth[None]).mean(axis=-1)
        for level, low in ((95, 0), (50, 2))
    }
    h = HORIZONS.index(5)
    off = np.abs(np.expm1(quantiles[..., h, MIDDLE]) - np.expm1(truth[None, ..., h]))
    values = {
        "wis": score.mean(axis=-1),
        **{
            f"score_{words}": score[..., HORIZONS.index(ahead)]
            for ahead, words in _NAMED_HORIZONS.items()
        },
        "absolute_error_5_weeks_ahead": off,
        **{f"share_in_{level}_%_intervals": share for level, share in inside.items()},
    }
    return Row(
        _title(name),
        name not in FEDERATED,
        {key: value.mean(axis=(0, 2)) for key, value in values.items()},
        {key: value.mean(axis=0) for key, value in values.items()},
        explained=_EXPLAINED.get(name, ""),
        deviation={key: float(value.mean(axis=(1, 2)).std()) for key, value in values.items()},
    )


def _told_left_out(
    row: Row, dataset: FederatedDataset, interval: Callable[[np.ndarray], Any]
) -> dict[str, Any]:
    def told(values: np.ndarray) -> dict[str, Any]:
        found = interval(values)
        return {"wis": {"value": found.difference, "low": found.low, "high": found.high}}

    by_place = row.per_hospital["wis"]
    return {
        "per_hospital": {
            name: {"metrics": told(by_place[:, i])} for i, name in enumerate(dataset.client_names)
        },
        "mean": told(mean_of_defined(by_place)),
        "pooled": {"metrics": told(row.pooled["wis"])},
    }
