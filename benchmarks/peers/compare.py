"""Rounds of an image workload in turn: the engine, then a peer, then the engine, ...

First both train one round without dropout from the same parameters, and the results are compared;
then the clock runs. One runs while the other waits, so that a machine that is busy for a while is
busy for both, and what counts is the median of the ratios of neighbouring rounds.

The peers are a plain PyTorch loop, in an environment of its own that `--torch-python` names,

    python -m venv torch-env && torch-env/bin/pip install torch numpy

and the engine itself with the rewrite of convolutions switched off.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks import records

NAMES = ("femnist-cnn", "cifar-cnn")
PEERS = ("pytorch-loop", "no-rewrite")


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.parser("peers.compare", __doc__)
    parser.add_argument("--workload", required=True, choices=NAMES)
    parser.add_argument("--peer", required=True, choices=PEERS)
    parser.add_argument("--rounds", type=records.at_least(2), default=12, help="default: 12")
    parser.add_argument(
        "--torch-python", metavar="FILE", help="Python of an environment with PyTorch"
    )
    parser.add_argument(
        "--channels-last", action="store_true", help="PyTorch's other memory format"
    )
    return parser


# Between turns: threads of either side go on spinning for a while after their work.
_REST_S = 0.5


class Peer(Protocol):
    """Another way to train the workload, one round at a time."""

    def start(self, loaded: Any, arrays: Path, dropout: bool) -> dict[str, Any]:
        """Begins anew with the initial parameters; returns what a result should say of it."""
        ...

    def round(self, cohort: Sequence[int]) -> float:
        """Trains a round; returns its seconds."""
        ...

    def parameters(self, folder: Path) -> dict[str, Any]:
        """The current parameters by name."""
        ...

    def close(self) -> None:
        """Ends it."""
        ...


class PyTorchLoop:
    """The loop of `pytorch_loop.py` in a process of its own."""

    def __init__(self, python: str, channels_last: bool, parser: records.Parser):
        """Starts the process."""
        self._channels_last = channels_last
        script = Path(__file__).with_name("pytorch_loop.py")
        try:
            self._process = subprocess.Popen(
                [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except OSError as error:
            parser.error(f"--torch-python: cannot run {python}: {error.strerror}")

    def _ask(self, **request: Any) -> dict[str, Any]:
        """Sends a request and waits for the answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("The PyTorch process ended; its messages are above.")
        return json.loads(answer)

    def start(self, loaded: Any, arrays: Path, dropout: bool) -> dict[str, Any]:
        """Hands it the arrays and the settings."""
        answer = self._ask(
            arrays=str(arrays),
            batch_size=loaded.workload.batch_size,
            learning_rate=0.1,
            dropout=loaded.workload.dropout if dropout else (0.0, 0.0),
            channels_last=self._channels_last,
            threads=records.cpu_count(),
        )
        return {**answer, "channels_last": self._channels_last}

    def round(self, cohort: Sequence[int]) -> float:
        """Trains a round; returns its seconds, measured over there."""
        return self._ask(cohort=list(cohort))["seconds"]

    def parameters(self, folder: Path) -> dict[str, Any]:
        """The current parameters, in the layout of the workload."""
        import numpy as np

        return dict(np.load(self._ask(save=str(folder / "theirs.npz"))["saved"]))

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


class _Rest:
    """A callback that hands over after every round and waits for the next turn."""

    def __init__(self) -> None:
        """Waits for the first turn."""
        self.ours, self.theirs = threading.Semaphore(0), threading.Semaphore(0)
        self.ended = False
        self.seconds = 0.0
        self.params: dict[str, Any] = {}

    def stops_at(self, round_index: int) -> bool:
        """Every round is a chunk of its own."""
        return True

    def __call__(self, progress: Any) -> bool:
        """The turn is over; returns whether the run is, too."""
        self.seconds, self.params = progress.seconds_per_round, progress.variables().params
        if progress.round < progress.num_rounds and not self.ended:
            self.theirs.release()
            self.ours.acquire()
        return self.ended

    def close(self) -> None:
        """Nothing to release."""


