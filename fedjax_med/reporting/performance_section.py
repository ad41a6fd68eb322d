"""Where the time of a run went, and how well the machine was used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedjax_med.reporting import page

_TIMES = {  # key in the timings: words, colour
    "compile_s": ("compiling", "#0072B2"),
    "run_s": ("federated rounds", "#009E73"),
    "evaluate_s": ("evaluation", "#E69F00"),
    "checkpoint_s": ("checkpoints", "#CC79A7"),
}


def performance_section(result: Mapping[str, Any]) -> str:
    """Bars of times and of the useful fraction, and a few facts.

    Args:
      result: from `summarise`.
    """
    speed = result["performance"]
    timings = speed["timings_s"]
    total = timings["total_s"]
    known = {words: (timings[key], colour) for key, (words, colour) in _TIMES.items()}
    rest = max(0.0, total - sum(seconds for seconds, _ in known.values()))
    known["preparing and other"] = (rest, "#9aa5b1")
    parts = "".join(
        f'<span style="width:{100 * seconds / total:.2f}%;background:{colour}" '
        f'title="{page.text(words)}"></span>'
        for words, (seconds, colour) in known.items()
    )
    legend = "".join(
        f"<li>{page.swatch(colour)}{page.text(words)} {_seconds(seconds)} "
        f"({100 * seconds / total:.0f}&nbsp;%)</li>"
        for words, (seconds, colour) in known.items()
    )
    before = speed["rounds_before"]
    resumed = (
        f'<p class="note">This run was resumed after {before:,} rounds; times are of the rest.</p>'
        * bool(before)
    )
    fraction = speed["useful_fraction"]
    useful = '<p class="note">No rounds were left to run, so it was not measured.</p>'
    if fraction is not None:
        useful = (
            '<div class="bar" role="img" '
            f'aria-label="{100 * fraction:.0f} % useful">'
            f'<span style="width:{100 * fraction:.2f}%;background:#009E73"></span></div>'
            f'<ul class="legend"><li>{page.swatch("#009E73")}training a hospital '
            f"{100 * fraction:.1f}&nbsp;%</li><li>{page.swatch('#e4e7eb')}waiting for the longest lane "
            f"{100 * (1 - fraction):.1f}&nbsp;%</li></ul>"
        )
    per_round = speed["seconds_per_round_median"]
    memory = speed["memory_bytes"]
    facts = [
        ("time per round, median", "not measured" if per_round is None else _seconds(per_round)),
        ("devices", speed["placement"]),
        ("lanes per device", f"{speed['lanes']:,}"),
    ]
    if memory:
        needed = memory.get("arguments", 0) + memory.get("temporaries", 0)
        facts.append(("memory of the training program", f"{_bytes(needed)} per device"))
    return (
        f'<div class="grid"><section><h3>Time split: {_seconds(total)} in all</h3>'
        f'<div class="bar" role="img" aria-label="time split">{parts}</div>'
        f'<ul class="legend">{legend}</ul>{resumed}</section>'
        f"<section><h3>Useful fraction of the lanes</h3>{useful}</section></div>"
        f'{page.pairs(facts)}<p class="note">Baselines are not included.</p>'
    )


def _seconds(seconds: float) -> str:
    if seconds >= 100:
        return f"{seconds / 60:,.1f} min"
    if seconds >= 0.1:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    return f"{1000 * seconds:.2g} ms"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"
