"""Every benchmark in turn, each in a process of its own; results by benchmark and device.

Takes about half an hour on two quiet cores, five minutes of it without the kernels. A file of
results is replaced once its benchmark is through, so an interrupted one leaves the results of before.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import records
from benchmarks.kernels.command import KERNELS
from benchmarks.rounds import SPREAD_OVER_CORES

ROUNDS = {"tabular-logreg": 1000, "ehr-mlp": 300, "femnist-cnn": 16, "cifar-cnn": 12}
Runs = list[tuple[str, list[str]]]


def plan() -> dict[str, Runs]:
    """For every file of results, the modules and arguments that fill it."""
    cases = [["--workload", name, "--rounds", str(count)] for name, count in ROUNDS.items()]
    cases.append(["--workload", "tabular-logreg", "--rounds", "1000", "--shuffle"])
    for cohort in (10, 1000):
        cohorts = ["--cohort", str(cohort)]
        cases.append(["--workload", "tabular-logreg", "--rounds", "200", *cohorts])
    return {
        "rounds": [("rounds", case) for case in cases],
        "population": [("population", [])],
        "experiments": [("experiments", [])],
        "memory": [("memory", [])],
        "kernels": [("kernels", ["--kernel", name]) for name in KERNELS],
    }


def other_placements(cores: int) -> Runs:
    """The workloads on a CPU laid out in the way that is not the default."""
    several = ["--devices", str(cores), "--placement", "pmap"]
    cases = []
    for name, count in ROUNDS.items():
        options = ["--placement", "one-device"] if name in SPREAD_OVER_CORES else several
        cases.append(("rounds", ["--workload", name, "--rounds", str(count), *options]))
    return cases


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = records.bare_parser("all", __doc__)
    parser.add_argument("--output", default="benchmarks/results", help="folder of the results")
    parser.add_argument("--only", choices=tuple(plan()), help="one benchmark")
    a = parser.parse_args(arguments)
    folder = Path(a.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"cannot make the folder {folder}: {error.strerror}")
    if not os.access(folder, os.W_OK):
        parser.error(f"cannot write into {folder}")
    failures = 0
    for benchmark, runs in plan().items():
        if a.only not in (None, benchmark):
            continue
        lines, failed = run(runs)
        if benchmark == "rounds" and lines and lines[0]["platform"] == "cpu":
            cores = lines[0]["cpu_count"]
            more, failed_too = run(other_placements(cores)) if cores > 1 else ([], False)
            lines, failed = lines + more, failed or failed_too
        failures += failed
        if lines and not failed:
            write(folder, benchmark, lines)
    sys.exit(1 if failures else 0)


def run(runs: Runs) -> tuple[list[dict], bool]:
    """The records of some runs, and whether one of them failed."""
    lines, failed = [], False
    for module, options in runs:
        print(records.command(module, options), end=" ", file=sys.stderr, flush=True)
        start = time.perf_counter()
        try:
            lines += records.run_module(module, options)
        except RuntimeError as error:
            print(f"\n{error}", file=sys.stderr)
            failed = True
        else:
            print(f"{time.perf_counter() - start:.1f} s", file=sys.stderr)
    return lines, failed


def write(folder: Path, benchmark: str, lines: list[dict]) -> None:
    """Puts records into the file of their benchmark and device, all or nothing."""
    kind = re.sub(r"[^a-z0-9]+", "-", lines[0]["device_kind"].lower()).strip("-")
    path = folder / f"{benchmark}-{kind}.jsonl"
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(line) + "\n" for line in lines))
    part.replace(path)
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
