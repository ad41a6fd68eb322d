"""A sweep over seeds and learning rates as one compiled call, and one run after another.

FedAvg with a logistic regression on the heart disease data of four hospitals. Both ways run in
one process that has run JAX before; every single run compiles again, as it would for a user, so
times are given with and without compilation.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import records

LEARNING_RATES = (0.01, 0.03, 0.1, 0.3)


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.data_parser("experiments", __doc__)
    whole = records.at_least
    parser.add_argument("--seeds", type=whole(1), default=16, help="default: 16")
    parser.add_argument("--rounds", type=whole(1), default=500, help="default: 500")
    parser.add_argument("--batch-size", type=whole(1), default=32, help="default: 32")
    return parser


def measure(a: argparse.Namespace, dataset: Any) -> dict[str, Any]:
    """Runs the sweep both ways and compares times and parameters."""
    import jax
    import numpy as np
    import optax

    from fedjax_med import algorithms, models, tasks
    from fedjax_med import engine as fm

    task = tasks.binary_classification(models.linear(), dataset.train.examples)

    def build(learning_rate):
        return algorithms.fed_avg(task.gradient, optax.sgd(learning_rate))

    def simulate(**options: Any) -> tuple[Any, float]:
        start = time.perf_counter()
        run = fm.simulate(
            build,
            dataset,
            task=task,
            rounds=a.rounds,
            local_work=fm.epochs(1, batch_size=a.batch_size),
            **options,
        )
        return run, time.perf_counter() - start

    grid = fm.grid(seed=range(a.seeds), learning_rate=LEARNING_RATES)
    # One run beforehand, so that neither way pays for what JAX does once per process.
    simulate(seed=0, hyperparameters={"learning_rate": LEARNING_RATES[0]})
    together, together_s = simulate(experiments=grid)
    single_s = single_compile_s = difference = 0.0
    largest = max(np.abs(x).max() for x in jax.tree.leaves(together.variables.params))
    for index in range(len(grid)):
        rate = float(grid.hyperparameters["learning_rate"][index])
        run, seconds = simulate(seed=grid.seeds[index], hyperparameters={"learning_rate": rate})
        single_s += seconds
        single_compile_s += run.timings.compile_s
        for ours, alone in zip(
            jax.tree.leaves(together.variables.params),
            jax.tree.leaves(run.variables.params),
            strict=True,
        ):
            difference = max(difference, float(np.abs(ours[index] - alone).max()))
    compile_s = together.timings.compile_s
    return {
        "benchmark": "experiments",
        "dataset": dataset.name,
        "experiments": len(grid),
        "seeds": a.seeds,
        "learning_rates": list(LEARNING_RATES),
        "rounds": a.rounds,
        "together_s": together_s,
        "together_compile_s": compile_s,
        "one_by_one_s": single_s,
        "one_by_one_compile_s": single_compile_s,
        "ratio": together_s / single_s,
        "ratio_without_compilation": (together_s - compile_s) / (single_s - single_compile_s),
        "max_difference": difference,
        "largest_parameter": float(largest),
        "num_lanes": together.num_lanes,
        "num_lanes_alone": run.num_lanes,
        "peak_rss_mb": round(records.peak_rss_mb(), 1),
        "peak_device_mb": records.peak_device_mb(),
        "dtype": "float32",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    output = records.Output(a.json, parser)
    from fedjax_med import datasets
    from fedjax_med.data import DataError

    try:
        dataset = datasets.load("heart-disease", data_dir=a.data_dir)
    except DataError as error:
        parser.error(str(error))
    record = measure(a, dataset)
    # Not the folder: where somebody keeps their data is nobody's business.
    shown = records.shown_command("experiments", arguments)
    output.write({**record, **records.environment(), "command": shown})


if __name__ == "__main__":
    main()
