"""`Preprocessor`: harmonisation, imputation and standardisation of tables, fitted federatedly."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from fedjax_med.data import ClientArrays, DataError, FederatedDataset
from fedjax_med.preprocessing import storage
from fedjax_med.preprocessing.columns import kinds_of, names_of, positions_of, training_survey
from fedjax_med.preprocessing.harmonisation import Combat, combat_from
from fedjax_med.preprocessing.imputation import METHODS, Imputer, Method, imputer_from
from fedjax_med.preprocessing.messages import Message, Messages
from fedjax_med.preprocessing.statistics import (
    Moments,
    Statistics,
    after_filling,
    own_moments,
    scale_of,
    site_moments,
    sums_of,
)

Standardize = Literal["global", "per-client"]


@dataclasses.dataclass(frozen=True, eq=False)
class Preprocessor:
    """What was fitted; made by `fit`.

    In this order: ComBat on numeric columns, missing values filled in (and indicators of them put
    last), numeric columns standardised. Columns of 0 and 1 stay as they are but for what is filled in.

    Attributes:
      names: of the columns of `x` that it applies to.
      feature_names: of the columns of what it returns.
      combat: the harmonisation, None if there is none.
      imputer: what is filled in; with NaN for what is dropped. None if nothing is.
      center: float64 `[features]` of what it returns, or `[sites, features]` where every hospital
        has its own; 0 where nothing is standardised.
      scale: float64, same shape, 1 likewise.
      standardised: positions of the columns that are standardised.
      sites: names of the hospitals it was fitted on.
      messages: what left each hospital, for the report of a run.
    """

    names: tuple[str, ...]
    feature_names: tuple[str, ...]
    combat: Combat | None
    imputer: Imputer | None
    center: np.ndarray
    scale: np.ndarray
    standardised: tuple[int, ...]
    sites: tuple[str, ...]
    messages: tuple[Message, ...] = ()

    @classmethod
    def fit(
        cls,
        dataset: FederatedDataset,
        *,
        impute: Method | Mapping[str, Method] | None = "median",
        indicators: bool = True,
        standardize: Standardize | None = "global",
        combat: Sequence[str] | bool | None = None,
        columns: Sequence[str] | None = None,
        min_count: int = 5,
    ) -> Preprocessor:
        """Fits everything on the training rows, through per-site summaries; see `messages`.

        Which columns hold 0 and 1 only is found from counts over all hospitals. Columns with fewer
        than `min_count` values in all hospitals together are dropped, as are those without any: what
        they would be filled with would be the value of a few patients.

        Standardised is what is left after filling in: over the training rows, a column has mean 0 and
        variance 1, and so it has at each hospital with "per-client", which hides how hospitals differ.
        A constant column has scale 1, and a hospital without training rows is left as it is by
        "per-client".

        Args:
          dataset: a table; NaN is missing.
          impute: "mean" or "median" of numeric columns, or a choice by the name of the column, with
            the median for the others; columns of 0 and 1 and blocks of categories get their mode. None
            leaves NaN.
          indicators: whether columns `missing(column)` are added, of columns with at least `min_count`
            missing values.
          standardize: "global", "per-client" or None.
          combat: names of covariates whose effects ComBat keeps, or True for none of them.
          columns: names of the numeric columns to harmonise and standardise; all if None.
          min_count: smallest number of values that a statistic is made of; at least 1.

        Raises:
          DataError: if an argument does not fit the table.
          ValueError: if a training value is infinite.
        """
        names = names_of(dataset)
        _check_options(impute, standardize, min_count)
        dataset = dataset.replace(validation=None, test=None)  # nobody looks at them
        chosen = range(len(names)) if columns is None else positions_of(columns, names)
        covariates = combat if combat and combat is not True else ()
        positions_of(covariates, names)  # refused before anything is computed
        messages = Messages()
        found = sums_of(training_survey(dataset, messages=messages), len(names))
        kinds, blocks = kinds_of(names, found.count, found.zeros, found.ones)
        numeric = [i for i in chosen if kinds[i] == "numeric" and found.count[i] >= min_count]
        harmonise = None
        if combat is not None and combat is not False:
            varies = np.sqrt(found.variance) > 1e-12 * np.abs(found.mean)
            harmonise = combat_from(
                dataset,
                found,
                covariates=covariates,
                columns=[names[i] for i in numeric if names[i] not in covariates and varies[i]],
                shrink=True,
                min_count=max(2, min_count),
                messages=messages,
            )
            dataset = harmonise.apply(_in_float64(dataset))
            found = sums_of(training_survey(dataset, messages=messages), len(names))
        imputer = None
        if impute is not None:
            imputer = imputer_from(
                dataset,
                found,
                kinds,
                blocks,
                "median" if isinstance(impute, Mapping) else impute,
                impute if isinstance(impute, Mapping) else {},
                indicators=indicators,
                min_count=min_count,
                messages=messages,
            )
        own = None
        if standardize == "per-client" and numeric:
            surveyor = training_survey(dataset, numeric, messages)
            own = own_moments(surveyor, (dataset.num_clients, len(numeric)), "nothing")
        return cls._standardised(
            names,
            dataset,
            numeric if standardize else [],
            found,
            own,
            combat=harmonise,
            imputer=imputer,
            messages=tuple(messages.entries),
        )

    @classmethod
    def _standardised(
        cls,
        names: tuple[str, ...],
        dataset: FederatedDataset,
        numeric: list[int],
        found: Statistics,
        own: Moments | None,
        **parts: Any,
    ) -> Preprocessor:
        """What was fitted, with mean 0 and variance 1 of the `numeric` columns once filled in."""
        imputer = parts["imputer"]
        kept = [name for name in names if imputer is None or name not in imputer.dropped]
        feature_names = names if imputer is None else imputer.feature_names
        at = [kept.index(names[i]) for i in numeric]
        if own is None:
            count, mean = found.count[numeric].astype(np.float64), found.mean[numeric]
            moments = Moments(count, mean, found.variance[numeric] * count)
            missing = found.missing[numeric]
        else:
            moments, missing = own, dataset.train.sizes[:, None] - own.count
        if imputer is None:
            missing, fill = np.zeros_like(missing), moments.mean
        else:
            fill = imputer.fill[numeric]
        shape = (*moments.count.shape[:-1], len(feature_names))
        center, scale = np.zeros(shape), np.ones(shape)
        center[..., at], scale[..., at] = after_filling(moments, missing, fill)
        return cls(
            names=names,
            feature_names=feature_names,
            center=center,
            scale=scale,
            standardised=tuple(at),
            sites=dataset.client_names,
            **parts,
        )

    @property
    def dropped(self) -> tuple[str, ...]:
        """Names of columns that had too few values."""
        return self.imputer.dropped if self.imputer else ()

    @property
    def needs_site(self) -> bool:
        """Whether rows cannot be transformed without knowing whose they are."""
        return self.combat is not None or self.center.ndim == 2

    def transform(self, x: np.ndarray, site: str | None = None) -> np.ndarray:
        """Transforms rows `[N, columns]` of one hospital; returns float32 `[N, features]`.

        Missing values are NaN. A hospital that was not there when this was fitted needs `with_site`
        first, where `needs_site`.

        Raises:
          DataError: if `x` has another number of columns or an infinite value, or the hospital is
            needed and not known.
        """
        x = np.asarray(x, np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.names):
            raise DataError(
                f"x must have shape [rows, {len(self.names)}], got {list(x.shape)}; the columns are "
                f"{', '.join(self.names)}."
            )
        infinite = np.isinf(x).any(axis=0)
        if infinite.any():
            raise DataError(
                f"column {self.names[int(infinite.argmax())]!r} holds an infinite value; allowed are "
                "finite numbers, and NaN where a value is missing."
            )
        if self.needs_site and site not in self.sites:
            raise DataError(
                f"site must be one of {', '.join(self.sites)}, got {site!r}; estimate what is a "
                "hospital's own for another with with_site first."
            )
        if self.combat is not None:
            x = self.combat.transform(x, str(site))
        if self.imputer is not None:
            x = self.imputer.transform(x)
        i = self.sites.index(site) if self.center.ndim == 2 and site is not None else ...
        return ((x - self.center[i]) / self.scale[i]).astype(np.float32)

    def apply(self, dataset: FederatedDataset) -> FederatedDataset:
        """Transforms all splits of a dataset: `x` float32 `[N, features]`, the rest as it is.

        Raises:
          DataError: if the dataset has other columns or infinite values, or hospitals are needed and
            not known.
        """
        if names_of(dataset) != self.names:
            raise DataError(
                "the columns of the dataset must be those of the preprocessor: "
                f"{', '.join(self.names)}; got {', '.join(names_of(dataset))}."
            )
        parts: dict[str, Any] = {}
        for split, arrays in dataset.splits().items():
            x, ends = arrays.examples["x"], arrays.offsets
            if self.needs_site:
                rows = [
                    self.transform(x[ends[i] : ends[i + 1]], name)
                    for i, name in enumerate(dataset.client_names)
                ]
                new = np.concatenate(rows)
            else:
                new = self.transform(x)
            parts[split] = ClientArrays({**arrays.examples, "x": new}, arrays.sizes)
        return dataset.replace(feature_names=self.feature_names, **parts)

    def with_site(self, name: str, x: np.ndarray) -> Preprocessor:
        """The same with a new hospital, from its own training rows `[N, columns]` alone.

        Estimates what is a hospital's own (effects of ComBat, mean and scale of "per-client"); what
        was fitted on the others stays. Nothing leaves the hospital.

        Raises:
          DataError: if the name is taken, or `x` has another number of columns.
        """
        if name in self.sites:
            raise DataError(f"there is a hospital {name!r} already; give another name.")
        combat = self.combat and self.combat.with_site(name, x)
        new = dataclasses.replace(self, combat=combat, sites=(*self.sites, name))
        if self.center.ndim == 1:
            return new
        rows = np.asarray(x, np.float64)
        if combat is not None:
            rows = combat.transform(rows, name)
        if self.imputer is not None:
            rows = self.imputer.transform(rows)
        at = list(self.standardised)
        count, mean, squares = site_moments(rows[:, at])
        center, scale = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
        center[at], scale[at] = mean, scale_of(squares / np.maximum(count, 1), mean)
        return dataclasses.replace(
            new,
            center=np.concatenate([self.center, center[None]]),
            scale=np.concatenate([self.scale, scale[None]]),
        )

    def to_json(self) -> str:
        """All of it as JSON text; numbers keep every digit."""
        return storage.to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Preprocessor:
        """Reads what `to_json` wrote.

        Raises:
          DataError: if the text is no preprocessor.
        """
        return storage.from_json(text, cls)

    def save(self, path: str | os.PathLike) -> None:
        """Writes a JSON file; after a crash there is the old file or the new one, never half of it.

        Raises:
          OSError: if it cannot be written.
        """
        storage.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Preprocessor:
        """Reads what `save` wrote.

        Raises:
          DataError: if there is no such file, or it is no preprocessor.
        """
        return storage.load(path, cls)


def _in_float64(dataset: FederatedDataset) -> FederatedDataset:
    return dataset.map_examples(
        lambda examples: {**examples, "x": examples["x"].astype(np.float64)}, dataset.feature_names
    )


def _check_options(impute: Any, standardize: Any, min_count: int) -> None:
    if standardize not in ("global", "per-client", None):
        raise DataError(f"standardize must be 'global', 'per-client' or None, got {standardize!r}.")
    if min_count < 1:
        raise DataError(f"min_count must be at least 1, got {min_count}.")
    if impute is not None and not isinstance(impute, Mapping) and impute not in METHODS:
        raise DataError(f"impute must be one of {', '.join(METHODS)} or None, got {impute!r}.")
