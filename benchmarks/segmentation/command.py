"""Studies of generated scans with known lesions, in two and three dimensions.

A line for each case and method or baseline: Dice, Hausdorff distance and false alarms on test scans of
every hospital, over seeds, with intervals over scans; and a line of what the study means.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import records

# What differs from the settings of a dataset.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "2-D": ("synthetic-scans", {}),
    "3-D": ("synthetic-volumes", {"methods": ("fedavg",)}),
}
METRICS = ("dice", "hd95", "false_alarm_rate")


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.parser("segmentation", __doc__)
    parser.add_argument(
        "--case",
        action="append",
        choices=CASES,
        help="one case by name; may be repeated (default: all)",
    )
    parser.add_argument("--seeds", type=records.at_least(1), default=5, help="default: 5")
    parser.add_argument("--rounds", type=records.at_least(1), help="default: those of the dataset")
    parser.add_argument("--figures", metavar="FOLDER", help="folder that gets a PNG per figure")
    return parser


def rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines of a result, the last one of the whole study."""
    lines = []
    for name, method in result["methods"].items():
        found = method["metrics"]
        lines.append(
            {
                "method": name,
                "title": method["title"],
                "is_baseline": method["is_baseline"],
                **{
                    metric: {
                        key: found[metric][key]
                        for key in ("mean", "pooled", "over_seeds", "worst", "per_hospital")
                    }
                    for metric in METRICS
                },
                "learning_rate": result["numbers"].get(name),
                "chosen_minus_this": result["comparisons"].get(name),
            }
        )
    summary = {
        "chosen": result["chosen"],
        "best_site": result["best_sites"][0],
        "clients": [
            {"name": client["name"], "train": client["train"]}
            for client in result["dataset"]["clients"]
        ],
        "settings": result["settings"],
        "sentences": result["sentences"],
        "seconds": result["seconds"],
    }
    return [*lines, summary]


def measure(case: str, a: argparse.Namespace) -> list[dict[str, Any]]:
    """The lines of one case."""
    from fedjax_med import datasets
    from fedjax_med.studies import judge_patients, run_study, settings_for, summarise

    start = time.perf_counter()
    name, options = CASES[case]
    chosen = {"num_seeds": a.seeds, **options, **({"rounds": a.rounds} if a.rounds else {})}
    dataset = datasets.load(name)
    study = run_study(
        dataset,
        settings_for(name, "segmentation", **chosen),
        tell=lambda text: print(f"{case}: {text}", file=sys.stderr, flush=True),
    )
    result = summarise(study, judge_patients(study))
    if a.figures:
        from fedjax_med.reporting.segmentation_figures import figures_of

        for part, figure in zip(("outlines", "dice"), figures_of(study).values(), strict=True):
            figure.savefig(Path(a.figures) / f"segmentation-{case}-{part}.png", dpi=110)
    lines = rows(result)
    lines[-1]["seconds"]["with_judging"] = time.perf_counter() - start
    return [{"benchmark": "segmentation", "case": case, "dataset": name, **x} for x in lines]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    output = records.Output(a.json, parser)
    if a.figures and not Path(a.figures).is_dir():
        parser.error(f"--figures {a.figures} is no folder")
    shown = records.without_option(arguments, "--figures")
    environment = {
        **records.environment(),
        "command": records.shown_command("segmentation", shown),
    }
    for case in a.case or CASES:
        lines = measure(case, a)
        for line in lines[:-1]:
            output.write(line)
        output.write({**lines[-1], **environment})
