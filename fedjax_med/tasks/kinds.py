"""What examples ask for: the kind of their outcome. NumPy only."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from fedjax_med.data import DataError, FederatedDataset

# Of quantiles that are forecast: the 95, 80 and 50 % intervals and the median.
LEVELS = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)

Kind = Literal[
    "binary",
    "multiclass",
    "multilabel",
    "regression",
    "survival",
    "links",
    "responses",
    "forecast",
    "segmentation",
]


def kind_of(dataset: FederatedDataset) -> Kind:
    """The kind of outcome, from names, shapes, dtypes and values of the training examples.

    | examples | kind |
    | --- | --- |
    | `time` and `event` | survival |
    | `head`, `relation` and `tail` | links |
    | `x`, `y` and `measured` | responses |
    | `y` of floating numbers `[N, horizons]` | forecast |
    | `y` of floating numbers `[N]` | regression |
    | `y` of whole numbers `[N]`, 0 and 1 and not more than two `label_names` | binary |
    | `y` of whole numbers `[N]`, 0 and above | multiclass |
    | `y` of whole numbers `[N, labels]`, 0 and 1 | multilabel |
    | `mask` of whole numbers `[N, *size]`, 0 and above, for `x` `[N, *size, channels]` | segmentation |

    Raises:
      DataError: if none of them fits.
    """
    examples = dataset.train.examples
    if not isinstance(examples, dict):
        raise DataError(
            f"examples of {dataset.name} must be a dict with 'y', or with 'time' and 'event', got "
            f"a {type(examples).__name__}."
        )
    if {"time", "event"} <= set(examples):
        return "survival"
    if {"head", "relation", "tail"} <= set(examples):
        return "links"
    if {"x", "y", "measured"} <= set(examples):
        return "responses"
    if "mask" in examples:
        _check_mask(dataset)
        return "segmentation"
    if "y" not in examples:
        raise DataError(
            f"examples of {dataset.name} must have 'y', or 'time' and 'event', got "
            f"{', '.join(sorted(examples))}."
        )
    y: Any = examples["y"]
    if y.ndim == 1 and y.dtype.kind == "f":
        return "regression"
    if y.ndim == 2 and y.dtype.kind == "f":
        return "forecast"
    if y.ndim not in (1, 2) or y.dtype.kind not in "biu" or not y.size:
        raise DataError(
            f"y of {dataset.name} must be numbers [N] or whole numbers [N, labels], got "
            f"{y.dtype} {list(y.shape)}."
        )
    low, high = int(y.min()), int(y.max())
    if low < 0:
        raise DataError(f"y of {dataset.name} must be 0 or above where it is whole, got {low}.")
    if y.ndim == 2:
        if high > 1:
            raise DataError(f"y of {dataset.name} must be 0 or 1 for several labels, got {high}.")
        return "multilabel"
    return "binary" if high <= 1 and len(dataset.label_names) <= 2 else "multiclass"


def _check_mask(dataset: FederatedDataset) -> None:
    x, mask = dataset.train.examples.get("x"), dataset.train.examples["mask"]
    if x is None or mask.shape != x.shape[:-1] or mask.ndim < 3:
        got = "none" if x is None else f"{list(x.shape)}"
        raise DataError(
            f"mask of {dataset.name} must have the shape of x without its last axis, got "
            f"{list(mask.shape)} for x {got}."
        )
    least = np.min(mask, initial=0)
    if mask.dtype.kind not in "biu" or least < 0:
        raise DataError(
            f"mask of {dataset.name} must be whole numbers of 0 and above, got {mask.dtype} from "
            f"{least} on."
        )


def num_outputs(dataset: FederatedDataset, kind: Kind) -> int:
    """How many outputs a model of this kind has: classes, labels, horizons with levels, or one."""
    if kind in ("multilabel", "responses"):
        return dataset.train.examples["y"].shape[1]
    if kind == "forecast":
        return dataset.train.examples["y"].shape[1] * len(LEVELS)
    if kind not in ("multiclass", "segmentation"):
        return 1
    key, least = ("y", 1) if kind == "multiclass" else ("mask", 2)
    seen = max(int(np.max(s.examples[key], initial=0)) for s in dataset.splits().values())
    return max(seen + 1, len(dataset.label_names), least)
