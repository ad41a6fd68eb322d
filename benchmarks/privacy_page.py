"""The page of what privacy costs, as Markdown with a figure, from the results."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.flamby.privacy import PUBLISHED

RESULTS = "benchmarks/results/privacy_tradeoff-cpu.jsonl"
FLAMBY = "benchmarks/results/flamby_privacy-cpu.jsonl"
PAGE = "docs/privacy_tradeoff.md"
FIGURE = "docs/figures/privacy_tradeoff.svg"
Record = Mapping[str, Any]

INTRODUCTION = """# What privacy costs

What `fedjax-med tradeoff` finds: the main metric of FedAvg with linear models under differential privacy,
mean over hospitals, against epsilon. *Record* level is DP-SGD inside every hospital: each patient is protected,
also from the server. *Hospital* level is noise of a trusted server on clipped updates: whole hospitals are
protected, which with a few hospitals takes noise of the size of their updates. Every plan, and so sampling,
noise and epsilon, comes from `fedjax_med.privacy`; epsilon is by privacy loss distributions, with the value of
Renyi differential privacy beside it, and is that of the hospital that spends most. Clip bounds and learning
rates were chosen for each epsilon on patients kept for choosing, and that choice is not accounted for. In
brackets: 95 % intervals, over random splits (Nadeau and Bengio 2003) or, for PneumoniaMNIST, over patients of
its own test set (bootstrap).
"""
_SHOWN = "![Main metric against epsilon](figures/privacy_tradeoff.svg)"

FLAMBY_INTRODUCTION = """## FLamby's epsilons on Fed-Heart-Disease

FLamby (Ogier du Terrail et al., 2022; `flamby/dp_example`, read and not run) trains with Opacus at each of the
four centres, and asks it for the noise that spends epsilon in as many epochs as there are rounds (`strategies/utils.py`:
`epochs=nrounds`, 15). But a round is 100 minibatches of 4, which are 2 to 12.5 epochs of a centre, so more is spent
than asked for. For each centre: the noise that Opacus is asked for, by the accounting here; what it
spends in the 1,500 steps that are taken; and the noise that these steps need. Sampling is that of the
accounting, Poisson with the rate of one batch of an epoch's. The published accuracies (FedAvg, mean of centres;
0.7125 without privacy) belong to the noise of 15 epochs, and so to the epsilon of 1,500 steps. What accuracy the
noise needed leaves was not measured.
"""


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.bare_parser("privacy_page", __doc__)
    parser.add_argument("--output", default=PAGE, help=f"default: {PAGE}")
    return parser


def read(name: str) -> list[Record]:
    """The lines of a file of results; none if it is not there."""
    path = records.REPO / name
    return (
        [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    )


def render(lines: Sequence[Record], flamby: Sequence[Record]) -> str:
    """The page."""
    from fedjax_med.datasets import DATASETS
    from fedjax_med.evaluation import metric_title
    from fedjax_med.reporting.tradeoff_report import sentences

    text = [INTRODUCTION, _SHOWN, ""] if lines else ["# What privacy costs", ""]
    for line in lines:
        settings = line["settings"]
        divided = (
            "the dataset's own division"
            if settings["division"] == "own"
            else f"{settings['num_splits']} splits"
        )
        title = metric_title(line["main_metric"])
        text += [
            f"## {DATASETS[line['dataset']].title}",
            "",
            f"{len(line['clients'])} hospitals, {divided}, {settings['num_seeds']} seeds; {title}.",
            "",
            "| | epsilon (PLD) | by RDP | delta | noise multiplier | clip bound | mean over hospitals | all patients |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            *(
                f"| {name} | | | | | | {_interval(found['mean'])} | {_interval(found['pooled'])} |"
                for name, found in line["references"].items()
            ),
            *(_row(point) for point in line["points"]),
            "",
            " ".join(sentences(line)),
            "",
        ]
    if flamby:
        text += [FLAMBY_INTRODUCTION, *_flamby_table(flamby), "", _of_flamby(flamby), ""]
    if lines:
        last = lines[-1]
        text += [
            f"Made by `python -m benchmarks.privacy_tradeoff --json -` on a busy machine "
            f"({last['processor']}, {last['cpu_count']} cores, JAX {last['jax']}); this page by `python -m "
            "benchmarks.privacy_page`.",
            "",
        ]
    return "\n".join(text)


def _row(point: Record) -> str:
    return (
        f"| each {point['unit']} | {point['spent']:.3f} | {_number(point['spent_rdp'])} | {point['delta']:g} | "
        f"{point['noise_multiplier']:.3g} | {point['clip_norm']:g} | {_interval(point['mean'])} | "
        f"{_interval(point['pooled'])} |"
    )


def _of_flamby(lines: Sequence[Record]) -> str:
    """How much more is spent than was asked for, in a sentence."""
    spent: dict[tuple[float, float], list[float]] = {}
    for line in lines:
        spent.setdefault((line["epsilon"], line["delta"]), []).append(line["epsilon_of_steps"])
    told = [
        f"{min(each):.2g} to {max(each):.2g} where {epsilon:g} was asked for (delta {delta:g})"
        for (epsilon, delta), each in spent.items()
    ]
    return f"**What it means.** Centres spend {'; '.join(told)}. The smallest spends most."


def _flamby_table(lines: Sequence[Record]) -> list[str]:
    rows = [
        "| epsilon asked for | delta | published accuracy | centre | records | noise of 15 epochs | epsilon of 1,500 steps | noise needed |",
        "| ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for line in lines:
        rows.append(
            f"| {line['epsilon']:g} | {line['delta']:g} | "
            f"{PUBLISHED.get((line['epsilon'], line['delta']), '')} | {line['centre']} | {line['records']} | "
            f"{line['noise_of_epochs']:.3g} | {line['epsilon_of_steps']:.3g} | {line['noise_of_steps']:.3g} |"
        )
    return rows


def _interval(found: Mapping[str, float | None]) -> str:
    value, low, high = (found[key] for key in ("value", "low", "high"))
    if value is None:
        return ""
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the page and its figure."""
    from fedjax_med.reporting.figures import as_svg
    from fedjax_med.reporting.tradeoff_report import tradeoff_figure

    given = make_parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    lines = read(RESULTS)
    if lines:
        figure = as_svg(tradeoff_figure(lines), "tradeoff")
        (records.REPO / FIGURE).write_text(figure, "utf-8")
    Path(given.output).write_text(render(lines, read(FLAMBY)), "utf-8")


if __name__ == "__main__":
    main()
