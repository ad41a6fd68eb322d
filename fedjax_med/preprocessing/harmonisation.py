"""ComBat: location and scale effects of hospitals are taken out of numeric columns.

    y = alpha + c beta + gamma_site + delta_site noise

per column, with covariates c (age, sex) whose effects are kept. What leaves a hospital, of each
column: in the first pass the scatter of covariates and values about the hospital's own means, of which
the **sum** over hospitals is enough for beta; in the second, count, mean and sum of squared deviations
of what is left, **per site**, since effects of single sites are what is looked for. A new hospital needs
the second pass only, over its own rows.

References:
  Johnson, Li and Rabinovic, Biostatistics 8, 2007: the model, its priors and estimates.
  https://doi.org/10.1093/biostatistics/kxj037
  Chen, Luo, Chen et al., "Privacy-preserving harmonization via distributed ComBat", NeuroImage 248,
  2022: the same from summaries. https://doi.org/10.1016/j.neuroimage.2021.118822
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.preprocessing.columns import kinds_of, names_of, positions_of, training_survey
from fedjax_med.preprocessing.combat_programs import REST, SCATTER, Question, Scatter
from fedjax_med.preprocessing.empirical_bayes import shrunk_effects
from fedjax_med.preprocessing.messages import Messages
from fedjax_med.preprocessing.statistics import (
    Moments,
    Statistics,
    scale_of,
    site_moments,
    statistics,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Combat:
    """A fitted harmonisation.

    Attributes:
      names: of the columns of `x` that it applies to.
      columns: of these, the ones that are harmonised.
      covariates: of these, the ones whose effects are kept.
      fill: float64 `[covariates]`, mean over all hospitals, used where a covariate is missing.
      center: float64 `[columns]`, in the units of the columns: the value at average covariates,
        averaged over the rows of all hospitals.
      slope: float64 `[covariates, columns]`, effects of the covariates.
      scale: float64 `[columns]`, standard deviation of what is left within hospitals.
      sites: names of the hospitals.
      location: float64 `[sites, columns]`, additive effects in units of `scale`; 0 where a hospital
        has fewer than `min_count` values.
      spread: float64 `[sites, columns]`, standard deviations relative to `scale`; likewise 1.
      min_count: smallest number of values for a hospital to have effects of its own.
      shrink: whether effects are shrunk by empirical Bayes.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    covariates: tuple[str, ...]
    fill: np.ndarray
    center: np.ndarray
    slope: np.ndarray
    scale: np.ndarray
    sites: tuple[str, ...]
    location: np.ndarray
    spread: np.ndarray
    min_count: int = 2
    shrink: bool = True

    def transform(self, x: np.ndarray, site: str) -> np.ndarray:
        """Harmonises rows `[N, features]` of one hospital; NaN stays. Returns float64.

            center + c slope + scale (z - location) / spread,
            z = (y - center - c slope) / scale

        Raises:
          DataError: if the hospital is not known, or `x` has another number of columns.
        """
        if site not in self.sites:
            raise DataError(
                f"the harmonisation knows no hospital {site!r}, only {', '.join(self.sites)}; "
                "estimate its effects with with_site first."
            )
        expected, values, at = self._parts(x)
        i = self.sites.index(site)
        rest = (values - expected) - self.scale * self.location[i]
        x = np.array(x, np.float64)
        x[:, at] = expected + rest / self.spread[i]
        return x

    def apply(self, dataset: FederatedDataset) -> FederatedDataset:
        """Harmonises all splits; `x` keeps its dtype.

        Raises:
          DataError: if the dataset has other columns or hospitals.
        """
        if names_of(dataset) != self.names:
            raise DataError("the columns of the dataset are not those that ComBat was fitted on.")
        parts: dict[str, Any] = {}
        for split, arrays in dataset.splits().items():
            x = arrays.examples["x"]
            rows = [
                self.transform(x[a:b], name)
                for name, a, b in zip(
                    dataset.client_names, arrays.offsets, arrays.offsets[1:], strict=False
                )
            ]
            new = {**arrays.examples, "x": np.concatenate(rows).astype(x.dtype)}
            parts[split] = dataclasses.replace(arrays, examples=new)
        return dataset.replace(**parts)

    def with_site(self, name: str, x: np.ndarray) -> Combat:
        """The same harmonisation with one more hospital, from its own rows alone.

        Its effects are estimated against what was fitted, as those of the others were; nothing else
        changes. A known name gets new effects.

        Raises:
          DataError: if `x` has another number of columns.
        """
        expected, values, _ = self._parts(x)
        location, spread = self._effects(*site_moments(values - expected))
        old = [i for i, site in enumerate(self.sites) if site != name]
        return dataclasses.replace(
            self,
            sites=(*(self.sites[i] for i in old), name),
            location=np.concatenate([self.location[old], location[None]]),
            spread=np.concatenate([self.spread[old], spread[None]]),
        )

    def _parts(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
        x = np.asarray(x, np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.names):
            raise DataError(
                f"x must have shape [rows, {len(self.names)}], got {list(x.shape)}; the columns are "
                f"{', '.join(self.names)}."
            )
        at = list(positions_of(self.columns, self.names))
        covariates = x[:, list(positions_of(self.covariates, self.names))] - self.fill
        expected = self.center + np.where(np.isnan(covariates), 0, covariates) @ self.slope
        return expected, x[:, at], at

    def _effects(
        self, count: np.ndarray, mean: np.ndarray, squares: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Effects of one site from the moments of what is left, all `[columns]`."""
        enough = count >= self.min_count
        g, d = mean / self.scale, squares / np.maximum(count - 1, 1) / self.scale**2
        gamma, delta = np.zeros_like(g), np.ones_like(d)
        if enough.any():
            own = (g[enough], np.where(d[enough] > 0, d[enough], 1.0))
            gamma[enough], delta[enough] = (
                shrunk_effects(count[enough], g[enough], d[enough]) if self.shrink else own
            )
        return gamma, np.sqrt(delta)


def fit_combat(
    dataset: FederatedDataset,
    *,
    covariates: Sequence[str] = (),
    columns: Sequence[str] | None = None,
    shrink: bool = True,
    min_count: int = 2,
    messages: Messages | None = None,
) -> Combat:
    """Estimates the effects of hospitals on numeric columns, from the training rows.

    Equal to ComBat of the pooled rows. A missing value is left out of its column. Outcomes cannot be
    covariates: they are not known where a model is applied.

    Where hospitals differ in their patients, and not only in their instruments, ComBat takes the
    difference out as well, unless it is explained by the covariates.

    Args:
      dataset: a table; NaN is missing.
      covariates: names of columns whose effects are kept.
      columns: names of columns to harmonise; all numeric ones but the covariates if None.
      shrink: by empirical Bayes; otherwise every hospital's own estimates are taken as they are.
      min_count: smallest number of values for a hospital to have effects in a column; at least 2.
      messages: notes what hospitals told.

    Raises:
      DataError: if a column is unknown, constant, without value or both covariate and harmonised, or
        if covariates do not vary within hospitals apart from each other, so that their effects
        cannot be told from those of hospitals.
    """
    return combat_from(
        dataset,
        statistics(dataset, messages=messages),
        covariates=covariates,
        columns=columns,
        shrink=shrink,
        min_count=min_count,
        messages=messages or Messages(),
    )


def combat_from(
    dataset: FederatedDataset,
    found: Statistics,
    *,
    covariates: Sequence[str],
    columns: Sequence[str] | None,
    shrink: bool,
    min_count: int,
    messages: Messages,
) -> Combat:
    """`fit_combat`, given the statistics of the columns."""
    names = names_of(dataset)
    if min_count < 2:
        raise DataError(f"min_count must be at least 2, got {min_count}.")
    kept = positions_of(covariates, names)
    kinds, _ = kinds_of(names, found.count, found.zeros, found.ones)
    constant = ~(np.sqrt(found.variance) > 1e-12 * np.abs(found.mean))  # also if there is no value
    if columns is None:
        numeric = [i for i, kind in enumerate(kinds) if kind == "numeric" and not constant[i]]
        at = tuple(i for i in numeric if i not in kept)
    else:
        at = positions_of(columns, names)
    for i in (*at, *kept):
        if constant[i]:
            raise DataError(f"column {names[i]!r} does not vary; leave it out of ComBat.")
    for i in at:
        if i in kept:
            raise DataError(f"column {names[i]!r} cannot be both covariate and harmonised.")
    if not at:
        raise DataError("columns must name at least one numeric column for ComBat, got none.")
    fill, center = found.mean[list(kept)], found.mean[list(at)]
    ask = Question(
        columns=np.array(at, np.int32),
        covariates=np.array(kept, np.int32),
        fill=fill,
        center=center,
        slope=np.zeros((len(kept), len(at))),
    )
    surveyor = training_survey(dataset, messages=messages)
    slope = ask.slope
    if kept:
        scatter: Scatter = surveyor.total("ComBat: covariates", SCATTER, ask)
        slope = _slope(scatter, np.sqrt(found.variance[list(kept)]), [names[i] for i in kept])
        # The mean over rows of the OLS intercepts of hospitals: that of `y - c slope`.
        n = scatter.count
        center = center + (scatter.values - (scatter.covariates.T * slope).sum(axis=0)) / n
    zeros = np.zeros((dataset.num_clients, len(at)))
    rest: Moments = surveyor.own(
        "ComBat: hospitals",
        REST,
        ask._replace(center=center, slope=slope),
        Moments(zeros, zeros, zeros),
        "per-site",
    )
    # The OLS effect of a hospital is the mean of what is left there, so the sum of squares about
    # these means is that of the residuals.
    variance = rest.squares.sum(axis=0) / rest.count.sum(axis=0)
    combat = Combat(
        names=names,
        columns=tuple(names[i] for i in at),
        covariates=tuple(covariates),
        fill=fill,
        center=center,
        slope=slope,
        scale=scale_of(variance, center),
        sites=dataset.client_names,
        location=zeros,
        spread=zeros + 1,
        min_count=min_count,
        shrink=shrink,
    )
    effects = [combat._effects(*moments) for moments in zip(*rest, strict=True)]
    location, spread = (np.stack(part) for part in zip(*effects, strict=True))
    return dataclasses.replace(combat, location=location, spread=spread)


def _slope(scatter: Scatter, unit: np.ndarray, names: list[str]) -> np.ndarray:
    """Effects of the covariates `[covariates, columns]` from sums within hospitals."""
    among = scatter.among / (unit[:, None] * unit)  # covariates in standard deviations
    smallest = np.linalg.eigvalsh(among)[:, 0] / np.maximum(scatter.count, 1)
    if (smallest < 1e-10).any():
        raise DataError(
            f"the covariates {', '.join(names)} must vary within hospitals, and not all together: "
            "as they are, their effects cannot be told from those of hospitals."
        )
    solved = np.linalg.solve(among, (scatter.with_values / unit)[..., None])[..., 0]
    return (solved / unit).T
