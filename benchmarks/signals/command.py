"""Signals of single patients: every method of every comparison, with intervals over patients.

A line for each comparison and method, and one of the comparison with the machine that made it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import records

NAMES = ("unseen", "own", "rr-gru", "rr-convolution", "voices", "stream", "known-drift")


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.data_parser("signals", __doc__)
    parser.add_argument(
        "--case",
        action="append",
        choices=NAMES,
        help="one comparison by name; may be repeated (default: all)",
    )
    parser.add_argument("--seeds", type=records.at_least(1), default=5, help="default: 5")
    return parser


def measure(name: str, a: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The lines of one comparison, as they are made."""
    from benchmarks.signals import judge, methods, stream
    from benchmarks.signals.cases import CASES

    if name not in CASES:
        start = time.perf_counter()
        yield from (
            stream.rhythms(a.data_dir, a.seeds) if name == "stream" else stream.known_drift()
        )
        seconds = round(time.perf_counter() - start, 1)
        yield {"case": name, **stream.settings(), "seeds": a.seeds, "seconds": seconds}
        return
    case = CASES[name](a.data_dir)
    made = {title: outputs for title, outputs in case.trivial.items()}
    notes: dict[str, dict[str, Any]] = {title: {"title": title} for title in made}
    begin = time.perf_counter()
    rate_of: dict[str, float] = {}
    for method in methods.names(case):
        start = time.perf_counter()
        if method in case.tuned:
            rate_of[method] = methods.best_rate(case, method)
        rate = rate_of.get(method, rate_of["fedavg"])
        made[method] = methods.outputs(
            method, case, [case.final], seeds=range(a.seeds), rates=[rate]
        )[0]
        seconds = round(time.perf_counter() - start, 1)
        notes[method] = {"title": methods.TITLES[method], "rate": rate, "seconds": seconds}
        print(f"{name}: {notes[method]}", file=sys.stderr, flush=True)
    judging = case.judging(case.final)
    for method, outputs in made.items():
        yield {
            "case": name,
            "method": method,
            **notes[method],
            "is_trivial": method in case.trivial,
            **judge.judged(judging, outputs),
            "minus_local": None
            if method == "local"
            else judge.difference(judging, outputs, made["local"]),
        }
    main = next(iter(case.metrics))
    final = case.final
    yield {
        "case": name,
        "title": case.title,
        "metric": main,
        "ideal": case.metrics[main].ideal,
        "trained_on": {
            "patients": final.train.num_clients,
            "examples": final.train.train.num_examples,
        },
        "judged": {"patients": final.judged.num_clients, "examples": final.test.num_examples},
        "rounds": case.rounds,
        "rates": case.rates,
        "seeds": a.seeds,
        "seconds": round(time.perf_counter() - begin, 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    output = records.Output(a.json, parser)
    from fedjax_med.data import DataError

    for name in a.case or NAMES:
        command = records.shown_command("signals", ["--case", name, "--seeds", str(a.seeds)])
        environment = {**records.environment(), "command": command}
        try:
            lines = list(measure(name, a))
        except DataError as error:
            parser.error(str(error))
        for line in lines[:-1]:
            output.write({"benchmark": "signals", **line})
        output.write({"benchmark": "signals", **lines[-1], **environment})


if __name__ == "__main__":
    main()
