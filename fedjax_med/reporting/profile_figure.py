"""The figure of a profile: host and devices, parts of a round, operations, roofline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedjax_med.reporting.figures import STYLE
from fedjax_med.reporting.palette import INK, MUTED
from fedjax_med.reporting.quantities import share, with_unit

# One hue per kind of work: blue for the local step, orange for its data, green for what happens
# once per client, purple once per round, grey for what is no work.
PART_COLOURS = {
    "begin": "#7bc8a4",
    "minibatch": "#e69f00",
    "forward": "#9ecae9",
    "backward": "#0072b2",
    "optimizer": "#56b4e9",
    "rest of the local step": "#c6dbef",
    "end of a client": "#009e73",
    "aggregation": "#cc79a7",
    "server step": "#8e4b7a",
    "loops and dispatch": "#b8c0c8",
    "rest of the round": "#d9dee3",
    "evaluation": "#f0c987",
    "other programs": "#e4e7eb",
}
_HOST_COLOURS = {
    "draw cohorts": "#f0c987",
    "pack lanes": "#e69f00",
    "transfer schedule": "#d55e00",
    "dispatch": "#cc79a7",
    "wait for the devices": "#d9dee3",
    "evaluate": "#009e73",
    "callbacks": "#7bc8a4",
    "checkpoint": "#8e4b7a",
    "between phases": "#9aa5b1",
}
_BUSY_COLOURS = {
    "rounds": "#0072b2",
    "evaluation": "#009e73",
    "other programs": "#cc79a7",
    "idle": "#eef1f4",
}
_SHOWN_OPERATIONS = 10
_LABELLED = 0.07  # narrower pieces of a bar have their name in the legend only


def write_figure(path: Path, result: Mapping[str, Any]) -> None:
    """Writes the figure of a profile (`profile.json`) as PNG."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12.5, 8.6), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)  # type: ignore[union-attr]
        name = f"{Path(result['dataset']).name}, {result['algorithm']}"
        figure.suptitle(f"{name}:  {_title(result)}", x=0.01, ha="left", fontsize=10.5)
        # matplotlib types this as a single one
        top, bottom = figure.subfigures(2, 1, height_ratios=(1.0, 2.2))  # type: ignore[misc]
        _time_line(top.subplots(), result["traced"])
        left, middle, right = bottom.subplots(1, 3, width_ratios=(1.1, 1.2, 1.1))
        _parts(left, result["traced"])
        _operations(middle, result["traced"])
        _roofline(right, result)
        figure.savefig(path, dpi=130, metadata={"Software": None})


def _title(result: Mapping[str, Any]) -> str:
    rates = result["throughput"]
    words = [
        f"{with_unit(result['seconds_per_round'], 's')} per round",
        f"{with_unit(rates['achieved_flops_per_s'], 'FLOP/s')} "
        f"({share(rates['share_of_peak_flops'])} of the peak)",
        f"{share(result['useful_fraction'])} of the lane slots useful",
        f"{with_unit(result['compile_s'], 's')} compilation",
    ]
    return "  ·  ".join(words)


def _time_line(axes: Axes, traced: Mapping[str, Any]) -> None:
    """Two bars over a traced round: what the host did, and whether the devices did anything."""
    window = traced["window_s"]
    scale, unit = _scale(window)
    busy = {name: s for name, s in traced["busy_s"].items() if s}
    rows = [("host", traced["host_phases_s"], _HOST_COLOURS), ("devices", busy, _BUSY_COLOURS)]
    for place, (_, pieces, colours) in enumerate(rows):
        reached = 0.0
        for name, seconds in pieces.items():
            width = seconds * scale
            label = f"{name} ({share(seconds / window)})"
            axes.barh(
                place,
                width,
                left=reached,
                height=0.62,
                color=colours.get(name, MUTED),
                edgecolor="white",
                linewidth=0.8,
                label=label,
            )
            if seconds > _LABELLED * window:
                dark = name in ("rounds", "evaluate", "evaluation", "transfer schedule")
                axes.text(
                    reached + width / 2,
                    place,
                    name,
                    ha="center",
                    va="center",
                    color="white" if dark else INK,
                    fontsize=9,
                )
            reached += width
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(1.45, -0.45)
    axes.set_xlim(0, window * scale)
    axes.grid(visible=False)
    axes.set_xlabel(f"{unit} per traced round (added up, not in order of time)")
    axes.set_title("Host and devices")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8.5)


