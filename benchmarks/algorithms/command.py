"""Every algorithm on four hospitals and on a Dirichlet split of images, with equal budgets.

All methods get the same rounds, local work and cohorts, and the learning rate of the clients is
chosen from one grid by the mean accuracy over hospitals on validation examples. Seeds change
initial models, cohorts and shuffling; the split of the data stays. All seeds and learning rates of a
method are one compiled call. Times are of single runs in turn with FedAvg.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import records

_TURNS = 5
_TIMED_ROUNDS = {"heart-disease": 400, "pneumonia-mnist": 40}
# Two-sided 95 % quantiles of Student's t by degrees of freedom, for intervals over seeds.
_T95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.data_parser("algorithms", __doc__)
    parser.add_argument(
        "--setting",
        choices=("heart-disease", "pneumonia-mnist", "all"),
        default="all",
        help="default: all",
    )
    parser.add_argument("--method", action="append", help="one method by name; may be repeated")
    parser.add_argument("--seeds", type=records.at_least(2), default=10, help="default: 10")
    parser.add_argument("--no-times", action="store_true", help="leave out the timed rounds")
    return parser


def accuracy(setting: Any, method: Any, seeds: int) -> dict[str, Any]:
    """Tunes the learning rate on validation examples; accuracy on test examples."""
    import numpy as np

    from benchmarks.algorithms.settings import LEARNING_RATES
    from fedjax_med import engine as fm

    task = method.task(setting) if method.task else setting.task
    cohort, rounds = method.cohort(setting) if method.cohort else (setting.cohort, setting.rounds)
    start = time.perf_counter()
    run = fm.simulate(
        lambda lr: method.build(setting, task, lr),
        setting.dataset,
        task=task,
        rounds=rounds,
        local_work=setting.local_work,
        cohort=cohort,
        experiments=fm.grid(seed=range(seeds), lr=LEARNING_RATES),
        evaluate_every=rounds,
        evaluate_on=("validation", "test"),
    )
    seconds = time.perf_counter() - start

    def of(split: str) -> Any:
        (evaluation,) = [e for e in run.evaluations if e.split == split]
        shape = (seeds, len(LEARNING_RATES))
        per_client = evaluation.per_client["accuracy"].reshape(*shape, -1)
        return evaluation.pooled["accuracy"].reshape(shape), per_client

    # A hospital without validation examples has no say in the choice.
    by_rate = np.nanmean(of("validation")[1], axis=(0, 2))
    best = int(np.argmax(by_rate))
    pooled, per_client = of("test")
    pooled, per_client = pooled[:, best], per_client[:, best]
    excluded = run.history["num_excluded"].reshape(seeds, len(LEARNING_RATES), -1)[:, best]
    over_hospitals = np.nanmean(per_client, axis=1)
    half = _T95.get(seeds - 1, 1.96) * over_hospitals.std(ddof=1) / seeds**0.5
    hospitals = per_client.mean(axis=0)
    return {
        "learning_rate": LEARNING_RATES[best],
        "at_edge_of_grid": best in (0, len(LEARNING_RATES) - 1),
        "rounds": rounds,
        "accuracy_pooled": float(pooled.mean()),
        "accuracy_mean_over_hospitals": float(over_hospitals.mean()),
        "interval_half_width": float(half),
        "accuracy_worst_hospital": float(np.nanmin(hospitals)),
        "worst_hospital": setting.dataset.client_names[int(np.nanargmin(hospitals))],
        "num_excluded": int(excluded.sum()),
        "seconds": seconds,
    }


def communication(setting: Any, method: Any, learning_rate: float) -> dict[str, int]:
    """Bytes of one client in one round."""
    from fedjax_med.engine.messages import message_bytes

    task = method.task(setting) if method.task else setting.task
    sizes = message_bytes(method.build(setting, task, learning_rate), task.init(0))
    return {"down_bytes": sizes.down, "up_bytes": sizes.up, "passes": sizes.passes}


class Timed:
    """A single run that can be repeated without compiling again."""

    def __init__(self, setting: Any, method: Any, learning_rate: float):
        """Compiles nothing yet."""
        from fedjax_med.engine import placement
        from fedjax_med.engine.arguments import Arguments
        from fedjax_med.engine.simulation import Simulation

        task = method.task(setting) if method.task else setting.task
        rounds = _TIMED_ROUNDS[setting.name]
        cohort, most = method.cohort(setting) if method.cohort else (setting.cohort, rounds)
        self._simulation = Simulation(
            Arguments(
                algorithm=method.build(setting, task, learning_rate),
                dataset=setting.dataset,
                task=task,
                rounds=min(most, rounds),  # a schedule has an end
                local_work=setting.local_work,
                sampler=cohort,
                placement=placement.one_device(),
                lanes=None,
                seed=0,
                variables=None,
                hyperparameters={},
                experiments=None,
                evaluate_every=0,
                evaluate_on=(),
                callbacks=(),
                checkpoint=None,
                rounds_per_call=64,
                stream=False,
                description={},
            )
        )
        self._seen = 0

    def seconds_per_round(self) -> float:
        """Runs once; the median over chunks, the short first one left out."""
        run = self._simulation.run()
        chunks = run.seconds_per_round[self._seen :]
        self._seen = len(run.seconds_per_round)
        return statistics.median(seconds for _, seconds in chunks[1:] or chunks)


def times(ours: Timed, fed_avg: Timed) -> dict[str, float]:
    """Seconds per round beside FedAvg's, in turn; the ratio is the median of the turns'."""
    pairs = [(ours.seconds_per_round(), fed_avg.seconds_per_round()) for _ in range(1 + _TURNS)]
    pairs = pairs[1:]  # the first one compiles
    return {
        "seconds_per_round": statistics.median(seconds for seconds, _ in pairs),
        "fed_avg_seconds_per_round": statistics.median(seconds for _, seconds in pairs),
        "over_fed_avg": statistics.median(seconds / base for seconds, base in pairs),
    }


def measure(setting: Any, name: str, a: argparse.Namespace, fed_avg: Timed) -> dict[str, Any]:
    """One line of the comparison."""
    from benchmarks.algorithms.methods import METHODS

    method = METHODS[name]
    record = {"benchmark": "algorithms", "setting": setting.name, "method": name, "seeds": a.seeds}
    record |= accuracy(setting, method, a.seeds)
    rate = record["learning_rate"]
    record |= communication(setting, method, rate)
    if not a.no_times:
        record |= times(Timed(setting, method, rate), fed_avg)
    return record


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    output = records.Output(a.json, parser)
    from benchmarks.algorithms.methods import METHODS
    from benchmarks.algorithms.settings import SETTINGS
    from fedjax_med.data import DataError

    for name in a.method or ():
        if name not in METHODS:
            parser.error(f"--method must be one of {', '.join(METHODS)}; got {name!r}")
    shown = records.shown_command("algorithms", arguments)
    environment = {**records.environment(), "command": shown}
    for setting_name in SETTINGS if a.setting == "all" else (a.setting,):
        try:
            setting = SETTINGS[setting_name](a.data_dir)
        except DataError as error:
            parser.error(str(error))
        fed_avg = Timed(setting, METHODS["FedAvg"], 0.1)
        for name in a.method or METHODS:
            if METHODS[name].only not in (None, setting_name):
                continue
            record = measure(setting, name, a, fed_avg)
            output.write({**record, **environment})
            print(
                f"{setting_name}, {name}: {record['accuracy_mean_over_hospitals']:.3f}, "
                f"{record.get('over_fed_avg', float('nan')):.2f} of FedAvg",
                file=sys.stderr,
                flush=True,
            )
