"""The page of segmentation, as Markdown, from its results."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.segmentation.text import INTRODUCTION, MEANINGS

RESULTS = "benchmarks/results/segmentation-cpu.jsonl"
PAGE = "docs/segmentation.md"
Record = dict[str, Any]


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.bare_parser("segmentation.table", __doc__)
    parser.add_argument("results", nargs="?", default=RESULTS, help=f"results ({RESULTS})")
    parser.add_argument("--output", default=PAGE, help=f"default: {PAGE}")
    return parser


def render(lines: Sequence[Record]) -> str:
    """The page."""
    cases: dict[str, list[Record]] = {}
    for line in lines:
        cases.setdefault(line["case"], []).append(line)
    text = [INTRODUCTION]
    for case, (*methods, summary) in cases.items():
        settings, clients = summary["settings"], summary["clients"]
        sizes = ", ".join(f"{client['name']} {client['train']}" for client in clients)
        text += [
            f"## {case}",
            "",
            f"`{summary['command']}`: dataset `{summary['dataset']}`, model `{settings['model']}`, "
            f"{settings['num_seeds']} seeds, {settings['rounds']} rounds of "
            f"{settings['local_epochs']} epoch, Adam, minibatches of {settings['batch_size']}. Scans of "
            f"training, validation and test: {sizes}.",
            "",
            *_means(methods, summary),
            "",
            "Dice of every hospital, the mean over seeds:",
            "",
            *_hospitals(methods, summary),
            "",
            f"![Test scans with true outlines and those of the model](figures/segmentation-{case}-outlines.png)",
            "",
            f"![Dice of every test scan by hospital](figures/segmentation-{case}-dice.png)",
            "",
            " ".join(summary["sentences"]),
            "",
            MEANINGS[case],
            "",
        ]
    last = lines[-1]
    text += [
        f"Made on {last['cpu_count']} cores of {last['processor']}, shared with other work, JAX "
        f"{last['jax']}; this page by `python -m benchmarks.segmentation.table`. Figures are of the first "
        "seed.",
        "",
    ]
    return "\n".join(text)


def _means(methods: Sequence[Record], summary: Record) -> list[str]:
    header = [
        "",
        "Dice, mean over hospitals",
        "chosen method minus this",
        "HD95 [mm]",
        "false alarms",
        "worst hospital",
        "spread between hospitals",
        "sd over seeds",
    ]
    body = []
    for line in methods:
        own = [v for v in line["dice"]["per_hospital"].values() if v is not None]
        worst = line["dice"]["worst"]
        body.append(
            [
                _title(line, summary),
                _estimate(line["dice"]["mean"]),
                _difference(line["chosen_minus_this"]),
                _estimate(line["hd95"]["mean"], digits=1),
                _estimate(line["false_alarm_rate"]["mean"], digits=2),
                f"{_number(worst['value'])} ({worst['hospital']})",
                f"{max(own) - min(own):.3f}",
                f"{line['dice']['over_seeds']:.3f}",
            ]
        )
    return _rows(header, body)


def _hospitals(methods: Sequence[Record], summary: Record) -> list[str]:
    names = list(methods[0]["dice"]["per_hospital"])
    body = [
        [_title(line, summary), *(_number(line["dice"]["per_hospital"][name]) for name in names)]
        for line in methods
    ]
    return _rows(["", *names], body)


def _rows(header: list[str], body: list[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *body)]


def _title(line: Record, summary: Record) -> str:
    return f"**{line['title']}**" if line["method"] == summary["chosen"] else line["title"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _estimate(found: Mapping[str, float | None], digits: int = 3) -> str:
    value, low, high = found["value"], found["low"], found["high"]
    if value is None:
        return "-"
    if low is None or high is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


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
