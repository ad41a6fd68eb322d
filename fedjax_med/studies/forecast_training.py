"""Trains every method on the seasons before the test seasons; forecasts as quantiles of logarithms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedjax_med.data import FederatedDataset
from fedjax_med.datasets._flu_ili import forecasting_dataset, parts_of
from fedjax_med.datasets.weekly import HORIZONS, LogScale, WeeklyCounts, fit_log_scale
from fedjax_med.engine import local_work
from fedjax_med.evaluation.forecasting import uncrossed
from fedjax_med.studies.methods import METHODS
from fedjax_med.studies.populations import Fitted, Population
from fedjax_med.studies.training import Learner, all_pooled, alone, federated
from fedjax_med.tasks.forecasting import LEVELS, quantile_forecast
from fedjax_med.tasks.modalities import NETWORKS

WINDOW = 20
FEDERATED = ("fedavg", "fedprox", "scaffold", "fedadam", "ditto")
TRAINED = (*FEDERATED, "local", "pooled")
LEARNING_RATES = (0.3, 1.0, 3.0)


class Seasons(NamedTuple):
    """When seasons that are kept begin, by the year of their week 40.

    Attributes:
      validation_from: those on which learning rates are chosen.
      test_from: those that are judged.
    """

    validation_from: int
    test_from: int


class Setup(NamedTuple):
    """What is forecast from what.

    Attributes:
      series: the counts.
      parts: rows of "train" and "test".
      scale: of each place, from its training weeks.
      dataset: standardised logarithms.
    """

    series: WeeklyCounts
    parts: dict[str, tuple[int, int]]
    scale: LogScale
    dataset: FederatedDataset

    @property
    def population(self) -> Population:
        """All places, each trained on and judged."""
        return as_population("all", self.dataset, self.dataset)

    def origins(self, part: str) -> np.ndarray:
        """Rows of the last observed weeks of a part's windows."""
        begin, end = self.parts[part]
        return np.arange(max(WINDOW - 1, begin - HORIZONS[0]), end - HORIZONS[-1])

    def truth(self, part: str) -> np.ndarray:
        """`log(1 + counts)` that came, `[origins, places, horizons]`."""
        rows = self.origins(part)[:, None] + np.array(HORIZONS)
        return np.moveaxis(np.log1p(self.series.counts)[rows], 1, 2)


def setup(
    series: WeeklyCounts, seasons: Seasons, *, to_tune: bool, name: str, neighbours: int = 0
) -> Setup:
    """Training and test seasons; or, to tune, the seasons before and the validation seasons.

    Args:
      series: counts of all weeks.
      seasons: how they are divided.
      to_tune: whether validation seasons are forecast from those before.
      name: of the dataset.
      neighbours: see `forecasting_dataset`.

    Raises:
      DataError: if there are no such seasons.
    """
    parts = parts_of(series, test_from=seasons.test_from, validation_from=seasons.validation_from)
    if to_tune:
        parts = {"train": parts["train"], "test": parts["validation"]}
    else:
        parts = {"train": (0, parts["test"][0]), "test": parts["test"]}
    scale = fit_log_scale(series.counts[: parts["train"][1]])
    dataset = forecasting_dataset(
        series,
        scale.apply(series.counts),
        parts,
        window=WINDOW,
        horizons=HORIZONS,
        name=name,
        neighbours=neighbours,
    )
    return Setup(series, parts, scale, dataset)


def as_population(name: str, trained: FederatedDataset, judged: FederatedDataset) -> Population:
    """A division whose preprocessing is done."""
    nothing = Fitted(lambda dataset: dataset, lambda outputs: outputs, None)
    return Population(name, trained, judged, trained, judged, nothing)


def learner(name: str, dataset: FederatedDataset, rounds: int) -> Learner:
    """A model of all horizons and levels, and its task."""
    model = NETWORKS["series"][name](dataset, len(HORIZONS) * len(LEVELS))
    task = quantile_forecast(model, dataset.train.examples)
    return Learner(model, task, rounds, local_work.epochs(1, batch_size=64))


