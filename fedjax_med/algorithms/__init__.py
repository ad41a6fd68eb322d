"""Federated algorithms: one per file, each a pair of pure functions on the engine's contract."""

from fedjax_med.algorithms.adaptive_fed_prox import adaptive_fed_prox
from fedjax_med.algorithms.agnostic_fl import agnostic_fl
from fedjax_med.algorithms.apfl import apfl
from fedjax_med.algorithms.boosted_trees import boosted_trees, logistic_loss, squared_loss
from fedjax_med.algorithms.clustered_fl import clustered_fl
from fedjax_med.algorithms.cyclic import cyclic_weight_transfer
from fedjax_med.algorithms.distillation import (
    divergence,
    fed_df,
    fed_md,
    mean_absolute_error,
    mean_squared_error,
)
from fedjax_med.algorithms.ditto import ditto
from fedjax_med.algorithms.fed_adaptive import fed_adagrad, fed_adam, fed_yogi
from fedjax_med.algorithms.fed_ams import fed_ams
from fedjax_med.algorithms.fed_async import (
    constant_discount,
    fed_async,
    hinge_discount,
    polynomial_discount,
)
from fedjax_med.algorithms.fed_avg import fed_avg
from fedjax_med.algorithms.fed_avg_m import fed_avg_m
from fedjax_med.algorithms.fed_bn import fed_bn
from fedjax_med.algorithms.fed_buff import fed_buff, inverse_root
from fedjax_med.algorithms.fed_cm import fed_cm
from fedjax_med.algorithms.fed_dc import fed_dc
from fedjax_med.algorithms.fed_dyn import fed_dyn
from fedjax_med.algorithms.fed_eraser import fed_avg_with_records, fed_eraser
from fedjax_med.algorithms.fed_exp import fed_exp
from fedjax_med.algorithms.fed_lin import fed_lin
from fedjax_med.algorithms.fed_mgda import fed_mgda
from fedjax_med.algorithms.fed_nova import accumulated, fed_nova, taken
from fedjax_med.algorithms.fed_opt import ServerState, fed_opt, with_server_optimizer
from fedjax_med.algorithms.fed_per import fed_per
from fedjax_med.algorithms.fed_prox import fed_prox
from fedjax_med.algorithms.fed_rep import fed_rep
from fedjax_med.algorithms.fed_sgd import fed_sgd
from fedjax_med.algorithms.fine_tuning import fine_tuned
from fedjax_med.algorithms.gaussian_mixture import gaussian_mixture
from fedjax_med.algorithms.ifca import ifca, perturbed
from fedjax_med.algorithms.k_means import k_means
from fedjax_med.algorithms.knn_per import knn_model, knn_per
from fedjax_med.algorithms.lg_fed_avg import lg_fed_avg
from fedjax_med.algorithms.local_only import local_only
from fedjax_med.algorithms.local_training import by_examples, equal, local_training
from fedjax_med.algorithms.mime import mime, mime_lite
from fedjax_med.algorithms.mr_mtl import mr_mtl
from fedjax_med.algorithms.newton import newton, wald_intervals
from fedjax_med.algorithms.p_fed_me import p_fed_me
from fedjax_med.algorithms.parts import last_layer, layers, normalisation_layers
from fedjax_med.algorithms.pca import pca
from fedjax_med.algorithms.per_fed_avg import per_fed_avg
from fedjax_med.algorithms.q_ffl import q_ffl
from fedjax_med.algorithms.re_estimated import re_estimated
from fedjax_med.algorithms.reptile import reptile
from fedjax_med.algorithms.scaffold import scaffold
from fedjax_med.algorithms.split_learning import (
    Parts,
    SplitModel,
    parallel_split,
    split_fed,
    split_gradient,
    split_loss,
)
from fedjax_med.algorithms.term import term
from fedjax_med.algorithms.update_rules import (
    average_with_gradient,
    client_weighted_average,
    plain_average,
    smoothed_average,
)

__all__ = [
    "Parts",
    "ServerState",
    "SplitModel",
    "accumulated",
    "adaptive_fed_prox",
    "agnostic_fl",
    "apfl",
    "average_with_gradient",
    "boosted_trees",
    "by_examples",
    "client_weighted_average",
    "clustered_fl",
    "constant_discount",
    "cyclic_weight_transfer",
    "ditto",
    "divergence",
    "equal",
    "fed_adagrad",
    "fed_adam",
    "fed_ams",
    "fed_async",
    "fed_avg",
    "fed_avg_m",
    "fed_avg_with_records",
    "fed_bn",
    "fed_buff",
    "fed_cm",
    "fed_dc",
    "fed_df",
    "fed_dyn",
    "fed_eraser",
    "fed_exp",
    "fed_lin",
    "fed_md",
    "fed_mgda",
    "fed_nova",
    "fed_opt",
    "fed_per",
    "fed_prox",
    "fed_rep",
    "fed_sgd",
    "fed_yogi",
    "fine_tuned",
    "gaussian_mixture",
    "hinge_discount",
    "ifca",
    "inverse_root",
    "k_means",
    "knn_model",
    "knn_per",
    "last_layer",
    "layers",
    "lg_fed_avg",
    "local_only",
    "local_training",
    "logistic_loss",
    "mean_absolute_error",
    "mean_squared_error",
    "mime",
    "mime_lite",
    "mr_mtl",
    "newton",
    "normalisation_layers",
    "p_fed_me",
    "parallel_split",
    "pca",
    "per_fed_avg",
    "perturbed",
    "plain_average",
    "polynomial_discount",
    "q_ffl",
    "re_estimated",
    "reptile",
    "scaffold",
    "smoothed_average",
    "split_fed",
    "split_gradient",
    "split_loss",
    "squared_loss",
    "taken",
    "term",
    "wald_intervals",
    "with_server_optimizer",
]
