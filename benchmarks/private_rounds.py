"""What protecting patients costs a round: differential privacy, secure sums, encryption.

The ways take turns, so that a busy machine slows all of them; ratios are of medians over all rounds but
the first of each turn. Cohorts are the same for all (drawn without replacement). CKKS cannot be part of a
compiled round: its seconds are those of the unprotected round, and of encrypting each client's update,
adding and decrypting, one after another. Accounting on the host is not in the seconds.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import records

WORKLOADS = ("tabular-logreg", "cifar-cnn")
WAYS = {
    "none": "no privacy",
    "central": "central DP, hospitals",
    "record": "record-level DP-SGD",
    "secure": "secure aggregation",
    "distributed": "distributed DP, masked",
    "ckks": "CKKS, on the host",
}
# Rounds of a turn: about a second of tables, a handful of images.
_ROUNDS = {"tabular-logreg": 400, "cifar-cnn": 3}
_CLIP, _NOISE, _DELTA = 1.0, 1.0, 1e-4
_STEPS = 5  # of record-level training: the mean of an epoch of these clients


class Way(NamedTuple):
    """How a round is protected.

    Attributes:
      algorithm: FedAvg with the workload's optimizer.
      local_work: of a client.
    """

    algorithm: Any
    local_work: Any


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.parser("private_rounds", __doc__)
    parser.add_argument("--workload", choices=(*WORKLOADS, "all"), default="all")
    parser.add_argument("--turns", type=records.at_least(1), default=3, help="default: 3")
    parser.add_argument("--rounds", type=records.at_least(2), help="rounds of a turn")
    parser.add_argument(
        "--table", metavar="FILE", help="print the table of results, measure nothing"
    )
    parser.add_argument("--way", action="append", choices=tuple(WAYS), help="default: all")
    return parser


def ways(loaded: Any, sampler: Any, rounds: int) -> dict[str, Callable[[], Way]]:
    """Builds each way that is compiled."""
    import jax
    import numpy as np

    from fedjax_med import algorithms, privacy, secure

    workload, task = loaded.workload, loaded.task
    dim = sum(np.size(leaf) for leaf in jax.tree.leaves(loaded.variables.params))
    size = workload.cohort_size

    def fed_avg(gradient: Any = task.gradient, **options: Any) -> Any:
        return algorithms.fed_avg(
            gradient, workload.client_optimizer(), weighting=algorithms.equal, **options
        )

    def private(plan: Any) -> Any:
        algorithm = privacy.private(
            lambda gradient, aggregator: fed_avg(gradient, aggregator=aggregator), plan, task=task
        )
        # Epsilon is computed on the host, once for a run and not in its rounds.
        return algorithm._replace(privacy=None)

    def central() -> Way:
        level = privacy.ClientLevel(
            clip_norm=_CLIP, delta=_DELTA, noise_multiplier=_NOISE, sampling=sampler
        )
        plan = level.plan(population=workload.num_clients, rounds=rounds)
        return Way(private(plan), loaded.local_work)

    def record() -> Way:
        level = privacy.RecordLevel(
            clip_norm=_CLIP,
            delta=_DELTA,
            noise_multiplier=_NOISE,
            batch_size=workload.batch_size,
            steps=_STEPS,
        )
        plan = level.plan(sizes=loaded.dataset.train.sizes, rounds=rounds)
        return Way(private(plan), plan.local_work)

    def distributed() -> Way:
        padded = 1 << max(1, int(dim - 1).bit_length())
        plan = secure.DistributedDP(size, padded, _CLIP, _NOISE)
        aggregator = secure.secure_distributed_dp_mean(plan)
        return Way(fed_avg(aggregator=aggregator), loaded.local_work)

    return {
        "none": lambda: Way(fed_avg(), loaded.local_work),
        "central": central,
        "record": record,
        "secure": lambda: Way(
            fed_avg(aggregator=secure.secure_mean(size, bound=_CLIP)), loaded.local_work
        ),
        "distributed": distributed,
    }


def timed(way: Way, loaded: Any, sampler: Any, rounds: int, seed: int) -> list[float]:
    """Seconds per round of one turn, the round that warms up left out."""
    from fedjax_med import engine as fm

    class Apart:
        """Makes the first round a chunk of its own, and every other one of tables' hundreds."""

        def stops_at(self, round_index: int) -> bool:
            return round_index == 1

        def __call__(self, progress: Any) -> None:
            pass

        def close(self) -> None:
            pass

    run = fm.simulate(
        way.algorithm,
        loaded.dataset,
        task=loaded.task,
        rounds=rounds + 1,
        local_work=way.local_work,
        cohort=sampler,
        seed=seed,
        variables=loaded.variables,
        rounds_per_call=max(1, rounds // 4),
        callbacks=(Apart(),),
    )
    return [seconds for _, seconds in run.seconds_per_round[1:]]


def encryption_seconds(dim: int, num_clients: int) -> float:
    """Seconds of one sum of ciphertexts: every client's encryption, the additions, decryption."""
    import numpy as np

    from fedjax_med.secure.homomorphic import Encrypted, new_context

    context = new_context()
    update = np.random.default_rng(0).standard_normal(dim).astype(np.float32)
    start = time.perf_counter()
    one = Encrypted.of(update, context)
    encrypt = time.perf_counter() - start
    start = time.perf_counter()
    total = one + one
    add = time.perf_counter() - start
    start = time.perf_counter()
    total.decrypt()
    return num_clients * encrypt + (num_clients - 1) * add + time.perf_counter() - start


def measure(name: str, chosen: Sequence[str], turns: int, rounds: int) -> list[dict[str, Any]]:
    """A record for each way."""
    import jax
    import numpy as np

    from benchmarks import workloads
    from fedjax_med.engine import cohorts

    loaded = workloads.load(name, 1, dropout=False)
    size = loaded.workload.cohort_size
    sampler = cohorts.uniform(size)
    # Every turn is a run of its own, whose warm-up is a round.
    builders = ways(loaded, sampler, rounds + 1)
    compiled = [way for way in builders if way in chosen or way == "none"]
    seconds: dict[str, list[float]] = {way: [] for way in compiled}
    for turn in range(turns):
        for way in compiled:
            seconds[way] += timed(builders[way](), loaded, sampler, rounds, turn)
            print(f"{name}, turn {turn + 1}: {way} {seconds[way][-1]:.4g} s", file=sys.stderr)
    median = {way: statistics.median(values) for way, values in seconds.items()}
    dim = sum(np.size(leaf) for leaf in jax.tree.leaves(loaded.variables.params))
    if "ckks" in chosen:
        median["ckks"] = median["none"] + encryption_seconds(dim, size)
    return [
        {
            "workload": name,
            "way": way,
            "seconds_per_round": value,
            "over_none": value / median["none"],
            "chunks": len(seconds.get(way, ())),
            "rounds_of_a_turn": rounds,
            "turns": turns,
            "cohort": size,
            "parameters": dim,
        }
        for way, value in median.items()
    ]


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown."""
    text = [
        "| | " + " | ".join(f"`{name}` [ms] | times no privacy" for name in WORKLOADS) + " |",
        "| --- |" + " ---: | ---: |" * len(WORKLOADS),
    ]
    found = {(line["workload"], line["way"]): line for line in lines}
    for way, words in WAYS.items():
        cells = []
        for name in WORKLOADS:
            line = found.get((name, way))
            cells += (
                [f"{1000 * line['seconds_per_round']:.4g}", f"{line['over_none']:.3g}"]
                if line
                else ["", ""]
            )
        text.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    if a.table:
        lines = Path(a.table).read_text().splitlines()
        print(table([json.loads(line) for line in lines]))
        return
    output = records.Output(a.json, parser)
    shared = {
        **records.environment(),
        "command": records.shown_command("private_rounds", arguments),
    }
    for name in WORKLOADS if a.workload == "all" else (a.workload,):
        for record in measure(name, a.way or tuple(WAYS), a.turns, a.rounds or _ROUNDS[name]):
            output.write({"benchmark": "private_rounds", **record, **shared})


if __name__ == "__main__":
    main()
