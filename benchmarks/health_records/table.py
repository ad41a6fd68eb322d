"""The page of health records, as Markdown, from their results."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.health_records.command import DATASETS, MODELS
from benchmarks.health_records.text import FIGURES, INTRODUCTION, MEANINGS, TITLES

RESULTS = "benchmarks/results/health_records-cpu.jsonl"
PAGE = "docs/health_records.md"
Record = dict[str, Any]


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.bare_parser("health_records.table", __doc__)
    parser.add_argument("results", nargs="?", default=RESULTS, help=f"results ({RESULTS})")
    parser.add_argument("--output", default=PAGE, help=f"default: {PAGE}")
    return parser


def render(lines: Sequence[Record]) -> str:
    """The page."""
    from fedjax_med.datasets import DATASETS as KNOWN

    text = [INTRODUCTION]
    for name in DATASETS:
        own = [line for line in lines if line["dataset"] == name]
        if not own:
            continue
        summaries = {line["model"]: line for line in own if "sentences" in line}
        first = next(iter(summaries.values()))
        settings = first["settings"]
        text += [
            f"## {KNOWN[name].title}",
            "",
            f"`{name}`: {first['hospitals']} clients, {first['patients']:,} records; "
            f"{settings['num_seeds']} seeds, {settings['rounds']} rounds, Adam at the clients. AUROC: "
            "higher is better.",
            "",
            MEANINGS[name],
            "",
            *_compared(own),
            "",
        ]
        for model in MODELS:
            if model in summaries:
                found = [x for x in own if x.get("model") == model and "method" in x]
                text += _study(model, found, summaries[model])
        text += _oracle(own)
    text.append(FIGURES)
    made = next(line for line in lines if "command" in line)
    text += [
        f"Results by `{made['command'].split(' --dataset')[0]} --json -`, one dataset at a time, on a busy "
        f"machine ({made['processor']}, {made['cpu_count']} cores, JAX {made['jax']}); this page by "
        "`python -m benchmarks.health_records.table`, figures by "
        "`python -m benchmarks.health_records.figures`.",
        "",
    ]
    return "\n".join(text)


def _study(model: str, lines: Sequence[Record], summary: Record) -> list[str]:
    header = [
        "",
        "mean over clients",
        "all patients",
        "least and largest of the clients",
        "sd over seeds",
        "chosen method minus this, all patients",
    ]
    body = [
        [
            f"**{line['title']}**" if line["method"] == summary["chosen"] else line["title"],
            _estimate(line["mean"]),
            _estimate(line["pooled"]),
            _range(line["per_hospital"]),
            _number(line["sd_over_seeds"]),
            _difference(line["chosen_minus_this_pooled"]),
        ]
        for line in lines
    ]
    rule = ["---", *["---:"] * (len(header) - 1)]
    table = ["| " + " | ".join(cells) + " |" for cells in (header, rule, *body)]
    return [f"### {TITLES[model]}", "", *table, ""]


def _oracle(lines: Sequence[Record]) -> list[str]:
    """One sentence on the best that there could be, where it is known."""
    found = [line for line in lines if line.get("method") == "oracle"]
    return [
        f"The risk that patients were drawn with, which no model can beat but by chance: "
        f"{_estimate(line['pooled'])} over all patients, {_estimate(line['mean'])} as a mean over clients."
        "\n"
        for line in found
    ]


def _compared(lines: Sequence[Record]) -> list[str]:
    """What the models of FedAvg differ by, on the same patients."""
    found = [line for line in lines if "compared" in line]
    if not found:
        return []
    rows = [
        f"| {TITLES[a]} | {TITLES[b]} | {_difference(line['pooled'])} |"
        for line in found
        for a, b in [line["compared"]]
    ]
    return [
        "| FedAvg of | minus FedAvg of | AUROC of all patients |",
        "| --- | --- | ---: |",
        *rows,
    ]


def _range(values: Mapping[str, float | None]) -> str:
    known = [v for v in values.values() if v is not None and v == v]
    return f"{min(known):.3f} to {max(known):.3f}" if known else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _estimate(found: Mapping[str, float | None] | None) -> str:
    if not found or found["value"] is None:
        return "-"
    if found["low"] is None or found["high"] is None:
        return _number(found["value"])
    return f"{_number(found['value'])} ({_number(found['low'])} to {_number(found['high'])})"


def _difference(found: Mapping[str, float | None] | None) -> str:
    if not found or found["difference"] is None:
        return ""
    if found["low"] is None or found["high"] is None:
        return f"{found['difference']:+.3f}"
    return f"{found['difference']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"


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
