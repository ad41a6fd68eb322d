"""The figures of studies that have a design of their own, as inline SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fedjax_med.evaluation import metric_title
from fedjax_med.reporting import genomics_figures
from fedjax_med.reporting.figures import STYLE, as_svg
from fedjax_med.reporting.forecast_figures import forecast_figure
from fedjax_med.reporting.graph_figures import embedding_map
from fedjax_med.reporting.palette import MUTED
from fedjax_med.reporting.response_figures import predicted_figure, recommendation_figure
from fedjax_med.reporting.study_figures import overview
from fedjax_med.studies import forecasts, genotypes, graphs, responses
from fedjax_med.studies.designs import Studied
from fedjax_med.studies.response_training import PATIENTS, RESPONSES, K
from fedjax_med.tasks.modalities import Modality

_COLOURS = ("#0072B2", "#009E73", "#CC79A7", MUTED)
_MARKERS = ("o", "s", "D", "x")


def design_figures(modality: Modality, studied: Studied) -> dict[str, str]:
    """Heading and `svg` element of every figure; "overview" is the one above the main table."""
    result = studied.result
    heading = f"{metric_title(result['main_metric'])} of every hospital"
    figures = {heading: hospitals_figure(result), **_OF_MODALITY[modality](studied.shown)}
    return {
        "overview": overview(result),
        **{
            title: as_svg(figure, f"figure{n}") for n, (title, figure) in enumerate(figures.items())
        },
    }


def hospitals_figure(result: Mapping[str, Any]) -> Figure:
    """The main metric of every hospital by the chosen method and what it is compared with first."""
    main, methods = result["main_metric"], result["methods"]
    shown = [result["chosen"], *result["about"]["compared"].split()][: len(_COLOURS)]
    hospitals = [client["name"] for client in result["dataset"]["clients"]]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 1.4 + 0.36 * len(hospitals)), layout="constrained")
        axes = figure.subplots()
        for name, colour, marker in zip(shown, _COLOURS, _MARKERS, strict=False):
            own = methods[name]["metrics"][main]["per_hospital"]
            values = [np.nan if own[h] is None else own[h] for h in hospitals]
            axes.plot(
                values,
                range(len(hospitals)),
                marker,
                color=colour,
                mfc=colour if name == result["chosen"] else "white",
                mew=1.6,
                ms=8 if name == result["chosen"] else 6,
                label=methods[name]["title"],
            )
        axes.set_yticks(range(len(hospitals)), hospitals)
        axes.invert_yaxis()
        better = "higher is better" if result["ideal"][main] else "lower is better"
        axes.set_xlabel(f"{metric_title(main)} ({better})")
        figure.legend(loc="outside lower center", ncols=len(shown), frameon=False)
    return figure


def _of_graph(shown: graphs.GraphStudy) -> dict[str, Figure]:
    train = shown.dataset.train.examples
    names = shown.dataset.label_names
    both = np.concatenate([train["head"], train["tail"]])
    title = f"{shown.chosen} after FedE: dots grow with the triples of an entity"
    return {
        "Map of the entities": embedding_map(
            shown.entities,
            names,
            np.bincount(both, minlength=len(names)),
            shown.graph.own.sum(axis=0),
            title=title,
        )
    }


def _of_responses(shown: responses.Shown) -> dict[str, Figure]:
    titles = {RESPONSES: "Responses that were not measured", PATIENTS: "New patients"}
    figures = {
        "Predicted and measured responses": predicted_figure(
            {titles[setting]: values for setting, values in shown.predicted.items()},
            {titles[setting]: values for setting, values in shown.asked.items()},
        )
    }
    scale = shown.scale[PATIENTS]
    predicted = (shown.predicted[PATIENTS] - scale.center) / scale.scale
    asked = (shown.asked[PATIENTS] - scale.center) / scale.scale
    # The patient of whom most is known: with few drugs, any list has the best.
    row = int(np.argmax((~np.isnan(asked)).sum(axis=1)))
    figures["Drugs for a new patient"] = recommendation_figure(
        predicted[row],
        asked[row],
        shown.drugs,
        k=K,
        title=f"The {K} drugs recommended for one new patient, and those that work best",
    )
    return figures


def _of_series(shown: forecasts.Shown) -> dict[str, Figure]:
    return {
        f"Forecasts {horizon} weeks ahead": forecast_figure(
            shown.setup, shown.quantiles, horizon=horizon, title=shown.title
        )
        for horizon in (2, 5)
    }


def _of_genotypes(shown: genotypes.Shown) -> dict[str, Figure]:
    dataset = shown.dataset
    figures = {
        "Population structure": genomics_figures.structure(
            shown.scores, dataset.train.sizes, dataset.client_names
        )
    }
    if shown.associations:
        log10_p = {title: found.log10_p for title, found in shown.associations.items()}
        figures["Quantiles of p-values"] = genomics_figures.qq(
            log10_p, title="Twenty SNPs have an effect, hospitals are shifted"
        )
        if shown.snps is not None:
            title, found = next(iter(shown.associations.items()))
            figures["Associations by place in the genome"] = genomics_figures.manhattan(
                found.log10_p,
                shown.snps.chromosome,
                shown.snps.position,
                threshold=0.05 / len(found.log10_p),
                marked=shown.phenotype.causal,
                title=title,
            )
    return figures


_OF_MODALITY: Mapping[Modality, Callable[[Any], dict[str, Figure]]] = MappingProxyType(
    {
        "graph": _of_graph,
        "responses": _of_responses,
        "series": _of_series,
        "genotypes": _of_genotypes,
    }
)
