"""The report of an audit of privacy: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedjax_med.reporting import page
from fedjax_med.reporting.files import write_text

_ATTACKS = {"threshold": "Loss threshold", "lira": "LiRA"}


def write_audit_report(
    path: Path,
    result: Mapping[str, Any],
    *,
    figures: Mapping[str, str],
    configuration: Mapping[str, Any],
    versions: Mapping[str, Any],
) -> None:
    """Writes the report; see `render_audit_report`.

    Raises:
      OSError: if the file cannot be written; an older one is left as it was.
    """
    text = render_audit_report(
        result, figures=figures, configuration=configuration, versions=versions
    )
    write_text(path, text)


def render_audit_report(
    result: Mapping[str, Any],
    *,
    figures: Mapping[str, str],
    configuration: Mapping[str, Any],
    versions: Mapping[str, Any],
) -> str:
    """The report as HTML that needs nothing from elsewhere.

    Args:
      result: of `attacks.as_json`, with `dataset`, `algorithm` and `run`.
      figures: heading and `svg` element of each figure.
      configuration: option names and values of the audit.
      versions: names and versions of software and hardware.
    """
    title = f"Privacy of {result['algorithm']} on {result['dataset']}"
    bodies = {
        "Claimed and audited epsilon": _audit(result),
        "Membership inference": _membership(result),
        "Gradient inversion": _inversion(result),
        "Share of positives inferred from updates": _shares(result),
    }
    sections = []
    for heading, body in bodies.items():
        drawn = page.figure(figures[heading], heading) if heading in figures else ""
        sections.append(page.section(heading, drawn + body))
    options = ((name.replace("_", " "), page.shown(v)) for name, v in configuration.items())
    made = ((name, page.shown(value)) for name, value in versions.items())
    sections.append(page.section("Settings of the audit", page.pairs(options, "pairs two")))
    sections.append(page.section("Made with", page.pairs(made)))
    return page.page(title, _header(result, title), sections)


def sentences(result: Mapping[str, Any]) -> list[str]:
    """What was found, in words that the numbers support."""
    said = []
    claim, audit = result["claim"], result["audit"]
    if claim is None:
        said.append(
            "Nothing is claimed: this run has no differential privacy, so there is no epsilon to audit."
        )
    else:
        bound = max(audit["gdp"], audit["rates"])
        verdict = (
            "so the claim is FALSE"
            if audit["refuted"]
            else "which does not refute it, and proves nothing"
        )
        said.append(
            f"Claimed: epsilon {claim['epsilon']:.2f} at delta {claim['delta']:g}. Attacks show at "
            f"least {bound:.2f} ({100 * audit['confidence']:.0f} % confidence, {audit['num_runs']} "
            f"trainings with the canary and as many without), {verdict}."
        )
    for name, attacks in result["membership"].items():
        area = attacks["lira"]["area"]
        hits = attacks["lira"]["hits_at_1_percent"]["value"]
        tells = "tells members from others" if area["low"] > 0.5 else "does no better than chance"
        said.append(
            f"Membership inference {name} {tells}: area {area['value']:.3f} ({area['low']:.3f} to "
            f"{area['high']:.3f}), {100 * hits:.1f} % of members at 1 % false alarms."
        )
    if result["inversion"]:
        by = {row["seen"]: row["psnr"] for row in result["inversion"]}
        first, last = next(iter(by)), list(by)[-1]
        exactly = " exactly, but for rounding," if by[first] > 100 else ""
        said.append(
            f"From the {first}, records are reconstructed{exactly} at {by[first]:.0f} dB; knowing nothing "
            f"but the mean patient gives {by[last]:.0f} dB."
        )
    for name, share in result["shares"].items():
        said.append(
            f"From one update {name}, a hospital's share of positives is inferred with a mean error of "
            f"{share['error']['value']:.3f}; always guessing the mean has {share['error_of_guessing']:.3f}."
        )
    return said


def _header(result: Mapping[str, Any], title: str) -> str:
    first, *others = sentences(result)
    css = "warning" if result["audit"] and result["audit"]["refuted"] else "lead"
    said = "".join(f"<li>{page.text(sentence)}</li>" for sentence in others)
    return (
        f"<h1>{page.text(title)}</h1>"
        f'<p class="muted">Audit of {page.text(result["run"])} &middot; models trained again from its '
        f'configuration</p><p class="{css}">{page.text(first)}</p><ul>{said}</ul>'
    )


def _audit(result: Mapping[str, Any]) -> str:
    claim, audit = result["claim"], result["audit"]
    if claim is None:
        return (
            '<p class="note">Nothing is claimed. With a protection to be tried (--epsilon) it is audited '
            "here.</p>"
        )
    return (
        f"<p>{page.text(claim['statement'])}</p>"
        + page.pairs(
            [
                ("claimed epsilon", f"{claim['epsilon']:.3f}"),
                ("lower bound for Gaussian mechanisms", f"{audit['gdp']:.3f}"),
                ("lower bound for any mechanism", f"{audit['rates']:.3f}"),
                ("confidence", f"{audit['confidence']:g}"),
            ]
        )
        + '<p class="note">A canary is a record or hospital whose gradient is a known direction, clipped '
        "and noised like any other. A bound above the claim refutes it; one below may be a weak attack. "
        "The Gaussian bound assumes that the trade-off between false alarms and misses is that of Gaussian "
        "noise.</p>"
    )


def _membership(result: Mapping[str, Any]) -> str:
    if not result["membership"]:
        return '<p class="note">Not tried: for classes and numbers only.</p>'
    rows = []
    for name, attacks in result["membership"].items():
        for attack, found in attacks.items():
            cells = f"<td>{_estimate(found['area'])}</td><td>{_estimate(found['hits_at_1_percent'])}</td>"
            rows.append(
                f'<tr><th scope="row">{_ATTACKS[attack]}, {page.text(name)}</th>{cells}</tr>'
            )
    return _table(["Attack", "area under the curve", "members found at 1 % false alarms"], rows) + (
        '<p class="note">Shadow models are trained on random halves of every hospital&rsquo;s patients; each '
        "is attacked with the help of the others. 95&nbsp;% intervals over patients (bootstrap). An area "
        "of 0.5 and 0.01 members found are chance.</p>"
    )


def _inversion(result: Mapping[str, Any]) -> str:
    if not result["inversion"]:
        return '<p class="note">Not tried: for tables, images, signals and volumes without gaps only.</p>'
    rows = [
        f'<tr><th scope="row">{page.text(row["seen"])}</th><td>{row["psnr"]:.1f}</td></tr>'
        for row in result["inversion"]
    ]
    return _table(["What the attacker sees", "PSNR [dB], median"], rows) + (
        '<p class="note">In the first round. Of sums, the median over the records in them. '
        "The figure shows records of single patients: do not pass it on where data are "
        "not public.</p>"
    )


def _shares(result: Mapping[str, Any]) -> str:
    if not result["shares"]:
        return '<p class="note">Not tried: for outcomes 0 and 1 only.</p>'
    rows = [
        f'<tr><th scope="row">{page.text(name)}</th><td>{_estimate(share["error"])}</td>'
        f"<td>{page.number(share['error_of_guessing'])}</td></tr>"
        for name, share in result["shares"].items()
    ]
    return _table(["Update", "mean absolute error", "always guessing the mean"], rows) + (
        '<p class="note">A ridge regression on updates of shadow hospitals, judged on others.</p>'
    )


def _estimate(found: Mapping[str, float]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _table(head: list[str], rows: list[str]) -> str:
    cells = "".join(f'<th scope="col">{page.text(name)}</th>' for name in head)
    return (
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
