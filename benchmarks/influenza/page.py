"""The tables of `docs/influenza.md`, from `python -m benchmarks.influenza --json FILE --page PAGE`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_REGIONS_SHOWN = (
    "autoregression/fedavg",
    "autoregression/local",
    "convolution/fedavg",
    "convolution/local",
)
_HEAD = (
    "| model/method | rate | score, all horizons | RMSE 1 / 5 / 15 weeks | correlation 1 / 5 / 15 | "
    "95 % holds, 1 / 5 / 15 | FedAvg minus this |"
)
_ALARM_HEAD = "| forecasts | alarm |"
Line = dict[str, Any]


def updated(page: str, results: Sequence[Line]) -> str:
    """The page with its numbers replaced by those of the results; its words stay.

    Raises:
      ValueError: if the page has not the tables that there are results for.
    """
    before, regions, states, alarms = _parts(page)
    regions = _with_table(regions, _HEAD, _methods(results, "regions"))
    states = _with_table(states, _HEAD, _methods(results, "states"))
    alarms = _with_table(alarms, _ALARM_HEAD, _alarms(results))
    by_name = {
        line["method"]: line
        for line in results
        if line.get("places") == "regions" and "method" in line
    }
    lines = regions.split("\n")
    for name in _REGIONS_SHOWN:
        (at,) = (i for i, line in enumerate(lines) if line.startswith(f"- {name}: "))
        scores = by_name[name]["horizons"]["5"]["wis_of_places"]
        lines[at] = f"- {name}: {', '.join(f'{score:.3f}' for score in scores)}"
    return "".join((before, "\n".join(lines), states, alarms))


def _parts(page: str) -> tuple[str, str, str, str]:
    places = [page.find(f"\n## {title}\n") for title in ("Regions", "States", "Alarms")]
    if min(places) < 0 or places != sorted(places):
        raise ValueError(
            "the page must have the sections Regions, States and Alarms, in that order."
        )
    first, second, third = places
    return page[:first], page[first:second], page[second:third], page[third:]


def _with_table(section: str, head: str, rows: Sequence[str]) -> str:
    """The section with the rows of the table that begins with `head` replaced."""
    lines = section.split("\n")
    begin = next((i for i, line in enumerate(lines) if line.startswith(head)), None)
    if begin is None:
        raise ValueError(f"the page has no table that begins with {head!r}.")
    end = begin + 2
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    return "\n".join([*lines[: begin + 2], *rows, *lines[end:]])


def _methods(results: Sequence[Line], places: str) -> list[str]:
    own = [line for line in results if line.get("places") == places]
    (minus,) = (line["wis_minus"] for line in own if "wis_minus" in line)
    rows = []
    for line in own:
        if "method" not in line:
            continue
        horizons = [line["horizons"][h] for h in ("1", "5", "15")]
        cells = [
            line["method"],
            f"{line['rate']}" if "rate" in line else "-",
            f"{line['wis']['value']:.4f} ({line['wis']['low']:.4f} to {line['wis']['high']:.4f})",
            " / ".join(f"{h['rmse']['value']:.0f}" for h in horizons),
            " / ".join(f"{h['correlation']['value']:.3f}" for h in horizons),
            " / ".join(f"{h['coverage95']['value']:.2f}" for h in horizons),
            _difference(minus.get(line["method"])),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _difference(found: Line | None) -> str:
    if found is None:
        return "-"
    return f"{found['value']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"


def _alarms(results: Sequence[Line]) -> list[str]:
    (told,) = (line["alarms"] for line in results if "alarms" in line)
    rows = []
    for name, found in told.items():
        for alarm, rate in found["alarms_per_week"].items():
            added = [found["added"][extra][alarm] for extra in ("1.5", "2.0", "3.0")]
            cells = [
                name,
                alarm,
                f"{rate['all']:.3f}",
                f"{rate['summer']:.3f}",
                *(f"{one['found']:.2f}" for one in added),
                *(f"{one['delay']:.2f}" for one in added[:2]),
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return rows
