"""Differential privacy: configurations, plans, accounting, and algorithms that keep to them."""

from fedjax_med.engine.cohorts import everyone, poisson, uniform
from fedjax_med.privacy.accounting import Epsilon
from fedjax_med.privacy.client_plan import ClientPlan
from fedjax_med.privacy.clipping import QuantileClipping, clip_to_norm
from fedjax_med.privacy.configuration import (
    Banded,
    ClientLevel,
    LocalLevel,
    RecordLevel,
    SimulatedCohort,
    Tree,
)
from fedjax_med.privacy.factorisation import optimal_banded, root_mean_square_error, square_root
from fedjax_med.privacy.guard import PrivacyError, private
from fedjax_med.privacy.local_plan import LocalPlan
from fedjax_med.privacy.record_plan import RecordPlan
from fedjax_med.privacy.releases import Relation
from fedjax_med.privacy.sampling import CyclicPoisson, Passes, TruncatedPoisson

__all__ = [
    "Banded",
    "ClientLevel",
    "ClientPlan",
    "CyclicPoisson",
    "Epsilon",
    "LocalLevel",
    "LocalPlan",
    "Passes",
    "PrivacyError",
    "QuantileClipping",
    "RecordLevel",
    "RecordPlan",
    "Relation",
    "SimulatedCohort",
    "Tree",
    "TruncatedPoisson",
    "clip_to_norm",
    "everyone",
    "optimal_banded",
    "poisson",
    "private",
    "root_mean_square_error",
    "square_root",
    "uniform",
]
