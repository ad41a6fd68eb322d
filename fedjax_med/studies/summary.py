"""The result of a study as plain JSON, with intervals, comparisons and a sentence on what it means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from fedjax_med.evaluation import (
    Estimate,
    Judgement,
    Metric,
    Predictions,
    corrected_t_test,
    gap,
    judge,
    over_hospitals,
    over_patients,
    paired_bootstrap,
    subgroups,
    together,
)
from fedjax_med.evaluation.comparison import Comparison
from fedjax_med.explanation import Coefficients, coefficients
from fedjax_med.studies.judging import (
    Values,
    mean_of_defined,
    over_seeds,
    seeds_together,
    values,
)
from fedjax_med.studies.methods import METHODS
from fedjax_med.studies.sentences import design_in_words, sentences
from fedjax_med.studies.study import BASELINES, Study

LEVEL = 0.95
# What exponentials of coefficients are, by kind of outcome.
RATIOS = {"binary": "odds ratio", "survival": "hazard ratio"}
# Metrics that fit a model of their own or have no interval are left to the details of one split.
# Least and largest value of the metrics that are no shares.
_RANGES = {"rmse": (0.0, math.inf), "mae": (0.0, math.inf), "r2": (-math.inf, 1.0)}
_ONLY_IN_DETAIL = ("calibration_intercept", "calibration_slope")


def title_of(name: str) -> str:
    """What a method or baseline is called in tables."""
    return BASELINES.get(name) or METHODS[name].title


class Judgements(NamedTuple):
    """Judgements of patients, with bootstrap intervals, by method and baseline.

    Attributes:
      details: of the test patients of the first split by every metric, for the chosen method and
        what it is compared with first: hospitals alone, and all patients pooled. With the dataset's own
        division, for everything.
      left_out: of all patients of every hospital by the main metric, by models that never saw the
        hospital.
    """

    details: dict[str, Judgement]
    left_out: dict[str, Judgement]


def judge_patients(study: Study) -> Judgements:
    """Judges the patients of the first split, and those of hospitals left out."""
    first, judge = study.populations[0], study.judge
    groups = subgroups(first.raw_judged, "test") if first.raw.feature_names else {}
    details = {
        name: _judged(
            study,
            seeds_together(judge, study.outputs[name][:1], [first], [groups]),
            judge.metrics,
        )
        for name in (study.names if study.is_own else ("local", "pooled", study.chosen))
    }
    only = {judge.main: judge.metrics[judge.main]}
    left_out = {
        name: _judged(study, seeds_together(judge, outputs, study.left_out), only)
        for name, outputs in study.outputs_left_out.items()
    }
    return Judgements(details, left_out)


def exact_fit(study: Study) -> Coefficients | None:
    """Coefficients of the exact fit to the first split's training patients, None if there is none.

    In natural units of the columns; of a regression, in standard deviations of the outcome.
    """
    if "newton" not in study.models:
        return None
    first = study.populations[0]
    return coefficients(
        study.learner.task.loss,
        study.models["newton"],
        first.train,
        standardizer=first.fitted.standardizer,
        ridge=study.numbers["newton"],
        whole_hospitals=study.kind == "survival",
        estimate_dispersion=study.kind == "regression",
        level=LEVEL,
    )


def summarise(study: Study, judgements: Judgements) -> dict[str, Any]:
    """Everything that tables, figures and the report of a study are made of; None for NaN.

    `methods` has for each metric its mean over splits and seeds: `mean` over hospitals each counted
    once, and `pooled` patients, with intervals over splits (Nadeau and Bengio) or, with the dataset's own
    division, over test patients (bootstrap of the mean over seeds); `per_hospital`; and the `worst` hospital. `comparisons` (`comparisons_pooled`) are the chosen method's main metric minus that
    of the others, as means over hospitals (over all patients). `details` judges the first split by patients, with bootstrap intervals, gaps
    between hospitals and subgroups. `left_out` judges every hospital by models that never saw it.
    """
    names = study.names
    metrics = {n: m for n, m in study.judge.metrics.items() if n not in _ONLY_IN_DETAIL}
    brief = study.judge._replace(metrics=metrics)
    found = {name: values(brief, study.outputs[name], study.populations) for name in names}
    chosen, main = study.chosen, study.judge.main
    result = {
        "dataset": {
            "name": study.dataset.name,
            "licence": study.dataset.licence,
            "source": study.dataset.source,
            "citation": study.dataset.citation,
            "clients": together(study.dataset).summary(),
        },
        "kind": study.kind,
        "main_metric": main,
        "ideal": {name: metric.ideal for name, metric in study.judge.metrics.items()},
        "settings": study.settings.as_dict(),
        "numbers": study.numbers,
        "tuned": study.tuned,
        "chosen": chosen,
        "best_sites": study.best_sites,
        "methods": {
            name: _method(study, name, found[name], judgements.details.get(name)) for name in names
        },
        "comparisons": _comparisons(study, found, "mean"),
        "comparisons_pooled": _comparisons(study, found, "pooled"),
        "details": {name: j.as_dict() for name, j in judgements.details.items()},
        "left_out": {name: j.as_dict() for name, j in judgements.left_out.items()},
        "coefficients": _coefficients(exact_fit(study), study.kind),
        "seconds": study.seconds,
    }
    result = plain(result)
    result["about"] = design_in_words(result["settings"])
    result["sentences"] = sentences(result)
    return result


def _sizes(study: Study) -> tuple[int, int]:
    first = study.populations[0].raw
    return first.train.num_examples, first.splits()["test"].num_examples


def _over_splits(study: Study, metric: str, by_split: np.ndarray) -> Estimate:
    """Mean over splits with its interval, which stays among the values that there are."""
    num_train, num_test = _sizes(study)
    found = corrected_t_test(by_split, num_train=num_train, num_test=num_test, level=LEVEL)
    low, high = found.low, found.high
    least, most = _RANGES.get(metric, (0.0, 1.0))
    low, high = float(np.maximum(low, least)), float(np.minimum(high, most))  # NaN stays NaN
    return Estimate(found.difference, low, high)


def _method(
    study: Study, name: str, found: dict[str, Values], judged: Judgement | None
) -> dict[str, Any]:
    hospitals = study.dataset.client_names
    described = {}
    for metric, value in found.items():
        # [splits, seeds, hospitals] -> [hospitals]
        own = mean_of_defined(np.moveaxis(value.per_hospital, -1, 0).reshape(len(hospitals), -1))
        ideal = study.judge.metrics[metric].ideal
        worst = gap(dict(zip(hospitals, own, strict=True)), ideal)
        if study.is_own and judged:
            mean, pooled = judged.mean[metric], judged.pooled.metrics[metric]
        else:
            mean = _over_splits(study, metric, mean_of_defined(value.mean))
            pooled = _over_splits(study, metric, mean_of_defined(value.pooled))
        described[metric] = {
            "mean": mean,
            "pooled": pooled,
            "over_seeds": float(mean_of_defined(value.mean.std(axis=1))),
            "worst": {"hospital": worst.worst_name, "value": worst.worst},
            "per_hospital": dict(zip(hospitals, own.tolist(), strict=True)),
        }
    return {"title": title_of(name), "is_baseline": name in BASELINES, "metrics": described}


def _comparisons(
    study: Study, found: Mapping[str, dict[str, Values]], over: Literal["mean", "pooled"]
) -> dict[str, Comparison]:
    """The chosen method's main metric minus that of every other, over hospitals or over patients."""
    main = study.judge.main
    others = [name for name in study.names if name != study.chosen]
    if study.is_own:
        return _on_same_patients(study, others, over)
    num_train, num_test = _sizes(study)
    by_split = {name: mean_of_defined(getattr(value[main], over)) for name, value in found.items()}
    return {
        name: corrected_t_test(
            by_split[study.chosen] - by_split[name],
            num_train=num_train,
            num_test=num_test,
            level=LEVEL,
        )
        for name in others
    }


