"""Scores per centre and seed, intervals over patients and over seeds, and baselines."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from benchmarks.flamby.protocol import Trained
from benchmarks.flamby.settings import INPUTS, Setting
from fedjax_med.evaluation import Predictions, bootstrap
from fedjax_med.evaluation.intervals import Statistic

RESAMPLES = 1000
MAJORITY = "majority of the centre's training patients"


class Row(NamedTuple):
    """A line of the table before it is judged.

    Attributes:
      method: its name.
      inputs: one of `INPUTS`, or "" where no model is trained.
      outputs: of the test examples of all centres `[seeds, N]`.
      note: what else should be said; "" if nothing.
    """

    method: str
    inputs: str
    outputs: np.ndarray
    note: str = ""


def rows(setting: Setting, trained: list[Trained]) -> list[Row]:
    """The models' outputs, then those of the baselines."""
    made = [Row(t.method, t.inputs, setting.outputs(t.params, t.inputs)) for t in trained]
    by_name = {(t.method, t.inputs): t for t in trained}
    client = _client(setting, "test")
    for how in INPUTS:
        alone = [by_name[f"Local {k}", how] for k in range(len(setting.centres))]
        outputs = np.stack([setting.outputs(t.params, how) for t in alone])  # [centres, seeds, N]
        own = np.take_along_axis(outputs, client[None, None], axis=0)[0]
        made.append(Row("each centre its own model", how, own))
        # Chosen by training examples of all centres, so that test examples have no say.
        fit = [scores(setting, setting.outputs(t.params, how, "train"), "train") for t in alone]
        best = int(np.argmax([f.mean() for f in fit]))
        made.append(Row("best single centre", how, outputs[best], setting.centres[best]))
    return made + _without_training(setting)


def _without_training(setting: Setting) -> list[Row]:
    raw, train = setting.inputs[INPUTS[0]].test, setting.inputs[INPUTS[0]].train
    assert raw is not None
    if "y" not in train.examples:
        return [Row("age alone", "", raw.examples["x"][None, :, 0].astype(np.float64))]
    ill = [train.client(k)["y"].mean() > 0.5 for k in range(train.num_clients)]
    sign = np.where(ill, 1.0, -1.0)[_client(setting, "test")]
    return [Row(MAJORITY, "", sign[None])]


def _client(setting: Setting, split: str) -> np.ndarray:
    arrays = setting.inputs[INPUTS[0]].splits()[split]
    return np.repeat(np.arange(arrays.num_clients), arrays.sizes)


def predictions(setting: Setting, outputs: np.ndarray, split: str = "test") -> Predictions:
    """Outputs `[..., N]` beside their labels, patients first."""
    examples = setting.inputs[INPUTS[0]].splits()[split].examples
    return Predictions(
        np.moveaxis(outputs, -1, 0),
        setting.labels(examples),
        _client(setting, split),
        setting.centres,
    )


def scores(setting: Setting, outputs: np.ndarray, split: str = "test") -> np.ndarray:
    """The metric `[seeds, centres]` of outputs `[seeds, N]`."""
    everybody = np.ones(outputs.shape[-1])
    return np.array(
        [_of_centres(setting, predictions(setting, o[None], split), everybody) for o in outputs]
    )


def _of_centres(setting: Setting, p: Predictions, weight: np.ndarray) -> np.ndarray:
    """The metric `[centres, ...]` for weights `[..., N]`, mean over outputs `[N, seeds]`."""
    values = []
    for centre in range(len(setting.centres)):
        at = np.flatnonzero(p.client == centre)
        one = p.take(at)
        values.append(setting.score(one.outputs.T, one.labels, weight[..., at]))
    return np.stack(values)


def _mean_over_centres(setting: Setting) -> Statistic:
    """Of all seeds as well; NaN where a centre whose only deaths were not drawn has no C-index."""

    def statistic(p: Predictions, weight: np.ndarray) -> np.ndarray:
        return _of_centres(setting, p, weight).mean(axis=0)

    return statistic


def _all_together(setting: Setting) -> Statistic:
    """The metric of all patients as if of one centre, mean over seeds."""

    def statistic(p: Predictions, weight: np.ndarray) -> np.ndarray:
        return setting.score(p.outputs.T, p.labels, weight)

    return statistic


def _gain(setting: Setting, num: int) -> Statistic:
    """Mean over centres and seeds of the first `num` models minus that of the rest."""
    mean = _mean_over_centres(setting)

    def statistic(p: Predictions, weight: np.ndarray) -> np.ndarray:
        better, worse = (dataclasses.replace(p, outputs=o) for o in np.split(p.outputs, [num], 1))
        return mean(better, weight) - mean(worse, weight)

    return statistic


def judged(setting: Setting, row: Row, base: Row | None, intervals: bool) -> dict[str, Any]:
    """What the results say of a row; `base` is the same method with FLamby's inputs.

    Intervals are 95 %: over seeds by Student's t, over patients by BCa, drawn within centres. Where
    resamples leave a centre without a C-index they are left out, which `undefined` counts.
    """
    values = scores(setting, row.outputs)
    mean = values.mean(axis=1)
    seeds = len(mean)
    together = predictions(setting, row.outputs)
    record: dict[str, Any] = {
        "method": row.method,
        "inputs": row.inputs,
        "note": row.note,
        "seeds": seeds,
        "mean": float(mean.mean()),
        "centres": values.mean(axis=0).tolist(),
    }
    if seeds > 1:
        sd = float(mean.std(ddof=1))
        half = float(stats.t.ppf(0.975, seeds - 1)) * sd / seeds**0.5
        record |= {"sd_over_seeds": sd, "half_width_over_seeds": half}
    if intervals:
        record["over_patients"] = _interval(_mean_over_centres(setting), together)
        record["pooled"] = _interval(_all_together(setting), together)
        if base is not None:
            both = predictions(setting, np.concatenate([row.outputs, base.outputs]))
            record["gain"] = _interval(_gain(setting, seeds), both)
    return record


def _interval(statistic: Statistic, p: Predictions) -> dict[str, Any]:
    estimate = bootstrap(statistic, p, num_resamples=RESAMPLES)
    return {
        "value": estimate.value,
        "low": None if np.isnan(estimate.low) else estimate.low,
        "high": None if np.isnan(estimate.high) else estimate.high,
        "undefined": estimate.num_undefined / RESAMPLES,
    }
