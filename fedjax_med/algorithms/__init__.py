"""Federated algorithms: one per file, each a pair of pure functions on the engine's contract."""

from fedjax_med.algorithms.fed_adaptive import fed_adagrad, fed_adam, fed_yogi
from fedjax_med.algorithms.fed_avg import fed_avg
from fedjax_med.algorithms.fed_opt import ServerState, fed_opt, with_server_optimizer
from fedjax_med.algorithms.fed_prox import fed_prox
from fedjax_med.algorithms.fed_sgd import fed_sgd
from fedjax_med.algorithms.local_only import local_only
from fedjax_med.algorithms.local_training import by_examples, equal, local_training

__all__ = [
    "ServerState",
    "by_examples",
    "equal",
    "fed_adagrad",
    "fed_adam",
    "fed_avg",
    "fed_opt",
    "fed_prox",
    "fed_sgd",
    "fed_yogi",
    "local_only",
    "local_training",
    "with_server_optimizer",
]
