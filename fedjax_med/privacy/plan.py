"""What the plans of all configurations share: the ledger, and what the engine asks of them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from fedjax_med.engine.cohorts import CohortSampler
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.privacy.accounting import Epsilon
from fedjax_med.privacy.ledger import Ledger
from fedjax_med.privacy.releases import Relation, Release

NOT_COVERED = (
    "Not covered: preprocessing that was fitted to the data, losses and metrics of the simulation, "
    "evaluations, and settings chosen by them. The generators of noise and samples are those of a "
    "simulation: pseudo-random numbers in 32-bit floats, not cryptographic ones."
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A privacy configuration bound to a population and a number of rounds.

    Attributes:
      settings: the configuration.
      population: clients, or for record level the training records of each hospital.
      rounds: rounds that were planned.
      releases: what accountants see, see `Ledger`.
      noise_multiplier: given or calibrated; a traced array inside a compiled round.
    """

    settings: Any
    population: int | tuple[int, ...]
    rounds: int
    release: Release | tuple[Release, ...]
    noise_multiplier: float | jax.Array

    @property
    def sampler(self) -> CohortSampler | None:
        """The only sampler that the accounting holds for; None for any."""
        return self.settings.sampling

    @property
    def local_work(self) -> LocalWork | None:
        """The only local work that the accounting holds for; None for any."""
        return None

    @property
    def num_clients(self) -> int:
        """Clients of the population."""
        return self.population if isinstance(self.population, int) else len(self.population)

    @property
    def may_go_on(self) -> bool:
        """Whether a run may have more rounds than were planned."""
        return True

    @functools.cached_property
    def ledger(self) -> Ledger:
        """What is spent.

        Raises:
          ValueError: inside a compiled round with a traced noise multiplier.
        """
        if isinstance(self.noise_multiplier, Tracer):
            raise ValueError("Epsilon is computed on the host; inside a round there is none.")
        releases = self.release if isinstance(self.release, tuple) else (self.release,)
        settings = self.settings
        return Ledger(
            releases,
            float(self.noise_multiplier),
            float(settings.delta),
            None if settings.epsilon is None else float(settings.epsilon),
            getattr(settings, "steps", 1),
        )

    @property
    def relation(self) -> Relation:
        """Which data sets count as neighbours."""
        return self.ledger.releases[0].relation

    def event(self, rounds: int) -> Any:
        """The `dp_accounting.DpEvent` of the first `rounds` rounds."""
        return self.ledger.event(rounds)

    def epsilon_after(self, rounds: int) -> Epsilon:
        """Epsilon of the first `rounds` rounds at the plan's delta; the largest of all hospitals."""
        return self.ledger.after(rounds)

    def check_sizes(self, sizes: np.ndarray) -> None:
        """Raises ValueError if the accounting does not hold for clients of these sizes."""

    def limit(self, rounds: int) -> int:
        """How many of `rounds` rounds the budget allows.

        Raises:
          ValueError: if it is none, or noise was planned for fewer rounds.
        """
        if rounds > self.rounds and not self.may_go_on:
            raise ValueError(
                f"The noise is correlated over the {self.rounds} rounds of its plan, got {rounds} "
                "rounds; plan as many."
            )
        affordable = self.ledger.affordable(rounds)
        if affordable == 0:
            raise ValueError(
                f"epsilon {self.ledger.budget} cannot be reached: the first round would already "
                f"spend {self.epsilon_after(1).value:.4g} with noise multiplier "
                f"{self.ledger.noise_multiplier:.4g}; use more noise."
            )
        return affordable

    def spent(self, first_round: int, count: int, last: int) -> dict[str, np.ndarray]:
        """See `Ledger.spent`."""
        return self.ledger.spent(first_round, count, last)

    def describe(self) -> dict[str, Any]:
        """JSON-able; the same for all rounds of a run, so that a resumed one can be compared."""
        settings, ledger = self.settings, self.ledger
        return {
            "unit": self.unit,
            "neighbours": self.relation.value.format(unit=self.unit),
            "delta": ledger.delta,
            "epsilon_budget": ledger.budget,
            "noise_multiplier": ledger.noise_multiplier,
            "clip_norm": float(settings.clip_norm),
            "mechanism": self.mechanism,
        }

    @property
    def unit(self) -> str:
        """What is protected, in a word."""
        return self.settings.unit

    @property
    def mechanism(self) -> str:
        """How, in a sentence."""
        raise NotImplementedError

    def statement(self, rounds: int) -> str:
        """What is protected after so many rounds, against whom and how, in plain words."""
        pld, rdp = self.epsilon_after(rounds)
        by = [f"{x:.4g} by {name}" for x, name in ((pld, "PLD"), (rdp, "RDP")) if x is not None]
        neighbours = self.relation.value.format(unit=self.unit)
        return (
            f"Protected: each {self.unit} (neighbours are data sets with {neighbours}). After "
            f"{rounds} rounds epsilon is {' and '.join(by)}, at delta {self.ledger.delta:g}. "
            f"{self.mechanism} {NOT_COVERED}"
        )
