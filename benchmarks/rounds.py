"""Seconds per federated round of the workloads, as JSON lines.

The clock runs over whole chunks of rounds: drawing and packing cohorts on the host, the compiled
call, and reading its metrics. Making the data and compiling are not in it, evaluation is off.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import records

# Without importing JAX, so that arguments are judged at once.
NAMES = ("tabular-logreg", "ehr-mlp", "femnist-cnn", "cifar-cnn")
PLACEMENTS = ("one-device", "pmap", "mesh")

# Workloads for which a CPU is made to look like a device per core. The minibatches of `ehr-mlp`
# make matrix products so small that XLA runs each on one core (measured: 29 ms of products per
# round on one core of two), while those of the CNNs use all cores anyway, and a round of
# `tabular-logreg` is over before devices have met.
SPREAD_OVER_CORES = ("ehr-mlp",)


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.parser("rounds", __doc__)
    whole = records.at_least
    parser.add_argument("--workload", required=True, choices=(*NAMES, "all"))
    parser.add_argument("--rounds", type=whole(1), default=200, help="rounds (default: 200)")
    parser.add_argument("--cohort", type=whole(1), metavar="SIZE", help="clients of a round")
    parser.add_argument("--shuffle", action="store_true", help="a new local order every epoch")
    parser.add_argument(
        "--fixed-order",
        action="store_true",
        help="minibatches in stored order, as the workloads say and as is the default; refuses "
        "what would make parameters incomparable with other engines",
    )
    parser.add_argument(
        "--cohorts", metavar="FILE", help="JSON list of the clients of every round, from 0"
    )
    parser.add_argument("--no-dropout", action="store_true", help="cifar-cnn without dropout")
    parser.add_argument(
        "--save-parameters", metavar="FILE.npz", help="write the final parameters by name"
    )
    parser.add_argument(
        "--no-rewrite",
        action="store_true",
        help="leave convolutions and pooling of the model as they are",
    )
    parser.add_argument("--lanes", type=whole(1), help="lanes per device (default: automatic)")
    parser.add_argument(
        "--placement", choices=PLACEMENTS, help="default: one-device, or pmap on several devices"
    )
    parser.add_argument(
        "--devices",
        type=whole(1),
        help=f"devices (default: 1; on a CPU, a device per core for {', '.join(SPREAD_OVER_CORES)})",
    )
    parser.add_argument(
        "--rounds-per-call", type=whole(1), default=64, help="most rounds of a chunk (default: 64)"
    )
    parser.add_argument("--seed", type=whole(0), default=0, help="of shuffling and dropout")
    parser.add_argument(
        "--repeat", type=whole(1), default=1, help="runs whose chunks are pooled (default: 1)"
    )
    return parser


def check(arguments: argparse.Namespace, parser: records.Parser) -> None:
    """Refuses arguments that do not go together."""
    a = arguments
    if a.fixed_order and a.shuffle:
        parser.error("--fixed-order and --shuffle contradict each other")
    if a.cohort and a.cohorts:
        parser.error("--cohort and --cohorts contradict each other")
    if a.placement == "one-device" and (a.devices or 1) > 1:
        parser.error(f"--placement one-device runs on 1 device, got --devices {a.devices}")
    if a.seed >= 2**32:
        parser.error(f"argument --seed: must be below 2**32, got {a.seed}")
    if a.workload == "all":
        for option in ("cohorts", "save_parameters", "cohort"):
            if getattr(a, option) is not None:
                name = option.replace("_", "-")
                parser.error(f"--{name} is for one workload, not for --workload all")
    if a.save_parameters:
        folder = Path(a.save_parameters).resolve().parent
        if not a.save_parameters.endswith(".npz"):
            parser.error(f"--save-parameters must name an .npz file, got {a.save_parameters!r}")
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            parser.error(f"--save-parameters: cannot write into {folder}")


def read_cohorts(path: str, rounds: int, num_clients: int) -> list[list[int]]:
    """The clients of every round from a file.

    Raises:
      ValueError: says what is wrong with the file.
    """
    try:
        listed = json.loads(Path(path).read_text())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{path} is not JSON") from None
    if not isinstance(listed, list) or len(listed) < rounds:
        raise ValueError(f"{path} must list the cohorts of {rounds} rounds or more")
    for number, cohort in enumerate(listed[:rounds]):
        fits = isinstance(cohort, list) and cohort and len(set(map(str, cohort))) == len(cohort)
        if not fits or not all(type(c) is int and 0 <= c < num_clients for c in cohort):
            raise ValueError(
                f"{path}: the cohort of round {number} must be a list of distinct clients "
                f"from 0 to {num_clients - 1}"
            )
    return listed[:rounds]


def choose_devices(a: argparse.Namespace, parser: records.Parser) -> int:
    """The devices to run on; makes a CPU look like as many."""
    if a.devices or a.placement == "one-device" or a.workload not in SPREAD_OVER_CORES:
        records.use_devices(a.devices or 1, parser)
        return a.devices or 1
    records.use_devices(records.cpu_count(), None)
    # A device without clients would only wait; this workload has four of them.
    clients = a.cohort or 4
    return max(1, min(clients, records.num_cpu_devices()))


class Stopwatch:
    """A callback that notes when the first round was done."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.seconds_first_round: float | None = None

    def stops_at(self, round_index: int) -> bool:
        """Makes the first round a chunk of its own, which also warms up."""
        return round_index == 1

    def __call__(self, progress: Any) -> None:
        """Reads the clock once."""
        if self.seconds_first_round is None:
            self.seconds_first_round = time.perf_counter() - self.start

    def close(self) -> None:
        """Nothing to release."""


