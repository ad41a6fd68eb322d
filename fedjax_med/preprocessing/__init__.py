"""Federated preprocessing of clinical tables: statistics of all hospitals from per-site summaries.

Everything a hospital tells goes through the `run_clients` of training, and every module says what it is
and whether its sum over hospitals is enough. Statistics are of training rows only. `Preprocessor` puts
it together.
"""

from fedjax_med.preprocessing.alignment import align
from fedjax_med.preprocessing.categories import category_counts
from fedjax_med.preprocessing.columns import allowed_ranges, kinds_of
from fedjax_med.preprocessing.harmonisation import Combat, fit_combat
from fedjax_med.preprocessing.imputation import Imputer, fit_imputer
from fedjax_med.preprocessing.messages import Message, Messages
from fedjax_med.preprocessing.preprocessor import Preprocessor
from fedjax_med.preprocessing.quantiles import Histogram, bounds, histogram, quantiles
from fedjax_med.preprocessing.site_report import SUPPRESSED, SiteReport, site_report
from fedjax_med.preprocessing.statistics import Statistics, fit_target, statistics
from fedjax_med.preprocessing.suppression import SuppressedTable, suppress
from fedjax_med.preprocessing.units import Suspicion, suspected_unit
from fedjax_med.preprocessing.vocabularies import (
    SiteColumn,
    Vocabulary,
    VocabularyColumn,
    site_columns,
    spelling_key,
    vocabulary,
)

__all__ = [
    "SUPPRESSED",
    "Combat",
    "Histogram",
    "Imputer",
    "Message",
    "Messages",
    "Preprocessor",
    "SiteColumn",
    "SiteReport",
    "Statistics",
    "SuppressedTable",
    "Suspicion",
    "Vocabulary",
    "VocabularyColumn",
    "align",
    "allowed_ranges",
    "bounds",
    "category_counts",
    "fit_combat",
    "fit_imputer",
    "fit_target",
    "histogram",
    "kinds_of",
    "quantiles",
    "site_columns",
    "site_report",
    "spelling_key",
    "statistics",
    "suppress",
    "suspected_unit",
    "vocabulary",
]
