"""FLamby's strategies on Fed-Heart-Disease and Fed-TCGA-BRCA, with its inputs and with better ones.

Every strategy of FLamby's benchmark, training pooled and every centre alone, with its preprocessing,
budgets and hyperparameters; then the same with inputs on one scale for all centres, obtained from
sums per centre. Nothing is tuned. All seeds of a strategy, of both inputs, are one compiled call.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks import records


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.data_parser("flamby", __doc__)
    parser.add_argument(
        "--dataset",
        choices=("heart-disease", "tcga-brca", "all"),
        default="all",
        help="default: all",
    )
    parser.add_argument("--seeds", type=records.at_least(2), default=20, help="default: 20")
    parser.add_argument(
        "--no-intervals", action="store_true", help="leave out intervals over patients"
    )
    return parser


def measure(setting: Any, seeds: int, intervals: bool) -> list[dict[str, Any]]:
    """Trains everything and judges it; one record per row."""
    from benchmarks.flamby import judging, protocol

    rows = judging.rows(setting, protocol.train_all(setting, seeds))
    theirs = {row.method: row for row in rows if row.inputs == judging.INPUTS[0]}
    out = []
    for row in rows:
        base = theirs.get(row.method) if row.inputs == judging.INPUTS[1] else None
        # FLamby's strategies on its inputs and single centres are there for comparison with its
        # numbers; conclusions, and intervals, are for the others.
        strategy = row.method in setting.rates and row.inputs == judging.INPUTS[0]
        wanted = intervals and not strategy and not row.method.startswith("Local")
        record = judging.judged(setting, row, base, wanted)
        out.append({"benchmark": "flamby", "dataset": setting.name} | record)
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    output = records.Output(a.json, parser)
    start, cpu_start, load = time.perf_counter(), time.process_time(), os.getloadavg()[0]
    import jax

    from benchmarks.flamby.settings import SETTINGS
    from fedjax_med.data import DataError

    names = list(SETTINGS) if a.dataset == "all" else [a.dataset]
    try:
        settings = [SETTINGS[name](a.data_dir) for name in names]
    except DataError as error:
        parser.error(str(error))
    # Nearly all of the time is compilation, on one core each.
    with ThreadPoolExecutor(len(names)) as pool:
        parts = pool.map(lambda s: measure(s, a.seeds, not a.no_intervals), settings)
        lines = [line for part in parts for line in part]
    took = {
        # From the command line read to the last number: imports, data, compilation, training, judging.
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
        "load_before": load,
        "datasets": names,
        "compilation_cache": bool(jax.config.values["jax_compilation_cache_dir"]),
    }
    shown = records.shown_command("flamby", arguments)
    for line in lines:
        output.write(line)
    output.write(
        {"benchmark": "flamby", "seeds": a.seeds, **took, **records.environment(), "command": shown}
    )
