"""Attacks on what hospitals send and models remember, and audits of privacy.

found = run_audit(subject)                       # everything below, on one training
scores = canary_scores(train, task, dataset, unit="record")
audit(scores, delta=1e-4, claimed=2.0).is_refuted
"""

from fedjax_med.attacks.canaries import Audit, CanaryScores, Train, audit, canary_scores
from fedjax_med.attacks.gradient_inversion import (
    infer_label,
    invert_by_matching,
    invert_dense,
    psnr,
)
from fedjax_med.attacks.lower_bounds import (
    epsilon_of_gdp,
    f_dp_bound,
    gdp_bound,
    guess,
    one_run_bound,
    rates_bound,
)
from fedjax_med.attacks.membership import Membership, infer_membership
from fedjax_med.attacks.property_inference import infer_share, share_from_bias_gradient
from fedjax_med.attacks.protection import Protection, Training, calibrated, fed_avg_training
from fedjax_med.attacks.roc import Roc, judge_attack, roc
from fedjax_med.attacks.run_audit import Findings, Subject, run_audit
from fedjax_med.attacks.shadows import Shadows, train_shadows
from fedjax_med.attacks.updates import clipped_and_noised, gradient_of, update_of

__all__ = [
    "Audit",
    "CanaryScores",
    "Findings",
    "Membership",
    "Protection",
    "Roc",
    "Shadows",
    "Subject",
    "Train",
    "Training",
    "audit",
    "calibrated",
    "canary_scores",
    "clipped_and_noised",
    "epsilon_of_gdp",
    "f_dp_bound",
    "fed_avg_training",
    "gdp_bound",
    "gradient_of",
    "guess",
    "infer_label",
    "infer_membership",
    "infer_share",
    "invert_by_matching",
    "invert_dense",
    "judge_attack",
    "one_run_bound",
    "psnr",
    "rates_bound",
    "roc",
    "run_audit",
    "share_from_bias_gradient",
    "train_shadows",
    "update_of",
]
