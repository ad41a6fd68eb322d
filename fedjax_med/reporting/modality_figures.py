"""The figures of a study that fit its modality: examples as a clinician would look at them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from matplotlib.figure import Figure

from fedjax_med.reporting import image_figures, segmentation_figures
from fedjax_med.studies import Study
from fedjax_med.tasks.modalities import Modality

_FIGURES: Mapping[Modality, Callable[[Study], dict[str, Figure]]] = MappingProxyType(
    {"image": image_figures.figures_of, "segmentation": segmentation_figures.figures_of}
)


def examples_of(study: Study, modality: Modality) -> dict[str, Figure]:
    """Heading and figure for examples of the first split, by the chosen method's shared model."""
    draw = _FIGURES.get(modality)
    return {} if draw is None else draw(study)
