"""The report of a run: one self-contained HTML file, without data of single patients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedjax_med.reporting import page, words
from fedjax_med.reporting.baselines import wilson_interval
from fedjax_med.reporting.files import write_text
from fedjax_med.reporting.palette import LABELS
from fedjax_med.reporting.performance_section import performance_section
from fedjax_med.reporting.preprocessing_section import preprocessing_section
from fedjax_med.reporting.summary import METHODS, best_methods, best_of, shown_clients, value_of

# Below this, a share moves by more than 3 % when one patient is judged differently.
_FEW_PATIENTS = 30


def write_report(
    path: Path,
    result: Mapping[str, Any],
    *,
    configuration: Mapping[str, Any],
    versions: Mapping[str, Any],
) -> None:
    """Writes the report of a result; see `render_report`.

    Raises:
      OSError: if the file cannot be written; an older one is left as it was.
    """
    text = render_report(result, configuration=configuration, versions=versions)
    write_text(path, text)


def render_report(
    result: Mapping[str, Any],
    *,
    configuration: Mapping[str, Any],
    versions: Mapping[str, Any],
) -> str:
    """The report as HTML that needs nothing from elsewhere.

    Args:
      result: from `summarise`.
      configuration: option names and values, JSON-able.
      versions: names and versions of software and hardware.
    """
    from fedjax_med.reporting import figures

    title = f"{result['algorithm']} on {result['dataset']['name']}"
    sections = [
        page.section("Learning curves", _curves(result, figures.learning_curves(result))),
        page.section("Final results", _finals(result, figures.final_metrics(result))),
        page.section(
            "The data",
            data_section(result["dataset"], result["clients"], words.examples(result["kind"])),
        ),
        *(
            [page.section("Preprocessing", preprocessing_section(result["preprocessing"]))]
            if result["preprocessing"]
            else []
        ),
        *(
            [page.section("Privacy", f"<p>{page.text(result['privacy']['statement'])}</p>")]
            if result.get("privacy")
            else []
        ),
        page.section("Time and use of the machine", performance_section(result)),
        page.section("Configuration", page.pairs(_options(configuration), "pairs two")),
        page.section("Made with", page.pairs((k, page.shown(v)) for k, v in versions.items())),
    ]
    return page.page(title, _header(result, title), sections)


def _header(result: Mapping[str, Any], title: str) -> str:
    metric = result["main_metric"]
    count = sum(client["test"] for client in result["clients"])
    cards = []
    for method, name in METHODS.items():
        if method in result["final"]:
            css = "card main" if method == "federated" else "card"
            value = page.number(value_of(result, method, metric, None))
            cards.append(f'<div class="{css}"><b>{value}</b>{page.text(name)}</div>')
    when = result["started"].replace("T", " ").replace("+00:00", " UTC")
    return (
        f"<h1>{page.text(title)}</h1>"
        f'<p class="muted">Simulated federated learning &middot; {page.text(when)}</p>'
        f'<p class="lead">{_plain_summary(result)}</p>'
        f'<div class="cards">{"".join(cards)}</div>'
        f'<p class="muted">{page.text(words.metric_heading(metric))} over all {count:,} test '
        f"{words.examples(result['kind'])}{_direction(result, metric)}.</p>"
        + (f'<p class="note">{page.text(result["note"])}</p>' if result.get("note") else "")
    )


def _direction(result: Mapping[str, Any], metric: str) -> str:
    return "" if result["higher_is_better"][metric] else "; lower is better"


def _plain_summary(result: Mapping[str, Any]) -> str:
    """The outcome in sentences."""
    metric = result["main_metric"]
    clients = result["clients"]
    count = sum(client["test"] for client in clients)
    value = value_of(result, "federated", metric, None)
    rounds = result["rounds"]
    text = (
        f"Federated model: {page.text(words.metric_words(metric))} <strong>{page.number(value)}</strong> over {count:,} test "
        f"{words.examples(result['kind'])} of {len(clients):,} hospitals"
    )
    if words.has_wilson_interval(result, metric) and value is not None:
        low, high = wilson_interval(value, count)
        text += f" (95&nbsp;% interval {low:.2f} to {high:.2f})"
    text += f", after {rounds:,} round{'s' * (rounds != 1)}."
    worst = result["final"]["federated"]["worst"][metric]
    if len(clients) > 1 and worst["client"] is not None:
        mean = result["final"]["federated"]["mean"][metric]
        text += (
            f" The mean over the hospitals is {page.number(mean)}; the worst served, "
            f"{page.text(worst['client'])}, has {page.number(worst['value'])}."
        )
    compared = []
    for method, sentence in (
        ("local_only", "each hospital alone reaches"),
        ("pooled", f"training on all {words.examples(result['kind'])} pooled gives"),
        ("no_model", f"{words.no_model(result['kind'])} gives"),
    ):
        other = value_of(result, method, metric, None) if method in result["final"] else None
        if other is not None:
            compared.append(f"{sentence} {page.number(other)}")
    if compared:
        sentence = "; ".join(compared)
        text += f" {sentence[0].upper()}{sentence[1:]}."
    if "local_only" in result["final"]:
        at_least = judged = 0
        for client in clients:
            own = value_of(result, "local_only", metric, client["name"])
            shared = value_of(result, "federated", metric, client["name"])
            if own is None or shared is None:
                continue
            judged += 1
            higher = result["higher_is_better"][metric]
            at_least += shared >= own if higher else shared <= own
        text += (
            f" The federated model is at least as good as training alone in {at_least:,} of "
            f"{judged:,} hospitals."
        )
    return text


def _curves(result: Mapping[str, Any], svg: str) -> str:
    rounds = result["curves"]["rounds"]
    _, hidden = shown_clients(result)
    lines = "the band holds 80 % of the clients" if hidden else "thin lines are single hospitals"
    excluded = ""
    if result["excluded"]:
        first, count = result["excluded"][0], len(result["excluded"])
        updates = "1 update was" if count == 1 else f"{count:,} updates were"
        excluded = (
            f'<p class="warning">{updates} left out as not finite; '
            f"the first in round {first['round']:,} from "
            f"{page.text(first['client'])}. A smaller learning rate usually helps.</p>"
        )
    return (
        f"{excluded}{page.figure(svg, 'Learning curves of the federated model on test examples')}"
        f'<p class="note">The federated model, judged {len(rounds):,} times on {words.examples(result["kind"])} it was '
        f"not trained on. The thick line is over all of them; {lines}.</p>"
    )


def _finals(result: Mapping[str, Any], svg: str) -> str:
    metric = result["main_metric"]
    methods = [name for name in METHODS if name in result["final"]]
    others = [name for name in result["higher_is_better"] if name != metric]
    explained = "".join(
        f"<dt>{page.text(METHODS[name])}</dt>"
        f"<dd>{page.text(words.method_explained(name, result['kind']))}</dd>"
        for name in methods
    )
    note = ""
    few = [c["name"] for c in result["clients"] if c["test"] < _FEW_PATIENTS]
    if few:
        moves = (
            "a single patient moves these values by more than 3&nbsp;%, so differences"
            if words.is_share(metric)
            else "differences"
        )
        note = (
            f'<p class="note">&dagger; Fewer than {_FEW_PATIENTS} test {words.examples(result["kind"])}: {moves} there say '
            "little.</p>"
        )
    chance = (
        " Differences well inside the 95&nbsp;% interval may be chance."
        * words.has_wilson_interval(result, metric)
    )
    return (
        f'<dl class="pairs">{explained}</dl>'
        f"{page.figure(svg, f'Final {words.metric_words(metric)} of every hospital beside the baselines')}"
        f"{_metric_table(result, metric, methods)}{note}"
        f'<p class="note">Best values of a row are highlighted, ties included.{chance}</p>'
        f'<div class="grid">{"".join(_metric_table(result, m, methods) for m in others)}</div>'
    )


def _metric_table(result: Mapping[str, Any], metric: str, methods: list[str]) -> str:
    shown, hidden = shown_clients(result)
    names = [client["name"] for client in result["clients"]]
    head = "".join(f'<th scope="col">{page.text(METHODS[name])}</th>' for name in methods)
    main = metric == result["main_metric"]
    with_interval = main and words.has_wilson_interval(result, metric)
    if main:
        head = f'<th scope="col">test {words.examples(result["kind"])}</th>' + head
    if with_interval:
        head += '<th scope="col">95&nbsp;% interval, federated</th>'
    rows = []
    for client in [*shown, None]:
        name = None if client is None else client["name"]
        count = sum(c["test"] for c in result["clients"]) if client is None else client["test"]
        best = best_methods(result, metric, name)
        few = " &dagger;" if name is not None and count < _FEW_PATIENTS else ""
        cells = f"<td>{count:,}{few}</td>" * main
        for method in methods:
            css = ' class="best"' if method in best else ""
            cells += f"<td{css}>{page.number(value_of(result, method, metric, name))}</td>"
        if with_interval:
            cells += f"<td>{_interval(value_of(result, 'federated', metric, name), count)}</td>"
        label = (
            f"All {words.examples(result['kind'])}"
            if name is None
            else page.client(name, names.index(name))
        )
        css = ' class="total"' if name is None else ""
        rows.append(f'<tr{css}><th scope="row">{label}{few * (not main)}</th>{cells}</tr>')
    if len(names) > 1:
        rows += _rows_over_hospitals(result, metric, methods, before=main, after=with_interval)
    more = f'<p class="note">The {hidden:,} smaller clients are in result.json.</p>' * bool(hidden)
    explained = words.explained(metric, result["kind"])
    about = ""
    if explained:
        about = f'<p class="note">{page.text(explained[0].upper() + explained[1:])}.</p>'
    return (
        f"<section><h3>{page.text(words.metric_heading(metric))}</h3>{about}"
        f'<div class="scroll"><table><thead><tr><th scope="col">Hospital</th>'
        f"{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>{more}</section>"
    )


def _rows_over_hospitals(
    result: Mapping[str, Any], metric: str, methods: list[str], *, before: bool, after: bool
) -> list[str]:
    """The mean over hospitals and the worst of them; empty cells where other rows have more."""
    final, higher = result["final"], result["higher_is_better"][metric]
    nothing = {"client": None, "value": None}  # a baseline may not have every metric
    worst = {name: final[name]["worst"].get(metric, nothing) for name in methods}
    rows = []
    for label, values, named in (
        ("Mean of the hospitals", {n: final[n]["mean"].get(metric) for n in methods}, False),
        ("Worst hospital", {n: worst[n]["value"] for n in methods}, True),
    ):
        best = best_of(values, higher)
        cells = "<td></td>" * before
        for name in methods:
            css = ' class="best"' if name in best else ""
            client = worst[name]["client"]
            who = f'<br><span class="muted">{page.text(client)}</span>' if named and client else ""
            cells += f"<td{css}>{page.number(values[name])}{who}</td>"
        cells += "<td></td>" * after
        rows.append(f'<tr><th scope="row">{label}</th>{cells}</tr>')
    return rows


def _interval(share: float | None, count: int) -> str:
    if share is None:
        return "&ndash;"
    low, high = wilson_interval(share, count)
    return f"{low:.2f} to {high:.2f}"


def data_section(
    data: Mapping[str, Any], clients: Sequence[Mapping[str, Any]], examples: str = "patients"
) -> str:
    """Patients and outcomes of every hospital, and where the data is from.

    Args:
      data: licence, source and citation; may have the `outcome` of everybody.
      clients: of `FederatedDataset.summary`; may have the `outcome` of each.
      examples: what they are called.
    """
    shown, hidden = shown_clients({"clients": clients})
    names = [client["name"] for client in clients]
    labels = list(clients[0].get("label_counts", {}))
    splits = [s for s in ("train", "validation", "test") if any(c[s] for c in clients)]
    head = "".join(f'<th scope="col">{s}</th>' for s in splits)
    head += "".join(f'<th scope="col">{page.text(label)}</th>' for label in labels)
    head += '<th scope="col">mix of outcomes</th>' * bool(labels)
    told = data.get("outcome") or {}
    head += "".join(f'<th scope="col">{page.text(name)}</th>' for name in told)
    rows = []
    for client in shown:
        cells = "".join(f"<td>{client[s]:,}</td>" for s in splits)
        cells += "".join(f"<td>{client['label_counts'][label]:,}</td>" for label in labels)
        if labels:
            cells += f"<td>{_mix(client['label_counts'])}</td>"
        cells += "".join(_told(client["outcome"][name]) for name in told)
        label = page.client(client["name"], names.index(client["name"]))
        rows.append(f'<tr><th scope="row">{label}</th>{cells}</tr>')
    total = "".join(f"<td>{sum(c[s] for c in clients):,}</td>" for s in splits)
    counts = {k: sum(c["label_counts"][k] for c in clients) for k in labels}
    total += "".join(f"<td>{counts[label]:,}</td>" for label in labels)
    total += f"<td>{_mix(counts)}</td>" * bool(labels)
    total += "".join(_told(value) for value in told.values())
    rows.append(f'<tr class="total"><th scope="row">All {examples}</th>{total}</tr>')
    legend = "".join(
        f"<li>{page.swatch(LABELS[i % len(LABELS)])}{page.text(label)}</li>"
        for i, label in enumerate(labels)
    )
    more = f'<p class="note">And {hidden:,} smaller clients.</p>' * bool(hidden)
    about = [(k, data[k]) for k in ("licence", "source", "citation") if data[k]]
    return (
        f'<div class="scroll"><table><thead><tr><th scope="col">Hospital</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{more}"
        + (f'<ul class="legend">{legend}</ul>' if legend else "")
        + page.pairs(about)
    )


def _told(value: int | float) -> str:
    """A cell with a number of patients, or with a quantity."""
    return f"<td>{value:,}</td>" if isinstance(value, int) else f"<td>{page.number(value)}</td>"


def _mix(counts: Mapping[str, int]) -> str:
    total = sum(counts.values()) or 1
    parts = "".join(
        f'<span style="width:{100 * n / total:.2f}%;background:{LABELS[i % len(LABELS)]}"></span>'
        for i, n in enumerate(counts.values())
    )
    words = ", ".join(f"{100 * n / total:.0f} % {label}" for label, n in counts.items())
    return f'<span class="bar mix" role="img" aria-label="{page.text(words)}">{parts}</span>'


def _options(configuration: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    return ((name.replace("_", " "), page.shown(value)) for name, value in configuration.items())
