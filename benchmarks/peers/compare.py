"""Rounds of an image workload in turn: the engine, then a plain PyTorch loop, then the engine, ...

First both train one round without dropout from the same parameters, and the results are compared;
then the clock runs. One runs while the other waits, so that a machine that is busy for a while is
busy for both, and what counts is the median of the ratios of neighbouring rounds.

PyTorch runs in an environment of its own, which `--torch-python` names:

    python -m venv /tmp/torch && /tmp/torch/bin/pip install torch numpy
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import records

NAMES = ("femnist-cnn", "cifar-cnn")


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.parser("peers.compare", __doc__)
    parser.add_argument("--workload", required=True, choices=NAMES)
    parser.add_argument("--rounds", type=records.at_least(2), default=12, help="default: 12")
    parser.add_argument(
        "--torch-python",
        required=True,
        metavar="FILE",
        help="Python of an environment with PyTorch",
    )
    parser.add_argument(
        "--channels-last", action="store_true", help="PyTorch's other memory format"
    )
    return parser


class PyTorchLoop:
    """The loop of `pytorch_loop.py` in a process of its own."""

    def __init__(self, python: str, parser: records.Parser):
        """Starts it."""
        script = Path(__file__).with_name("pytorch_loop.py")
        try:
            self._process = subprocess.Popen(
                [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except OSError as error:
            parser.error(f"--torch-python: cannot run {python}: {error.strerror}")

    def ask(self, **request: Any) -> dict[str, Any]:
        """Sends a request and waits for the answer.

        Raises:
          RuntimeError: if the process ended instead; its messages have been printed.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("The PyTorch process ended; its messages are above.")
        return json.loads(answer)

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


class Turns:
    """A callback that lets the other engine train the same cohort after every round."""

    def __init__(self, loop: PyTorchLoop, cohorts: Sequence[Sequence[int]]):
        """Takes turns over these cohorts."""
        self._loop, self._cohorts = loop, cohorts
        self.seconds: list[tuple[float, float]] = []

    def stops_at(self, round_index: int) -> bool:
        """Every round is a chunk of its own."""
        return True

    def __call__(self, progress: Any) -> None:
        """The engine's round is over; now the same round of the other."""
        answer = self._loop.ask(cohort=self._cohorts[progress.round - 1])
        self.seconds.append((progress.seconds_per_round, answer["seconds"]))

    def close(self) -> None:
        """Nothing to release."""


@contextlib.contextmanager
def pytorch_loop(a: argparse.Namespace, parser: records.Parser) -> Iterator[PyTorchLoop]:
    """The loop, ended in any case."""
    loop = PyTorchLoop(a.torch_python, parser)
    try:
        yield loop
    finally:
        loop.close()


def train(
    a: argparse.Namespace, loop: PyTorchLoop, folder: Path, *, rounds: int, dropout: bool
) -> tuple[Any, Turns, dict[str, Any]]:
    """Both engines train the same rounds; returns the engine's run, the turns and PyTorch's answer."""
    import numpy as np

    from benchmarks import workloads
    from fedjax_med import engine as fm

    loaded = workloads.load(a.workload, rounds, dropout=dropout)
    workload, train_split = loaded.workload, loaded.dataset.train
    arrays = folder / "arrays.npz"
    np.savez(
        arrays,
        **train_split.examples,
        sizes=train_split.sizes,
        **workloads.initial_params(workload),
    )
    answer = loop.ask(
        arrays=str(arrays),
        batch_size=workload.batch_size,
        learning_rate=0.1,
        dropout=workload.dropout if dropout else (0.0, 0.0),
        channels_last=a.channels_last,
        threads=records.cpu_count(),
    )
    turns = Turns(loop, loaded.sampler.rounds)
    run = fm.simulate(
        loaded.algorithm,
        loaded.dataset,
        task=loaded.task,
        rounds=rounds,
        local_work=loaded.local_work,
        cohort=loaded.sampler,
        variables=loaded.variables,
        callbacks=(turns,),
    )
    return run, turns, answer


def relative_difference(run: Any, loop: PyTorchLoop, folder: Path) -> float:
    """Between the parameters of the two: Euclidean norm, relative to that of their change."""
    import numpy as np

    ours = run.variables.params
    theirs = np.load(loop.ask(save=str(folder / "theirs.npz"))["saved"])
    before = np.load(folder / "arrays.npz")

    def norm(other: Any) -> float:
        return float(sum(np.sum(np.square(ours[name] - other[name])) for name in ours)) ** 0.5

    return norm(theirs) / norm(before)


# Where two elements of a pooling window are equal up to rounding, engines send a gradient to
# different ones, and float32 then differs from float64 as much as one engine from the other.
# A different model, order or step differs by more than a tenth.
_ALLOWED_DIFFERENCE = 0.05


def measure(a: argparse.Namespace, parser: records.Parser) -> dict[str, Any]:
    """Compares the results, then the times."""
    with tempfile.TemporaryDirectory() as name, pytorch_loop(a, parser) as loop:
        folder = Path(name)
        run, _, _ = train(a, loop, folder, rounds=1, dropout=False)
        difference = relative_difference(run, loop, folder)
        if not difference < _ALLOWED_DIFFERENCE:
            raise RuntimeError(f"The two engines differ by {difference:.2g} after one round.")
        _, turns, answer = train(a, loop, folder, rounds=a.rounds, dropout=True)
    # The first round of each warms up.
    ours, theirs = zip(*turns.seconds[1:], strict=True)
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    q1, median, q3 = records.quartiles(ratios)
    return {
        "benchmark": "peers",
        "peer": "PyTorch loop",
        "workload": a.workload,
        "speedup_median": median,
        "speedup_q1": q1,
        "speedup_q3": q3,
        "seconds_per_round_median": records.quartiles(ours)[1],
        "peer_seconds_per_round_median": records.quartiles(theirs)[1],
        "relative_difference": difference,
        "rounds": len(ratios),
        "peer_threads": answer["threads"],
        "peer_channels_last": a.channels_last,
        "torch": answer["torch"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    output = records.Output(a.json, parser)
    record = measure(a, parser)
    shown = [argument if argument != a.torch_python else "PYTHON" for argument in arguments]
    output.write(
        {**record, **records.environment(), "command": records.command("peers.compare", shown)}
    )


if __name__ == "__main__":
    main()
