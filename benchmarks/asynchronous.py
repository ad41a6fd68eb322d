"""Accuracy against simulated time and bytes: waiting for all, for most, and for nobody.

PneumoniaMNIST on twenty clients (Dirichlet labels) whose computers differ by a factor of about seven
between the 16th and the 84th percentile, a tenth of whose work is lost. The same client updates for
all: synchronous rounds of ten, rounds that ask thirteen and take the first ten, a buffer of five
(FedBuff) and every update by itself (FedAsync). Writes a record and, with --figure, the curves.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import records

_TARGET = 0.93


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.data_parser("asynchronous", __doc__)
    parser.add_argument("--updates", type=records.at_least(20), default=600, help="default: 600")
    parser.add_argument("--seeds", type=records.at_least(1), default=5, help="default: 5")
    parser.add_argument("--figure", metavar="FILE", help="image of the curves")
    return parser


def protocols(setting: Any, updates: int) -> dict[str, tuple[Any, Any]]:
    """Schedules and what runs them, by name."""
    import optax

    from fedjax_med import algorithms, clock

    gradient_fn, sgd = setting.task.gradient, optax.sgd(0.1)
    steps = setting.local_work.num_steps(setting.dataset.train.sizes)
    payload = clock.payload_of(setting.task.init(0))
    hardware = clock.lognormal_hardware(
        setting.dataset.num_clients, step_s=0.5, spread=1.0, drop_out=0.1, seed=1
    )
    size = setting.cohort_size

    def synchronous(over_selection: float) -> Any:
        return clock.synchronous(
            hardware,
            steps,
            payload,
            cohort_size=size,
            rounds=updates // size,
            over_selection=over_selection,
            seed=2,
        )

    def asynchronous(buffer_size: int) -> Any:
        return clock.asynchronous(
            hardware,
            steps,
            payload,
            concurrency=size,
            buffer_size=buffer_size,
            rounds=updates // buffer_size,
            seed=2,
        )

    fed_avg = algorithms.fed_avg(gradient_fn, sgd, weighting=algorithms.equal)
    buffered, single = asynchronous(size // 2), asynchronous(1)
    return {
        "synchronous": (synchronous(1.0), fed_avg),
        "over-selection 1.3": (synchronous(1.3), fed_avg),
        "FedBuff, 5": (
            buffered,
            algorithms.fed_buff(gradient_fn, sgd, max_staleness=buffered.max_staleness),
        ),
        "FedAsync": (
            single,
            algorithms.fed_async(gradient_fn, sgd, alpha=0.6, max_staleness=single.max_staleness),
        ),
    }


def curve(setting: Any, schedule: Any, algorithm: Any, seeds: int) -> dict[str, Any]:
    """Accuracy over twenty evaluations, means over seeds."""
    import numpy as np

    from fedjax_med import clock
    from fedjax_med import engine as fm

    run = fm.simulate(
        algorithm,
        setting.dataset,
        task=setting.task,
        rounds=schedule.num_rounds,
        local_work=setting.local_work,
        cohort=schedule,
        experiments=fm.grid(seed=range(seeds)),
        evaluate_every=max(1, schedule.num_rounds // 20),
    )
    line = clock.timeline(run, schedule)
    accuracy = line["accuracy"].mean(axis=1)
    reached = np.flatnonzero(accuracy >= _TARGET)
    first = int(reached[0]) if len(reached) else None
    return {
        "hours": (line["time_s"] / 3600).tolist(),
        "megabytes": ((line["down_bytes"] + line["up_bytes"]) / 1e6).tolist(),
        "accuracy": accuracy.tolist(),
        "max_staleness": schedule.max_staleness,
        "num_late": int(schedule.num_late.sum()),
        "num_dropped": int(schedule.num_dropped.sum()),
        "hours_to_target": None if first is None else float(line["time_s"][first] / 3600),
    }


def draw(path: Path, curves: dict[str, dict[str, Any]]) -> None:
    """Accuracy against hours and against megabytes."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    from fedjax_med.reporting.figures import STYLE
    from fedjax_med.reporting.palette import client_style

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 3.8), layout="constrained")
        time, size = figure.subplots(1, 2, sharey=True)
        for number, (name, values) in enumerate(curves.items()):
            colour, _ = client_style(number)
            minutes = [60 * hours for hours in values["hours"]]
            for axes, x in ((time, minutes), (size, values["megabytes"])):
                axes.plot(x, values["accuracy"], color=colour, lw=1.8, label=name)
        time.set_xscale("log")
        time.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        time.set_xlabel("simulated minutes")
        time.set_ylabel("test accuracy, pooled")
        size.set_xlabel("megabytes, both ways")
        time.legend(loc="lower right", frameon=False)
        figure.savefig(path, dpi=130)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a: argparse.Namespace = parser.parse_args(arguments)
    output = records.Output(a.json, parser)
    from benchmarks.algorithms.settings import pneumonia
    from fedjax_med.data import DataError

    try:
        setting = pneumonia(a.data_dir)
    except DataError as error:
        parser.error(str(error))
    curves = {
        name: curve(setting, schedule, algorithm, a.seeds)
        for name, (schedule, algorithm) in protocols(setting, a.updates).items()
    }
    shown = records.shown_command("asynchronous", records.without_option(arguments, "--figure"))
    record = {
        "benchmark": "asynchronous",
        "updates": a.updates,
        "seeds": a.seeds,
        "target": _TARGET,
        "curves": curves,
    }
    output.write({**record, **records.environment(), "command": shown})
    if a.figure:
        draw(Path(a.figure), curves)


if __name__ == "__main__":
    main()
