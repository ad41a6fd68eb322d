"""Figures of clinical results: survival by risk group, calibration, metrics of hospitals and groups.

All return a matplotlib figure, drawn without a display or global state: `figure.savefig("a.pdf")`
writes it, `reporting.figures.as_svg` gives what a page can hold. Colours can be told apart with colour
blindness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fedjax_med.evaluation import Outcome, Predictions, kaplan_meier_by_group, log_rank
from fedjax_med.evaluation.calibration import reliability_curve
from fedjax_med.evaluation.intervals import Estimate
from fedjax_med.evaluation.judgement import Judgement
from fedjax_med.reporting.baselines import wilson_interval
from fedjax_med.reporting.figures import STYLE
from fedjax_med.reporting.palette import INK, MUTED, client_style

_MARKERS = "osD^vP"
_MOST_PANELS = 8  # of calibration: all patients, and the largest hospitals
_ROW = 0.34  # inches of a line of text


def kaplan_meier_figure(
    outcome: Outcome,
    group: np.ndarray,
    names: Sequence[str] | None = None,
    *,
    unit: str = "days",
    title: str = "Survival by predicted risk",
) -> Figure:
    """Kaplan-Meier curves with 95 % bands, patients at risk, medians, and the log-rank test.

    Args:
      outcome: of the patients `[N]`.
      group: int `[N]`, as `evaluation.risk_group`.
      names: of the groups 0, 1, ...; their numbers if None.
      unit: of the times.
      title: of the figure.

    Raises:
      ValueError: if there is no patient.
    """
    if not len(outcome.time):
        raise ValueError("outcome must have at least one patient, got none.")
    curves = kaplan_meier_by_group(outcome, group)
    test = log_rank(outcome, group)
    called = {g: str(g) if names is None else names[g] for g in curves}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.6 + _ROW * len(curves)), layout="constrained")
        axes, table = figure.subplots(2, 1, sharex=True, height_ratios=[4.2, 0.3 * len(curves)])
        axes.xaxis.set_major_locator(MaxNLocator(7))
        for place, (g, curve) in enumerate(curves.items()):
            colour, dashes = client_style(place)
            time = np.concatenate([[0.0], curve.time])
            steps = [np.concatenate([[1.0], s]) for s in (curve.survival, curve.low, curve.high)]
            median = "not reached" if np.isnan(curve.median) else f"{curve.median:,.0f} {unit}"
            label = f"{called[g]}, n = {(group == g).sum():,}, median {median}"
            axes.step(time, steps[0], dashes, where="post", color=colour, lw=2, label=label)
            axes.fill_between(
                time, steps[1], steps[2], step="post", color=colour, alpha=0.15, linewidth=0
            )
            own = np.asarray(group) == g
            censored = np.sort(np.asarray(outcome.time)[own & ~np.asarray(outcome.event, bool)])
            axes.plot(censored, curve.at(censored), "|", color=colour, markersize=6, mew=1.2)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlim(0, float(np.max(outcome.time)) * 1.02)
        axes.set_ylabel("survival (share of patients)")
        axes.set_title(title)
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(f"time [{unit}]; ticks: censored patients, bands: 95 % intervals")
        axes.legend(loc="upper right", frameon=False)
        said = (
            "no test: one group" if np.isnan(test.p_value) else f"log-rank {_p_value(test.p_value)}"
        )
        axes.text(0.01, 0.03, said, transform=axes.transAxes)
        _numbers_at_risk(table, outcome, group, [(g, called[g]) for g in curves], axes.get_xticks())
        return drawn(figure)


def _numbers_at_risk(
    axes: Any, outcome: Outcome, group: np.ndarray, groups: Sequence, ticks: np.ndarray
) -> None:
    last = float(np.max(outcome.time))
    for place, (g, _) in enumerate(groups):
        colour, _ = client_style(place)
        time = np.asarray(outcome.time)[np.asarray(group) == g]
        for tick in ticks[(ticks >= 0) & (ticks <= last)]:
            text = f"{(time >= tick).sum():,}"
            axes.text(tick, place, text, ha="center", va="center", color=_on_white(colour))
    axes.set_yticks(range(len(groups)), [name for _, name in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_title("Patients at risk", fontsize=10)
    axes.tick_params(bottom=False, labelbottom=False, left=False, pad=16)
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)


def reliability_figure(
    predictions: Predictions, *, num_bins: int = 10, title: str = "Calibration"
) -> Figure:
    """Predicted against observed risk, of all patients and of each hospital, over histograms.

    Bins hold equal numbers of patients; bars are Wilson's 95 % intervals of the observed share. The
    seven hospitals with most patients have a panel.

    Args:
      predictions: probabilities of label 1 `[N]` and labels of 0 and 1.
      num_bins: bins of all patients; hospitals have as many as leave ten patients to each.
      title: of the figure.

    Raises:
      ValueError: if there is no patient.
    """
    if not predictions.num_patients:
        raise ValueError("predictions must have at least one patient, got none.")
    sizes = np.bincount(predictions.client, minlength=len(predictions.client_names))
    largest = [i for i in np.argsort(-sizes, kind="stable") if sizes[i]][: _MOST_PANELS - 1]
    panels = [("all patients", predictions, INK)]
    for i in sorted(map(int, largest)):
        part = predictions.take(predictions.client == i)
        panels.append((predictions.client_names[i], part, client_style(i)[0]))
    down = -(-len(panels) // 4)
    across = -(-len(panels) // down)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.5 * across + 0.8, 3.5 * down + 0.7), layout="constrained")
        grid = figure.subplots(2 * down, across, height_ratios=[3.4, 1] * down, squeeze=False)
        for place in range(across * down):
            axes, below = (grid[2 * (place // across) + k, place % across] for k in (0, 1))
            if place >= len(panels):
                axes.set_visible(False)
                below.set_visible(False)
                continue
            name, part, colour = panels[place]
            bins = max(1, min(num_bins, part.num_patients // 10))
            _reliability(axes, below, part, bins, colour)
            axes.set_title(f"{name}\n(n = {part.num_patients:,})", fontsize=10)
            if place % across == 0:
                axes.set_ylabel("observed share")
                below.set_ylabel("patients")
            if place + across >= len(panels):
                below.set_xlabel("predicted risk")
        hidden = int((sizes > 0).sum()) - len(largest)
        if hidden:
            title += f" ({hidden} smaller hospitals not shown)"
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        figure.supxlabel(
            "Histograms: patients without the outcome in grey, those with it in colour. "
            "Bars: Wilson's 95 % intervals.",
            fontsize=8,
            color=MUTED,
        )
        return drawn(figure)


def _reliability(axes: Any, below: Any, part: Predictions, bins: int, colour: str) -> None:
    probability, label = np.asarray(part.outputs, np.float64), np.asarray(part.labels)
    curve = reliability_curve(probability, label, num_bins=bins, quantiles=True)
    axes.plot([0, 1], [0, 1], ":", color=MUTED, lw=1.2)
    filled = np.flatnonzero(curve.count > 0)
    x, y = curve.predicted[filled], curve.observed[filled]
    ends = [wilson_interval(float(v), int(n)) for v, n in zip(y, curve.count[filled], strict=True)]
    for at, (low, high) in zip(x, ends, strict=True):
        axes.plot([at, at], [low, high], "-", color=colour, lw=1.6, alpha=0.5)
    axes.plot(x, y, "o-", color=colour, lw=1.4, markersize=4.5)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    axes.tick_params(labelbottom=False)
    edges = np.linspace(0, 1, 21)
    below.hist(
        [probability[label == 0], probability[label == 1]],
        edges,
        stacked=True,
        color=["#cbd2d9", colour],
    )
    below.set(xlim=(-0.02, 1.02), xticks=[0, 0.5, 1])
    below.yaxis.set_major_locator(MaxNLocator(2, integer=True))


def metric_forest(
    judgements: Mapping[str, Judgement], metric: str, *, label: str | None = None
) -> Figure:
    """A metric of all patients, of the mean hospital, and of each hospital, for several methods.

    Args:
      judgements: by method, of the same patients.
      metric: its name in the judgements.
      label: of the axis, with its unit; the name of the metric if None.

    Raises:
      ValueError: if there is no method, or the metric is not known.
    """
    _known(judgements, metric)
    first = next(iter(judgements.values()))
    rows: list[tuple[str, list[Estimate]]] = [
        (f"all patients (n = {first.pooled.patients:,})", []),
        ("mean of hospitals", []),
        *((f"{h} (n = {part.patients:,})", []) for h, part in first.per_hospital.items()),
    ]
    for judgement in judgements.values():
        parts = [judgement.pooled.metrics, judgement.mean]
        parts += [part.metrics for part in judgement.per_hospital.values()]
        for (_, estimates), found in zip(rows, parts, strict=True):
            estimates.append(found[metric])
    title = f"{label or metric} per hospital"
    headings = {2: "hospitals"}
    return _forest(rows, headings, [*judgements], label or metric, title, first.description)


def subgroup_forest(
    judgements: Mapping[str, Judgement], metric: str, *, label: str | None = None
) -> Figure:
    """A metric of all patients and of each subgroup, for one or several methods.

    Args, Raises: as `metric_forest`.
    """
    _known(judgements, metric)
    first = next(iter(judgements.values()))
    rows = [(f"all patients (n = {first.pooled.patients:,})", [])]
    headings: dict[int, str] = {}
    for attribute, groups in first.subgroups.items():
        headings[len(rows)] = attribute
        rows += [(f"{name} (n = {part.patients:,})", []) for name, part in groups.items()]
    for judgement in judgements.values():
        parts = [judgement.pooled]
        for attribute, groups in first.subgroups.items():
            parts += [judgement.subgroups[attribute][name] for name in groups]
        for (_, estimates), part in zip(rows, parts, strict=True):
            estimates.append(part.metrics[metric])
    title = f"{label or metric} per subgroup"
    return _forest(rows, headings, [*judgements], label or metric, title, first.description)


def _known(judgements: Mapping[str, Judgement], metric: str) -> None:
    if not judgements:
        raise ValueError("judgements must have at least one method, got none.")
    known = next(iter(judgements.values())).pooled.metrics
    if metric not in known:
        raise ValueError(f"metric must be one of {', '.join(known)}, got {metric!r}.")


def _forest(
    rows: Sequence[tuple[str, Sequence[Estimate]]],
    headings: Mapping[int, str],
    methods: Sequence[str],
    label: str,
    title: str,
    description: str,
) -> Figure:
    """Rows of estimates, a marker per method, with their numbers written beside them."""
    several = len(methods)
    lines: list[tuple[str, Sequence[Estimate] | None]] = []
    for place, (name, estimates) in enumerate(rows):
        if place in headings:
            lines.append((headings[place], None))
        lines.append((name, estimates))
    heights = [1.0 if estimates is None else 0.35 + 0.65 * several for _, estimates in lines]
    centre = np.cumsum(heights) - np.array(heights) / 2
    with matplotlib.rc_context(STYLE):
        height = _ROW * sum(heights) + 1.5
        figure = Figure(figsize=(8.6, height), layout="constrained")
        axes, beside = figure.subplots(1, 2, width_ratios=[3.2, 1.35], sharey=True)
        pooled = rows[0][1]
        for m, estimate in enumerate(pooled):
            axes.axvline(estimate.value, color=client_style(m)[0], lw=0.9, ls=":", alpha=0.8)
        for y, (_, estimates) in zip(centre, lines, strict=True):
            for m, estimate in enumerate(estimates or ()):
                at = y + 0.62 * (m - (several - 1) / 2)
                colour = client_style(m)[0]
                axes.plot([estimate.low, estimate.high], [at, at], "-", color=colour, lw=1.8)
                axes.plot(estimate.value, at, _MARKERS[m % 6], color=colour, markersize=6)
                text = _estimate(estimate)
                beside.text(0, at, text, va="center", color=_on_white(colour), fontsize=9)
        axes.set_yticks(centre, [name for name, _ in lines])
        for tick, (_, estimates) in zip(axes.get_yticklabels(), lines, strict=True):
            if estimates is None:
                tick.set_fontweight("bold")
        axes.axhline(heights[0], color=MUTED, lw=0.8)
        axes.set_ylim(sum(heights), 0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(label)
        axes.set_title(title)
        beside.axis("off")
        beside.set_title("value [95 % interval]" if "95 %" in description else "value", fontsize=10)
        if several > 1:
            handles = [
                Line2D([], [], color=client_style(m)[0], marker=_MARKERS[m % 6], label=name)
                for m, name in enumerate(methods)
            ]
            figure.legend(handles=handles, loc="outside upper left", ncols=4, frameon=False)
        figure.supxlabel(description, fontsize=8, color=MUTED)
        return drawn(figure)


def drawn(figure: Figure) -> Figure:
    """The figure with all ticks made, while the style that they are to have is in force."""
    figure.draw_without_rendering()
    return figure


def _estimate(estimate: Estimate) -> str:
    if np.isnan(estimate.value):
        return "not defined"
    if np.isnan(estimate.low):
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _on_white(colour: str) -> str:
    """The colour as text on white: dark enough to read."""
    return "#" + "".join(f"{int(int(colour[i : i + 2], 16) * 0.72):02x}" for i in (1, 3, 5))
