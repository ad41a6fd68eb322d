"""From a dataset in natural units to what is trained on, with all preprocessing fitted federatedly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_med import genomics, preprocessing, tasks
from fedjax_med.cli.configuration import RunConfig
from fedjax_med.cli.errors import UsageError
from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.preprocessing import Message, Preprocessor
from fedjax_med.preprocessing.log_windows import standardised_logarithms
from fedjax_med.tasks.defaults import TAKE_MISSING, check_table
from fedjax_med.tasks.kinds import Kind
from fedjax_med.tasks.modalities import Modality

_NUM_COMPONENTS = 10
_ANGLE = 1e-2  # [radians] at most, to the components of pooled people


class Examples(NamedTuple):
    """What the examples of a dataset are, before anything is fitted to them."""

    kind: Kind
    modality: Modality


class Prepared(NamedTuple):
    """A dataset that a model can be trained on.

    Attributes:
      dataset: preprocessed; outcomes in natural units.
      preprocessor: what was fitted to the training rows of a table; None of other modalities.
      kind: of the outcome.
      center: of the target of a regression, in its unit; 0 otherwise.
      scale: of the target of a regression, in its unit; 1 otherwise.
      note: what the reader of results has to know of the data.
    """

    dataset: FederatedDataset
    preprocessor: Preprocessor | None
    kind: Kind
    center: float
    scale: float
    note: str = ""

    def as_json(self) -> dict[str, Any] | None:
        """What was done and what left every hospital for it, for the report."""
        fitted = self.preprocessor
        if fitted is None:
            return None
        messages = list(fitted.messages)
        if self.kind == "regression":
            messages.append(_of_target())
        return {
            "columns": len(fitted.names),
            "features": len(fitted.feature_names),
            "dropped": list(fitted.dropped),
            "indicators": [name for name, _ in fitted.imputer.indicators] if fitted.imputer else [],
            "standardised": len(fitted.standardised),
            "harmonised": len(fitted.combat.columns) if fitted.combat else 0,
            "target": {"center": self.center, "scale": self.scale}
            if self.kind == "regression"
            else None,
            "messages": [m._replace(shapes=_as_lists(m.shapes))._asdict() for m in messages],
        }


def look_at(dataset: FederatedDataset) -> Examples:
    """The kind of outcome and the modality of a dataset.

    Raises:
      DataError: if the outcome cannot be learned from the examples.
    """
    kind = tasks.kind_of(dataset)
    modality = tasks.modality_of(dataset)
    if modality == "table":
        # Whether values are missing is not asked here: they may be filled in.
        check_table(_floating(dataset), TAKE_MISSING[0])
    return Examples(kind, modality)


def prepare(config: RunConfig, dataset: FederatedDataset, stored: Path | None = None) -> Prepared:
    """Fits the preprocessing to the training rows, or reads what a run fitted, and applies it.

    Args:
      config: of the run.
      dataset: in natural units, NaN where a value is missing.
      stored: file of the preprocessor of a run that goes on, None for a new one.

    Raises:
      DataError: if the data cannot be preprocessed, or the stored preprocessor is not one of theirs.
    """
    kind, modality = look_at(dataset)
    if modality in _SCALED:
        return Prepared(_SCALED[modality](dataset), None, kind, 0.0, 1.0, _NOTES[modality])
    if modality != "table":
        center, scale = _target(dataset, kind)
        return Prepared(dataset, None, kind, center, scale)
    dataset = _floating(dataset)
    fitted = _fit(config, dataset) if stored is None else _stored(stored, dataset)
    if not fitted.feature_names:
        raise DataError(
            f"no column of {dataset.name} has the 5 training values that a statistic is made of."
        )
    return Prepared(fitted.apply(dataset), fitted, kind, *_target(dataset, kind))


def _components(dataset: FederatedDataset) -> FederatedDataset:
    """Genotypes as scores on federated principal components, with variance 1."""
    found = genomics.principal_components(dataset, _NUM_COMPONENTS, tolerance=_ANGLE)

    def projected(examples: Any) -> Any:
        scores = found.project(examples["x"]) / np.sqrt(found.variances)
        return {**examples, "x": scores.astype(np.float32)}

    names = tuple(f"component {i + 1}" for i in range(_NUM_COMPONENTS))
    return dataset.map_examples(projected, names)


def _of_drugs(dataset: FederatedDataset) -> FederatedDataset:
    return tasks.drug_scale(dataset).apply(dataset)


# Fitted anew on resume: the same data give the same.
_SCALED: dict[Modality, Callable[[FederatedDataset], FederatedDataset]] = {
    "responses": _of_drugs,
    "series": standardised_logarithms,
    "genotypes": _components,
}
_NOTES: dict[Modality, str] = {
    "responses": "Responses are in standard deviations from the mean of their drug over all hospitals' "
    "training patients; hospitals tell sums for it.",
    "series": "Counts are logarithms, in standard deviations from the mean of the place's own training "
    "weeks. Every window is judged 1, 2, 3, 5, 10 and 15 weeks ahead, the mean of them.",
    "genotypes": "What is learned from are scores on ten principal components, found from sums over the "
    "training people of all hospitals. Where every hospital has people of one population only, a "
    "hospital alone names that one and is always right without having learned anything; what is to be "
    "seen is whether the shared model tells populations apart.",
}


def _target(dataset: FederatedDataset, kind: Kind) -> tuple[float, float]:
    """Centre and scale of the outcome of a regression, over all hospitals' training patients."""
    return preprocessing.fit_target(dataset) if kind == "regression" else (0.0, 1.0)


def _fit(config: RunConfig, dataset: FederatedDataset) -> Preprocessor:
    standardize: Any = None if config.standardize == "none" else config.standardize
    impute: Any = config.impute
    return Preprocessor.fit(
        dataset, impute=impute, standardize=standardize, combat=True if config.combat else None
    )


def _stored(path: Path, dataset: FederatedDataset) -> Preprocessor:
    fitted = Preprocessor.load(path)
    if fitted.sites != dataset.client_names:
        raise UsageError(
            f"{path} was fitted on the hospitals {', '.join(fitted.sites[:10])}, which are not those "
            f"of {dataset.name}; it cannot be resumed."
        )
    return fitted


def _floating(dataset: FederatedDataset) -> FederatedDataset:
    """Tables of whole numbers as float32."""
    x = dataset.train.examples.get("x")
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "biu":
        return dataset
    return dataset.map_examples(
        lambda examples: {**examples, "x": examples["x"].astype(np.float32)},
        dataset.feature_names,
    )


def _of_target() -> Message:
    """What `fit_target` asks of every hospital: as for a column, two passes."""
    from fedjax_med.preprocessing.statistics import Sums

    shapes = {name: () if name == "rows" else (1,) for name in Sums._fields}
    return Message("mean and variance of the outcome", shapes, 8 * len(shapes), "sum", 2)


def _as_lists(shapes: dict[str, tuple[int, ...]]) -> Any:
    return {name: list(shape) for name, shape in shapes.items()}
