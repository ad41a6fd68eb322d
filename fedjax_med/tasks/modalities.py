"""What kind of data examples are, and which models there are for it besides those of tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.models import Model

Modality = Literal["table", "signal", "image", "volume", "visits"]
Build = Callable[[FederatedDataset, int], Model]  # of a dataset and a number of outputs

_BY_AXES: dict[int, Modality] = {2: "table", 3: "signal", 4: "image", 5: "volume"}

# By modality and name, the default first. Tables have theirs in `for_table`.
NETWORKS: Mapping[Modality, Mapping[str, Build]] = MappingProxyType({})


def modality_of(dataset: FederatedDataset) -> Modality:
    """The modality of a dataset, from names and shapes of its training examples.

    | examples | modality |
    | --- | --- |
    | `codes` | visits |
    | `x` `[N, features]` | table |
    | `x` `[N, time, channels]` | signal |
    | `x` `[N, height, width, channels]` | image |
    | `x` `[N, depth, height, width, channels]` | volume |

    Raises:
      DataError: if none of them fits.
    """
    examples = dataset.train.examples
    if isinstance(examples, dict) and "codes" in examples:
        return "visits"
    x = examples.get("x") if isinstance(examples, dict) else None
    if not isinstance(x, np.ndarray) or x.ndim not in _BY_AXES:
        got = "nothing" if x is None else f"shape {list(np.shape(x))}"
        raise DataError(
            f"x of {dataset.name} must have 2 axes (a table) to 5 axes (volumes), got {got}."
        )
    return _BY_AXES[x.ndim]


def network_of(dataset: FederatedDataset, modality: Modality, name: str | None) -> Build:
    """How the model of this name is built for a modality; the default for None.

    Raises:
      ValueError: if there is no model of that name.
    """
    known = NETWORKS.get(modality, {})
    if not known:
        raise ValueError(f"there is no model for examples of {dataset.name} ({modality}).")
    if name is None:
        return next(iter(known.values()))
    if name not in known:
        raise ValueError(
            f"model must be one of {', '.join(known)} for {modality} data, got {name!r}."
        )
    return known[name]
