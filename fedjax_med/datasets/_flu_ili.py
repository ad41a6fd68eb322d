"""Patients with influenza-like illness by week, of the 10 HHS regions and of 49 states of the US.

Counts of the CDC's network of outpatient providers (ILINet), as prepared for Cola-GNN. The files have
neither dates nor names. Where the counts jump, every 52 or 53 rows, the surveillance season begins in
week 40; years of 53 weeks (2003, 2008, 2014) are where the jumps say, and the sums over states follow
those over regions from row 419 on (correlation of weekly changes 0.98; 0.55 a week earlier or later).
So the first rows are week 40 of 2002 and of 2010. The borders in the file are those of the HHS regions
1 to 10 in their order, after which clients are called; which column is which state is not known.

References:
  Deng et al., "Cola-GNN", CIKM 2020. https://doi.org/10.1145/3340531.3411975
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.datasets._files import Remote, locate, open_text
from fedjax_med.datasets._standardized import standardized
from fedjax_med.datasets.weekly import THIS_WEEK, WeeklyCounts, calendar, windows, without_gaps

LICENCE = "surveillance counts of the CDC, a US government work; the repository names no licence"
SOURCE = "CDC ILINet, as distributed with Cola-GNN (github.com/amy-deng/colagnn)"
CITATION = (
    "Deng S, Wang S, Rangwala H, Wang L, Ning Y. Cola-GNN: Cross-location Attention based Graph "
    "Neural Networks for Long-term ILI Prediction. CIKM 2020:245-254. doi:10.1145/3340531.3411975."
)

_URL = "https://raw.githubusercontent.com/amy-deng/colagnn/7da87d6dad05d38f914aae9224b4814743d5584e/data/"
_FILES = {
    name: Remote(_URL + name, sha256)
    for name, sha256 in (
        ("region785.txt", "f6e7fdf21423dc5d43ef82cbde95eca5609c723973cb4aa4dd157de5b149a6cc"),
        ("region-adj.txt", "45168c9c561f0fa28eab8e8d3b8ee740fbe63bc75935565a8c99337963510548"),
        ("state360.txt", "364c1047dba84bc62b9011360332b679bc9cbcba1dbff1b9db210166f4289bf1"),
        ("state-adj.txt", "e8b147e43035bbf59deb9114af87b8bc6b098d031d3aeb9ed38338d19eeb087c"),
    )
}
# File of counts, file of borders, word for a place, year of the first week, first test season.
_PLACES = {
    "regions": ("region785.txt", "region-adj.txt", "Region", 2002, 2012),
    "states": ("state360.txt", "state-adj.txt", "State", 2010, 2015),
}


def flu_ili_counts(
    places: str = "regions", *, data_dir: str | os.PathLike | None = None, fill: str | None = None
) -> WeeklyCounts:
    """The counts as they are: 785 weeks of 10 regions or 360 weeks of 49 states.

    A count is of patients who saw a reporting provider with fever and cough or sore throat. More
    providers reported every year, and more from week 40 on, above all before 2009, so counts of
    different seasons are not comparable as they stand. Nothing is missing; 21 weeks of regions
    and 687 of states are 0, mostly in summer, and are taken for counts.

    Args:
      places: "regions" or "states".
      data_dir: folder with local copies of the files; see `FEDJAX_MED_DATA` as well. Without
        one they are downloaded once (0.1 MB).
      fill: see `weekly.without_gaps`.

    Raises:
      DataError: if a file is missing or damaged, or an option is not allowed.
    """
    if places not in _PLACES:
        raise DataError(f"places must be 'regions' or 'states', got {places!r}.")
    counts_file, borders_file, word, year, _ = _PLACES[places]
    needed = {name: _FILES[name] for name in (counts_file, borders_file)}
    paths = locate("flu-ili", needed, data_dir)
    with open_text(paths[counts_file]) as file:
        counts = np.loadtxt(file, delimiter=",")
    with open_text(paths[borders_file]) as file:
        adjacent = np.loadtxt(file, delimiter=",").astype(bool)
    season, week = calendar(year, len(counts))
    names = tuple(f"{word} {i + 1}" for i in range(counts.shape[1]))
    return without_gaps(WeeklyCounts(counts, names, season, week, adjacent), fill)


def flu_ili(
    *,
    data_dir: str | os.PathLike | None = None,
    places: str = "regions",
    window: int = 20,
    horizons: Sequence[int] = (1,),
    test_from: int | None = None,
    validation_from: int | None = None,
    standardize: str | None = "global",
) -> FederatedDataset:
    """Windows of past weeks, and the count some weeks ahead.

    `x` is float32 `[N, window + 2]`: patients of the last `window` weeks, the present one last, and
    sine and cosine of the week of the year, in which week 40 is at angle 0. `y` is float32 `[N]`
    [patients], or `[N, horizons]` if there are several. Nothing is missing.

    Training, validation and test are seasons after each other (week 40 to week 39): no target of a
    later part is a target or an input of an earlier one.

    Args:
      data_dir: as `flu_ili_counts`.
      places: "regions" or "states".
      window: weeks of the past.
      horizons: weeks ahead, rising.
      test_from: year in which the first test season began; 2012 for regions, 2015 for states.
      validation_from: likewise for validation; None for no validation.
      standardize: of `x`, "global", "per-client" or None, as in `heart_disease`. `y` is not.

    Raises:
      DataError: if a file is missing or damaged, or an option is not allowed.
    """
    series = flu_ili_counts(places, data_dir=data_dir)
    if test_from is None:
        test_from = _PLACES[places][4]
    parts = parts_of(series, test_from=test_from, validation_from=validation_from)
    dataset = forecasting_dataset(
        series, series.counts, parts, window=window, horizons=horizons, name="flu-ili"
    )
    return standardized(dataset, standardize)


def parts_of(
    series: WeeklyCounts, *, test_from: int, validation_from: int | None = None
) -> dict[str, tuple[int, int]]:
    """First row and row behind the last of "train", "validation" if asked for, and "test".

    Raises:
      DataError: if a season is not in the series, or they are not in their order.
    """
    known = np.unique(series.season)
    starts = [("test_from", test_from)]
    if validation_from is not None:
        starts.insert(0, ("validation_from", validation_from))
    for name, year in starts:
        if year not in known[1:]:
            raise DataError(
                f"{name} must be a season from {known[1]} to {known[-1]}, got {year!r}."
            )
    rows = [0, *(int(np.argmax(series.season == year)) for _, year in starts), len(series.season)]
    if rows != sorted(set(rows)):
        raise DataError(
            f"validation_from must be before test_from, got {validation_from!r} and {test_from!r}."
        )
    names = ("train", "validation", "test") if validation_from is not None else ("train", "test")
    return dict(zip(names, pairwise(rows), strict=True))


def forecasting_dataset(
    series: WeeklyCounts,
    values: np.ndarray,
    parts: dict[str, tuple[int, int]],
    *,
    window: int,
    horizons: Sequence[int],
    name: str,
    neighbours: int = 0,
) -> FederatedDataset:
    """The clients of `flu_ili`, of any values `[weeks, places]` in place of the counts.

    Args:
      series: names and weeks.
      values: such as `LogScale.apply` of the counts.
      parts: see `parts_of`.
      window: weeks of the past.
      horizons: weeks ahead, rising.
      name: of the dataset.
      neighbours: of so many last weeks, the mean over the places with a border in common (itself
        left out) is added to `x`; 0 where there is none. These have to be told to the place.

    Raises:
      DataError: if a part is too short.
    """
    angle = 2 * np.pi * ((series.week - 40) % 52) / 52
    others = series.adjacent & ~np.eye(len(series.names), dtype=bool)
    around = values @ (others / np.maximum(others.sum(axis=0), 1)[None])
    clients: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for part, (begin, end) in parts.items():
        try:
            cut = windows(values, window=window, horizons=horizons, begin=begin, end=end)
        except ValueError as error:
            raise DataError(f"{part} of {name}: {error}") from error
        season = np.stack([np.sin(angle), np.cos(angle)], axis=1)[cut.origin].astype(np.float32)
        near = around[cut.origin[:, None] - np.arange(neighbours)].astype(np.float32)
        clients[part] = {
            place: {
                "x": np.concatenate([cut.past[:, i], season, near[:, :, i]], axis=1),
                "y": cut.target[:, i, 0] if len(tuple(horizons)) == 1 else cut.target[:, i],
            }
            for i, place in enumerate(series.names)
        }
    past = [f"{ago} weeks before" for ago in range(window - 1, 0, -1)]
    told = [f"neighbours {ago} weeks before" for ago in range(neighbours)]
    return FederatedDataset.from_clients(
        clients.pop("train"),
        **clients,
        name=name,
        feature_names=(*past, THIS_WEEK, "season sine", "season cosine", *told),
        licence=LICENCE,
        source=SOURCE,
        citation=CITATION,
    )
