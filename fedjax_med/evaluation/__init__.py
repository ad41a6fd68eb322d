"""Judging predictions as a clinical study would: by hospital, with intervals, gaps and tests.

    predictions = predict(run, dataset, model, "test", groups=subgroups(raw_dataset, "test"))
    judgement = judge(predictions, binary_metrics())
    judgement.per_hospital["Cleveland"].metrics["auroc"]  # Estimate(value, low, high, ...)

Everything but `predict` is NumPy on the host. What each metric gives where it is not defined is a
table in `fedjax_med.evaluation.metrics`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fedjax_med.evaluation import (
    calibration,
    classification,
    concordance,
    metrics,
    ranking,
    regression,
    segmentation,
    survival,
)
from fedjax_med.evaluation.comparison import (
    Comparison,
    McNemar,
    corrected_t_test,
    delong,
    mcnemar,
    paired_bootstrap,
)
from fedjax_med.evaluation.intervals import (
    Estimate,
    Resampling,
    bootstrap,
    over_hospitals,
    over_patients,
    whole_hospitals,
    within_hospitals,
)
from fedjax_med.evaluation.judgement import Gap, Judged, Judgement, gap, judge
from fedjax_med.evaluation.metrics import (
    Metric,
    SurvivalOutputs,
    binary_metrics,
    class_metrics,
    metric_title,
    multiclass_metrics,
    multilabel_metrics,
    regression_metrics,
    survival_metrics,
)
from fedjax_med.evaluation.predictions import Predictions, age_group, concatenate, subgroups
from fedjax_med.evaluation.segmentation import SegmentationTruth, segmentation_metrics
from fedjax_med.evaluation.splits import HeldOut, leave_one_hospital_out, repeated_splits, together
from fedjax_med.evaluation.survival import (
    Outcome,
    breslow_survival,
    censoring_distribution,
    kaplan_meier,
    kaplan_meier_by_group,
    log_rank,
    risk_group,
    risk_thresholds,
)

if TYPE_CHECKING:
    from fedjax_med.evaluation._predict import (
        binary_probability,
        class_probabilities,
        label_probabilities,
        log_hazard,
        predict,
        predict_experiments,
        single_output,
        survival_outcome,
    )
    from fedjax_med.evaluation.by_kind import Judging, judged_by

# By name, the module that brings JAX with it.
_NEED_JAX = {
    "Judging": "by_kind",
    "binary_probability": "_predict",
    "class_probabilities": "_predict",
    "judged_by": "by_kind",
    "label_probabilities": "_predict",
    "log_hazard": "_predict",
    "predict": "_predict",
    "predict_experiments": "_predict",
    "single_output": "_predict",
    "survival_outcome": "_predict",
}

__all__ = [
    "Comparison",
    "Estimate",
    "Gap",
    "HeldOut",
    "Judged",
    "Judgement",
    "Judging",
    "McNemar",
    "Metric",
    "Outcome",
    "Predictions",
    "Resampling",
    "SegmentationTruth",
    "SurvivalOutputs",
    "age_group",
    "binary_metrics",
    "binary_probability",
    "bootstrap",
    "breslow_survival",
    "calibration",
    "censoring_distribution",
    "class_metrics",
    "class_probabilities",
    "classification",
    "concatenate",
    "concordance",
    "corrected_t_test",
    "delong",
    "gap",
    "judge",
    "judged_by",
    "kaplan_meier",
    "kaplan_meier_by_group",
    "label_probabilities",
    "leave_one_hospital_out",
    "log_hazard",
    "log_rank",
    "mcnemar",
    "metric_title",
    "metrics",
    "multiclass_metrics",
    "multilabel_metrics",
    "over_hospitals",
    "over_patients",
    "paired_bootstrap",
    "predict",
    "predict_experiments",
    "ranking",
    "regression",
    "regression_metrics",
    "repeated_splits",
    "risk_group",
    "risk_thresholds",
    "segmentation",
    "segmentation_metrics",
    "single_output",
    "subgroups",
    "survival",
    "survival_metrics",
    "survival_outcome",
    "together",
    "whole_hospitals",
    "within_hospitals",
]


def __getattr__(name: str) -> Any:
    if name in _NEED_JAX:
        module = importlib.import_module(f"fedjax_med.evaluation.{_NEED_JAX[name]}")
        globals()[name] = getattr(module, name)
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
