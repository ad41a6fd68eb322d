"""What models of visits have to know of records before they see them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedjax_med.data import DataError, FederatedDataset


class Scale(NamedTuple):
    """Mean and standard deviation of each of some columns."""

    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()


class VisitInputs(NamedTuple):
    """What a model has to know of records before it sees them.

    Attributes:
      num_codes: codes are 0 to `num_codes - 1`.
      labs: of the laboratory values.
      static: of what does not change from visit to visit.
    """

    num_codes: int
    labs: Scale = Scale()
    static: Scale = Scale()


def visit_inputs(dataset: FederatedDataset) -> VisitInputs:
    """Reads off a dataset what models of its records need.

    Of its values each client sends, for every column, the number, sum and sum of squares of those known
    among its training patients. The sums over clients are all that is used.

    Raises:
      DataError: if examples have no `codes` and `visits`, or a code is negative or has no name.
    """
    examples = dataset.train.examples
    for name, axes in (("codes", 3), ("visits", 1)):
        leaf = examples.get(name)
        if leaf is None or leaf.ndim != axes or leaf.dtype.kind != "i":
            got = "nothing" if leaf is None else f"{leaf.dtype} {list(leaf.shape)}"
            raise DataError(
                f"{name} of {dataset.name} must be whole numbers with {axes} axes, got {got}."
            )
    splits = [arrays.examples["codes"] for arrays in dataset.splits().values()]
    low = min(int(codes.min(initial=0)) for codes in splits)
    high = max(int(codes.max(initial=0)) for codes in splits)
    named = len(dataset.feature_names)
    if low < 0 or (named and high >= named):
        allowed = f"0 to {named - 1}" if named else "0 and above"
        raise DataError(f"codes of {dataset.name} must be {allowed}, got {min(low, 0) or high}.")
    real = np.arange(examples["codes"].shape[1]) < examples["visits"][:, None]
    labs = examples["labs"][real] if "labs" in examples else None
    return VisitInputs(named or high + 1, _scale_of(labs), _scale_of(examples.get("static")))


def _scale_of(values: np.ndarray | None) -> Scale:
    if values is None:
        return Scale()
    values = np.asarray(values, np.float64)
    known = ~np.isnan(values)
    number = np.maximum(known.sum(axis=0), 1)
    center = np.where(known, values, 0).sum(axis=0) / number
    deviation = np.sqrt((np.where(known, values - center, 0) ** 2).sum(axis=0) / number)
    # A column that never differs says nothing, and one that is never known is always 0.
    scale = np.where(deviation > 0, deviation, 1.0)
    return Scale(tuple(center.tolist()), tuple(scale.tolist()))
