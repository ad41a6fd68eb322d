"""Studies of health records with a GRU, a transformer and linear models that know no order.

A line for each dataset, model and method or baseline, of the AUROC on the patients that the dataset
keeps for testing; a line of each study as a whole; one for each pair of models, compared on the same
patients; and for generated records one of the best that any model could do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import records
from benchmarks.studies.command import rows

DATASETS = ("synthetic-ehr", "diabetes130-visits")
MODELS = ("gru", "transformer", "bag", "last-visit")
# Linear models are there to be compared with: one method, and the steps that they need.
_LINEAR = {"methods": ("fedavg",), "learning_rates": (0.01, 0.03, 0.1)}


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.data_parser("health_records", __doc__)
    parser.add_argument(
        "--dataset",
        action="append",
        choices=DATASETS,
        help="one dataset by name; may be repeated (default: both)",
    )
    parser.add_argument("--seeds", type=records.at_least(1), default=5, help="default: 5")
    parser.add_argument("--rounds", type=records.at_least(1), help="default: the dataset's own")
    parser.add_argument("--patients", type=records.at_least(200), help="of synthetic-ehr")
    return parser


def measure(name: str, a: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The lines of one dataset, those of a model when it is done."""
    from fedjax_med import datasets
    from fedjax_med.studies import Study, judge_patients, run_study, settings_for, summarise

    chosen: dict[str, Any] = {"num_seeds": a.seeds}
    if a.rounds:
        chosen["rounds"] = a.rounds
    risk = None
    if name == "synthetic-ehr":
        drawn = datasets.draw_health_records(**({"num_patients": a.patients} if a.patients else {}))
        dataset, risk = drawn.dataset, drawn.risk["test"]
    else:
        dataset = datasets.load(name, a.data_dir and Path(a.data_dir))
    studies: dict[str, Study] = {}
    for model in MODELS:
        own = _LINEAR if model in ("bag", "last-visit") else {}
        studies[model] = study = run_study(
            dataset,
            settings_for(name, "visits", model=model, **chosen, **own),
            tell=lambda text, model=model: print(
                f"{name}, {model}: {text}", file=sys.stderr, flush=True
            ),
        )
        result = summarise(study, judge_patients(study))
        yield from ({"model": model, **line} for line in rows(result))
    if risk is not None:
        yield _oracle(studies["gru"], risk)
    for first, second in _pairs():
        yield _compared(studies, first, second)


def _pairs() -> list[tuple[str, str]]:
    """Every model with those behind it."""
    return [(a, b) for i, a in enumerate(MODELS) for b in MODELS[i + 1 :]]


def _oracle(study: Any, risk: np.ndarray) -> dict[str, Any]:
    """The judgement of the probabilities that the records were drawn with."""
    from fedjax_med.evaluation import judge
    from fedjax_med.studies.judging import over_seeds, seeds_together

    main = study.judge.main
    outputs = np.log(risk / (1 - risk))[None, :, None]
    judged = judge(
        seeds_together(study.judge, [outputs], study.populations),
        {main: over_seeds(study.judge.metrics[main])},
        num_resamples=study.settings.num_resamples,
        method="percentile",
    )
    return {
        "method": "oracle",
        "title": "the risk that patients were drawn with",
        "is_baseline": True,
        "metric": main,
        "mean": judged.mean[main]._asdict(),
        "pooled": judged.pooled.metrics[main]._asdict(),
        "per_hospital": {n: j.metrics[main].value for n, j in judged.per_hospital.items()},
    }


def _compared(studies: dict[str, Any], first: str, second: str) -> dict[str, Any]:
    """FedAvg of one model minus FedAvg of another, over all test patients."""
    from fedjax_med.evaluation import over_patients, paired_bootstrap
    from fedjax_med.studies.judging import over_seeds, seeds_together

    one, other = studies[first], studies[second]
    found = paired_bootstrap(
        over_patients(over_seeds(one.judge.metrics[one.judge.main])),
        *(seeds_together(s.judge, s.outputs["fedavg"], s.populations) for s in (one, other)),
        num_resamples=one.settings.num_resamples,
    )
    return {"compared": [first, second], "method": "fedavg", "pooled": found._asdict()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    output = records.Output(a.json, parser)
    from fedjax_med.data import DataError

    environment = {
        **records.environment(),
        "command": records.shown_command("health_records", arguments),
    }
    for name in a.dataset or DATASETS:
        try:
            for line in measure(name, a):
                whole = environment if "sentences" in line else {}
                output.write({"benchmark": "health_records", "dataset": name, **line, **whole})
        except DataError as error:
            parser.error(str(error))
