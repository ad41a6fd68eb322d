"""What a study of utility against epsilon does."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

Unit = Literal["record", "hospital"]
UNITS: tuple[Unit, ...] = ("record", "hospital")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TradeoffSettings:
    """All choices of a study of utility against epsilon.

    Attributes:
      epsilons: what each training may spend in all, ascending.
      units: what is protected: each record of a hospital, also from the server; or whole hospitals,
        from everybody but the server.
      delta: of (epsilon, delta); None for a power of ten of at most a tenth of one over the number of
        units, which is the largest hospital's records or the hospitals.
      model: as of a study.
      rounds: federated rounds; of hospital level `hospital_rounds`, since each costs as much of
        epsilon as all of a hospital can give.
      hospital_rounds: see `rounds`.
      steps: local steps of a round at record level.
      batch_size: expected records of a step; of the other trainings, patients of a minibatch.
      local_epochs: passes of a hospital over its patients in a round, but at record level.
      clip_norms: bounds on gradients of records and updates of hospitals, one is chosen for each epsilon.
      learning_rates: of the clients, one is chosen likewise.
      num_seeds: trainings that differ in nothing but the seed.
      division: as of a study.
      num_splits: random divisions; 1 for the dataset's own.
      test: share of test patients in random divisions.
      num_resamples: of bootstrap intervals, with the dataset's own division.
      seed: root of all randomness.

    Raises:
      ValueError: names the setting that does not fit.
    """

    epsilons: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
    units: tuple[Unit, ...] = UNITS
    delta: float | None = None
    model: str = "linear"
    rounds: int = 20
    hospital_rounds: int = 3
    steps: int = 5
    batch_size: int = 16
    local_epochs: int = 1
    clip_norms: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    learning_rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    num_seeds: int = 5
    division: Literal["random", "own"] = "random"
    num_splits: int = 5
    test: float = 0.3
    num_resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the settings."""
        for name in ("epsilons", "clip_norms", "learning_rates"):
            values = getattr(self, name)
            if not values or not all(v > 0 and math.isfinite(v) for v in values):
                raise ValueError(f"{name} must be above 0 and finite, got {values}.")
        if list(self.epsilons) != sorted(set(self.epsilons)):
            raise ValueError(f"epsilons must ascend, got {self.epsilons}.")
        if not self.units or not set(self.units) <= set(UNITS):
            raise ValueError(f"units must be among {', '.join(UNITS)}, got {self.units}.")
        for name, least in (
            ("rounds", 1),
            ("hospital_rounds", 1),
            ("steps", 1),
            ("batch_size", 1),
            ("local_epochs", 1),
            ("num_seeds", 1),
            ("num_splits", 1 if self.division == "own" else 2),
            ("num_resamples", 0),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        if self.division not in ("random", "own"):
            raise ValueError(f"division must be 'random' or 'own', got {self.division!r}.")
        if self.division == "own" and self.num_splits != 1:
            raise ValueError(
                f"num_splits must be 1 with the dataset's own division, got {self.num_splits}."
            )
        if not 0 < self.test < 1:
            raise ValueError(f"test must be above 0 and below 1, got {self.test}.")

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self)


def default_delta(population: int) -> float:
    """The largest power of ten that is at most a tenth of one over the population."""
    return 10.0 ** -math.ceil(math.log10(10 * population))
