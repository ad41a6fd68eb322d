"""What is learned and how it is judged: loss, metrics, default model."""

from fedjax_med.engine.task import Task
from fedjax_med.tasks.classification import binary_classification, multiclass_classification
from fedjax_med.tasks.defaults import ModelTask, default_for, for_dataset, for_table
from fedjax_med.tasks.kinds import kind_of
from fedjax_med.tasks.links import Graph, graph_of, link_prediction
from fedjax_med.tasks.modalities import Modality, modality_of
from fedjax_med.tasks.multilabel import multilabel_classification
from fedjax_med.tasks.regression import regression
from fedjax_med.tasks.response import DrugScale, drug_scale, masked_responses
from fedjax_med.tasks.segmentation import segmentation
from fedjax_med.tasks.survival import cox, discrete_time_survival, interval_edges, survival_curve
from fedjax_med.tasks.unsupervised import clustering, density_estimation, reconstruction

__all__ = [
    "DrugScale",
    "Graph",
    "Modality",
    "ModelTask",
    "Task",
    "binary_classification",
    "clustering",
    "cox",
    "default_for",
    "density_estimation",
    "discrete_time_survival",
    "drug_scale",
    "for_dataset",
    "for_table",
    "graph_of",
    "interval_edges",
    "kind_of",
    "link_prediction",
    "masked_responses",
    "modality_of",
    "multiclass_classification",
    "multilabel_classification",
    "reconstruction",
    "regression",
    "segmentation",
    "survival_curve",
]
