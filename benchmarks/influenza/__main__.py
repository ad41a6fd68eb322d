"""Forecasts of influenza-like illness: federated, alone, pooled, simple rules; alarms of outbreaks."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import records

SHOWN_PLACES = (0, 3, 5, 8)


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.data_parser("influenza", __doc__)
    parser.add_argument("--places", choices=("regions", "states"), default="regions")
    parser.add_argument(
        "--model", choices=("autoregression", "convolution", "gru"), default="autoregression"
    )
    parser.add_argument("--seeds", type=records.at_least(1), default=5, help="default: 5")
    parser.add_argument(
        "--forecasts", help="folder with forecasts of an earlier run, or for those of this one"
    )
    parser.add_argument("--figure", help="file that gets a figure of forecasts")
    parser.add_argument(
        "--page", metavar="FILE", help="renew the tables of a page from --json, train nothing"
    )
    return parser


def lines(a: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """A line for every method, one of comparisons, one of alarms."""
    from benchmarks.influenza import judge, study, train
    from fedjax_med.studies import forecast_training as training

    if not (folder / f"{a.places}.npz").exists():
        train.train(
            a.places,
            [a.model],
            seeds=tuple(range(a.seeds)),
            data_dir=a.data_dir,
            folder=folder,
        )
    data = study.setup(a.places, to_tune=False, data_dir=a.data_dir)
    notes = json.loads((folder / f"{a.places}.json").read_text())
    with np.load(folder / f"{a.places}.npz") as kept:
        found = {key: training.logarithms(data, kept[key]) for key in notes}
    found["persistence"] = training.persistence(data)[None]
    found["seasonal"] = training.seasonal(data)[None]
    made = [
        {"places": a.places, "method": key, **notes.get(key, {}), **judge.judged(data, quantiles)}
        for key, quantiles in found.items()
    ]
    shown = f"{a.model}/{train.SHOWN}"
    differences = {
        key: judge.difference(data, found[shown], quantiles)
        for key, quantiles in found.items()
        if key != shown
    }
    made.append({"places": a.places, "compared": shown, "wis_minus": differences})
    if (folder / "alarms.json").exists():
        made.append(
            {"places": a.places, "alarms": json.loads((folder / "alarms.json").read_text())}
        )
    if a.figure:
        from fedjax_med.reporting.forecast_figures import forecast_figure

        drawn = forecast_figure(data, found[shown].mean(axis=0), places=SHOWN_PLACES)
        drawn.savefig(a.figure, dpi=120)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    if a.page:
        from benchmarks.influenza.page import updated

        results = [json.loads(line) for line in Path(a.json).read_text().splitlines()]
        Path(a.page).write_text(updated(Path(a.page).read_text(), results))
        return
    output = records.Output(a.json, parser)
    from fedjax_med.data import DataError

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(a.forecasts or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            made = lines(a, folder)
        except DataError as error:
            parser.error(str(error))
    command = ["--places", a.places, "--model", a.model, "--seeds", str(a.seeds)]
    environment = {
        **records.environment(),
        "command": records.command("influenza", command),
    }
    for line in made[:-1]:
        output.write({"benchmark": "influenza", **line})
    output.write({"benchmark": "influenza", **made[-1], **environment})


if __name__ == "__main__":
    main()
