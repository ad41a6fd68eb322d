"""Federated genetics on HapMap 3, with simulated outcomes, against pooled, local and naive analyses.

Parts: `structure` compares principal components with those of all people, `association` counts what is
found of known effects, `scores` predicts the other people of the populations, `unseen` those of a
population that was left out. `--table` turns a file of results into the tables of `docs/genomics.md`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.genomics.analyses import association, polygenic, structure, unseen
from benchmarks.genomics.report import figures, tables
from benchmarks.genomics.setting import Record, genotypes
from fedjax_med.studies.genotype_references import NUM_COMPONENTS

PARTS = ("structure", "association", "scores", "unseen")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = records.parser("genomics", __doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--seeds", type=records.at_least(2), default=5, help="default: 5")
    parser.add_argument("--figures", metavar="FOLDER", help="draw the figures into a folder")
    parser.add_argument("--table", metavar="FILE", help="print the tables of a file of results")
    a = parser.parse_args(arguments)
    if a.table:
        print(tables([json.loads(line) for line in Path(a.table).read_text().splitlines()]))
        return
    output = records.Output(a.json, parser)
    from fedjax_med import genomics

    dataset, snps = genotypes()
    about = {"benchmark": "genomics", **records.environment()}
    parts = a.part or PARTS
    seeds = range(a.seeds)

    def write(made: Callable[[], Iterator[Record]], **more: Any) -> None:
        for record in made():
            output.write({**record, **more, **about})

    if {"structure", "association"} & set(parts) or a.figures:
        start = time.perf_counter()
        components = genomics.principal_components(dataset, NUM_COMPONENTS)
        seconds = time.perf_counter() - start
        if "structure" in parts:
            write(lambda: structure(dataset, components), seconds=seconds)
        if a.figures:
            figures(dataset, snps, components, Path(a.figures))
        for seed in seeds if "association" in parts else ():
            write(lambda seed=seed: association(dataset, components, seed), seed=seed)
    if "scores" in parts:
        write(lambda: polygenic(dataset, seeds))
    if "unseen" in parts:
        write(lambda: unseen(dataset, seeds))
