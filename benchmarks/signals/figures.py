"""Figures of the page: beats of unseen patients with attributions, their confusion, and the stream."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import records
from benchmarks.signals.table import RESULTS, Record

FOLDER = "docs/figures"


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.data_parser("signals.figures", __doc__)
    parser.add_argument("results", nargs="?", default=RESULTS, help=f"results ({RESULTS})")
    parser.add_argument("--output", default=FOLDER, help=f"folder (default: {FOLDER})")
    return parser


def chosen_beats(probability: np.ndarray, label: np.ndarray) -> list[int]:
    """Of each class that occurs, the most certain beat that is right, and the most certain wrong one."""
    called, certainty = probability.argmax(axis=1), probability.max(axis=1)
    rows = []
    for number in range(probability.shape[1]):
        for right in (True, False):
            fitting = np.flatnonzero((label == number) & ((called == label) == right))
            rows += fitting[np.argsort(-certainty[fitting])][:1].tolist()
    return rows


def of_beats(lines: Sequence[Record], data_dir: str | None, folder: Path) -> None:
    """Trains FedAvg on DS1, with the learning rate of the results, and shows beats of DS2."""
    import jax
    import optax

    from benchmarks.signals.cases import CASES
    from fedjax_med.algorithms import fed_avg
    from fedjax_med.engine import grid, simulate
    from fedjax_med.explanation import signal_gradients
    from fedjax_med.reporting.signal_figures import beats_figure, confusion_figure
    from fedjax_med.studies.training import outputs_of

    rate = next(
        line["rate"]
        for line in reversed(lines)
        if (line["case"], line.get("method")) == ("unseen", "fedavg")
    )
    case = CASES["unseen"](data_dir)
    run = simulate(
        fed_avg(case.task.gradient, optax.sgd(rate)),
        case.final.train,
        task=case.task,
        rounds=case.rounds,
        local_work=case.work,
        experiments=grid(seed=[0]),
    )
    judging = case.judging(case.final)
    probability = case.link(outputs_of(case.model, run.variables, case.final.test)[0])
    names = case.final.train.label_names
    called = probability.argmax(axis=1)
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (judging.labels, called), 1)
    title = "Unseen patients, FedAvg"
    confusion_figure(counts, names, title=title).savefig(folder / "signals-confusion.png", dpi=120)
    rows = chosen_beats(probability, judging.labels)
    x = case.final.test.examples["x"][rows]
    model = jax.tree.map(lambda leaf: leaf[0], run.variables)
    parts = np.stack(
        [
            signal_gradients(case.model, model, x[i : i + 1], output=int(called[row]))[0]
            for i, row in enumerate(rows)
        ]
    )
    titles = [
        f"{judging.names[judging.client[r]]}: {names[judging.labels[r]]}, called {names[called[r]]}"
        for r in rows
    ]
    figure = beats_figure(
        x[..., 0],
        parts[..., 0],
        titles,
        rate=360.0,
        before=100.0,
        title="Beats of unseen patients and what speaks for the class that they were called",
    )
    figure.savefig(folder / "signals-beats.png", dpi=120)


def of_stream(lines: Sequence[Record], folder: Path) -> None:
    """Macro F1 of the next beats by period, and reported drifts."""
    from fedjax_med.reporting.signal_figures import stream_figure

    stream = [line for line in lines if line["case"] == "stream" and "method" in line]
    values = {line["title"]: np.array([np.nan, *line["by_period"]]) for line in stream}
    window = next(line for line in stream if line["method"] == "window")
    figure = stream_figure(
        values,
        np.array(window["arrivals"]),
        [(alarm["period"], alarm["by"]) for alarm in window["alarms"]],
        label="macro F1 of the next beats",
        title="Rhythms of 47 patients as they arrive; drifts as with the last three periods",
    )
    figure.savefig(folder / "signals-stream.png", dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the figures."""
    parser = make_parser()
    a = parser.parse_args(sys.argv[1:] if arguments is None else list(arguments))
    folder = Path(a.output)
    try:
        lines = [json.loads(line) for line in Path(a.results).read_text("utf-8").splitlines()]
        folder.mkdir(parents=True, exist_ok=True)
        cases = {line["case"] for line in lines}  # figures are of the results that there are
        if "stream" in cases:
            of_stream(lines, folder)
        if "unseen" in cases:
            of_beats(lines, a.data_dir, folder)
    except OSError as error:
        parser.error(f"cannot read or write {error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
