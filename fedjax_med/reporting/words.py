"""What the report of a run calls things; true of every kind of outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_METRICS = {
    "accuracy": "accuracy",
    "c_index": "C-index",
    "exact_match": "exact match",
    "mae": "mean absolute error",
    "mse": "mean squared error",
    "dice": "Dice coefficient",
    "mrr": "mean reciprocal rank",
    "pinball": "pinball loss",
    "coverage": "share in 95 % intervals",
}
_EXPLAINED = {
    "accuracy": "share of patients classified correctly",
    "sensitivity": "share of the patients with the condition who are found",
    "specificity": "share of the patients without it who are left alone",
    "loss": "mean logarithmic loss in nats, lower is better; it also judges probabilities",
    "mae": "mean distance between prediction and outcome, in the unit of the outcome, lower is better",
    "mse": "mean squared distance, in the squared unit of the outcome, lower is better",
    "c_index": "of two patients of the same hospital who can be compared, how often the one with the "
    "earlier event has the higher predicted risk; 0.5 is chance, and hospitals of more than 128 test "
    "patients are compared in groups of 128",
    "exact_match": "share of the patients of whom every label is right",
    "dice": "overlap of the marked voxels with the true ones, 1 if they are the same: the mean over the "
    "scans in which there is something to mark",
    "mrr": "mean reciprocal rank of the right answer among the entities of the hospital: 1 if it always "
    "comes first, 0.5 if always second",
    "hits@1": "share of the questions whose right answer comes first",
    "hits@3": "share of the questions whose right answer is among the first three",
    "hits@10": "share of the questions whose right answer is among the first ten",
    "pinball": "error of the quantiles that are forecast, lower is better",
    "coverage": "share of the weeks inside their 95 % interval; 0.95 is ideal",
    "false_alarm_rate": "share of the scans with nothing to mark in which something is marked, lower is "
    "better",
}
_OF_KIND = {
    ("multilabel", "accuracy"): "share of all labels that are right",
    ("multilabel", "loss"): "mean logarithmic loss of a label in nats, lower is better",
    (
        "segmentation",
        "loss",
    ): "cross-entropy of a voxel in nats plus one minus the soft Dice coefficient, lower is better",
    (
        "responses",
        "mae",
    ): "mean distance between predicted and measured response, in standard deviations of the drug, "
    "lower is better",
    ("responses", "mse"): "mean squared distance, lower is better",
    (
        "forecast",
        "mae",
    ): "mean distance between the median and what came, in standard deviations of the place's "
    "logarithms, lower is better",
    ("survival", "loss"): "negative log partial likelihood of a patient in nats, lower is better",
}
_UNITS = {
    "mae": "[unit of the outcome]",
    "mse": "[squared unit of the outcome]",
    "c_index": "(0.5 is chance)",
    "loss": "[nats]",
}
_NO_MODEL = {
    "binary": "always predicting the hospital's most frequent outcome",
    "multiclass": "always predicting the hospital's most frequent outcome",
    "multilabel": "predicting every label as most of the hospital's patients have it",
    "regression": "always predicting the hospital's mean outcome",
    "survival": "giving everybody the same risk",
    "links": "taking all answers for equally plausible",
    "responses": "always predicting the mean of the drug",
    "forecast": "saying that nothing changes",
    "segmentation": "giving every voxel the class that is most frequent at its place",
}
_METHODS = {
    "local_only": "each hospital trains a model on its own patients and shares nothing",
    "best_site": "the one model of these that is best for all hospitals' training patients, used "
    "everywhere",
    "federated": "the shared model of this run; patients never leave their hospital",
    "pooled": "one model trained on the patients of all hospitals in one place, which privacy often "
    "forbids",
}
_SHARES = ("accuracy", "sensitivity", "specificity", "exact_match")


_EXAMPLES = {"links": "triples", "forecast": "windows"}


def examples(kind: str) -> str:
    """What is judged, more than one of them."""
    return _EXAMPLES.get(kind, "patients")


def metric_words(metric: str) -> str:
    """A metric inside a sentence."""
    return _METRICS.get(metric, metric.replace("_", " "))


def metric_heading(metric: str) -> str:
    """A metric at the beginning of a line."""
    words = metric_words(metric)
    return words[0].upper() + words[1:]


def explained(metric: str, kind: str) -> str | None:
    """What a metric is; None where that is not known."""
    return _OF_KIND.get((kind, metric), _EXPLAINED.get(metric))


def axis_label(metric: str, kind: str) -> str:
    """A metric with its unit."""
    unit = "(share, 0 to 1)" if is_share(metric) else _UNITS.get(metric, "")
    if kind in ("responses", "forecast") and metric in ("mae", "mse"):
        unit = "(in standard deviations)"
    return f"{metric_words(metric)} {unit}".strip()


def is_share(metric: str) -> bool:
    """Whether a metric counts patients, or labels, out of all."""
    return metric in _SHARES


def has_wilson_interval(result: Mapping[str, Any], metric: str) -> bool:
    """Whether a metric is a share of independent patients: labels of one patient are not."""
    return is_share(metric) and (metric == "exact_match" or result["kind"] != "multilabel")


def no_model(kind: str) -> str:
    """What is done without a model."""
    return _NO_MODEL[kind]


def method_explained(method: str, kind: str) -> str:
    """What a method is."""
    if method != "no_model":
        return _METHODS[method]
    told = (
        ""
        if kind in ("survival", "links", "responses", "forecast")
        else ", as found among its own training patients"
    )
    return f"{no_model(kind)}{told}"
