"""A page of forecasts five weeks ahead beside what came."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedjax_med.reporting.palette import INK, MUTED, client_style
from fedjax_med.studies import forecast_training as training


def draw(data: training.Setup, quantiles: np.ndarray, path: Path, *, horizon: int = 5) -> None:
    """Quantiles `[origins, places, horizons, levels]` of four places, 50 and 95 % intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    h = training.HORIZONS.index(horizon)
    rows = data.origins("test") + horizon
    colour, _ = client_style(0)
    figure, axes = plt.subplots(4, 1, figsize=(9, 9), sharex=True, layout="constrained")
    for axis, place in zip(axes, (0, 3, 5, 8), strict=True):
        counts = np.expm1(quantiles[:, place, h]) / 1000
        axis.fill_between(rows, counts[:, 0], counts[:, -1], color=colour, alpha=0.2, lw=0)
        axis.fill_between(rows, counts[:, 2], counts[:, 4], color=colour, alpha=0.4, lw=0)
        axis.plot(rows, counts[:, 3], color=colour, lw=1.2)
        came = data.series.counts[rows, place] / 1000
        axis.plot(rows, came, ".", color=INK, ms=3)
        axis.set_title(data.series.names[place], loc="left", fontsize=10, color=INK)
        axis.set_ylim(0, 1.6 * came.max())
        axis.set_ylabel("patients [1000]", color=MUTED)
        axis.spines[["top", "right"]].set_visible(False)
    first = [r for r in rows if data.series.week[r] == 40]
    axes[-1].set_xticks(first, [f"week 40\n{data.series.season[r]}" for r in first])
    figure.suptitle(
        f"Forecasts {horizon} weeks ahead: median, 50 and 95 % intervals; dots are what came",
        x=0.01,
        ha="left",
        fontsize=11,
        color=INK,
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)
