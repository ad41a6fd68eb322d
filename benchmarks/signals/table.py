"""The page of signals and streams, as Markdown, from their results."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.signals.text import INTRODUCTION, MEANINGS, STREAM

RESULTS = "benchmarks/results/signals-cpu.jsonl"
PAGE = "docs/signals.md"
CASES = ("unseen", "own", "rr-gru", "rr-convolution", "voices")
Record = dict[str, Any]

_FIGURES = (
    "![Beats of unseen patients and what speaks for the predicted class](figures/signals-beats.png)",
    "",
    "![True and predicted classes of unseen patients](figures/signals-confusion.png)",
    "",
)
_CLASSES = ("sensitivity_of_S", "precision_of_S", "sensitivity_of_V", "precision_of_V")


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.bare_parser("signals.table", __doc__)
    parser.add_argument("results", nargs="?", default=RESULTS, help=f"results ({RESULTS})")
    parser.add_argument("--output", default=PAGE, help=f"default: {PAGE}")
    return parser


def render(lines: Sequence[Record]) -> str:
    """The page; of a comparison that was made twice, the later one."""
    found: dict[str, list[Record]] = {}
    for line in lines:
        same = found.setdefault(line["case"], [])
        if same and "command" in same[-1]:
            same.clear()
        same.append(line)
    text = [INTRODUCTION]
    for name in CASES:
        if name in found:
            text += _case(name, *found[name])
    if "stream" in found or "known-drift" in found:
        text += [STREAM]
    if "stream" in found:
        text += _stream(*found["stream"])
    if "known-drift" in found:
        text += _drift(*found["known-drift"])
    last = next(line for line in reversed(lines) if "command" in line)
    text += [
        "Made by `python -m benchmarks.signals --case NAME --json -` on a busy machine "
        f"({last['processor']}, {last['cpu_count']} cores, JAX {last['jax']}); this page by "
        "`python -m benchmarks.signals.table`, the figures by `python -m benchmarks.signals.figures`.",
        "",
    ]
    return "\n".join(text)


def _case(name: str, *lines: Record) -> list[str]:
    *methods, summary = lines
    is_shares = summary["ideal"] == 1
    seen, judged = summary["trained_on"], summary["judged"]
    header = ["", "all examples", "mean over patients", "worst patient"]
    header += ["minus local only, mean over patients"]
    header += ["S: sensitivity", "S: PPV", "V: sensitivity", "V: PPV"] if is_shares else ["RMSE"]
    body = []
    for line in methods:
        worst, pooled = line["worst"], line["pooled"]
        cells = [
            line["title"],
            _estimate(pooled[summary["metric"]]),
            _estimate(line["mean"][summary["metric"]]),
            f"{_number(worst['value'])} ({worst['patient']})",
            _estimate(line["minus_local"] and line["minus_local"]["mean"], sign=True),
        ]
        others = _CLASSES if is_shares else ("rmse",)
        body.append([*cells, *(_number(pooled[name]["value"]) for name in others)])
    what = (
        "macro F1, higher is better" if is_shares else "mean absolute error in points of the score"
    )
    return [
        f"## {summary['title']}",
        "",
        f"Trained on {seen['examples']:,} examples of {seen['patients']} patients, judged on "
        f"{judged['examples']:,} of {judged['patients']}; {summary['rounds']} rounds, "
        f"{summary['seeds']} seeds. Columns 2 to 5: {what}.",
        "",
        *_rows(header, body),
        "",
        *(_FIGURES if name == "unseen" else ()),
        MEANINGS.get(name, ""),
        "",
    ]


def _stream(*lines: Record) -> list[str]:
    *methods, summary = lines
    header = ["", "all examples", "mean over patients", "minus never trained again"]
    header += ["first half", "second half", "drifts reported: patients", "server"]
    body = []
    for line in methods:
        periods = line["by_period"]
        half = len(periods) // 2
        by_server = sum(alarm["by"] == "server" for alarm in line["alarms"])
        who = {alarm["by"] for alarm in line["alarms"]} - {"server"}
        body.append(
            [
                line["title"],
                _estimate(line["pooled"]["f1"]),
                _estimate(line["mean"]["f1"]),
                _estimate(line["minus_frozen"] and line["minus_frozen"]["pooled"], sign=True),
                _number(sum(periods[:half]) / half),
                _number(sum(periods[half:]) / (len(periods) - half)),
                f"{len(who)} of {line['watched']} ({len(line['alarms']) - by_server} alarms)",
                str(by_server),
            ]
        )
    return [
        "### Rhythms of 47 patients as they arrive",
        "",
        f"`mitbih-rr` in {summary['periods']} periods of about two minutes, a GRU, "
        f"{summary['rounds']} round after each period, {summary['seeds']} seeds; macro F1 of beats "
        "predicted before they were trained on.",
        "",
        *_rows(header, body),
        "",
        "![Macro F1 by period](figures/signals-stream.png)",
        "",
        MEANINGS.get("stream", ""),
        "",
    ]


def _drift(*lines: Record) -> list[str]:
    *methods, summary = lines
    made = summary["simulated"]
    header = ["", "accuracy before", "after", "patients that found it", "median delay [periods]"]
    header += [
        "server found it",
        "median delay [periods]",
        "false alarms per period: patients",
        "server",
    ]
    body = []
    for line in methods:
        before, after = line["accuracy"]["before"], line["accuracy"]["after"]
        false, delay = line["false_alarms_per_period"], line["median_delay"]
        body.append(
            [
                line["title"],
                f"{before['mean']:.3f} (sd {before['sd']:.3f})",
                f"{after['mean']:.3f} (sd {after['sd']:.3f})",
                f"{100 * line['found']['clients']:.0f} %",
                "" if delay["clients"] is None else f"{delay['clients']:g}",
                f"{100 * line['found']['server']:.0f} %",
                "" if delay["server"] is None else f"{delay['server']:g}",
                f"{false['clients']:.3f}",
                f"{false['server']:.3f}",
            ]
        )
    return [
        "### A drift of known time",
        "",
        f"{made['streams']} simulated streams of {made['clients']} clients, {made['examples_each']} "
        f"examples of each in each of {made['periods']} periods; in period {made['change']} the outcome "
        f"turns round in one feature at {methods[0]['drifting']} of the clients, of which the accuracies "
        f"are. Stated rate of false alarms: {summary['alarm_rate']:g} per period.",
        "",
        *_rows(header, body),
        "",
        MEANINGS.get("known-drift", ""),
        "",
    ]


def _rows(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *body)]


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}" if abs(value) < 100 else "diverged"


def _estimate(found: Mapping[str, float | None] | None, *, sign: bool = False) -> str:
    plus = "+" if sign else ""
    if not found or found["value"] is None:
        return ""
    if found["low"] is None or abs(found["value"]) >= 100:
        return _number(found["value"], plus)
    return f"{_number(found['value'], plus)} ({_number(found['low'], plus)} to {_number(found['high'], plus)})"


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
