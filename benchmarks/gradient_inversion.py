"""Gradient inversion of a linear model on PneumoniaMNIST: quality by what is seen, and the figure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.records import Output, data_parser, environment, shown_command

FIGURE = "docs/figures/gradient_inversion.png"
_DATASET = "pneumonia-mnist"


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes a line for each kind of message, and the figure if asked for."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = data_parser("gradient_inversion", __doc__)
    parser.add_argument("--figure", metavar="FILE", help=f"such as {FIGURE}")
    given = parser.parse_args(arguments)
    output = Output(given.json, parser)

    import numpy as np

    from fedjax_med import tasks
    from fedjax_med.attacks.inversion_trials import try_inversion
    from fedjax_med.cli.data import load
    from fedjax_med.reporting.audit_figures import images_figure

    folder = None if given.data_dir is None else Path(given.data_dir)
    dataset = load(_DATASET, folder, raw=True)
    task = tasks.for_dataset(dataset, "linear").task
    trials = try_inversion(task, dataset.train, clip_norm=1.0)
    about = {"command": shown_command("gradient_inversion", arguments), **environment()}
    for trial in trials:
        output.write({"seen": trial.title, "psnr": float(np.median(trial.psnr)), **about})
    if given.figure:
        images_figure(trials).savefig(given.figure, dpi=80)


if __name__ == "__main__":
    main()
