"""The preprocessing of a study, fitted to the training patients of each population.

Tables have the same columns in every population. Images, signals and visits are taken as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fedjax_med import preprocessing
from fedjax_med.data import FederatedDataset
from fedjax_med.data.standardize import Standardizer
from fedjax_med.studies.populations import Fit, Fitted
from fedjax_med.studies.settings import Settings
from fedjax_med.tasks.defaults import TAKE_MISSING
from fedjax_med.tasks.kinds import Kind
from fedjax_med.tasks.modalities import modality_of


def fit_of(settings: Settings, dataset: FederatedDataset, kind: Kind) -> Fit:
    """Preprocessing as the settings ask for, always with the same columns.

    Which columns have indicators of missing values, and which have too few values to be used, may
    differ between populations; those of the first split decide for all.
    """
    if modality_of(dataset) != "table":
        return _with_target(lambda raw: Fitted(_same, _as_it_is, None), kind)
    impute = None if settings.model in TAKE_MISSING else settings.impute

    def fit_table(raw: FederatedDataset) -> preprocessing.Preprocessor:
        return preprocessing.Preprocessor.fit(raw, impute=impute, standardize=settings.standardize)

    names = fit_table(dataset).feature_names

    def fit(raw: FederatedDataset) -> Fitted:
        fitted = fit_table(raw)
        return Fitted(
            lambda data: _with_columns(fitted.apply(data), names),
            _as_it_is,
            _standardizer(fitted, names),
        )

    return _with_target(fit, kind)


def _with_target(fit: Fit, kind: Kind) -> Fit:
    """The same preprocessing, with the target of a regression in standard deviations from its mean."""
    if kind != "regression":
        return fit

    def fit_both(raw: FederatedDataset) -> Fitted:
        fitted = fit(raw)
        center, scale = preprocessing.fit_target(raw)

        def scaled(examples: Any) -> Any:
            return {**examples, "y": ((examples["y"] - center) / scale).astype(np.float32)}

        return fitted._replace(
            apply=lambda data: fitted.apply(data).map_examples(scaled),
            # In float64: a training that diverged must not overflow here.
            restore=lambda outputs: outputs.astype(np.float64) * scale + center,
        )

    return fit_both


def _standardizer(
    fitted: preprocessing.Preprocessor, names: tuple[str, ...]
) -> Standardizer | None:
    """Centre and scale of the columns `names`; None where every hospital has its own."""
    if fitted.center.ndim > 1:
        return None
    center = dict(zip(fitted.feature_names, fitted.center, strict=True))
    scale = dict(zip(fitted.feature_names, fitted.scale, strict=True))
    return Standardizer(
        np.array([center.get(name, 0.0) for name in names]),
        np.array([scale.get(name, 1.0) for name in names]),
    )


def _same(dataset: FederatedDataset) -> FederatedDataset:
    return dataset


def _as_it_is(outputs: np.ndarray) -> np.ndarray:
    return outputs


def _with_columns(dataset: FederatedDataset, names: tuple[str, ...]) -> FederatedDataset:
    """The dataset with these columns, those that it does not have being 0."""
    if dataset.feature_names == names:
        return dataset
    place = {name: i for i, name in enumerate(dataset.feature_names)}
    have = [i for i, name in enumerate(names) if name in place]
    take = [place[names[i]] for i in have]

    def chosen(examples: Any) -> Any:
        x = np.zeros((len(examples["x"]), len(names)), examples["x"].dtype)
        x[:, have] = examples["x"][:, take]
        return {**examples, "x": x}

    return dataset.map_examples(chosen, names)
