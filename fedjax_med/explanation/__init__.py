"""What a model relies on: per hospital, and federated from what hospitals can send.

    coefficients(task.loss, run.variables, dataset)            # odds ratios with intervals
    permutation_importance(model, run.variables, dataset, metric)
    attributions(model, run.variables, dataset)                # integrated gradients, summed up
    partial_dependence(model, run.variables, dataset, "age")
    grad_cam(model, run.variables, images)                     # where in an image, for each patient
    signal_gradients(model, run.variables, signals)            # when in a signal, likewise
    code_attributions(model, run.variables, records)           # codes of visits, likewise

Each module says what leaves a hospital. Results have `as_dict()` for JSON, and figures in
`fedjax_med.reporting.explanation_figures`.
"""

from fedjax_med.explanation.attribution import (
    Attribution,
    Attributions,
    attributions,
    federated_mean,
    integrated_gradients,
)
from fedjax_med.explanation.coefficients import (
    Coefficients,
    CoefficientTable,
    coefficients,
    coefficients_of_runs,
)
from fedjax_med.explanation.dependence import PartialDependence, partial_dependence
from fedjax_med.explanation.importance import (
    Importance,
    PermutationImportance,
    permutation_importance,
)
from fedjax_med.explanation.saliency import grad_cam, image_gradients
from fedjax_med.explanation.signals import signal_gradients
from fedjax_med.explanation.visits import (
    CodeImportance,
    code_attributions,
    code_importance,
    visit_effects,
)

__all__ = [
    "Attribution",
    "Attributions",
    "CodeImportance",
    "CoefficientTable",
    "Coefficients",
    "Importance",
    "PartialDependence",
    "PermutationImportance",
    "attributions",
    "code_attributions",
    "code_importance",
    "coefficients",
    "coefficients_of_runs",
    "federated_mean",
    "grad_cam",
    "image_gradients",
    "integrated_gradients",
    "partial_dependence",
    "permutation_importance",
    "signal_gradients",
    "visit_effects",
]
