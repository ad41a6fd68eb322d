"""Predicted responses to drugs beside those that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fedjax_med.reporting.figures import STYLE
from fedjax_med.reporting.palette import INK, MUTED

_FEDERATED, _BEST = "#0072B2", "#D55E00"


def predicted_figure(
    predicted: Mapping[str, np.ndarray],
    asked: Mapping[str, np.ndarray],
    *,
    unit: str = "log IC50 [log micromolar]",
) -> Figure:
    """Density of predicted against measured responses, side by side.

    Args:
      predicted: `[rows, drugs]` by title.
      asked: likewise, NaN where nothing was measured.
      unit: of both.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        for axes, title in zip(
            np.atleast_1d(figure.subplots(1, len(predicted))), predicted, strict=True
        ):
            known = ~np.isnan(asked[title])
            x, y = asked[title][known], predicted[title][known]
            low, high = np.quantile(np.concatenate([x, y]), [0.001, 0.999])
            axes.hexbin(
                x, y, gridsize=45, cmap="Blues", bins="log", extent=(low, high, low, high), mincnt=1
            )
            axes.plot([low, high], [low, high], color=INK, lw=1, ls="--")
            axes.set_xlim(low, high)
            axes.set_ylim(low, high)
            axes.set_aspect("equal")
            axes.set_title(f"{title} (n = {known.sum():,})")
            axes.set_xlabel(f"measured {unit}")
            axes.set_ylabel("predicted")
    return figure


def recommendation_figure(
    predicted: np.ndarray, asked: np.ndarray, drugs: Sequence[str], *, k: int, title: str
) -> Figure:
    """The drugs recommended for a patient, and what was measured of them.

    Both are in standard deviations from what the drug does to others, so that lower is better.

    Args:
      predicted: `[drugs]`.
      asked: `[drugs]`, NaN where nothing was measured; such drugs are left out.
      drugs: names.
      k: how many are recommended.
      title: of the figure.
    """
    known = np.flatnonzero(~np.isnan(asked))
    order = known[np.argsort(predicted[known], kind="stable")]
    best = set(known[np.argsort(asked[known], kind="stable")][:k].tolist())
    listed = [*order[:k].tolist(), *(i for i in order[k:].tolist() if i in best)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 1.6 + 0.34 * len(listed)), layout="constrained")
        axes = figure.subplots()
        for place, drug in enumerate(listed):
            colour = _BEST if drug in best else MUTED
            axes.plot([predicted[drug], asked[drug]], [place, place], color="#cbd2d9", lw=2)
            axes.plot(predicted[drug], place, "o", color=_FEDERATED, ms=8, mfc="white", mew=1.6)
            axes.plot(asked[drug], place, "D", color=colour, ms=7)
        axes.axhline(k - 0.5, color=MUTED, lw=0.8, ls="--")
        axes.set_yticks(range(len(listed)), [str(drugs[i]) for i in listed])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("response in standard deviations from the drug's mean; lower is better")
        axes.set_title(title)
        for marker, colour, label, fill in (
            ("o", _FEDERATED, "predicted", "white"),
            ("D", _BEST, f"measured, among the {k} best", _BEST),
            ("D", MUTED, "measured, not among them", MUTED),
        ):
            axes.plot([], [], marker, color=colour, mfc=fill, mew=1.6, label=label, clip_on=False)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure
