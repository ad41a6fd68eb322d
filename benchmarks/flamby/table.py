"""The page with FLamby's numbers beside ours, as Markdown, from the results."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.flamby.published import PUBLISHED, RERUN
from benchmarks.flamby.text import INTRODUCTION, METRICS, OURS, THEIRS, findings

RESULTS = "benchmarks/results/flamby-cpu.jsonl"
PAGE = "docs/flamby.md"
Record = dict[str, Any]


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.bare_parser("flamby.table", __doc__)
    parser.add_argument(
        "results", nargs="?", default=RESULTS, help=f"results of benchmarks.flamby ({RESULTS})"
    )
    parser.add_argument("--output", default=PAGE, help=f"default: {PAGE}")
    return parser


class Results:
    """The records of a file, by what they are about."""

    def __init__(self, lines: Sequence[Record]):
        """Takes parsed lines; the runs are told apart by their numbers of seeds."""
        self.runs = sorted((r for r in lines if "command" in r), key=lambda r: r["seeds"])
        self.few, self.many = self.runs[0]["seeds"], self.runs[-1]["seeds"]
        self._rows: dict[tuple[str, str, str, int], Record] = {}
        for r in (r for r in lines if "method" in r):
            # What needs no training has no seeds either, and is in every run.
            seeds = self.few if r["seeds"] == 1 else r["seeds"]
            self._rows.setdefault((r["dataset"], r["method"], r["inputs"], seeds), r)

    def get(self, dataset: str, method: str, inputs: str, seeds: int | None = None) -> Record:
        """A row; of the run with fewer seeds, which has intervals, unless said otherwise."""
        return self._rows[dataset, method, inputs, seeds or self.few]


def share(value: float | None) -> str:
    """Three decimals, without the zero in front of the point."""
    if value is None:
        return "-"
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}"


def _spread(mean: float, sd: float | None) -> str:
    return share(mean) if sd is None else f"{share(mean)} ({share(sd)})"


def _interval(estimate: Record | None) -> str:
    if not estimate or estimate["low"] is None:
        return "-"
    return f"{share(estimate['low'])} to {share(estimate['high'])}"


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *body)] + [""]


def reproduction(results: Results, dataset: str) -> list[str]:
    """FLamby's protocol: published, NumPy, ours, and ours beside published for each centre."""
    body = []
    for method, published in PUBLISHED[dataset].items():
        ours = results.get(dataset, method, THEIRS)
        many = results.get(dataset, method, THEIRS, results.many)
        cells = [
            method,
            _spread(published.mean, published.sd),
            share(RERUN[dataset][method]),
            _spread(ours["mean"], ours["sd_over_seeds"]),
            f"{share(many['mean'])} ± {share(many['half_width_over_seeds'])}",
        ]
        theirs = published.centres or [None] * len(ours["centres"])
        cells += [
            share(value) + ("" if other is None else f" [{share(other)}]")
            for value, other in zip(ours["centres"], theirs, strict=True)
        ]
        body.append(cells)
    names = METRICS[dataset].centres
    header = ["", "published", "NumPy", f"here, {results.few} seeds", f"here, {results.many} seeds"]
    return _table([*header, *names], body)


def improved(results: Results, dataset: str) -> list[str]:
    """The same strategies with inputs on one scale, and Newton's method."""
    published = {m: p for m, p in PUBLISHED[dataset].items() if not m.startswith("Local")}
    body = []
    for method in [*published, "Newton"]:
        ours = results.get(dataset, method, OURS)
        half, gain = ours.get("half_width_over_seeds"), ours.get("gain")
        body.append(
            [
                method,
                share(published[method].mean if method in published else None),
                f"**{share(ours['mean'])}**" + ("" if half is None else f" ± {share(half)}"),
                _interval(ours["over_patients"]),
                f"{gain['value']:+.3f} ({_interval(gain)})" if gain else share(None),
                f"{share(ours['pooled']['value'])} ({_interval(ours['pooled'])})",
                *(share(value) for value in ours["centres"]),
            ]
        )
    header = ["", "published", "mean over centres", "95 % over patients"]
    header += ["gain over FLamby's inputs", "all patients together"]
    return _table([*header, *METRICS[dataset].centres], body)


def baselines(results: Results, dataset: str) -> list[str]:
    """What any of them should beat."""
    body = []
    for method, inputs in METRICS[dataset].baselines:
        r = results.get(dataset, method, inputs)
        name = f"{method} ({r['note']})" if r["note"] else method
        cells = [name, inputs or "-", _spread(r["mean"], r.get("sd_over_seeds"))]
        cells += [_interval(r["over_patients"]), share(r["pooled"]["value"])]
        body.append(cells + [share(value) for value in r["centres"]])
    header = ["", "inputs", "mean over centres", "95 % over patients", "all patients together"]
    return _table([*header, *METRICS[dataset].centres], body)


def document(lines: Sequence[Record]) -> str:
    """The whole page."""
    results = Results(lines)
    first = results.runs[0]
    out = ["# FLamby's benchmark, repeated and improved", "", INTRODUCTION, ""]
    out += [
        f"All rows of both datasets with {results.few} seeds, intervals and baselines included: "
        f"**{first['seconds']:.0f} s** ({first['cpu_seconds']:.0f} s of CPU time; the machine's load "
        f"from other work was {first['load_before']:.1f}) from the start of "
        f"the command, {'with' if first['compilation_cache'] else 'without'} a compilation cache. "
        f"{first['processor']}, {first['cpu_count']} cores, JAX {first['jax']}, commit "
        f"{first['commit'][:12]}:",
        "",
        *(f"    {run['command']}" for run in results.runs),
        "",
    ]
    for dataset, about in METRICS.items():
        out += [f"## {about.title}", "", about.protocol, ""]
        out += [f"### FLamby's inputs: {about.metric}", "", *reproduction(results, dataset)]
        out += [f"### Inputs on one scale for all centres: {about.metric}", ""]
        out += [about.improvement, "", *improved(results, dataset)]
        out += ["### What they have to beat", "", *baselines(results, dataset)]
    return "\n".join([*out, "## What was found", "", findings(results), ""])


def read(path: str | Path) -> list[Record]:
    """The lines of a file of results.

    Raises:
      OSError: if it cannot be read.
      ValueError: if it has no complete results.
    """
    lines = [json.loads(x) for x in Path(path).read_text().splitlines() if x.startswith("{")]
    lines = [line for line in lines if line.get("benchmark") == "flamby"]
    if not any("command" in line for line in lines):
        raise ValueError(f"{path} has no results of benchmarks.flamby")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = make_parser()
    a = parser.parse_args(sys.argv[1:] if arguments is None else list(arguments))
    try:
        lines = read(a.results)
    except OSError as error:
        parser.error(f"cannot read {a.results}: {error.strerror}")
    except ValueError as error:
        parser.error(str(error))
    Path(a.output).write_text(document(lines))
    print(f"wrote {a.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
