"""Studies of what is no table, signal, image or visit: each modality with a design of its own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from fedjax_med.data import FederatedDataset
from fedjax_med.studies.forecasts import ForecastSettings, study_forecasts
from fedjax_med.studies.genotypes import GenotypeSettings, study_genotypes
from fedjax_med.studies.graphs import GraphSettings, study_graph
from fedjax_med.studies.responses import ResponseSettings, study_responses
from fedjax_med.tasks.modalities import Modality

Tell = Callable[[str], None]


class Studied(NamedTuple):
    """What came of a study.

    Attributes:
      result: as `summarise` gives it.
      shown: what the figures of the modality are made of.
    """

    result: dict[str, Any]
    shown: Any


class Design(NamedTuple):
    """How a modality is studied.

    Attributes:
      settings: a dataclass of all choices.
      run: `(dataset, settings, data_dir=..., tell=...) -> (result, shown)`.
    """

    settings: Callable[..., Any]
    run: Callable[..., tuple[dict[str, Any], Any]]

    def choose(self, dataset: str, chosen: Mapping[str, Any]) -> Any:
        """The settings with what was chosen.

        Raises:
          ValueError: names a setting that the design has not, or a value that does not fit.
        """
        known = [field.name for field in dataclasses.fields(self.settings)]  # type: ignore[arg-type]
        for name, value in chosen.items():
            if name not in known:
                raise ValueError(
                    f"{name} {value!r} has no effect on {dataset}; what can be chosen there is "
                    f"{', '.join(known)}."
                )
        return self.settings(**chosen)


def _of_dataset(run: Callable[..., tuple[dict[str, Any], Any]]) -> Callable[..., Any]:
    """A study that needs no other files."""

    def with_folder(
        dataset: FederatedDataset,
        settings: Any,
        *,
        data_dir: str | os.PathLike | None = None,
        tell: Tell = lambda text: None,
    ) -> tuple[dict[str, Any], Any]:
        del data_dir
        return run(dataset, settings, tell=tell)

    return with_folder


DESIGNS: Mapping[Modality, Design] = MappingProxyType(
    {
        "graph": Design(GraphSettings, _of_dataset(study_graph)),
        "responses": Design(ResponseSettings, _of_dataset(study_responses)),
        "series": Design(ForecastSettings, study_forecasts),
        "genotypes": Design(GenotypeSettings, study_genotypes),
    }
)


def run_design(
    dataset: FederatedDataset,
    modality: Modality,
    settings: Any,
    *,
    data_dir: str | os.PathLike | None = None,
    tell: Tell = lambda text: None,
) -> Studied:
    """Runs the study of a modality of `DESIGNS`.

    Raises:
      DataError: if the data cannot be studied in this way.
    """
    return Studied(*DESIGNS[modality].run(dataset, settings, data_dir=data_dir, tell=tell))
