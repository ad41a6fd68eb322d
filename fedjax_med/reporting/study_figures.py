"""Figures of a study as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedjax_med.evaluation import Predictions, metric_title, risk_group, risk_thresholds
from fedjax_med.explanation import attributions, partial_dependence, permutation_importance
from fedjax_med.reporting.classification_figures import confusion_figure, roc_figure
from fedjax_med.reporting.clinical_figures import (
    kaplan_meier_figure,
    metric_forest,
    reliability_figure,
    subgroup_forest,
)
from fedjax_med.reporting.explanation_figures import (
    attribution_figure,
    coefficients_figure,
    dependence_figure,
    importance_figure,
)
from fedjax_med.reporting.figures import STYLE, as_svg
from fedjax_med.reporting.modality_figures import examples_of
from fedjax_med.reporting.palette import INK, MUTED
from fedjax_med.studies import Judgements, Study
from fedjax_med.studies.judging import predictions
from fedjax_med.studies.summary import RATIOS, exact_fit
from fedjax_med.studies.training import outputs_of
from fedjax_med.tasks import modality_of

# Of a model's output.
_UNITS = {"binary": "log odds", "survival": "log hazard", "regression": "sd of the outcome"}
# Features whose partial dependence is drawn.
_MOST_DEPENDED = 4
_FEDERATED, _LEFT_OUT = "#0072B2", "#D55E00"


def overview(result: Mapping[str, Any]) -> str:
    """The main metric of every method with its interval, and at hospitals that were left out."""
    main, methods = result["main_metric"], result["methods"]
    left_out = result["left_out"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 1.3 + 0.42 * len(methods)), layout="constrained")
        axes = figure.subplots()
        for place, (name, method) in enumerate(methods.items()):
            colour = MUTED if method["is_baseline"] else _FEDERATED
            _estimate(axes, method["metrics"][main]["mean"], place - 0.12, colour, "o")
            if name in left_out:
                found = left_out[name]["mean"][main]
                _estimate(axes, found, place + 0.18, _LEFT_OUT, "D")
        axes.set_yticks(range(len(methods)), [method["title"] for method in methods.values()])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        better = "higher is better" if result["ideal"][main] else "lower is better"
        axes.set_xlabel(f"{metric_title(main)}, mean over hospitals ({better})")
        handles = [
            _key(_FEDERATED, "o", "federated"),
            _key(MUTED, "o", "baseline"),
            *([_key(_LEFT_OUT, "D", "at hospitals left out")] if left_out else []),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
        return as_svg(figure, "overview")


def _estimate(axes: Any, found: Any, y: float, colour: str, marker: str) -> None:
    value, low, high = (found[key] for key in ("value", "low", "high"))
    if value is None:
        return
    if low is not None and high is not None:
        axes.plot([low, high], [y, y], "-", color=colour, lw=2, alpha=0.6)
    axes.plot(value, y, marker, color=colour, markersize=7, markeredgecolor=INK, mew=0.4)


def _key(colour: str, marker: str, label: str) -> Line2D:
    return Line2D([], [], color=colour, marker=marker, lw=2, label=label)


def study_figures(
    study: Study, judgements: Judgements, result: Mapping[str, Any]
) -> dict[str, str]:
    """Heading and `svg` element of every figure; "overview" is the one above the main table.

    All but the overview are of the first split, models of the first seed.
    """
    main, chosen = study.judge.main, study.chosen
    shown = {
        result["methods"][name]["title"]: judgements.details[name]
        for name in ("local", "pooled", chosen)
    }
    label = metric_title(main)
    title = result["methods"][chosen]["title"]
    figures = {f"{label} of every hospital": metric_forest(shown, main, label=label)}
    if judgements.details[chosen].subgroups:
        only = {title: judgements.details[chosen]}
        figures[f"{label} of subgroups"] = subgroup_forest(only, main, label=label)
    first = study.populations[0]
    predicted = predictions(study.judge, study.outputs[chosen][0][0], first)
    if study.kind == "binary":
        figures["Calibration"] = reliability_figure(predicted, title=f"Calibration of {title}")
    if study.kind in ("binary", "multiclass"):
        figures |= _classes(study, predicted)
    if study.kind == "survival":
        figures["Survival by predicted risk"] = _survival(study, predicted)
    modality = modality_of(study.dataset)
    figures |= _explanation(study) if modality == "table" else examples_of(study, modality)
    names = {heading: f"figure{number}" for number, heading in enumerate(figures)}
    drawn = {heading: as_svg(figure, names[heading]) for heading, figure in figures.items()}
    return {"overview": overview(result), **drawn}


def _classes(study: Study, predicted: Predictions) -> dict[str, Figure]:
    """Which classes are taken for which, and ROC curves of two of them."""
    names = study.dataset.label_names
    figures = {"Errors": confusion_figure(predicted, label_names=names)}
    if study.kind == "binary" and len(np.unique(predicted.labels)) == 2:
        figures["ROC curves"] = roc_figure(predicted)
    return figures


def _survival(study: Study, predicted: Predictions) -> Figure:
    """Curves of test patients in thirds of the risk of training patients."""
    first = study.populations[0]
    model = jax.tree.map(lambda x: x[None], study.models[study.chosen])
    of_training = outputs_of(study.learner.model, model, first.train.train)[0]
    thresholds = risk_thresholds(study.judge.link(of_training).risk, 3)
    group = risk_group(predicted.outputs.risk, thresholds)
    return kaplan_meier_figure(predicted.labels, group, ["low risk", "medium risk", "high risk"])


def _explanation(study: Study) -> dict[str, Figure]:
    """What the shared model of the chosen method relies on."""
    first, learner = study.populations[0], study.learner
    variables, main = study.models[study.chosen], study.judge.main
    importance = permutation_importance(
        learner.model,
        variables,
        first.judged,
        study.judge.metrics[main],
        link=study.judge.link,
        labels=study.judge.labels,
        seed=study.settings.seed,
    )
    figures = {"Importance of features": importance_figure(importance, metric_title(main))}
    order = np.argsort(-np.nan_to_num(importance.federated.mean, nan=-np.inf), kind="stable")
    ranked = [importance.columns[i] for i in order]
    most = [column for column in ranked if column in first.judged.feature_names][:_MOST_DEPENDED]
    curves = [partial_dependence(learner.model, variables, first.judged, column) for column in most]
    if study.kind not in ("multiclass", "multilabel") and curves:
        figures["Partial dependence"] = dependence_figure(curves, label="output of the model")
        found = attributions(learner.model, variables, first.judged)
        figures["Integrated gradients"] = attribution_figure(found, unit=_UNITS[study.kind])
    fit = exact_fit(study)
    if fit is not None:
        ratio = RATIOS.get(study.kind)
        figures["Coefficients"] = coefficients_figure(fit, ratio=ratio, title="Exact federated fit")
    return figures
