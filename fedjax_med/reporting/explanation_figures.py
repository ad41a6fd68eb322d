"""Figures of what a model relies on: coefficients, importance, attributions, partial dependence.

All return a matplotlib figure, as those of `clinical_figures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from fedjax_med.reporting.clinical_figures import drawn
from fedjax_med.reporting.figures import STYLE
from fedjax_med.reporting.palette import INK, MUTED, client_style

if TYPE_CHECKING:
    from fedjax_med.explanation import (
        Attributions,
        Coefficients,
        CoefficientTable,
        PartialDependence,
        PermutationImportance,
    )

_ROW = 0.34  # inches of a line of text
_MOST_NAMED = 6  # hospitals with a colour of their own


def coefficients_figure(
    coefficients: Coefficients,
    *,
    ratio: str | None = None,
    units: Mapping[str, str] | None = None,
    per: Mapping[str, float] | None = None,
    title: str = "Coefficients",
) -> Figure:
    """A forest of the coefficients without intercepts; hospitals' own estimates as small marks.

    Args:
      coefficients: of a linear model.
      ratio: what their exponentials are, "odds ratio" or "hazard ratio"; None draws them as they are.
      units: by column, written behind its name.
      per: by column, how many units a coefficient is for: `{"age": 10.0}` with the unit "10 years".
      title: of the figure.

    Marks of hospitals that lie beyond the intervals of all are cut off.
    """
    times = np.array([(per or {}).get(name, 1.0) for name in coefficients.names])

    def shown(own: CoefficientTable) -> CoefficientTable:
        scaled = own._replace(value=own.value * times, low=own.low * times, high=own.high * times)
        return scaled if ratio is None else scaled.ratios()

    table = shown(coefficients.federated)
    places = np.flatnonzero(~coefficients.is_intercept)
    n = sum(coefficients.num_patients.values())
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 1.5 + _ROW * len(places)), layout="constrained")
        axes, beside = figure.subplots(1, 2, width_ratios=[3, 1.3], sharey=True)
        neutral = 0.0 if ratio is None else 1.0
        axes.axvline(neutral, color=MUTED, lw=1)
        if ratio is not None:
            axes.set_xscale("log")
        for y, k in enumerate(places):
            axes.plot([table.low[k], table.high[k]], [y, y], "-", color=INK, lw=1.8)
            axes.plot(table.value[k], y, "s", color=INK, markersize=6)
            text = f"{table.value[k]:.2f} [{table.low[k]:.2f}, {table.high[k]:.2f}]"
            beside.text(0, y, text if np.isfinite(table.se[k]) else "", va="center", fontsize=9)
        limits = axes.get_xlim()
        for name, colour, _ in _hospitals([*coefficients.per_hospital]):
            value = shown(coefficients.per_hospital[name]).value
            axes.plot(value[places], np.arange(len(places)) + 0.28, "|", color=colour, mew=1.6)
        axes.set_xlim(_within(limits, neutral, ratio is not None))
        if ratio is not None:
            _plain_log_axis(axes)
        names = [coefficients.names[k] for k in places]
        axes.set_yticks(
            range(len(places)), [f"{n} [{units[n]}]" if units and n in units else n for n in names]
        )
        axes.set_ylim(len(places) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{ratio or 'coefficient'} per unit of the column, or as in brackets")
        title += f" (n = {n:,})" if n else ""
        # Of the figure and not of the axes: a long one would run into the heading beside.
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        beside.axis("off")
        beside.set_title(f"{ratio or 'value'} [{100 * coefficients.level:g} %]", fontsize=10)
        if coefficients.per_hospital:
            main = Line2D([], [], color=INK, marker="s", label="all hospitals")
            _legend(figure, [*coefficients.per_hospital], main, "|")
        return drawn(figure)


def importance_figure(importance: PermutationImportance, metric: str, *, most: int = 15) -> Figure:
    """Bars of the federated importance, marks of the hospitals, the most important above.

    Args:
      importance: of the columns.
      metric: its name.
      most: columns that are shown.
    """
    values = {name: part.mean for name, part in importance.per_hospital.items()}
    return _bars(
        importance.columns,
        importance.federated.mean,
        values,
        most,
        errors=importance.federated.sd,
        label=f"{metric} lost when the column is permuted",
        title=f"Permutation importance (n = {sum(importance.num_patients.values()):,}, "
        f"{metric} {importance.federated.baseline:.3f})",
    )


def attribution_figure(
    attributions: Attributions, *, unit: str = "log odds", most: int = 15
) -> Figure:
    """Bars of the mean absolute integrated gradients, marks of the hospitals.

    Args:
      attributions: of the columns.
      unit: of the model's output.
      most: columns that are shown.
    """
    values = {name: part.absolute for name, part in attributions.per_hospital.items()}
    return _bars(
        attributions.columns,
        attributions.federated.absolute,
        values,
        most,
        errors=None,
        label=f"mean |integrated gradient| [{unit}]",
        title=f"Integrated gradients (n = {sum(attributions.num_patients.values()):,})",
    )


def _bars(
    columns: Sequence[str],
    federated: np.ndarray,
    per_hospital: Mapping[str, np.ndarray],
    most: int,
    *,
    errors: np.ndarray | None,
    label: str,
    title: str,
) -> Figure:
    order = np.argsort(-np.nan_to_num(federated, nan=-np.inf), kind="stable")[:most]
    place = np.arange(len(order))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 1.5 + _ROW * len(order)), layout="constrained")
        axes = figure.subplots()
        axes.barh(place, federated[order], height=0.62, color="#cbd2d9")
        if errors is not None and not np.isnan(errors).all():
            axes.errorbar(
                federated[order], place, xerr=errors[order], fmt="none", ecolor=INK, elinewidth=1.2
            )
        hospitals = _hospitals([*per_hospital])
        for number, (name, colour, marker) in enumerate(hospitals):
            # Spread over the bar, so that equal values do not hide each other.
            shift = 0.5 * ((number + 0.5) / len(hospitals) - 0.5)
            axes.plot(
                per_hospital[name][order],
                place + shift,
                marker,
                color=colour,
                markersize=5,
                alpha=0.9,
            )
        axes.axvline(0, color=MUTED, lw=1)
        axes.set_yticks(place, [columns[int(k)] for k in order])
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(label + ("; whiskers: sd over permutations" if errors is not None else ""))
        hidden = len(columns) - len(order)
        axes.set_title(title + (f", {hidden} columns not shown" if hidden else ""))
        main = Line2D([], [], color="#cbd2d9", lw=8, label="all hospitals, by patients")
        _legend(figure, [*per_hospital], main, None)
        return drawn(figure)


def dependence_figure(
    curves: Sequence[PartialDependence],
    *,
    label: str = "mean prediction",
    units: Mapping[str, str] | None = None,
) -> Figure:
    """Partial dependence: a panel per column, a line per hospital, all on one scale.

    Args:
      curves: of one model.
      label: of the predictions, with their unit.
      units: by column.

    Raises:
      ValueError: if there is no curve.
    """
    if not curves:
        raise ValueError("curves must have at least one column, got none.")
    across = min(3, len(curves))
    down = -(-len(curves) // across)
    names = [*curves[0].per_hospital]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.1 * across + 0.7, 2.9 * down + 0.9), layout="constrained")
        grid = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
        for place, axes in enumerate(grid):
            if place >= len(curves):
                axes.set_visible(False)
                continue
            _dependence(axes, curves[place])
            column = curves[place].column
            axes.set_xlabel(f"{column} [{units[column]}]" if units and column in units else column)
            if place % across == 0:
                axes.set_ylabel(label)
        n = sum(curves[0].num_patients.values())
        figure.suptitle(
            f"Partial dependence (n = {n:,})", x=0.01, ha="left", fontsize=11, fontweight="bold"
        )
        _legend(figure, names, Line2D([], [], color=INK, lw=2.6, label="all hospitals"), "-")
        return drawn(figure)


def _dependence(axes: Any, curve: PartialDependence) -> None:
    few = len(curve.grid) <= 4 or bool(curve.categories)
    for own in curve.individuals:
        axes.plot(curve.grid, own, "-", color=MUTED, lw=0.6, alpha=0.35)
    hospitals = _hospitals([*curve.per_hospital])
    for number, (name, colour, _) in enumerate(hospitals):
        own = curve.per_hospital[name]
        if few:
            shift = 0.3 * ((number + 0.5) / len(hospitals) - 0.5) * np.ptp(curve.grid[:2])
            axes.plot(curve.grid + shift, own, "o", color=colour, markersize=4.5)
        else:
            axes.plot(curve.grid, own, client_style(number)[1], color=colour, lw=1.4)
    if few:
        axes.plot(curve.grid, curve.federated, "_", color=INK, markersize=22, mew=2.6)
        shown = curve.categories or [f"{v:g}" for v in curve.grid]
        axes.set_xticks(curve.grid.tolist(), [text.replace(" ", "\n") for text in shown])
        axes.margins(x=0.18)
    else:
        axes.plot(curve.grid, curve.federated, "-", color=INK, lw=2.6)
        axes.xaxis.set_major_locator(MaxNLocator(5))


def _hospitals(names: Sequence[str]) -> list[tuple[str, str, str]]:
    """Name, colour and marker; many hospitals look alike, as nobody can tell so many colours."""
    if len(names) > _MOST_NAMED:
        return [(name, "#56B4E9", "o") for name in names]
    return [(name, client_style(i)[0], "osD^vP"[i]) for i, name in enumerate(names)]


def _legend(figure: Figure, names: Sequence[str], main: Line2D, look: str | None) -> None:
    def handle(number: int, name: str, colour: str, marker: str) -> Line2D:
        if look == "-":
            return Line2D([], [], color=colour, ls=client_style(number)[1], label=name)
        return Line2D([], [], color=colour, ls="", marker=look or marker, mew=1.6, label=name)

    hospitals = _hospitals(names)
    if len(hospitals) > _MOST_NAMED:
        hospitals = [("each hospital", *hospitals[0][1:])]
    handles = [main, *(handle(i, *hospital) for i, hospital in enumerate(hospitals))]
    longest = max(len(str(handle.get_label())) for handle in handles)
    # At ten points a letter is about 0.075 inches wide, a mark with its room 0.6.
    fit = int(figure.get_figwidth() / (0.6 + 0.075 * longest))
    columns = max(1, min(len(handles), fit))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)


def _within(limits: tuple[float, float], neutral: float, log: bool) -> tuple[float, float]:
    """Limits with some room, that always show the neutral value."""
    low, high = (np.log(limits) if log else np.asarray(limits)).tolist()
    middle = float(np.log(neutral)) if log else neutral
    low, high = min(low, middle), max(high, middle)
    room = 0.04 * (high - low)
    ends = np.array([low - room, high + room])
    low, high = (np.exp(ends) if log else ends).tolist()
    return low, high


def _plain_log_axis(axes: Any) -> None:
    """Ratios in plain numbers, as many as fit."""
    low, high = axes.get_xlim()
    decades = np.log10(high / low)
    steps = (
        (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if decades < 1.3 else (1.0, 3.0) if decades < 3 else (1.0,)
    )
    axes.xaxis.set_major_locator(LogLocator(10, subs=steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
