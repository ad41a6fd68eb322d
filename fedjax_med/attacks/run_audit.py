"""All attacks on one training, with protection and without, and the audit of what it claims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fedjax_med.attacks.canaries import Audit, audit, canary_scores
from fedjax_med.attacks.inversion_trials import Trial, try_inversion
from fedjax_med.attacks.membership import Membership, infer_membership
from fedjax_med.attacks.property_inference import PropertyInference, infer_share
from fedjax_med.attacks.protection import Protection, Training
from fedjax_med.attacks.shadows import train_shadows
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import Task
from fedjax_med.models import Model
from fedjax_med.tasks.kinds import Kind
from fedjax_med.tasks.modalities import modality_of

WITHOUT, WITH = "without protection", "with protection"
_MOST_NUMBERS = 2**28  # of all shadow models' examples together
_INVERTED = ("table", "image", "signal", "volume")


class Subject(NamedTuple):
    """What is attacked.

    Attributes:
      dataset: as models are given it.
      kind: of the outcome.
      model: of the task.
      task: what is learned.
      training: how.
      protection: of which the claim is held against canaries; None where nothing is claimed.
    """

    dataset: FederatedDataset
    kind: Kind
    model: Model
    task: Task
    training: Training
    protection: Protection | None


class Findings(NamedTuple):
    """What attacks found; None or missing where an attack does not apply.

    Attributes:
      audit: of the claim, None where nothing is claimed.
      statement: of the plan, in words; empty where nothing is claimed.
      inversion: by what was seen, of data with floating `x`.
      membership: by `WITHOUT` and `WITH`.
      shares: by `WITHOUT` and `WITH`, of binary outcomes.
    """

    audit: Audit | None
    statement: str
    inversion: list[Trial]
    membership: dict[str, Membership]
    shares: dict[str, PropertyInference]


def run_audit(
    subject: Subject,
    *,
    num_runs: int = 200,
    num_shadows: int = 32,
    seed: int = 0,
    tell: Callable[[str], None] = lambda text: None,
) -> Findings:
    """Audits the claim and tries all attacks that apply.

    Args:
      subject: what is attacked.
      num_runs: trainings with the canary, and as many without.
      num_shadows: shadow models with protection, and as many without; even.
      seed: of everything.
      tell: called with what is being done.
    """
    protection, training = subject.protection, subject.training
    found, statement = None, ""
    if protection is not None:
        tell("canaries")
        found, statement = _audited(subject, protection, num_runs, seed)
    inversion = []
    if _can_be_inverted(subject.dataset):
        tell("gradient inversion")
        inversion = try_inversion(
            subject.task,
            subject.dataset.train,
            clip_norm=1.0 if protection is None else float(protection.settings.clip_norm),
            seed=seed,
        )
    trainings = {WITHOUT: training.unprotected()}
    rounds_of_one = {WITHOUT: training.unprotected(1)}
    if protection is not None:
        trainings[WITH] = training.protected(protection)
        rounds_of_one[WITH] = training.protected(protection, 1)
    membership = {}
    if subject.kind in ("binary", "multiclass", "regression"):
        shadows = _affordable(subject.dataset, num_shadows)
        for name, train in trainings.items():
            tell(f"membership inference {name}")
            trained = train_shadows(
                train, subject.task, subject.dataset, num_models=shadows, seed=seed
            )
            membership[name] = infer_membership(subject.model, subject.kind, trained, seed=seed)
    shares = {}
    if subject.kind == "binary":
        for name, train in rounds_of_one.items():
            tell(f"property inference {name}")
            shares[name] = infer_share(
                train,
                subject.task,
                subject.dataset,
                num_patients=int(np.median(subject.dataset.train.sizes).clip(10, 50)),
                seed=seed,
            )
    return Findings(found, statement, inversion, membership, shares)


def _audited(
    subject: Subject, protection: Protection, num_runs: int, seed: int
) -> tuple[Audit, str]:
    sizes, rounds = subject.dataset.train.sizes, subject.training.rounds
    plan = protection.plan(sizes, rounds)
    scores = canary_scores(
        subject.training.protected(protection),
        subject.task,
        subject.dataset,
        unit=protection.canary,
        num_runs=num_runs,
        seed=seed,
    )
    claimed = float(plan.epsilon_after(rounds).value)
    delta = float(protection.settings.delta)
    return audit(scores, delta=delta, claimed=claimed), plan.statement(rounds)


def _can_be_inverted(dataset: FederatedDataset) -> bool:
    x = dataset.train.examples.get("x")
    if not isinstance(x, np.ndarray) or modality_of(dataset) not in _INVERTED:
        return False
    return x.dtype == np.uint8 or (x.dtype.kind == "f" and bool(np.isfinite(x).all()))


def _affordable(dataset: FederatedDataset, num_shadows: int) -> int:
    """As many shadow models as there is memory for their halves, at least 8."""
    numbers = sum(leaf.size for leaf in dataset.train.examples.values()) / 2
    return int(min(num_shadows, max(8, _MOST_NUMBERS // max(1, int(numbers)) // 2 * 2)))


def as_json(findings: Findings) -> dict[str, Any]:
    """What was found, without data of patients: no reconstruction, only how good they are."""
    audit = findings.audit
    return {
        "claim": audit
        and {
            "epsilon": audit.claimed,
            "delta": audit.delta,
            "statement": findings.statement,
        },
        "audit": audit
        and {
            "gdp": audit.gdp,
            "rates": audit.rates,
            "confidence": audit.confidence,
            "refuted": audit.is_refuted,
            "num_runs": len(audit.scores.included),
        },
        "inversion": [
            {"seen": trial.title, "psnr": float(np.median(trial.psnr))}
            for trial in findings.inversion
        ],
        "membership": {
            name: {
                attack: {
                    "area": result.area._asdict(),
                    "hits_at_1_percent": result.hits_at_1_percent._asdict(),
                }
                for attack, result in (("threshold", m.threshold), ("lira", m.lira))
            }
            for name, m in findings.membership.items()
        },
        "shares": {
            name: {"error": s.error._asdict(), "error_of_guessing": s.error_of_guessing}
            for name, s in findings.shares.items()
        },
    }
