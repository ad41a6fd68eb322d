"""Forecasts of weekly counts beside what came."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fedjax_med.datasets.weekly import HORIZONS
from fedjax_med.reporting.figures import STYLE
from fedjax_med.reporting.palette import INK, client_style
from fedjax_med.studies.forecast_training import Setup
from fedjax_med.tasks.kinds import LEVELS

_OUTER, _INNER, _MIDDLE = (0, -1), (2, -3), len(LEVELS) // 2
_MOST_PLACES = 4


def forecast_figure(
    setup: Setup,
    quantiles: np.ndarray,
    *,
    horizon: int = 5,
    places: Sequence[int] | None = None,
    title: str = "Forecasts",
) -> Figure:
    """The median with 50 and 95 % intervals of some places over all test weeks; dots are what came.

    Args:
      setup: what was forecast.
      quantiles: of `log(1 + counts)`, `[origins, places, horizons, levels]`.
      horizon: weeks ahead, one of `HORIZONS`.
      places: which; if None, four that are spread over the order of their counts.
      title: of the figure.
    """
    series, h = setup.series, HORIZONS.index(horizon)
    rows = setup.origins("test") + horizon
    if places is None:
        order = np.argsort(series.counts[rows].sum(axis=0))[::-1]
        number = min(_MOST_PLACES, len(order))
        places = sorted(order[np.linspace(0, len(order) - 1, number).astype(int)].tolist())
    unit = 1000 if np.max(series.counts[rows][:, places]) >= 2000 else 1
    colour, _ = client_style(0)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 0.9 + 2.0 * len(places)), layout="constrained")
        grid = np.atleast_1d(figure.subplots(len(places), 1, sharex=True))
        for axes, place in zip(grid, places, strict=True):
            counts = np.expm1(quantiles[:, place, h]) / unit
            for (low, high), alpha, label in (
                (_OUTER, 0.2, "95 % interval"),
                (_INNER, 0.4, "50 % interval"),
            ):
                axes.fill_between(
                    rows,
                    counts[:, low],
                    counts[:, high],
                    color=colour,
                    alpha=alpha,
                    lw=0,
                    label=label,
                )
            axes.plot(rows, counts[:, _MIDDLE], color=colour, lw=1.2, label="median")
            came = series.counts[rows, place] / unit
            axes.plot(rows, came, ".", color=INK, ms=3, label="what came")
            axes.set_title(series.names[place])
            # Wide intervals at the peaks of a season would leave no room for the rest.
            axes.set_ylim(0, 1.6 * came.max())
            axes.set_ylabel("counts" + (" [1000]" if unit > 1 else ""))
        first = [int(row) for row in rows if series.week[row] == 40]
        grid[-1].set_xticks(first, [f"week 40\n{series.season[row]}" for row in first])
        figure.suptitle(f"{title}, {horizon} weeks ahead", x=0.01, ha="left", fontsize=11)
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure
