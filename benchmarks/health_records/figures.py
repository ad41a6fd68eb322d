"""Figures of a GRU that hospitals trained together on generated records: ROC, codes, one patient."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import records

FOLDER = "docs/figures"
_ROUNDS, _LEARNING_RATE = 15, 0.01


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.bare_parser("health_records.figures", __doc__)
    parser.add_argument("--output", default=FOLDER, help=f"folder (default: {FOLDER})")
    return parser


def draw(folder: Path) -> None:
    """Trains the model and writes the figures."""
    import optax

    from fedjax_med import algorithms, tasks
    from fedjax_med.datasets import draw_health_records
    from fedjax_med.datasets.record_rule import CONDITIONS
    from fedjax_med.engine import epochs, simulate
    from fedjax_med.evaluation import binary_metrics, predict
    from fedjax_med.explanation import code_attributions, code_importance, visit_effects
    from fedjax_med.models.visits import visit_gru, visit_inputs
    from fedjax_med.reporting import visit_figures

    drawn = draw_health_records()
    dataset = drawn.dataset
    model = visit_gru(visit_inputs(dataset))
    task = tasks.binary_classification(model, dataset.train.examples)
    run = simulate(
        algorithms.fed_avg(task.gradient, optax.adam(_LEARNING_RATE)),
        dataset,
        task=task,
        rounds=_ROUNDS,
        local_work=epochs(1, batch_size=32),
    )
    names, stands_for = dataset.feature_names, drawn.condition_of_code
    found = predict(run, dataset, model)
    patients = {k: v for k, v in dataset.splits()["test"].examples.items() if k != "y"}
    # Of the patients with the highest predicted risk, one with a record that fits on a page.
    shown = np.argsort(-found.outputs)
    row = next(int(i) for i in shown if 5 <= patients["visits"][i] <= 7)
    one = {name: leaf[row : row + 1] for name, leaf in patients.items()}
    record = {name: leaf[0] for name, leaf in one.items()}
    groups = {c: np.flatnonzero(stands_for == i).tolist() for i, c in enumerate(CONDITIONS)}
    unrelated = [i for i, name in enumerate(names) if name.startswith("unrelated")]
    importance = code_importance(
        model,
        run.variables,
        dataset,
        binary_metrics()["auroc"],
        {**groups, "nothing": unrelated},
    )
    figures = {
        "roc": visit_figures.roc_figure(found),
        "codes": visit_figures.code_map(
            np.asarray(run.variables.params["visit"]["codes"])[1:],
            [CONDITIONS[i] if i >= 0 else "" for i in stands_for[1:]],
        ),
        "record": visit_figures.record_figure(
            record,
            code_attributions(model, run.variables, one)[0],
            names,
            effects=visit_effects(model, run.variables, one)[0],
        ),
        "importance": visit_figures.code_importance_figure(importance, "AUROC"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / f"health_records_{name}.png", dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    a = make_parser().parse_args(sys.argv[1:] if arguments is None else list(arguments))
    draw(Path(a.output))


if __name__ == "__main__":
    main()
