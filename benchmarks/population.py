"""A million clients, ten thousand of them a round: time per round, memory, host scheduling.

A logistic regression on 8 features; clients hold 1 to 20 examples each and go through them once.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import records
from benchmarks.rounds import Stopwatch


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.parser("population", __doc__)
    whole = records.at_least
    parser.add_argument("--clients", type=whole(1), default=1_000_000, help="default: 1000000")
    parser.add_argument("--cohort", type=whole(1), default=10_000, help="default: 10000")
    parser.add_argument("--batch-size", type=whole(1), default=10, help="default: 10")
    parser.add_argument("--rounds", type=whole(1), default=100, help="default: 100")
    parser.add_argument("--lanes", type=whole(1), help="lanes (default: automatic)")
    parser.add_argument("--rounds-per-call", type=whole(1), default=16, help="default: 16")
    parser.add_argument(
        "--stream", action="store_true", help="send each chunk's clients to the device"
    )
    return parser


def host_seconds_per_round(run: Any, dataset: Any, work: Any, sampler: Any, rounds: int) -> float:
    """Time in which the host draws and packs the cohort of a round, without the device."""
    from fedjax_med.engine.layout import gather, spread
    from fedjax_med.engine.schedule import Scheduler, build_chunk

    layout = spread(dataset.train.sizes, 1)
    scheduler = Scheduler(dataset.train.sizes, layout, sampler, work, 0)
    table_row = gather(dataset.train, layout).table_row
    start = time.perf_counter()
    build_chunk(
        [[scheduler.draw(r) for r in range(rounds)]],
        (0,),
        0,
        table_row=table_row,
        num_lanes=run.num_lanes,
        num_slots=scheduler.max_slots,
        max_rounds=rounds,
        experiments=False,
    )
    return (time.perf_counter() - start) / rounds


def measure(a: argparse.Namespace) -> dict[str, Any]:
    """Runs the population and describes it."""
    import optax

    from fedjax_med import algorithms, models, tasks
    from fedjax_med import engine as fm
    from fedjax_med.datasets.synthetic import ragged_population

    start = time.perf_counter()
    dataset = ragged_population(a.clients, num_features=8, min_size=1, max_size=20)
    dataset_s = time.perf_counter() - start
    dataset_mb = records.peak_rss_mb()
    task = tasks.binary_classification(models.linear(), dataset.train.examples)
    work = fm.epochs(1, batch_size=a.batch_size)
    sampler = fm.cohorts.uniform(a.cohort)
    watch = Stopwatch()
    run = fm.simulate(
        algorithms.fed_avg(task.gradient, optax.sgd(0.1)),
        dataset,
        task=task,
        rounds=a.rounds,
        local_work=work,
        cohort=sampler,
        lanes=a.lanes,
        rounds_per_call=a.rounds_per_call,
        callbacks=(watch,),
        stream=a.stream,
    )
    peak_mb, device_mb = records.peak_rss_mb(), records.peak_device_mb()
    chunks = run.seconds_per_round[1:] or run.seconds_per_round
    q1, median, q3 = records.quartiles([per_round for _, per_round in chunks])
    counted = min(a.rounds, a.rounds_per_call)
    return {
        "benchmark": "population",
        "clients": a.clients,
        "examples": dataset.train.num_examples,
        "cohort": a.cohort,
        "batch_size": a.batch_size,
        "rounds": a.rounds,
        "stream": a.stream,
        "seconds_per_round_median": median,
        "seconds_per_round_q1": q1,
        "seconds_per_round_q3": q3,
        "clients_per_second": a.cohort / median,
        "host_seconds_per_round": host_seconds_per_round(run, dataset, work, sampler, counted),
        "seconds_first_round": watch.seconds_first_round,
        "compile_s": run.timings.compile_s,
        "dataset_s": dataset_s,
        "dataset_rss_mb": round(dataset_mb, 1),
        "peak_rss_mb": round(peak_mb, 1),
        "peak_device_mb": device_mb,
        "useful_fraction": run.useful_fraction,
        "num_lanes": run.num_lanes,
        "num_traces": run.num_traces,
        "final_train_loss": float(run.history["train_loss"][-1]),
        "dtype": "float32",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    if a.cohort > a.clients:
        parser.error(f"--cohort {a.cohort} is more than the population of {a.clients}")
    output = records.Output(a.json, parser)
    record = measure(a)
    command = records.shown_command("population", arguments)
    output.write({**record, **records.environment(), "command": command})


if __name__ == "__main__":
    main()
