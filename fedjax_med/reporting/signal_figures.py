"""Figures of signals and streams: beats with attributions, confusion, performance and drift over time.

All return a matplotlib figure, as those of `clinical_figures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fedjax_med.reporting.clinical_figures import drawn
from fedjax_med.reporting.figures import STYLE
from fedjax_med.reporting.palette import INK, MUTED, client_style


def beats_figure(
    x: np.ndarray,
    attribution: np.ndarray,
    titles: Sequence[str],
    *,
    rate: float,
    before: float = 0.0,
    unit: str = "mV",
    title: str = "What speaks for the class",
) -> Figure:
    """Signals whose colour says what speaks for (red) and against (blue) an output.

    Args:
      x: one channel `[K, time]`.
      attribution: `[K, time]`, as from `explanation.signal_gradients`; each signal's colours go up to its
        own largest value, summed over 5 samples so that single spikes do not hide the rest.
      titles: of the signals.
      rate: samples per second.
      before: samples before the time that is called 0.
      unit: of the signals.
      title: of the figure.

    Raises:
      ValueError: if shapes do not fit, or there is no signal.
    """
    x, attribution = np.asarray(x), np.asarray(attribution)
    if x.ndim != 2 or x.shape != attribution.shape or len(titles) != len(x) or not len(x):
        raise ValueError(
            "x and attribution must be [K, time] with K titles, at least one, got shapes "
            f"{list(x.shape)} and {list(attribution.shape)} and {len(titles)} titles."
        )
    across = min(3, len(x))
    down = -(-len(x) // across)
    seconds = (np.arange(x.shape[1]) - before) / rate
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.2 * across + 1.0, 2.2 * down + 0.9), layout="constrained")
        grid = figure.subplots(down, across, sharex=True, squeeze=False).ravel()
        lines = None
        for place, axes in enumerate(grid):
            if place >= len(x):
                axes.set_visible(False)
                continue
            smooth = np.convolve(attribution[place], np.ones(5), "same")
            smooth = smooth / max(np.abs(smooth).max(), 1e-30)
            points = np.stack([seconds, x[place]], axis=1)
            lines = LineCollection(
                np.stack([points[:-1], points[1:]], axis=1).tolist(),
                cmap="RdBu_r",
                array=(smooth[:-1] + smooth[1:]) / 2,
                clim=(-1, 1),
                linewidths=2.6,
                capstyle="round",
            )
            axes.add_collection(lines)
            # Where nothing speaks, the colour is nearly that of the page.
            axes.plot(seconds, x[place], "-", color=MUTED, lw=0.6, zorder=3)
            axes.axvline(0, color=MUTED, lw=0.8, ls=":")
            axes.set_title(titles[place], fontsize=10, fontweight="normal")
            axes.margins(x=0.02, y=0.1)
            if place % across == 0:
                axes.set_ylabel(unit)
            if place + across >= len(x):
                axes.set_xlabel("seconds")
                axes.tick_params(labelbottom=True)
        assert lines is not None  # for the type checker: there is a signal
        bar = figure.colorbar(lines, ax=grid.tolist(), shrink=0.7, aspect=30)
        bar.set_ticks([-1, 0, 1], labels=["against", "0", "for"])
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        return drawn(figure)


def confusion_figure(
    counts: np.ndarray, names: Sequence[str], *, title: str = "True and predicted classes"
) -> Figure:
    """Shares of each true class that were called each class, with numbers of examples.

    Args:
      counts: `[true, predicted]`, whole numbers or means over seeds.
      names: of the classes.
      title: of the figure.

    Raises:
      ValueError: if `counts` is not square with as many names.
    """
    counts = np.asarray(counts, np.float64)
    if counts.shape != (len(names), len(names)) or not len(names):
        raise ValueError(
            f"counts must be [{len(names)}, {len(names)}] for {len(names)} names, got shape "
            f"{list(counts.shape)}."
        )
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(1.1 * len(names) + 2.4, 0.8 * len(names) + 1.6), layout="constrained"
        )
        axes = figure.subplots()
        axes.imshow(np.nan_to_num(share), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(counts.shape):
            known = total[row, 0] > 0
            text = (
                f"{100 * share[row, column]:.0f} %\n{counts[row, column]:,.0f}" if known else "none"
            )
            dark = known and share[row, column] > 0.5
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=9,
                color="white" if dark else INK,
            )
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(
            range(len(names)), [f"{n} ({t:,.0f})" for n, t in zip(names, total[:, 0], strict=True)]
        )
        axes.set_xlabel("predicted")
        axes.set_ylabel("true (examples)")
        axes.grid(visible=False)
        axes.set_title(title)
        return drawn(figure)


def stream_figure(
    values: Mapping[str, np.ndarray],
    arrivals: np.ndarray,
    alarms: Sequence[tuple[int, str]] = (),
    *,
    drift: int | None = None,
    label: str = "macro F1 of the next examples",
    title: str = "Models kept current on a stream",
) -> Figure:
    """A metric of each period by way of training, with arrivals below and reported drifts.

    Args:
      values: by title `[periods]`, NaN where nothing was judged.
      arrivals: examples `[periods]`.
      alarms: period and who reported a drift.
      drift: period of a drift that is known, drawn as a line.
      label: of the metric.
      title: of the figure.

    Raises:
      ValueError: if lengths differ, or there is nothing to draw.
    """
    arrivals = np.asarray(arrivals)
    lengths = {name: len(v) for name, v in values.items()}
    if not lengths or set(lengths.values()) != {len(arrivals)}:
        raise ValueError(
            f"values must have one number for each of {len(arrivals)} periods, got {lengths}."
        )
    periods = np.arange(len(arrivals))
    # Whoever reports several drifts of a period is counted once.
    reported = np.bincount([p for p, _ in set(alarms)], minlength=len(arrivals))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 6.0 if len(alarms) else 5.2), layout="constrained")
        rows: list[Any] = list(
            figure.subplots(
                3 if len(alarms) else 2,
                1,
                sharex=True,
                height_ratios=[4, 1.1, 1.1] if len(alarms) else [4, 1.1],
            )
        )
        handles = []
        for number, (name, of_periods) in enumerate(values.items()):
            colour, dashes = client_style(number)
            rows[0].plot(periods, of_periods, dashes, color=colour, lw=1.9, marker="o", ms=3.5)
            handles.append(Line2D([], [], color=colour, ls=dashes, lw=1.9, label=name))
        rows[0].set_ylabel(label)
        rows[0].set_title(title)
        if len(alarms):
            axes = rows[1]
            axes.bar(periods, reported, color="#D55E00", width=0.6)
            axes.set_ylabel("drifts\nreported")
            axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        rows[-1].bar(periods, arrivals, color="#9aa5b1", width=0.6)
        rows[-1].set_ylabel("arrivals")
        rows[-1].yaxis.set_major_locator(MaxNLocator(3, integer=True))
        rows[-1].set_xlabel("period")
        rows[-1].xaxis.set_major_locator(MaxNLocator(10, integer=True))
        for axes in rows:
            axes.grid(axis="x", visible=False)
            if drift is not None:
                axes.axvline(drift - 0.5, color=INK, lw=1, ls="--")
        if drift is not None:
            handles.append(Line2D([], [], color=INK, lw=1, ls="--", label="drift"))
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
        return drawn(figure)
