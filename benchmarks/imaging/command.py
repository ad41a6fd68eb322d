"""Small medical images: pooled against published, federated against pooled, batch statistics.

Cases: `published` trains on all images in one place for as long as it helps, `pooled` for as long as
hospitals do, `divisions` compares federated methods on hospitals that differ in their labels, `scanners`
treatments of normalisation on hospitals that differ in their images.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import records
from benchmarks.imaging.methods import FEDERATED, TREATMENTS, Method
from benchmarks.imaging.setting import (
    DIVISIONS,
    PUBLISHED,
    SCANNERS,
    SCHEDULES,
    SHIFT,
    Population,
    Schedule,
    populations,
)

CASES = ("published", "pooled", "scanners", "divisions")


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.data_parser("imaging", __doc__)
    parser.add_argument("--case", action="append", choices=CASES, help="default: all")
    parser.add_argument(
        "--dataset", action="append", choices=SCHEDULES, help="default: all; scanners: breast-mnist"
    )
    parser.add_argument("--seeds", type=records.at_least(2), help="default: 5, of scanners 10")
    return parser


def pooled(
    name: str, data_dir: str | None, seeds: int, schedule: Schedule, norm: str
) -> tuple[Any, dict[str, Any]]:
    """What pooled training says, and its record."""
    from benchmarks.imaging.measure import estimates, in_official_order, train

    parts = populations(name, data_dir, DIVISIONS[:1], seeds, clients=1)
    outputs, seconds, loss = train(
        FEDERATED["FedAvg"]._replace(norm=norm), parts, schedule, pooled=True
    )
    said = in_official_order(parts, outputs[""])
    return said, {"method": "pooled", "seconds": seconds, "loss": loss, **estimates(said)}


def compared(
    methods: Mapping[str, Method],
    parts: Sequence[Population],
    schedule: Schedule,
    reference: Any,
    write: Any,
) -> None:
    """A record for each method and division, with its difference from `reference`."""
    from benchmarks.imaging.measure import estimates, in_official_order, train, trivial

    divisions = list(dict.fromkeys(part.division for part in parts))

    def tell(method: str, outputs: Sequence[Any], **more: Any) -> None:
        for division in divisions:
            chosen = [i for i, part in enumerate(parts) if part.division == division]
            said = in_official_order([parts[i] for i in chosen], [outputs[i] for i in chosen])
            write(
                {"method": method, "division": division.title, **more, **estimates(said, reference)}
            )

    tell("hospital's own rate", trivial(parts))
    for title, method in methods.items():
        outputs, seconds, loss = train(method, parts, schedule)
        for other, own in outputs.items():
            tell(other or title, own, seconds_of_all_divisions=seconds, loss=loss)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    output = records.Output(a.json, parser)
    from fedjax_med.data import DataError

    environment = {**records.environment(), "command": records.shown_command("imaging", arguments)}
    cases = a.case or CASES
    try:
        for name in a.dataset or SCHEDULES:

            def write(record: dict[str, Any], case: str, name: str = name) -> None:
                schedules = {"published": PUBLISHED[name], "scanners": SCANNERS}
                schedule = schedules.get(case, SCHEDULES[name])
                about = {"benchmark": "imaging", "case": case, "dataset": name}
                output.write({**about, **record, "schedule": schedule._asdict(), **environment})

            if "published" in cases:
                _, record = pooled(name, a.data_dir, a.seeds or 5, PUBLISHED[name], "batch")
                write(record, "published")
            reference = None
            if {"pooled", "divisions"} & set(cases):
                reference, record = pooled(name, a.data_dir, a.seeds or 5, SCHEDULES[name], "group")
                write(record, "pooled")
            if "scanners" in cases and (a.dataset or name == "breast-mnist"):
                parts = populations(name, a.data_dir, DIVISIONS[:1], a.seeds or 10, SHIFT)
                compared(TREATMENTS, parts, SCANNERS, None, lambda r: write(r, "scanners"))
            if "divisions" in cases:
                parts = populations(name, a.data_dir, DIVISIONS, a.seeds or 5)
                compared(
                    FEDERATED, parts, SCHEDULES[name], reference, lambda r: write(r, "divisions")
                )
    except DataError as error:
        parser.error(str(error))