def make_placement(kind: str | None, devices: int) -> Any:
    """A placement by its name on the command line."""
    from fedjax_med.engine import placement

    if kind == "pmap" or (kind is None and devices > 1):
        return placement.pmap(devices)
    return placement.mesh(devices) if kind == "mesh" else placement.one_device()


def measure(name: str, a: argparse.Namespace, cohorts: list[list[int]] | None) -> dict[str, Any]:
    """Runs one workload and describes it."""
    from benchmarks import workloads
    from fedjax_med import engine as fm

    loaded = workloads.load(
        name,
        a.rounds,
        shuffle=a.shuffle,
        dropout=not a.no_dropout,
        cohort_size=a.cohort,
        cohorts=cohorts,
    )
    place = make_placement(a.placement, a.devices)
    seconds: list[float] = []
    first, compile_s, runs, total = [], [], [], 0.0
    for _ in range(a.repeat):
        watch = Stopwatch()
        run = fm.simulate(
            loaded.algorithm,
            loaded.dataset,
            task=loaded.task,
            rounds=a.rounds,
            local_work=loaded.local_work,
            cohort=loaded.sampler,
            placement=place,
            lanes=a.lanes,
            seed=a.seed,
            variables=loaded.variables,
            rounds_per_call=a.rounds_per_call,
            rewrite=not a.no_rewrite,
            callbacks=(watch,),
        )
        # The first chunk, one round, warms up; it counts only where there is no other.
        chunks = run.seconds_per_round[1:] or run.seconds_per_round
        seconds += [per_round for _, per_round in chunks]
        total += sum(count * per_round for count, per_round in chunks)
        runs.append(sum(count for count, _ in chunks))
        first.append(watch.seconds_first_round)
        compile_s.append(run.timings.compile_s)
    peak_mb, device_mb = records.peak_rss_mb(), records.peak_device_mb()
    q1, median, q3 = records.quartiles(seconds)
    cohort_size = max(map(len, loaded.sampler.rounds))
    if a.save_parameters:
        save_parameters(Path(a.save_parameters), run.variables.params)
    return {
        "benchmark": "rounds",
        "workload": name,
        "seconds_per_round_median": median,
        "seconds_per_round_q1": q1,
        "seconds_per_round_q3": q3,
        "seconds_per_round_mean": total / sum(runs),
        "clients_per_second": cohort_size / median,
        "seconds_first_round": first[0],
        "compile_s": compile_s[0],
        "peak_rss_mb": round(peak_mb, 1),
        "peak_device_mb": device_mb,
        "useful_fraction": run.useful_fraction,
        "num_lanes": run.num_lanes,
        "num_traces": run.num_traces,
        "final_loss": workloads.final_loss(loaded, run.variables.params),
        "rounds": a.rounds,
        "chunks": len(seconds),
        "repeat": a.repeat,
        "cohort": cohort_size,
        "order": "shuffled" if a.shuffle else "stored",
        "dropout": any(loaded.workload.dropout) and not a.no_dropout,
        "dtype": "float32",
        "rewritten": run.rewritten.get("training", "switched off"),
        "placement": place.kind,
        "devices": a.devices,
        "rounds_per_call": a.rounds_per_call,
        "seed": a.seed,
    }


def save_parameters(path: Path, params: dict[str, Any]) -> None:
    """Writes parameters by name; the file is there whole or not at all."""
    import numpy as np

    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        try:
            np.savez(file, **params)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    check(a, parser)
    output = records.Output(a.json, parser)
    if a.workload == "all":
        # One process each, so that every peak of memory is a workload's own.
        for name in NAMES:
            for record in records.run_module("rounds", for_workload(arguments, name)):
                output.write(record)
        return
    a.devices = choose_devices(a, parser)
    from benchmarks.workloads import WORKLOADS

    num_clients = WORKLOADS[a.workload].num_clients
    if a.cohort and a.cohort > num_clients:
        parser.error(f"--cohort {a.cohort} is more than the {num_clients} clients of {a.workload}")
    cohorts = None
    if a.cohorts:
        try:
            cohorts = read_cohorts(a.cohorts, a.rounds, num_clients)
        except ValueError as error:
            parser.error(f"--cohorts: {error}")
    record = measure(a.workload, a, cohorts)
    output.write(
        {**record, **records.environment(), "command": records.shown_command("rounds", arguments)}
    )


def for_workload(arguments: Sequence[str], name: str) -> list[str]:
    """The arguments for one of all workloads, without `--json`."""
    kept, skip = [], False
    for argument in arguments:
        option, equals, _ = argument.partition("=")
        if skip:
            skip = False
        elif option in ("--json", "--workload"):
            skip = not equals
        else:
            kept.append(argument)
    return ["--workload", name, *kept]


if __name__ == "__main__":
    main()
