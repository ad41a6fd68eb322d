"""Peak memory for small and large cohorts at the same number of lanes.

A lane holds one client at a time, so ten times the cohort takes ten times as long and no more
memory. Every peak is of a process of its own. Cases: `tabular-logreg`, and `mlp`, the network of
`ehr-mlp` trained with Adam on a population of many clients, whose updates would weigh something
if they were all held at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import records

CASES = ("tabular-logreg", "mlp")
_NUM_CLIENTS = {"tabular-logreg": 1000, "mlp": 2000}
_MLP_EXAMPLES = 50  # per client


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.parser("memory", __doc__)
    whole = records.at_least
    parser.add_argument("--case", choices=(*CASES, "all"), default="all", help="default: all")
    parser.add_argument(
        "--cohorts", type=whole(1), nargs=2, default=(100, 1000), metavar="SIZE",
        help="the two sizes that are compared (default: 100 1000)",
    )  # fmt: skip
    parser.add_argument("--lanes", type=whole(1), default=8, help="default: 8")
    parser.add_argument("--rounds", type=whole(1), default=16, help="default: 16")
    parser.add_argument("--cohort", type=whole(1), help="measure one size, in this process")
    return parser


def _mlp_population() -> Any:
    import numpy as np

    from benchmarks.workloads import WORKLOADS
    from fedjax_med.data import ClientArrays, FederatedDataset

    count = _NUM_CLIENTS["mlp"]
    rng = np.random.default_rng(0)
    width = WORKLOADS["ehr-mlp"].input_shape[0]
    x = rng.standard_normal((count * _MLP_EXAMPLES, width), dtype=np.float32)
    y = (x[:, 0] > 0).astype(np.int32)
    names = tuple(f"client {number}" for number in range(count))
    sizes = np.full(count, _MLP_EXAMPLES)
    return FederatedDataset("mlp", names, ClientArrays({"x": x, "y": y}, sizes))


def measure(case: str, cohort: int, lanes: int, rounds: int) -> dict[str, Any]:
    """Runs one case with one size of cohort and reads this process's peak."""
    from benchmarks import workloads
    from fedjax_med import algorithms, models, tasks
    from fedjax_med import engine as fm

    if case == "mlp":
        dataset = _mlp_population()
        shape = workloads.WORKLOADS["ehr-mlp"]
        model = models.mlp(shape.hidden or ())
        task = tasks.binary_classification(model, dataset.train.examples)
        algorithm = algorithms.fed_avg(task.gradient, shape.client_optimizer())
        batch_size, variables = 10, None
    else:
        loaded = workloads.load(case, 1)
        dataset, task, algorithm = loaded.dataset, loaded.task, loaded.algorithm
        batch_size, variables = loaded.workload.batch_size, loaded.variables
    run = fm.simulate(
        algorithm,
        dataset,
        task=task,
        rounds=rounds,
        local_work=fm.epochs(1, batch_size=batch_size),
        cohort=fm.cohorts.uniform(cohort),
        lanes=lanes,
        variables=variables,
        rounds_per_call=8,
    )
    return {
        "case": case,
        "cohort": cohort,
        "num_lanes": run.num_lanes,
        "peak_rss_mb": round(records.peak_rss_mb(), 1),
        "peak_device_mb": records.peak_device_mb(),
        "program_bytes": run.memory_bytes,
        "seconds_per_round": run.seconds_per_round[-1][1],
    }


def compare(case: str, a: argparse.Namespace) -> dict[str, Any]:
    """Both sizes of one case, each in a process of its own."""
    each = [
        records.run_module(
            "memory",
            [
                *("--case", case, "--cohort", str(cohort)),
                *("--lanes", str(a.lanes), "--rounds", str(a.rounds)),
            ],
        )[0]
        for cohort in a.cohorts
    ]
    small, large = each

    def ratio(name: str) -> float | None:
        return large[name] / small[name] if small[name] else None

    shared = {name: large.pop(name) for name in ENVIRONMENT}
    for name in (*ENVIRONMENT, "command", "benchmark"):
        small.pop(name, None)
        large.pop(name, None)
    return {
        "benchmark": "memory",
        "case": case,
        "cohorts": list(a.cohorts),
        "num_lanes": a.lanes,
        "rounds": a.rounds,
        "peak_rss_ratio": ratio("peak_rss_mb"),
        "peak_device_ratio": ratio("peak_device_mb"),
        "each": each,
        "dtype": "float32",
        **shared,
    }


ENVIRONMENT = (
    *("device_kind", "platform", "processor", "cpu_count", "python", "jax", "jaxlib", "numpy"),
    *("flax", "optax", "fedjax_med", "commit", "uncommitted_changes"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    if a.cohort and a.case == "all":
        parser.error("--cohort needs the --case it is for")
    cases = CASES if a.case == "all" else (a.case,)
    for case in cases:
        for size in (a.cohort,) if a.cohort else a.cohorts:
            if size > _NUM_CLIENTS[case]:
                parser.error(
                    f"a cohort of {size} is more than the {_NUM_CLIENTS[case]} clients of {case}"
                )
    output = records.Output(a.json, parser)
    command = records.shown_command("memory", arguments)
    if a.cohort:
        record = {"benchmark": "memory", **measure(a.case, a.cohort, a.lanes, a.rounds)}
        output.write({**record, **records.environment(), "command": command})
        return
    for case in cases:
        output.write({**compare(case, a), "command": command})


if __name__ == "__main__":
    main()
