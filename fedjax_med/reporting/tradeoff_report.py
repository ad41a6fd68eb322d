"""Figure, sentences and report of a study of utility against epsilon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from fedjax_med.evaluation import metric_title
from fedjax_med.reporting import page
from fedjax_med.reporting.figures import STYLE, as_svg
from fedjax_med.reporting.files import write_text
from fedjax_med.reporting.palette import INK, MUTED

_COLOURS = {"record": "#0072B2", "hospital": "#D55E00"}
_MARKERS = {"record": "o", "hospital": "D"}
_DASHES = {"no privacy": "-", "each hospital alone": "--", "no model": ":"}
_CAVEAT = (
    "Clip bounds and learning rates were chosen on patients kept for choosing, separately for each epsilon; "
    "that choice is not accounted for."
)


def tradeoff_figure(results: Sequence[Mapping[str, Any]]) -> Figure:
    """The main metric against epsilon, a panel for each dataset."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(9.6, 4.6 * len(results)), 4.4), layout="constrained")
        panels = figure.subplots(1, len(results), squeeze=False)[0]
        for axes, result in zip(panels, results, strict=True):
            _panel(axes, result)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
        return figure


def _panel(axes: Any, result: Mapping[str, Any]) -> None:
    for name, dashes in _DASHES.items():
        found = result["references"].get(name)
        value = None if found is None else found["mean"]["value"]
        if value is not None:
            axes.axhline(value, ls=dashes, color=INK if name == "no privacy" else MUTED, label=name)
    for unit, colour in _COLOURS.items():
        points = [p for p in result["points"] if p["unit"] == unit]
        points = [p for p in points if p["mean"]["value"] is not None]
        if not points:
            continue
        epsilon = [point["epsilon"] for point in points]
        value = [point["mean"]["value"] for point in points]
        style = {"color": colour, "marker": _MARKERS[unit], "label": f"each {unit} protected"}
        axes.plot(epsilon, value, "-", mec=INK, mew=0.4, **style)
        bounded = [p for p in points if p["mean"]["low"] is not None]
        axes.fill_between(
            [p["epsilon"] for p in bounded],
            [p["mean"]["low"] for p in bounded],
            [p["mean"]["high"] for p in bounded],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
    axes.set_xscale("log")
    ticks = sorted({point["epsilon"] for point in result["points"]})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("epsilon")
    axes.set_ylabel(f"{metric_title(result['main_metric'])}, mean over hospitals")
    axes.set_title(result["dataset"])


def sentences(result: Mapping[str, Any]) -> list[str]:
    """What the study means, in words that its numbers support."""
    free = result["references"]["no privacy"]["mean"]["value"]
    alone = result["references"]["each hospital alone"]["mean"]["value"]
    title = metric_title(result["main_metric"])
    said = [
        f"Without privacy, federation has a mean {title} over hospitals of {_number(free)}; each "
        f"hospital alone has {_number(alone)}."
    ]
    higher = result["ideal"] != 0
    for unit in result["settings"]["units"]:
        points = [
            p for p in result["points"] if p["unit"] == unit and p["mean"]["value"] is not None
        ]
        if not points:
            continue
        said.append(
            f"Protecting each {unit}: "
            + ", ".join(f"{p['mean']['value']:.3f} at epsilon {p['epsilon']:g}" for p in points)
            + f" (delta {points[0]['delta']:g})."
        )
        if alone is None:
            continue
        better = [
            p["epsilon"]
            for p in points
            if (p["mean"]["value"] > alone if higher else p["mean"]["value"] < alone)
        ]
        if better:
            said[-1] += (
                " Its mean is better than that of each hospital alone at epsilon "
                f"{', '.join(f'{epsilon:g}' for epsilon in better)}; whether by more than chance, the "
                "intervals tell."
            )
        else:
            said[-1] += (
                " At no epsilon that was tried is its mean better than that of each hospital alone: "
                "protected like this, federation does not pay here."
            )
    return said


def write_tradeoff_report(
    path: Path, result: Mapping[str, Any], *, figure: str, versions: Mapping[str, Any]
) -> None:
    """Writes a self-contained HTML report.

    Raises:
      OSError: if the file cannot be written; an older one is left as it was.
    """
    title = f"Utility and privacy on {result['dataset']}"
    first, *others = sentences(result)
    said = "".join(f"<li>{page.text(sentence)}</li>" for sentence in others)
    header = f'<h1>{page.text(title)}</h1><p class="lead">{page.text(first)}</p><ul>{said}</ul>'
    heading = f"{metric_title(result['main_metric'])} against epsilon"
    protected = "".join(
        f"<h3>Each {unit} protected</h3><p>{page.text(statement)}</p>"
        for unit, statement in result["statements"].items()
    )
    settings = ((k.replace("_", " "), _shown(v)) for k, v in result["settings"].items())
    made = ((name, page.shown(value)) for name, value in versions.items())
    sections = [
        page.section(heading, page.figure(figure, heading) + _table(result)),
        page.section(
            "What is protected",
            f'<p class="note">For the smallest epsilon; the others differ in noise alone.</p>{protected}',
        ),
        page.section("Settings", page.pairs(settings, "pairs two")),
        page.section("Made with", page.pairs(made)),
    ]
    write_text(path, page.page(title, header, sections))


def svg_of(result: Mapping[str, Any]) -> str:
    """The figure of one result as an `svg` element."""
    return as_svg(tradeoff_figure([result]), "tradeoff")


def _table(result: Mapping[str, Any]) -> str:
    head = [
        "",
        "epsilon (PLD)",
        "by RDP",
        "noise",
        "clip bound",
        "mean over hospitals",
        "all patients",
    ]
    rows = []
    for name, found in result["references"].items():
        cells = f"<td></td><td></td><td></td><td></td>{_cells(found)}"
        rows.append(f'<tr><th scope="row">{page.text(name)}</th>{cells}</tr>')
    for point in result["points"]:
        rdp = point["spent_rdp"]
        cells = (
            f"<td>{point['spent']:.3f}</td><td>{page.number(rdp)}</td>"
            f"<td>{point['noise_multiplier']:.3g}</td><td>{point['clip_norm']:g}</td>{_cells(point)}"
        )
        rows.append(f'<tr><th scope="row">each {point["unit"]}</th>{cells}</tr>')
    titles = "".join(f'<th scope="col">{page.text(name)}</th>' for name in head)
    return (
        f'<div class="scroll"><table><thead><tr>{titles}</tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table></div><p class="note">95&nbsp;% intervals: over splits '
        f"(Nadeau and Bengio), or over test patients of the dataset's own division. {_CAVEAT}</p>"
    )


def _cells(found: Mapping[str, Any]) -> str:
    return "".join(f"<td>{_interval(found[name])}</td>" for name in ("mean", "pooled"))


def _interval(found: Mapping[str, float | None]) -> str:
    value, low, high = (found[key] for key in ("value", "low", "high"))
    if low is None or high is None:
        return page.number(value)
    return f"{page.number(value)} ({low:.3f} to {high:.3f})"


def _number(value: float | None) -> str:
    return "no value" if value is None else f"{value:.3f}"


def _shown(value: Any) -> str:
    return page.shown(list(value) if isinstance(value, tuple) else value)