def _parts(axes: Axes, traced: Mapping[str, Any]) -> None:
    parts = traced["parts_s"]
    axes.set_title("Parts of a round on the devices")
    if not parts:
        _nothing(axes, "no operations in the trace")
        return
    scale, unit = _scale(max(parts.values()))
    total = sum(parts.values())
    values = [seconds * scale for seconds in parts.values()]
    axes.barh(range(len(parts)), values, color=[PART_COLOURS[name] for name in parts], height=0.7)
    for place, seconds in enumerate(parts.values()):
        axes.text(
            seconds * scale,
            place,
            f" {share(seconds / total)}",
            va="center",
            fontsize=8.5,
            color=INK,
        )
    axes.set_yticks(range(len(parts)), list(parts))
    axes.invert_yaxis()
    axes.set_xlim(0, max(values) * 1.2)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"{unit} per traced round")


def _operations(axes: Axes, traced: Mapping[str, Any]) -> None:
    shown = traced["operations"][:_SHOWN_OPERATIONS]
    axes.set_title("Longest operations")
    if not shown:
        _nothing(axes, "no operations in the trace")
        return
    scale, unit = _scale(shown[0]["seconds"])
    values = [op["seconds"] * scale for op in shown]
    axes.barh(
        range(len(shown)), values, color=[PART_COLOURS[op["part"]] for op in shown], height=0.7
    )
    for place, op in enumerate(shown):
        axes.text(
            values[place],
            place,
            f" {op['calls']:.0f} calls",
            va="center",
            fontsize=8.5,
            color=MUTED,
        )
    axes.set_yticks(range(len(shown)), [_short(op["operation"]) for op in shown], fontsize=8.5)
    axes.invert_yaxis()
    axes.set_xlim(0, max(values) * 1.2)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"{unit} per traced round, coloured by part")


def _roofline(axes: Axes, result: Mapping[str, Any]) -> None:
    """What the device can do at most against operations per byte, and where the steps are."""
    rates, peaks = result["throughput"], result["peaks"]
    flops = peaks["flops_per_s"] * result["peak_devices"]
    bandwidth = peaks["bytes_per_s"] * result["peak_devices"]
    axes.set_title("Roofline, measured now")
    intensity, achieved = rates["flops_per_byte"], rates["achieved_flops_per_s"]
    ridge = flops / bandwidth
    ends = [ridge / 100, ridge * 30]
    if intensity is not None:
        ends += [intensity / 3, intensity * 3]
    x = np.geomspace(min(ends), max(ends), 200)
    axes.plot(x, np.minimum(flops, x * bandwidth) / 1e9, color=INK, lw=2)
    axes.text(x[-1], flops / 1e9 * 1.15, with_unit(flops, "FLOP/s"), ha="right", fontsize=8.5)
    at = (x[0] * ridge) ** 0.5  # the middle of the slope
    axes.text(
        at, at * bandwidth / 1e9, with_unit(bandwidth, "B/s") + "  ", fontsize=8.5, ha="right"
    )
    low = x[0] * bandwidth / 1e9
    if intensity is not None and achieved is not None:
        y = achieved / 1e9
        limit = min(flops, intensity * bandwidth)
        axes.plot([intensity] * 2, [y, limit / 1e9], ":", color=MUTED, lw=1.2)
        axes.plot(intensity, y, "o", color="#D55E00", ms=9, zorder=3)
        axes.annotate(
            f"useful steps\n{share(achieved / limit)} of the limit",
            (intensity, y),
            (8, -4),
            textcoords="offset points",
            fontsize=8.5,
            va="top",
            color="#a84a00",
        )
        low = min(low, y / 4)
    else:
        axes.text(0.5, 0.4, "operations not counted", transform=axes.transAxes, ha="center")
    axes.set(xscale="log", yscale="log", xlim=(x[0], x[-1]), ylim=(low, flops / 1e9 * 3))
    axes.set_xlabel("FLOP per byte")
    axes.set_ylabel("GFLOP/s")


def _nothing(axes: Axes, text: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=MUTED)


def _scale(seconds: float) -> tuple[float, str]:
    """Factor and unit that make a time a number of readable size."""
    if seconds >= 1:
        return 1.0, "s"
    return (1e3, "ms") if seconds >= 1e-3 else (1e6, "µs")


def _short(name: str, length: int = 26) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
