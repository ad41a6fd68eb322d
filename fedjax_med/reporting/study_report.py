"""The report of a study: one self-contained HTML file, without data of single patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedjax_med.evaluation import metric_title
from fedjax_med.reporting import page
from fedjax_med.reporting.files import write_text
from fedjax_med.reporting.report import data_section

_METHODS_EXPLAINED = {
    "site_rate": "no model: the share of each diagnosis (or the mean outcome) among the hospital's own "
    "training patients; equal risks for survival",
    "local": "each hospital trains a model on its own patients and shares nothing",
    "best_site": "the one model of these that is best for all hospitals' training patients, used "
    "everywhere",
    "pooled": "one model trained on the patients of all hospitals in one place, which privacy often "
    "forbids",
}
_METRICS_EXPLAINED = {
    "auroc": "area under the ROC curve: the probability that a patient with the condition is ranked "
    "above one without",
    "auprc": "area under the precision-recall curve (average precision)",
    "c_index": "concordance: of two patients, how often the one with the earlier event has the higher "
    "predicted risk (Harrell)",
    "uno_c": "concordance weighted for censoring (Uno)",
    "brier": "mean squared error of predicted probabilities, lower is better",
    "ece": "expected calibration error, lower is better",
    "rmse": "root mean squared error in the units of the outcome, lower is better",
    "mae": "mean absolute error in the units of the outcome, lower is better",
    "r2": "share of the variance that is explained",
    "mrr": "mean reciprocal rank: 1 if the right answer always comes first, 0.5 if always second",
    "hits@10": "share of the questions whose right answer is among the first ten",
    "wis": "weighted interval score of logarithms, lower is better: it punishes intervals that are wide "
    "and those that miss what came",
    "precision@5": "of the five drugs recommended, the share that is among the five that work best",
    "spearman": "correlation of the ranks of patients, mean over drugs",
    "r2_within": "squared correlation of score and outcome within hospitals",
}


def write_study_report(
    path: Path,
    result: Mapping[str, Any],
    *,
    figures: Mapping[str, str],
    versions: Mapping[str, Any],
) -> None:
    """Writes the report; see `render_study_report`.

    Raises:
      OSError: if the file cannot be written; an older one is left as it was.
    """
    write_text(path, render_study_report(result, figures=figures, versions=versions))


def render_study_report(
    result: Mapping[str, Any], *, figures: Mapping[str, str], versions: Mapping[str, Any]
) -> str:
    """The report as HTML that needs nothing from elsewhere.

    Args:
      result: from `studies.summarise`.
      figures: heading and `svg` element of each figure beside those of the tables.
      versions: names and versions of software and hardware.
    """
    main = result["main_metric"]
    title = f"Study of {result['dataset']['name']}"
    others = [m for m in _first(result["methods"])["metrics"] if m != main]
    sections = [
        page.section(f"{metric_title(main)} of every method", _main_section(result, figures)),
        page.section("Hospital by hospital", _hospitals(result)),
        *_asked_for(
            "Hospitals that took no part in training", result["left_out"], _left_out(result)
        ),
        page.section("Other metrics", "".join(_metric_table(result, m) for m in others)),
        *(
            page.section(heading, page.figure(svg, heading))
            for heading, svg in figures.items()
            if heading != "overview"
        ),
        *_asked_for("Subgroups", result["details"], _subgroups(result)),
        page.section(
            "The data",
            data_section(
                result["dataset"], result["dataset"]["clients"], result["about"]["examples"]
            ),
        ),
        page.section("Settings", page.pairs(_settings(result), "pairs two")),
        page.section("Made with", page.pairs((k, page.shown(v)) for k, v in versions.items())),
    ]
    return page.page(title, _header(result, title), sections)


def _header(result: Mapping[str, Any], title: str) -> str:
    main = result["main_metric"]
    cards = []
    for name, method in result["methods"].items():
        css = "card main" if name == result["chosen"] else "card"
        value = page.number(method["metrics"][main]["mean"]["value"])
        cards.append(f'<div class="{css}"><b>{value}</b>{page.text(method["title"])}</div>')
    first, *others = result["sentences"]
    said = "".join(f"<li>{page.text(sentence)}</li>" for sentence in others)
    return (
        f"<h1>{page.text(title)}</h1>"
        f'<p class="muted">Simulated federated learning &middot; {page.text(result["about"]["divided"])}</p>'
        f'<p class="lead">{page.text(first)}</p><ul>{said}</ul>'
        f'<div class="cards">{"".join(cards)}</div>'
        f'<p class="muted">{page.text(metric_title(main))}: mean over hospitals, each counted once.</p>'
    )


def _main_section(result: Mapping[str, Any], figures: Mapping[str, str]) -> str:
    main = result["main_metric"]
    told = {
        method["title"]: method.get("explained") or _METHODS_EXPLAINED.get(name)
        for name, method in result["methods"].items()
    }
    explained = "".join(
        f"<dt>{page.text(title)}</dt><dd>{page.text(words)}</dd>"
        for title, words in told.items()
        if words
    )
    overview = figures.get("overview")
    return (
        (page.figure(overview, f"{metric_title(main)} of every method") if overview else "")
        + _metric_table(result, main, with_choice=True)
        + f'<dl class="pairs">{explained}</dl>'
        + f'<p class="note">{page.text(result["about"]["how"])}</p>'
    )


def _metric_table(result: Mapping[str, Any], metric: str, with_choice: bool = False) -> str:
    rows = []
    head = ["mean over hospitals", f"all {result['about']['examples']}", "worst hospital"]
    head.append("sd over seeds")
    if with_choice:
        head += [
            result["about"].get("numbers", "learning rate or ridge"),
            "chosen method minus this",
            "p",
        ]
    for name, method in result["methods"].items():
        found = method["metrics"][metric]
        if not with_choice and found["pooled"]["value"] is None:
            continue
        worst = found["worst"]
        whose = f' <span class="muted">{page.text(worst["hospital"] or "")}</span>'
        cells = [
            _estimate(found["mean"]),
            _estimate(found["pooled"]),
            page.number(worst["value"]) + whose * bool(worst["hospital"]),
            page.number(found["over_seeds"]),
        ]
        if with_choice:
            rate = result["numbers"].get(name)
            cells += ["&ndash;" if rate is None else f"{rate:g}", *_comparison(result, name)]
        css = ' class="total"' if name == result["chosen"] else ""
        body = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr{css}><th scope="row">{page.text(method["title"])}</th>{body}</tr>')
    about = _METRICS_EXPLAINED.get(metric)
    note = f'<p class="note">{page.text(about[0].upper() + about[1:])}.</p>' if about else ""
    heading = "" if with_choice else f"<h3>{page.text(metric_title(metric))}</h3>"
    return heading + note + _table(["Method", *head], rows)


def _comparison(result: Mapping[str, Any], name: str) -> tuple[str, str]:
    found = result["comparisons"].get(name)
    if found is None:
        return "", ""
    difference, low, high, p_value = (
        found[key] for key in ("difference", "low", "high", "p_value")
    )
    if difference is None:
        return "&ndash;", "&ndash;"
    between = "" if low is None else f" ({low:+.3f} to {high:+.3f})"
    return f"{difference:+.3f}{between}", "&ndash;" if p_value is None else f"{p_value:.2g}"


def _hospitals(result: Mapping[str, Any]) -> str:
    main, methods = result["main_metric"], result["methods"]
    rows = [
        f'<tr><th scope="row">{page.client(client["name"], index)}</th>'
        + f"<td>{_patients(client):,}</td>"
        + "".join(
            f"<td>{page.number(m['metrics'][main]['per_hospital'][client['name']])}</td>"
            for m in methods.values()
        )
        + "</tr>"
        for index, client in enumerate(result["dataset"]["clients"])
    ]
    titles = [page.text(method["title"]) for method in methods.values()]
    return _table(["Hospital", result["about"]["examples"], *titles], rows) + (
        f'<p class="note">{page.text(metric_title(main))}, the mean of all trainings; a dash where it is '
        "not defined, as where all test patients have the same outcome.</p>"
    )


def _asked_for(title: str, found: Mapping[str, Any], body: str) -> list[str]:
    """A section of something that not every study looks at."""
    return [page.section(title, body)] if found else []


def _left_out(result: Mapping[str, Any]) -> str:
    main, found = result["main_metric"], result["left_out"]
    titles = [page.text(result["methods"][name]["title"]) for name in found]
    rows = []
    for index, client in enumerate(result["dataset"]["clients"]):
        cells = "".join(
            f"<td>{_estimate(judged['per_hospital'][client['name']]['metrics'][main])}</td>"
            for judged in found.values()
        )
        rows.append(f'<tr><th scope="row">{page.client(client["name"], index)}</th>{cells}</tr>')
    for label, estimate_of in (
        ("Mean of the hospitals", lambda judged: judged["mean"][main]),
        ("All patients", lambda judged: judged["pooled"]["metrics"][main]),
    ):
        cells = "".join(f"<td>{_estimate(estimate_of(judged))}</td>" for judged in found.values())
        rows.append(f'<tr class="total"><th scope="row">{label}</th>{cells}</tr>')
    return _table(["Hospital", *titles], rows) + (
        f'<p class="note">{page.text(metric_title(main))} of models, and preprocessing, of all other '
        "hospitals, for all patients of the one left out; bootstrap intervals over patients.</p>"
    )


def _subgroups(result: Mapping[str, Any]) -> str:
    main = result["main_metric"]
    judged = result["details"].get(result["chosen"])
    if not judged or not judged["subgroups"]:
        return '<p class="note">The table has no column for sex, age or race.</p>'
    rows = []
    for attribute, groups in judged["subgroups"].items():
        for name, group in groups.items():
            label = page.text(f"{attribute}: {name}")
            cells = f"<td>{group['patients']:,}</td><td>{_estimate(group['metrics'][main])}</td>"
            rows.append(f'<tr><th scope="row">{label}</th>{cells}</tr>')
    title = result["methods"][result["chosen"]]["title"]
    return _table(["Patients", "in the test set", page.text(title)], rows) + (
        f'<p class="note">{page.text(metric_title(main))} on the test patients of the first split; bootstrap '
        "intervals over patients. Small groups say little.</p>"
    )


def _settings(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown = [(k.replace("_", " "), page.shown(v)) for k, v in result["settings"].items()]
    total = result["seconds"].get("total", 0.0)
    return [*shown, ("time of all trainings", f"{total:,.0f} s")]


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    return (
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _estimate(found: Mapping[str, float | None]) -> str:
    return f'{page.number(found["value"])} <span class="muted">{_interval(found)}</span>'


def _interval(found: Mapping[str, float | None]) -> str:
    low, high = found["low"], found["high"]
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _patients(client: Mapping[str, Any]) -> int:
    return sum(client[split] or 0 for split in ("train", "validation", "test"))


def _first(methods: Mapping[str, Any]) -> Any:
    return next(iter(methods.values()))
