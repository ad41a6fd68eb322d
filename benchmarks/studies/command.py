"""Studies of the clinical tables, as `fedjax-med study` makes them.

A line for each dataset and method or baseline: the main metric over random splits and seeds, with
intervals, per hospital, and at hospitals that were left out; and a line of what the study means.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import records

DATASETS = (
    "breast-cancer",
    "diabetes-progression",
    "diabetes130",
    "heart-disease",
    "ncctg-lung",
    "parkinsons-telemonitoring",
    "tcga-brca",
    "vaccine-trial",
)
# Of metrics beside the main one that a line holds.
_ALSO = ("auroc", "auprc", "accuracy", "brier", "ece", "uno_c", "mae", "r2")


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.data_parser("studies", __doc__)
    parser.add_argument(
        "--dataset",
        action="append",
        choices=DATASETS,
        help="one dataset by name; may be repeated (default: all)",
    )
    parser.add_argument("--seeds", type=records.at_least(1), default=5, help="default: 5")
    return parser


def rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines of a result, the last one of the whole study."""
    main = result["main_metric"]
    lines = []
    for name, method in result["methods"].items():
        found = method["metrics"][main]
        left_out = result["left_out"].get(name)
        lines.append(
            {
                "method": name,
                "title": method["title"],
                "is_baseline": method["is_baseline"],
                "metric": main,
                "mean": found["mean"],
                "pooled": found["pooled"],
                "sd_over_seeds": found["over_seeds"],
                "worst": found["worst"],
                "per_hospital": found["per_hospital"],
                "also": {m: method["metrics"][m]["mean"] for m in _ALSO if m in method["metrics"]},
                "number": result["numbers"].get(name),
                "chosen_minus_this": result["comparisons"].get(name),
                "chosen_minus_this_pooled": result["comparisons_pooled"].get(name),
                "left_out_mean": left_out and left_out["mean"][main],
                "left_out_pooled": left_out and left_out["pooled"]["metrics"][main],
            }
        )
    summary = {
        "chosen": result["chosen"],
        "kind": result["kind"],
        "metric": main,
        "ideal": result["ideal"][main],
        "hospitals": len(result["dataset"]["clients"]),
        "patients": sum(client["train"] for client in result["dataset"]["clients"]),
        "settings": result["settings"],
        "sentences": result["sentences"],
        "coefficients": result["coefficients"],
        "seconds": result["seconds"],
    }
    return [*lines, summary]


def measure(name: str, a: argparse.Namespace) -> list[dict[str, Any]]:
    """The lines of one dataset."""
    from pathlib import Path

    from fedjax_med.cli.data import load
    from fedjax_med.studies import judge_patients, run_study, settings_for, summarise

    start = time.perf_counter()
    dataset = load(name, a.data_dir and Path(a.data_dir), raw=True)
    study = run_study(
        dataset,
        settings_for(name, num_seeds=a.seeds),
        tell=lambda text: print(f"{name}: {text}", file=sys.stderr, flush=True),
    )
    result = summarise(study, judge_patients(study))
    lines = rows(result)
    lines[-1]["seconds"]["with_judging"] = time.perf_counter() - start
    return [{"benchmark": "studies", "dataset": name, **line} for line in lines]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    output = records.Output(a.json, parser)
    from fedjax_med.data import DataError

    environment = {
        **records.environment(),
        "command": records.shown_command("studies", arguments),
    }
    for name in a.dataset or DATASETS:
        try:
            lines = measure(name, a)
        except DataError as error:
            parser.error(str(error))
        for line in lines[:-1]:
            output.write(line)
        output.write({**lines[-1], **environment})
