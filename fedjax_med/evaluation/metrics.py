"""The metrics of each kind of task, by name.

| metric | not defined (NaN, None in a report) |
| --- | --- |
| all | no patient; an output that is not finite |
| `sensitivity`; `specificity` | no positive; no negative |
| `balanced_accuracy`, `auroc`, `auprc`, `sensitivity_at_<s>` | patients of one class only |
| `f1` | nobody is positive or called positive |
| `precision_of_<c>`; `sensitivity_of_<c>` | nobody is called c; nobody is of class c |
| `calibration_intercept` | patients of one class only |
| `calibration_slope` | also where a threshold on the probability parts the classes |
| `r2` | labels are all equal, so one patient as well |
| `c_index`, `uno_c` | no event, one patient, no pair that can be compared |
| `auc_at_<t>` | no event up to t, or nobody followed beyond it |
| `integrated_brier` | nobody followed beyond the last time |
| multi-class, multi-label | classes or labels where the binary metric is not defined are left \
out of the mean; not defined if none is left |

`accuracy`, `brier`, `ece`, `rmse` and `mae` are defined for a single patient. `ece` has no bootstrap
interval: a distance is never below 0, so the noise that resampling adds does not cancel, and the
resamples lie around a value too high.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fedjax_med.evaluation import calibration, classification, concordance, ranking, regression
from fedjax_med.evaluation._weighted import Weighted
from fedjax_med.evaluation.classification import one_against_rest, over_labels
from fedjax_med.evaluation.survival import Censoring

_TITLES = {
    "auc": "AUC",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "hd95": "HD95 [mm]",
    "ece": "ECE",
    "f1": "F1",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "c_index": "C-index",
    "uno_c": "Uno's C",
    "mrr": "MRR",
    "ndcg@5": "NDCG@5",
    "r2_within": "R² of the score",
    "wis": "WIS",
    "true_SNPs_found": "True SNPs found",
    "other_SNPs_found": "Other SNPs found",
}


def metric_title(name: str) -> str:
    """What a metric is called in tables and text."""
    start, at, number = name.rpartition("_at_")
    if at:
        what = "specificity" if start == "sensitivity" else "time"
        return f"{_TITLES.get(start) or start.capitalize()} at {what} {number}"
    what, of, whom = name.rpartition("_of_")
    if of:
        return f"{_TITLES.get(what) or what.capitalize()} of {whom}"
    return _TITLES.get(name) or name.replace("_", " ").capitalize()


class Metric(NamedTuple):
    """A metric and what it is at best.

    Attributes:
      compute: `(outputs, labels, weight [..., N]) -> values [...]`, NaN where not defined.
      ideal: the value of a perfect model: 1 for AUROC and for a calibration slope, 0 for an error.
        Of two hospitals, the worse is the one further from it.
      has_interval: whether resampling says how much it varies.
      prepare: `(outputs, labels) -> (weight -> values)`, the same with what does not depend on
        weights done once; None where there is nothing of the kind.
    """

    compute: Callable[[Any, Any, np.ndarray], np.ndarray]
    ideal: float
    has_interval: bool = True
    prepare: Callable[[Any, Any], Weighted] | None = None

    def of(self, outputs: Any, labels: Any) -> Weighted:
        """The metric of these patients, for weights in several blocks."""
        if self.prepare is not None:
            return self.prepare(outputs, labels)
        compute: Callable[..., np.ndarray] = self.compute
        return lambda weight: np.asarray(compute(outputs, labels, weight))


class SurvivalOutputs(NamedTuple):
    """What a survival model says of each patient.

    Attributes:
      risk: `[N]`; higher is an earlier event.
      survival: probabilities `[N, T]` of no event until each of the times of the metrics, or None.
    """

    risk: np.ndarray
    survival: np.ndarray | None = None


def binary_metrics(
    *, threshold: float = 0.5, specificities: Sequence[float] = (0.9,), num_bins: int = 10
) -> dict[str, Metric]:
    """Metrics of probabilities `[N]` of label 1, for labels 0 and 1."""
    decisions = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1")
    return {
        "auroc": Metric(ranking.auroc, 1.0, prepare=ranking.prepare_auroc),
        "auprc": Metric(ranking.auprc, 1.0, prepare=ranking.prepare_auprc),
        **{
            name: Metric(partial(getattr(classification, name), threshold=threshold), 1.0)
            for name in decisions
        },
        **{
            f"sensitivity_at_{s:g}": Metric(
                partial(ranking.sensitivity_at_specificity, specificity=s),
                1.0,
                prepare=partial(ranking.prepare_sensitivity_at_specificity, specificity=s),
            )
            for s in specificities
        },
        "brier": Metric(classification.brier, 0.0),
        "ece": Metric(
            partial(calibration.expected_calibration_error, num_bins=num_bins), 0.0, False
        ),
        "calibration_intercept": Metric(
            calibration.calibration_intercept,
            0.0,
            prepare=calibration.prepare_calibration_intercept,
        ),
        "calibration_slope": Metric(
            calibration.calibration_slope, 1.0, prepare=calibration.prepare_calibration_slope
        ),
    }


def multiclass_metrics() -> dict[str, Metric]:
    """Metrics of probabilities `[N, classes]`, for labels 0, 1, ...; classes count equally."""
    return {
        "accuracy": Metric(classification.multiclass_accuracy, 1.0),
        "balanced_accuracy": Metric(classification.multiclass_balanced_accuracy, 1.0),
        "auroc": Metric(one_against_rest(ranking.auroc), 1.0),
        "auprc": Metric(one_against_rest(ranking.auprc), 1.0),
        "f1": Metric(classification.multiclass_f1, 1.0),
        "brier": Metric(classification.multiclass_brier, 0.0),
        "ece": Metric(one_against_rest(calibration.expected_calibration_error), 0.0, False),
    }


def class_metrics(names: Sequence[str], classes: Sequence[str] = ()) -> dict[str, Metric]:
    """Sensitivity and precision (PPV) of single classes, named like `sensitivity_of_S`.

    They take probabilities `[N, classes]`; a patient is called what is the most probable.

    Args:
      names: of the classes 0, 1, ...
      classes: those that are judged; all if empty.

    Raises:
      ValueError: if there is no class of a name.
    """
    for name in classes:
        if name not in names:
            raise ValueError(f"classes must be among {', '.join(names)}, got {name!r}.")
    return {
        f"{title}_of_{name}": Metric(
            classification.of_class(getattr(classification, title), names.index(name)), 1.0
        )
        for name in classes or names
        for title in ("sensitivity", "precision")
    }


def multilabel_metrics(*, threshold: float = 0.5) -> dict[str, Metric]:
    """Metrics of probabilities `[N, labels]`, for 0 and 1 `[N, labels]`; labels count equally."""
    return {
        name: metric._replace(compute=over_labels(metric.compute), prepare=None)
        for name, metric in binary_metrics(threshold=threshold).items()
    }


def regression_metrics() -> dict[str, Metric]:
    """Metrics of predicted quantities `[N]`."""
    return {
        "rmse": Metric(regression.rmse, 0.0),
        "mae": Metric(regression.mae, 0.0),
        "r2": Metric(regression.r2, 1.0),
    }


def survival_metrics(
    times: Sequence[float] = (),
    *,
    censoring: Censoring | None = None,
    curves: bool = False,
) -> dict[str, Metric]:
    """Metrics of `SurvivalOutputs`, for labels `Outcome`.

    Args:
      times: at which patients are parted into those with and without event, ascending, in the unit
        of the outcomes. The last is also where Uno's concordance ends.
      censoring: of training patients; by default that of the patients judged, of each hospital and
        resample its own.
      curves: whether outputs have survival curves at `times`, so that they can be judged.

    Raises:
      ValueError: if `curves` are to be judged at no times.
    """
    if curves and not times:
        raise ValueError("times must not be empty where survival curves are judged.")
    grid = np.asarray(times, np.float64)
    tau = float(grid[-1]) if times else np.inf

    def at_risk(compute: Callable[..., np.ndarray]) -> Callable[[Any, Any, Any], np.ndarray]:
        return lambda outputs, outcome, weight: compute(outputs.risk, outcome, weight)

    def auc_at(time: float, outputs: Any, outcome: Any, weight: Any) -> np.ndarray:
        return concordance.time_dependent_auc(
            outputs.risk, outcome, weight, times=np.array([time]), censoring=censoring
        )[..., 0]

    def of_curves(outputs: Any, outcome: Any, weight: Any) -> np.ndarray:
        return concordance.integrated_brier(
            outputs.survival, outcome, weight, times=grid, censoring=censoring
        )

    uno_c = partial(concordance.uno_c, censoring=censoring, tau=tau)
    return {
        "c_index": Metric(at_risk(concordance.c_index), 1.0),
        "uno_c": Metric(at_risk(uno_c), 1.0),
        **{f"auc_at_{time:g}": Metric(partial(auc_at, float(time)), 1.0) for time in times},
        **({"integrated_brier": Metric(of_curves, 0.0)} if curves else {}),
    }
