"""The data of the benchmark: the core of it is `fedjax_med.studies.forecast_training`."""

from __future__ import annotations

import os

from fedjax_med.datasets import flu_ili_counts
from fedjax_med.studies import forecast_training as training

# First validation and first test season; two and five of regions, one and two of states.
SEASONS = {"regions": training.Seasons(2010, 2012), "states": training.Seasons(2014, 2015)}


def setup(
    places: str, *, to_tune: bool, data_dir: str | os.PathLike | None = None, neighbours: int = 0
) -> training.Setup:
    """Training and test seasons of "regions" or "states"; see `training.setup`."""
    return training.setup(
        flu_ili_counts(places, data_dir=data_dir),
        SEASONS[places],
        to_tune=to_tune,
        name=f"flu-ili, {places}",
        neighbours=neighbours,
    )
