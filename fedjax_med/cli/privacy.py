"""Differential privacy of `fedjax-med run`: what fits together, the plan, and what is told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedjax_med.cli.errors import UsageError, bad_arguments
from fedjax_med.cli.options import RunOptions

if TYPE_CHECKING:
    from fedjax_med.cli.configuration import RunConfig
    from fedjax_med.data import FederatedDataset
    from fedjax_med.engine.cohorts import CohortSampler
    from fedjax_med.privacy import ClientPlan, RecordPlan


def unit_of(o: RunOptions) -> str | None:
    """What is protected, None without privacy."""
    return None if o.epsilon is None and o.noise_multiplier is None else o.unit or "hospital"


def check_privacy(o: RunOptions) -> None:
    """Raises UsageError for options that do not fit together."""
    unit = unit_of(o)
    if unit is None:
        for name, value in (("--delta", o.delta), ("--unit", o.unit)):
            if value is not None:
                raise UsageError(
                    f"{name} {value} has no effect without privacy; give --epsilon or "
                    "--noise-multiplier."
                )
        return
    if o.clip_norm is None:
        raise UsageError(
            "Differential privacy needs --clip-norm, the bound on what one "
            f"{unit} may change; a good one is about the median of the norms without privacy."
        )
    if o.aggregator == "median":
        raise UsageError("--aggregator median has no known accounting; privacy needs the mean.")
    if unit == "hospital" and o.weighting == "examples":
        raise UsageError(
            "--weighting examples would make the noise depend on the data; with --unit hospital "
            "all hospitals count alike."
        )
    if unit == "record" and o.shuffle is False:
        raise UsageError("--no-shuffle has no effect with --unit record, which samples at random.")


def make_plan(
    config: RunConfig, dataset: FederatedDataset, sampler: CohortSampler, batch_size: int
) -> ClientPlan | RecordPlan:
    """The plan of a private run, whose first round is within its budget.

    Raises:
      UsageError: if the accountant is not installed, or what `plan` refuses.
    """
    from fedjax_med.privacy import ClientLevel, RecordLevel
    from fedjax_med.privacy.accounting import library

    assert config.clip_norm is not None  # checked when the options were read
    sizes = dataset.train.sizes
    protected = int(sizes.max()) if config.unit == "record" else dataset.num_clients
    common: dict[str, Any] = {
        "clip_norm": config.clip_norm,
        "delta": protected**-1.1 if config.delta is None else config.delta,
        "noise_multiplier": config.noise_multiplier,
        "epsilon": config.epsilon,
    }
    with bad_arguments():
        try:
            library()
        except ImportError as error:
            raise UsageError(str(error)) from error
        if config.unit == "hospital":
            plan = ClientLevel(sampling=sampler, **common).plan(
                population=dataset.num_clients, rounds=config.rounds
            )
        else:
            # As many steps as passes over a hospital of average size would have.
            average = float(sizes.mean())
            passes = (config.local_epochs or 1) * max(1, round(average / batch_size))
            plan = RecordLevel(
                batch_size=batch_size, steps=config.local_steps or passes, **common
            ).plan(sizes=sizes.tolist(), rounds=config.rounds)
        plan.limit(config.rounds)
    return plan


def told(plan: ClientPlan | RecordPlan, rounds: int) -> dict[str, Any]:
    """What the result and the report say about privacy after so many rounds; JSON-able."""
    epsilon = plan.epsilon_after(rounds)
    return {
        **plan.describe(),
        "epsilon": epsilon.value,
        "epsilon_pld": epsilon.pld,
        "epsilon_rdp": epsilon.rdp,
        "statement": plan.statement(rounds),
    }
