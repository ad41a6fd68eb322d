"""Utility against epsilon on three datasets, at record and hospital level.

Every line is a dataset: `fedjax-med tradeoff` with the settings below, in JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.records import Output, data_parser, environment, shown_command

_MODULE = "privacy_tradeoff"
# Fewer clip bounds and rates than by default: those between which a first look found the best.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "heart-disease": {
        "epsilons": (0.5, 1.0, 2.0, 4.0, 8.0),
        "clip_norms": (0.3, 1.0),
        "learning_rates": (0.1, 0.3, 1.0),
    },
    "tcga-brca": {
        "epsilons": (0.5, 1.0, 2.0, 4.0, 8.0),
        "clip_norms": (0.3, 1.0),
        "learning_rates": (0.1, 0.3, 1.0),
        "num_splits": 3,
    },
    "pneumonia-mnist": {
        "epsilons": (0.5, 2.0, 8.0),
        "division": "own",
        "num_splits": 1,
        "batch_size": 64,
        "clip_norms": (1.0,),
        "learning_rates": (0.03, 0.1, 0.3),
        "num_seeds": 3,
        "num_resamples": 200,
    },
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the studies asked for and writes a line for each."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = data_parser(_MODULE, __doc__)
    parser.add_argument("datasets", nargs="*", metavar="DATASET", help="default: all of them")
    given = parser.parse_args(arguments)
    for name in given.datasets:
        if name not in SETTINGS:
            parser.error(f"DATASET must be one of {', '.join(SETTINGS)}, got {name!r}")
    output = Output(given.json, parser)

    from pathlib import Path

    from fedjax_med.cli.data import load
    from fedjax_med.studies.tradeoff import run_tradeoff
    from fedjax_med.studies.tradeoff_settings import TradeoffSettings

    folder = None if given.data_dir is None else Path(given.data_dir)
    for name in given.datasets or SETTINGS:
        dataset = load(name, folder, raw=True)
        result = run_tradeoff(
            dataset,
            TradeoffSettings(**SETTINGS[name]),
            tell=lambda text, name=name: print(f"{name}: {text}", file=sys.stderr, flush=True),
        )
        output.write(
            {
                "command": shown_command(_MODULE, arguments),
                **environment(),
                **result,
            }
        )


if __name__ == "__main__":
    main()
