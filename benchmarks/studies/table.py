"""The page of all studies, as Markdown, from their results."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.studies.text import INTRODUCTION, MEANINGS

RESULTS = "benchmarks/results/studies-cpu.jsonl"
PAGE = "docs/studies.md"
Record = dict[str, Any]


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.bare_parser("studies.table", __doc__)
    parser.add_argument("results", nargs="?", default=RESULTS, help=f"results ({RESULTS})")
    parser.add_argument("--output", default=PAGE, help=f"default: {PAGE}")
    return parser


def render(lines: Sequence[Record]) -> str:
    """The page; of a dataset that was studied twice, the later study."""
    from fedjax_med.datasets import DATASETS

    studies: dict[str, list[Record]] = {}
    for line in lines:
        same = studies.setdefault(line["dataset"], [])
        if same and "sentences" in same[-1]:
            same.clear()
        same.append(line)
    text = [INTRODUCTION]
    for name, (*methods, summary) in sorted(studies.items()):
        settings = summary["settings"]
        text += [
            f"## {DATASETS[name].title}",
            "",
            f"`fedjax-med study {name}`: {summary['hospitals']} clients, "
            f"{summary['patients']:,} examples; {settings['num_splits']} splits, "
            f"{settings['num_seeds']} seeds, {settings['rounds']} rounds; "
            f"{summary['seconds']['total']:.0f} s for all trainings. "
            f"{_metric(summary)}",
            "",
            *_table(methods, summary),
            "",
            " ".join(summary["sentences"]),
            "",
            _meaning(name, summary),
            "",
        ]
    environment = next(line for line in reversed(lines) if "command" in line)
    text += [
        f"Made by `python -m benchmarks.studies --json -`, one dataset at a time, on a busy machine "
        f"({environment['processor']}, {environment['cpu_count']} cores, JAX {environment['jax']}); this "
        "page by `python -m benchmarks.studies.table`.",
        "",
    ]
    return "\n".join(text)


def _meaning(name: str, summary: Record) -> str:
    if name != "vaccine-trial":
        return MEANINGS[name]
    ratio = summary["coefficients"]["by_column"]["vaccine"]
    shown = f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
    efficacy = [f"{100 * (1 - ratio[end]):.0f}" for end in ("value", "high", "low")]
    return MEANINGS[name].format(
        vaccine=shown, efficacy=f"{efficacy[0]} % ({efficacy[1]} to {efficacy[2]} %)"
    )


def _metric(summary: Record) -> str:
    from fedjax_med.evaluation import metric_title

    better = "higher is better" if summary["ideal"] else "lower is better, in units of the outcome"
    return f"{metric_title(summary['metric'])}: {better}."


def _table(methods: Sequence[Record], summary: Record) -> list[str]:
    header = [
        "",
        "mean over clients",
        "all patients",
        "worst client",
        "chosen method minus this, mean",
        "all patients",
        "client left out: mean",
        "all patients",
    ]
    body = []
    for line in methods:
        title = line["title"]
        named = f"**{title}**" if line["method"] == summary["chosen"] else title
        worst = line["worst"]
        body.append(
            [
                named,
                _estimate(line["mean"]),
                _estimate(line["pooled"]),
                f"{_number(worst['value'])} ({worst['hospital']})" if worst["hospital"] else "-",
                _difference(line["chosen_minus_this"]),
                _difference(line["chosen_minus_this_pooled"]),
                _estimate(line["left_out_mean"]),
                _estimate(line["left_out_pooled"]),
            ]
        )
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *body)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


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
