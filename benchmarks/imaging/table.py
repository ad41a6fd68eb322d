"""The page of medical images, as Markdown, from its results."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import records
from benchmarks.imaging.text import DIVISIONS, INTRODUCTION, POOLED, PUBLISHED, SCANNERS

RESULTS = "benchmarks/results/imaging-cpu.jsonl"
PAGE = "docs/imaging.md"
Record = dict[str, Any]


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.bare_parser("imaging.table", __doc__)
    parser.add_argument("results", nargs="?", default=RESULTS, help=f"results ({RESULTS})")
    parser.add_argument("--output", default=PAGE, help=f"default: {PAGE}")
    return parser


def render(lines: Sequence[Record]) -> str:
    """The page; what was not measured has no row."""
    text = [INTRODUCTION, *_pooled(lines)]
    for name in dict.fromkeys(line["dataset"] for line in lines):
        text += _divisions(name, lines)
    text += _scanners(lines)
    last = lines[-1]
    commands = dict.fromkeys(line["command"] for line in lines)
    text += [
        f"Made on a busy machine ({last['processor']}, {last['cpu_count']} cores, JAX {last['jax']}) by",
        "",
        *(f"    {command}" for command in commands),
        "",
        "and this page by `python -m benchmarks.imaging.table`.",
        "",
    ]
    return "\n".join(text)


def _pooled(lines: Sequence[Record]) -> list[str]:
    header = ["", "AUROC, published", "AUROC, here", "accuracy, published", "accuracy, here"]
    body = []
    for line in lines:
        if line["case"] == "published":
            published = PUBLISHED[line["dataset"]]
            body.append(
                [
                    _title(line["dataset"]),
                    f"{published['auroc']:.3f}",
                    _estimate(line["auroc"]),
                    f"{published['accuracy']:.3f}",
                    _estimate(line["accuracy"]),
                ]
            )
    return [
        "## Pooled training against published numbers",
        "",
        POOLED,
        "",
        *_table(header, body),
        "",
    ]


def _divisions(name: str, lines: Sequence[Record]) -> list[str]:
    own = [line for line in lines if line["dataset"] == name]
    rows = [line for line in own if line["case"] == "divisions"]
    if not rows:
        return []
    header = ["hospitals", "method", *_COLUMNS, "AUROC minus pooled"]
    body = []
    pooled = [line for line in own if line["case"] == "pooled"]
    for line in pooled:
        body.append(["(one place)", "pooled", *_cells(line), ""])
    for division in dict.fromkeys(line["division"] for line in rows):
        for line in rows:
            if line["division"] == division:
                cells = [division, line["method"], *_cells(line)]
                body.append([*cells, _difference(line["auroc"])])
    heading = f"## {_title(name)}: hospitals that differ in their labels"
    return [heading, "", DIVISIONS[name], "", *_table(header, body), ""]


def _scanners(lines: Sequence[Record]) -> list[str]:
    rows = [line for line in lines if line["case"] == "scanners"]
    if not rows:
        return []
    group = next(line for line in rows if line["method"] == "group norm")
    body = [[line["method"], *_cells(line), _over_seeds(line, group)] for line in rows]
    table = _table(["normalisation", *_COLUMNS, "minus group norm"], body)
    return ["## Hospitals that differ in their scanners", "", SCANNERS, "", *table, ""]


def _over_seeds(line: Record, other: Record) -> str:
    """The difference in AUROC and its interval over seeds, by the t distribution."""
    from scipy import stats

    change = np.subtract(line["auroc"]["by_seed"], other["auroc"]["by_seed"])
    if not change.any():
        return ""
    half = stats.t.ppf(0.975, len(change) - 1) * change.std(ddof=1) / len(change) ** 0.5
    return f"{change.mean():+.3f} ({change.mean() - half:+.3f} to {change.mean() + half:+.3f})"


_COLUMNS = (
    "AUROC, all images",
    "accuracy, all images",
    "AUROC, mean over hospitals (sd)",
    "worst hospital",
)


def _cells(line: Record) -> list[str]:
    hospitals = line["auroc"]
    spread = ["", ""]
    if line["method"] != "pooled" and hospitals["hospitals_mean"] is not None:
        mean, sd = hospitals["hospitals_mean"], hospitals["hospitals_sd"]
        spread = [f"{mean:.3f} ({sd:.3f})", f"{hospitals['hospitals_worst']:.3f}"]
    return [_estimate(line["auroc"]), _estimate(line["accuracy"]), *spread]


def _title(name: str) -> str:
    from fedjax_med.datasets import DATASETS

    return DATASETS[name].title


def _estimate(found: Mapping[str, float]) -> str:
    return f"{found['mean']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _difference(found: Mapping[str, float]) -> str:
    if "minus" not in found:
        return ""
    return f"{found['minus']:+.3f} ({found['minus_low']:+.3f} to {found['minus_high']:+.3f})"


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    words = next((i for i, cell in enumerate(body[0]) if cell[:1].isdigit()), 1) if body else 1
    rule = ["---"] * words + ["---:"] * (len(header) - words)
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *body)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the page."""
    parser = make_parser()
    a = parser.parse_args(sys.argv[1:] if arguments is None else list(arguments))
    try:
        lines = [json.loads(line) for line in Path(a.results).read_text("utf-8").splitlines()]
    except OSError as error:
        parser.error(f"cannot read {a.results}: {error.strerror}")
    Path(a.output).write_text(render(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
