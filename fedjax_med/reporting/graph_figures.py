"""A map of the entities of a knowledge graph."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fedjax_med.reporting.figures import STYLE
from fedjax_med.reporting.palette import INK

_MOST_NAMED = 14


def embedding_map(
    entities: np.ndarray,
    names: Sequence[str],
    triples: np.ndarray,
    hospitals: np.ndarray,
    *,
    title: str = "Entities",
) -> Figure:
    """Embeddings on their first two principal components; those in the most triples are named.

    Args:
      entities: `[entities, size]`.
      names: of the entities.
      triples: `[entities]`, in how many each is; the area of its dot.
      hospitals: `[entities]`, how many hospitals know it; its colour.
      title: of the figure.

    Raises:
      ValueError: if lengths differ.
    """
    lengths = {len(entities), len(names), len(triples), len(hospitals)}
    if len(lengths) > 1:
        raise ValueError(
            f"entities, names, triples and hospitals must be of one length, got {sorted(lengths)}."
        )
    centred = entities - entities.mean(axis=0)
    _, spread, axes_ = np.linalg.svd(centred, full_matrices=False)
    at = centred @ axes_[:2].T
    share = spread**2 / np.sum(spread**2)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 6.4), layout="constrained")
        axes = figure.subplots()
        levels = np.arange(1, int(hospitals.max()) + 1)
        colours = matplotlib.colormaps["viridis_r"].resampled(len(levels))
        drawn = axes.scatter(
            *at.T,
            s=12 + 160 * triples / max(1, triples.max()),
            c=hospitals,
            cmap=colours,
            vmin=0.5,
            vmax=len(levels) + 0.5,
            edgecolors=INK,
            linewidths=0.4,
            alpha=0.85,
        )
        figure.colorbar(drawn, ax=axes, ticks=levels, label="hospitals that know it", shrink=0.6)
        for index in _apart(at, np.argsort(-triples, kind="stable")):
            axes.annotate(
                names[index].replace("_", " "),
                at[index],
                xytext=(7, 3),
                textcoords="offset points",
                fontsize=8,
            )
        axes.set_xlabel(f"first component ({100 * share[0]:.0f} % of the variance)")
        axes.set_ylabel(f"second component ({100 * share[1]:.0f} %)")
        axes.set_title(title)
    return figure


def _apart(at: np.ndarray, order: np.ndarray) -> list[int]:
    """The first of an order whose names do not lie on each other."""
    width, height = 0.26, 0.035  # of a name, as shares of the axes
    extent = np.maximum(np.ptp(at, axis=0), 1e-12)
    named: list[int] = []
    for index in order:
        gap = np.abs(at[named] - at[index]) / extent
        if not (gap < (width, height)).all(axis=1).any():
            named.append(int(index))
        if len(named) == _MOST_NAMED:
            break
    return named
