"""The figure of the kernels: time beside plain JAX, and the share of the roofline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from benchmarks.kernels.report import Row, rate
from fedjax_med.reporting.figures import STYLE
from fedjax_med.reporting.palette import INK, MUTED
from fedjax_med.reporting.quantities import with_unit

_OURS, _PLAIN, _OTHER = "#0072B2", "#D55E00", "#9aa5b1"
_ROW_INCHES = 0.235


def write_figure(path: Path, rows: Sequence[Row]) -> None:
    """Writes a row per case; of a case with gradients, the pass with them, as training runs it."""
    with_gradient = {(r.kernel, r.case) for r in rows if r.pass_name == "gradient"}
    shown = [
        r for r in rows if r.pass_name == "gradient" or (r.kernel, r.case) not in with_gradient
    ]
    places, headings, place = [], [], 0.0
    kernel = None
    for row in shown:
        if row.kernel != kernel:
            place += 1.6 if kernel else 0.9
            headings.append((place - 0.95, row))
            kernel = row.kernel
        places.append(place)
        place += 1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.5, 1.5 + _ROW_INCHES * place), layout="constrained")
        time, share = figure.subplots(1, 2, width_ratios=(1.75, 1), sharey=True)
        for at, row in zip(places, shown, strict=True):
            ours, plain = row.ours["median_s"], row.plain["median_s"]
            time.plot([ours, plain], [at, at], "-", color="#cbd2d9", lw=2.5, zorder=1)
            others = [r["median_s"] for r in row.others]
            time.plot(others, [at] * len(others), "|", color=_OTHER, ms=7, mew=1.8, zorder=2)
            time.plot(plain, at, "o", color=_PLAIN, ms=6, zorder=3)
            time.plot(ours, at, "o", color=_OURS, ms=6, zorder=4)
            time.annotate(
                f"{plain / ours:.3g}" + "\N{MULTIPLICATION SIGN}",
                (1.0, at),
                (-4, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=8,
                fontweight="bold" if ours < plain else "normal",
                color=_OURS if ours <= plain else _PLAIN,
            )
            ratio = row.ours["roofline_ratio"]
            share.barh(at, 100 * ratio, color=_OURS, height=0.62, alpha=0.9)
            share.plot(100 * row.plain["roofline_ratio"], at, "|", color=_PLAIN, ms=9, mew=2)
            share.annotate(
                rate(row.ours),
                (1.0, at),
                (4, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=INK,
            )
        for at, row in headings:
            words = row.kernel.replace("_", " ")
            time.annotate(
                words,
                (0, at),
                (-6, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=9.5,
                fontweight="bold",
            )
        labels = [row.case.replace("/", ": ").replace("_", " ") for row in shown]
        time.set_yticks(places, labels, fontsize=8)
        time.tick_params(axis="y", length=0)
        time.set_ylim(place - 0.2, -0.7)
        time.set_xscale("log")
        low, high = time.get_xlim()
        time.set_xlim(low, high * (high / low) ** 0.12)  # room for the ratios
        time.xaxis.set_major_formatter(
            FuncFormatter(lambda x, _: with_unit(x, "s").replace(".00", "").replace(".0", ""))
        )
        time.set_title("Time per execution")
        share.set_title("Share of the roofline [%]")
        largest = max(r.ours["roofline_ratio"] for r in shown)
        share.set_xlim(0, max(100, 103 * largest))
        for axes in (time, share):
            axes.grid(axis="y", visible=False)
            axes.spines["left"].set_visible(False)
        share.tick_params(axis="y", length=0, labelleft=False)
        marker = {"ls": "", "marker": "o", "ms": 6}
        figure.legend(
            handles=[
                Line2D([], [], color=_OURS, label="what runs by default", **marker),
                Line2D([], [], color=_PLAIN, label="plain JAX", **marker),
                Line2D(
                    [], [], ls="", marker="|", mew=1.8, color=_OTHER, label="other implementations"
                ),
            ],
            loc="outside lower center",
            ncols=3,
            frameon=False,
        )
        first = shown[0].ours
        clients = next((r.ours["clients"] for r in shown if r.ours["clients"]), None)
        words = [first["device_kind"], first["processor"], f"{first['cpu_count']} cores"]
        words += [f"JAX {first['jax']}", "float32"]
        words += [f"{clients} client{'s' * (clients > 1)}"] if clients else []
        words += ["result and gradients"] if with_gradient else []
        figure.suptitle(", ".join(dict.fromkeys(words)), x=0.01, ha="left", fontsize=9, color=MUTED)
        figure.savefig(path, dpi=130, metadata={"Software": None})