def outputs(
    method: str,
    learn: Learner,
    populations: Sequence[Population],
    *,
    seeds: Sequence[int],
    rates: Sequence[float],
) -> list[np.ndarray]:
    """For each population `[seeds * rates, N, horizons * levels]`, rates varying fastest."""
    if method == "local":
        return alone(learn, populations, seeds=seeds, chosen=rates).own
    if method == "pooled":
        return all_pooled(learn, populations, seeds=seeds, chosen=rates)
    trained = federated(learn, METHODS[method], populations, seeds=seeds, chosen=rates)
    return trained.outputs


def logarithms(setup_: Setup, output: np.ndarray, places: Sequence[int] | None = None):
    """Quantiles of `log(1 + counts)`, `[..., origins, places, horizons, levels]`, in rising order.

    Args:
      setup_: of the data.
      output: `[..., N, horizons * levels]` in the order of the test examples.
      places: which places these are of; all if None.
    """
    chosen = np.arange(len(setup_.series.names)) if places is None else np.asarray(places)
    shape = (*output.shape[:-2], len(chosen), -1, len(HORIZONS), len(LEVELS))
    scaled = np.moveaxis(np.asarray(output, np.float64).reshape(shape), -4, -3)
    scale = LogScale(*(field[chosen][:, None, None] for field in setup_.scale))
    return uncrossed(scale.logarithms(scaled))


def pinball(setup_: Setup, output: np.ndarray) -> np.ndarray:
    """Mean pinball loss of standardised logarithms of the judged, `[models]`."""
    test = setup_.population.test
    target = np.asarray(test.examples["y"], np.float64)[..., None]
    error = target - output.reshape(len(output), *target.shape[:-1], len(LEVELS))
    level = np.asarray(LEVELS)
    return np.maximum(level * error, (level - 1) * error).mean(axis=(1, 2, 3))


def tuned(
    method: str,
    model: str,
    data: Setup,
    rounds: int,
    rates: Sequence[float] = LEARNING_RATES,
    seed: int = 0,
) -> tuple[float, list[float]]:
    """The learning rate that is best in the validation seasons, and the loss of every one."""
    learn = learner(model, data.dataset, rounds)
    made = outputs(method, learn, [data.population], seeds=(seed,), rates=rates)[0]
    losses = pinball(data, made)
    best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    return rates[best], losses.tolist()


def without_each(data: Setup) -> list[Population]:
    """Every place once as the one that is judged and was not trained on.

    It is standardised by its own training weeks, as a place that joins would be.
    """
    names = data.dataset.client_names
    return [
        as_population(
            f"without {name}",
            data.dataset.select([n for n in names if n != name]),
            data.dataset.select([name]),
        )
        for name in names
    ]


def persistence(data: Setup) -> np.ndarray:
    """Nothing changes; intervals from the changes of the place's training weeks."""
    logs = np.log1p(data.series.counts)
    past, (_, end) = logs[: data.parts["train"][1]], data.parts["train"]
    changes = [
        np.quantile(past[h:end] - past[: end - h], LEVELS, axis=0) for h in HORIZONS
    ]  # [levels, places] each
    # The median is the present week itself, whatever the drift of the training weeks.
    spread = np.moveaxis(np.stack(changes), 1, -1).swapaxes(0, 1)  # [places, horizons, levels]
    spread[..., len(LEVELS) // 2] = 0
    return uncrossed(logs[data.origins("test")][:, :, None, None] + spread)


def seasonal(data: Setup, *, width: int = 2) -> np.ndarray:
    """Quantiles of the same weeks, and `width` before and after, of all training seasons."""
    logs = np.log1p(data.series.counts)
    train, week = data.parts["train"][1], data.series.week
    by_week = {}
    for number in np.unique(week):
        near = np.abs((week[:train] - number + 26) % 52 - 26) <= width
        by_week[number] = np.quantile(logs[:train][near], LEVELS, axis=0).T
    rows = data.origins("test")[:, None] + np.array(HORIZONS)
    found = np.array([[by_week[week[row]] for row in of_origin] for of_origin in rows])
    return np.moveaxis(found, 1, 2)
