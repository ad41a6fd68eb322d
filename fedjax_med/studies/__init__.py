"""Studies: a dataset, all methods and baselines, splits, seeds and hospitals left out.

study = run_study(fm.datasets.load("heart-disease", standardize=None), Settings())
result = summarise(study)
"""

from fedjax_med.studies.methods import METHODS, Method
from fedjax_med.studies.settings import Settings, settings_for
from fedjax_med.studies.study import BASELINES, Study, run_study
from fedjax_med.studies.summary import Judgements, judge_patients, summarise

__all__ = [
    "BASELINES",
    "METHODS",
    "Judgements",
    "Method",
    "Settings",
    "Study",
    "judge_patients",
    "run_study",
    "settings_for",
    "summarise",
]
