"""A site report in words: as a dict, in the terminal and in HTML."""

from __future__ import annotations

import html as html_escape
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

if TYPE_CHECKING:
    from fedjax_med.preprocessing.site_report import SiteReport

SUPPRESSED = -1.0
_MUCH = 0.2  # share of missing values that is worth a line


def as_dict(report: SiteReport) -> dict[str, dict[str, Any]]:
    """See `SiteReport.as_dict`."""
    sites = {}
    for i, site in enumerate(report.sites):
        columns = {}
        for j, column in enumerate(report.columns):
            unit = report.units.get((site, column))
            columns[column] = {
                "missing": _count(report.missing[i, j]),
                "outliers": _count(report.outliers[i, j]),
                "impossible": _count(report.impossible[i, j]),
                "median": None if np.isnan(report.median[i, j]) else float(report.median[i, j]),
                "constant": bool(report.constant[i, j]),
                "absent": bool(report.absent[i, j]),
                "unit": unit and unit._asdict(),
            }
        sites[site] = {"rows": _count(report.rows[i]), "columns": columns}
    return sites


def listed(report: SiteReport) -> list[tuple[str, str, str]]:
    """See `SiteReport.findings`."""
    found = []
    for i, site in enumerate(report.sites):
        for j, column in enumerate(report.columns):
            found += [(site, column, text) for text in _sentences(report, i, j)]
    return found


def _sentences(report: SiteReport, i: int, j: int) -> list[str]:
    site, column, rows = report.sites[i], report.columns[j], report.rows[i]
    if report.absent[i, j]:
        return ["no value"]
    told = []
    missing = report.missing[i, j]
    if missing != SUPPRESSED and rows != SUPPRESSED and missing > _MUCH * rows:
        told.append(f"{missing:.0f} of {rows:.0f} values are missing")
    if report.impossible[i, j]:  # NaN, where nothing is said to be impossible, is caught below
        told += _of(report.impossible[i, j], "outside of the allowed range")
    if report.outliers[i, j]:
        told += _of(report.outliers[i, j], "far from the median of all hospitals")
    unit = report.units.get((site, column))
    if unit is not None:
        told.append(f"seems to be in {unit.seems}, at the other hospitals in {unit.others}")
    if report.constant[i, j]:
        told.append("all values are the same")
    return told


def _of(count: float, what: str) -> list[str]:
    if np.isnan(count):
        return []
    many = "some values are" if count == SUPPRESSED else f"{count:.0f} values are"
    return [f"{'1 value is' if count == 1 else many} {what}"]


def _count(count: float) -> int | str | None:
    if np.isnan(count):
        return None
    return "suppressed" if count == SUPPRESSED else int(count)


def table(report: SiteReport) -> Table:
    """See `SiteReport.table`."""
    shown = Table("Hospital", "Column", "Found", title="Data of the hospitals (training rows)")
    before = None
    for site, column, text in listed(report):
        shown.add_row(site if site != before else "", column, text)
        before = site
    return shown


def html(report: SiteReport) -> str:
    """See `SiteReport.html`."""
    rows = "".join(
        "<tr>" + "".join(f"<td>{html_escape.escape(cell)}</td>" for cell in line) + "</tr>"
        for line in listed(report)
    )
    head = "<tr><th>Hospital</th><th>Column</th><th>Found</th></tr>"
    return f'<table class="site-report"><thead>{head}</thead><tbody>{rows}</tbody></table>'
