"""Figures of a result as inline SVG, made by matplotlib without a display or global state."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fedjax_med.reporting.baselines import wilson_interval
from fedjax_med.reporting.palette import INK, MUTED, client_style
from fedjax_med.reporting.summary import METHODS, shown_clients, value_of
from fedjax_med.reporting.words import (
    axis_label,
    examples,
    has_wilson_interval,
    is_share,
    metric_words,
)

# Shapes tell the methods apart, colours the clients.
_MARKERS = {"no_model": "x", "local_only": "s", "best_site": "^", "federated": "o", "pooled": "D"}

STYLE: dict[Any, Any] = {  # matplotlib types the names of its settings one by one
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "svg.fonttype": "path",
    "svg.hashsalt": "fedjax_med",  # the same figure is the same text
}


def learning_curves(result: Mapping[str, Any]) -> str:
    """Main metric, and loss (or its like), on the test examples over the rounds, a line per client."""
    curves = result["curves"]
    metrics = [m for m in ("loss", "mse", result["main_metric"]) if m in curves["pooled"]]
    rounds = curves["rounds"]
    names = [client["name"] for client in result["clients"]]
    shown, hidden = shown_clients(result)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.1), layout="constrained")
        for axes, metric in zip(
            np.atleast_1d(figure.subplots(1, len(metrics))), metrics, strict=True
        ):
            values = _array(curves["per_client"][metric])
            marker = "o" if len(rounds) == 1 else None
            if hidden:
                low, high = np.nanquantile(values, [0.1, 0.9], axis=1)
                axes.fill_between(rounds, low, high, color="#56B4E9", alpha=0.35, linewidth=0)
            else:
                for client in shown:
                    index = names.index(client["name"])
                    colour, dashes = client_style(index)
                    axes.plot(rounds, values[:, index], dashes, color=colour, lw=1.6, marker=marker)
            pooled = _array(curves["pooled"][metric])
            axes.plot(rounds, pooled, "-", color=INK, lw=2.6, marker=marker)
            axes.set_title(f"Test {metric_words(metric)}")
            axes.set_xlabel("federated rounds")
            axes.set_ylabel(axis_label(metric, result["kind"]))
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            if is_share(metric):
                everything = np.append(values, pooled)
                low, high = np.nanmin(everything) - 0.05, np.nanmax(everything) + 0.05
                axes.set_ylim(max(-0.02, low), min(1.02, high))
        handles = [Line2D([], [], color=INK, lw=2.6, label=f"all {examples(result['kind'])}")]
        if hidden:
            handles.append(
                Line2D([], [], color="#56B4E9", alpha=0.5, lw=8, label="80 % of the clients")
            )
        else:
            for client in shown:
                colour, dashes = client_style(names.index(client["name"]))
                handles.append(
                    Line2D([], [], color=colour, ls=dashes, lw=1.6, label=client["name"])
                )
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False
        )
        return as_svg(figure, "curves")


def final_metrics(result: Mapping[str, Any]) -> str:
    """The main metric of every client beside the baselines; intervals of the federated model."""
    metric = result["main_metric"]
    methods = [name for name in METHODS if name in result["final"]]
    names = [client["name"] for client in result["clients"]]
    shown, _ = shown_clients(result)
    total = sum(client["test"] for client in result["clients"])
    rows: list[tuple[str | None, str, int, str]] = [
        (None, f"all {examples(result['kind'])}", total, INK)
    ]
    for client in shown:
        colour, _ = client_style(names.index(client["name"]))
        rows.append((client["name"], client["name"], client["test"], colour))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 1.5 + 0.62 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for place, (client, _, count, colour) in enumerate(rows):
            # Baselines above and below the line of the federated model: nothing is hidden.
            offsets = dict(zip(methods, np.linspace(-0.32, 0.32, len(methods)), strict=True))
            for method in methods:
                value = value_of(result, method, metric, client)
                if value is None:
                    continue
                y = place + offsets[method]
                federated = method == "federated"
                if federated and has_wilson_interval(result, metric):
                    low, high = wilson_interval(value, count)
                    axes.plot([low, high], [y, y], "-", color=colour, lw=2, alpha=0.5)
                axes.plot(
                    value,
                    y,
                    _MARKERS[method],
                    color=colour if federated else MUTED,
                    markerfacecolor=colour if federated else "white",
                    markersize=8 if federated else 6,
                    markeredgewidth=1.6,
                )
        axes.set_yticks(range(len(rows)), [f"{label} (n = {n:,})" for _, label, n, _ in rows])
        for tick, (*_, colour) in zip(axes.get_yticklabels(), rows, strict=True):
            tick.set_color(_darker(colour))
        axes.set_ylim(len(rows) - 0.4, -0.6)  # the first on top, also those without a value
        axes.axhline(0.5, color=MUTED, lw=0.8)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{axis_label(metric, result['kind'])} on test {examples(result['kind'])}")
        if is_share(metric):
            low, _ = axes.get_xlim()
            axes.set_xlim(max(-0.02, low), 1.02)
        axes.set_title(f"Final {metric_words(metric)}")
        handles = [
            Line2D(
                [],
                [],
                ls="",
                marker=_MARKERS[name],
                color=INK if name == "federated" else MUTED,
                markerfacecolor=INK if name == "federated" else "white",
                markeredgewidth=1.6,
                label=METHODS[name],
            )
            for name in methods
        ]
        if has_wilson_interval(result, metric):
            handles.append(
                Line2D([], [], color=INK, lw=2, alpha=0.5, label="95 % interval (federated)")
            )
        figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
        return as_svg(figure, "final")


def _array(values: Any) -> np.ndarray:
    """Nested lists with None for NaN, as float64."""
    return np.array(values, dtype=np.float64)


def _darker(colour: str) -> str:
    """The colour as text on white: dark enough to read."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"#{int(red * 0.72):02x}{int(green * 0.72):02x}{int(blue * 0.72):02x}"


def as_svg(figure: Figure, name: str) -> str:
    """An `svg` element that fits any width; ids are made unique within a page."""
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    return text.replace("url(#", f"url(#{name}-")
