"""What kind of data examples are, and which models there are for it besides those of tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.datasets.weekly import THIS_WEEK
from fedjax_med.models import (
    Model,
    affine,
    augmented,
    forecasting,
    graph_embeddings,
    intensity,
    resnet,
    resnet18,
    response_autoencoder,
    response_factorisation,
    signals,
    unet,
    visits,
)
from fedjax_med.models.tabular import linear_in_pixels

Modality = Literal[
    "table",
    "signal",
    "image",
    "volume",
    "segmentation",
    "visits",
    "graph",
    "responses",
    "series",
    "genotypes",
]
Build = Callable[[FederatedDataset, int], Model]  # of a dataset and a number of outputs

_BY_NAMES: dict[Modality, set[str]] = {
    "visits": {"codes"},
    "segmentation": {"x", "mask"},
    "graph": {"head", "relation", "tail"},
    "responses": {"x", "y", "measured"},
}
_LEAST_SNPS = 1000
_SMALL_IMAGE = 64  # pixels; larger ones are halved before the first stage
_BY_AXES: dict[int, Modality] = {2: "table", 3: "signal", 4: "image", 5: "volume"}


def _window(dataset: FederatedDataset) -> int:
    """How many columns of windows are past weeks: up to the present one, else all of them."""
    names = dataset.feature_names
    present = names.index(THIS_WEEK) if THIS_WEEK in names else len(names) - 1
    return present + 1 if names else dataset.train.examples["x"].shape[1]


def _scores_of(build: Callable[[], graph_embeddings.GraphModel]) -> Build:
    return lambda dataset, outputs: graph_embeddings.as_model(
        build(), len(dataset.label_names), len(dataset.feature_names)
    )


# By modality and name, the default first. Tables have theirs in `for_table`.
NETWORKS: Mapping[Modality, Mapping[str, Build]] = MappingProxyType(
    {
        "signal": {
            "resnet": lambda dataset, outputs: signals.residual_network(outputs),
            "convolution": lambda dataset, outputs: signals.temporal_convolution(outputs),
            "gru": lambda dataset, outputs: signals.gru(outputs),
        },
        "image": {
            "resnet": lambda dataset, outputs: resnet(outputs),
            "resnet-augmented": lambda dataset, outputs: augmented(
                resnet(outputs), affine(shift=0.07, degrees=10.0, zoom=0.1), intensity(contrast=0.1)
            ),
            "resnet-group-norm": lambda dataset, outputs: resnet(outputs, norm="group"),
            "resnet18": lambda dataset, outputs: resnet18(
                outputs, large_images=dataset.train.examples["x"].shape[1] > _SMALL_IMAGE
            ),
            "linear": lambda dataset, outputs: linear_in_pixels(outputs),
        },
        "segmentation": {
            "unet": lambda dataset, outputs: unet(outputs),
            "small-unet": lambda dataset, outputs: unet(outputs, (4, 8)),
        },
        "visits": {
            "gru": lambda dataset, outputs: visits.visit_gru(visits.visit_inputs(dataset), outputs),
            "transformer": lambda dataset, outputs: visits.visit_transformer(
                visits.visit_inputs(dataset), outputs
            ),
            "bag": lambda dataset, outputs: visits.visit_bag(visits.visit_inputs(dataset), outputs),
            "last-visit": lambda dataset, outputs: visits.visit_bag(
                visits.visit_inputs(dataset), outputs, last_only=True
            ),
        },
        "graph": {name: _scores_of(build) for name, build in graph_embeddings.GRAPH_MODELS.items()},
        "responses": {
            "factorisation": lambda dataset, outputs: response_factorisation(8, ridge=4.0),
            "autoencoder": lambda dataset, outputs: response_autoencoder(),
        },
        "series": {
            "autoregression": lambda dataset, outputs: forecasting.autoregression(
                _window(dataset), outputs
            ),
            "convolution": lambda dataset, outputs: forecasting.temporal_convolution(
                _window(dataset), outputs
            ),
            "gru": lambda dataset, outputs: forecasting.gru(_window(dataset), outputs),
        },
    }
)


def modality_of(dataset: FederatedDataset) -> Modality:
    """The modality of a dataset, from names, shapes and values of its training examples.

    | examples | modality |
    | --- | --- |
    | `codes` | visits |
    | `x` `[N, *size, channels]` with `mask` `[N, *size]`, two or three sizes | segmentation |
    | `head`, `relation`, `tail` | graph |
    | `x` `[N, items]` with `y` and `measured` | responses |
    | `x` `[N, features]` with floating `y` `[N, horizons]` | series |
    | `x` `[N, snps]` of 0, 1, 2 and NaN, 1,000 columns or more | genotypes |
    | `x` `[N, features]` | table |
    | `x` `[N, time, channels]` | signal |
    | `x` `[N, height, width, channels]` | image |
    | `x` `[N, depth, height, width, channels]` | volume |

    Raises:
      DataError: if none of them fits.
    """
    examples = dataset.train.examples
    if not isinstance(examples, dict):
        examples = {}
    for modality, names in _BY_NAMES.items():
        if names <= examples.keys():
            return modality
    x = examples.get("x")
    if not isinstance(x, np.ndarray) or x.ndim not in _BY_AXES:
        got = "nothing" if x is None else f"shape {list(np.shape(x))}"
        raise DataError(
            f"x of {dataset.name} must have 2 axes (a table) to 5 axes (volumes), got {got}."
        )
    if x.ndim == 2:
        return _of_table(x, examples.get("y"))
    return _BY_AXES[x.ndim]


def _of_table(x: np.ndarray, y: np.ndarray | None) -> Modality:
    """Whether a table holds windows of a series, or genotypes, rather than columns of patients."""
    if y is not None and y.ndim == 2 and y.dtype.kind == "f":
        return "series"
    if x.shape[1] >= _LEAST_SNPS and (np.isin(x, (0, 1, 2)) | np.isnan(x)).all():
        return "genotypes"
    return "table"


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