def _on_same_patients(
    study: Study, others: list[str], over: Literal["mean", "pooled"]
) -> dict[str, Comparison]:
    """The same on the test patients of the dataset's own division, resampled together."""
    metric = over_seeds(study.judge.metrics[study.judge.main])
    statistic = (over_hospitals if over == "mean" else over_patients)(metric)
    predicted = {
        name: seeds_together(study.judge, study.outputs[name], study.populations)
        for name in [study.chosen, *others]
    }
    if not study.settings.num_resamples:
        return {}
    return {
        name: paired_bootstrap(
            statistic,
            predicted[study.chosen],
            predicted[name],
            level=LEVEL,
            num_resamples=study.settings.num_resamples,
            seed=study.settings.seed,
        )
        for name in others
    }


def _judged(study: Study, predicted: Predictions, metrics: Mapping[str, Metric]) -> Judgement:
    return judge(
        predicted,
        {name: over_seeds(metric) for name, metric in metrics.items()},
        level=LEVEL,
        num_resamples=study.settings.num_resamples,
        seed=study.settings.seed,
        method="percentile",
    )


def _coefficients(fit: Coefficients | None, kind: str) -> dict[str, Any] | None:
    """By column; ratios of odds or hazards where the outcome has them."""
    if fit is None:
        return None
    table = fit.federated.ratios() if kind in RATIOS else fit.federated
    columns = zip(fit.names, table.value, table.low, table.high, table.p_value, strict=True)
    return {
        "meaning": RATIOS.get(kind, "change of the model's output"),
        "by_column": {
            name: {"value": value, "low": low, "high": high, "p_value": p_value}
            for name, value, low, high, p_value in columns
        },
    }


def plain(value: Any) -> Any:
    """The same as dicts, lists and numbers for JSON; None for NaN and infinity."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