class EngineInTurn:
    """The engine without the rewrite, in a thread that rests between rounds."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._thread: threading.Thread | None = None

    def start(self, loaded: Any, arrays: Path, dropout: bool) -> dict[str, Any]:
        """Prepares a run of all cohorts of the workload."""
        self.close()
        self._rest = _Rest()
        self._thread = threading.Thread(target=self._run, args=(loaded, self._rest), daemon=True)
        self._thread.start()
        return {}

    @staticmethod
    def _run(loaded: Any, rest: _Rest) -> None:
        rest.ours.acquire()
        try:
            if not rest.ended:
                simulate(loaded, callbacks=(rest,), rewrite=False)
        finally:
            rest.theirs.release()

    def round(self, cohort: Sequence[int]) -> float:
        """Trains the next round of the workload."""
        self._rest.ours.release()
        self._rest.theirs.acquire()
        return self._rest.seconds

    def parameters(self, folder: Path) -> dict[str, Any]:
        """The parameters after the last round."""
        return self._rest.params

    def close(self) -> None:
        """Ends the run at its next turn."""
        if self._thread is not None:
            self._rest.ended = True
            self._rest.ours.release()
            self._thread.join()
            self._thread = None


class Turns:
    """A callback that lets the peer train the same cohort after every round."""

    def __init__(self, peer: Peer, cohorts: Sequence[Sequence[int]]):
        """Takes turns over these cohorts."""
        self._peer, self._cohorts = peer, cohorts
        self.seconds: list[tuple[float, float]] = []

    def stops_at(self, round_index: int) -> bool:
        """Every round is a chunk of its own."""
        return True

    def __call__(self, progress: Any) -> None:
        """The engine's round is over; now the same round of the peer."""
        time.sleep(_REST_S)
        seconds = self._peer.round(self._cohorts[progress.round - 1])
        time.sleep(_REST_S)
        self.seconds.append((progress.seconds_per_round, seconds))

    def close(self) -> None:
        """Nothing to release."""


@contextlib.contextmanager
def open_peer(a: argparse.Namespace, parser: records.Parser) -> Iterator[Peer]:
    """The peer, ended in any case."""
    peer = (
        EngineInTurn()
        if a.peer == "no-rewrite"
        else PyTorchLoop(a.torch_python, a.channels_last, parser)
    )
    try:
        yield peer
    finally:
        peer.close()


def simulate(loaded: Any, callbacks: Sequence[Any], rewrite: bool = True) -> Any:
    """The engine on all cohorts of a workload."""
    from fedjax_med import engine as fm

    return fm.simulate(
        loaded.algorithm,
        loaded.dataset,
        task=loaded.task,
        rounds=len(loaded.sampler.rounds),
        local_work=loaded.local_work,
        cohort=loaded.sampler,
        variables=loaded.variables,
        callbacks=callbacks,
        rewrite=rewrite,
    )


def train(
    name: str, peer: Peer, folder: Path, *, rounds: int, dropout: bool
) -> tuple[Any, Turns, dict[str, Any]]:
    """Both train the same rounds; returns the engine's run, the turns and what the peer says."""
    import numpy as np

    from benchmarks import workloads

    loaded = workloads.load(name, rounds, dropout=dropout)
    split, arrays = loaded.dataset.train, folder / "arrays.npz"
    np.savez(
        arrays, **split.examples, sizes=split.sizes, **workloads.initial_params(loaded.workload)
    )
    said = peer.start(loaded, arrays, dropout)
    turns = Turns(peer, loaded.sampler.rounds)
    return simulate(loaded, callbacks=(turns,)), turns, said


def relative_difference(run: Any, theirs: dict[str, Any], before: Any) -> float:
    """Between the parameters of the two: Euclidean norm, relative to that of their change."""
    import numpy as np

    ours = run.variables.params

    def distance(other: Any) -> float:
        return float(sum(np.sum(np.square(ours[name] - other[name])) for name in ours)) ** 0.5

    return distance(theirs) / distance(before)


# Where two elements of a pooling window are equal up to rounding, engines send a gradient to
# different ones, and float32 then differs from float64 as much as one engine from the other.
# A different model, order or step differs by more than a tenth.
_ALLOWED_DIFFERENCE = 0.05


def measure(a: argparse.Namespace, parser: records.Parser) -> dict[str, Any]:
    """Compares the results, then the times."""
    import numpy as np

    with tempfile.TemporaryDirectory() as name, open_peer(a, parser) as peer:
        folder = Path(name)
        run, _, _ = train(a.workload, peer, folder, rounds=1, dropout=False)
        with np.load(folder / "arrays.npz") as before:
            difference = relative_difference(run, peer.parameters(folder), before)
        if not difference < _ALLOWED_DIFFERENCE:
            raise RuntimeError(f"The two differ by {difference:.2g} after one round.")
        _, turns, said = train(a.workload, peer, folder, rounds=a.rounds, dropout=True)
    # The first round of each warms up.
    ours, theirs = zip(*turns.seconds[1:], strict=True)
    q1, median, q3 = records.quartiles([b / a for a, b in turns.seconds[1:]])
    return {
        "benchmark": "peers",
        "peer": a.peer,
        "workload": a.workload,
        "speedup_median": median,
        "speedup_q1": q1,
        "speedup_q3": q3,
        "seconds_per_round_median": records.quartiles(ours)[1],
        "peer_seconds_per_round_median": records.quartiles(theirs)[1],
        "relative_difference": difference,
        "rounds": len(ours),
        **{f"peer_{key}": value for key, value in said.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    if (a.peer == "pytorch-loop") != (a.torch_python is not None):
        parser.error("--torch-python goes with --peer pytorch-loop, and only with it")
    output = records.Output(a.json, parser)
    record = measure(a, parser)
    shown = ["PYTHON" if argument == a.torch_python else argument for argument in arguments]
    output.write(
        {**record, **records.environment(), "command": records.command("peers.compare", shown)}
    )


if __name__ == "__main__":
    main()
