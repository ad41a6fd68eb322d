"""The report of a run: one self-contained HTML file, without data of single patients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedjax_med.reporting import page
from fedjax_med.reporting.baselines import wilson_interval
from fedjax_med.reporting.files import write_text
from fedjax_med.reporting.palette import LABELS
from fedjax_med.reporting.summary import METHODS, best_methods, best_of, shown_clients, value_of

# Below this, a share moves by more than 3 % when one patient is judged differently.
_FEW_PATIENTS = 30

_EXPLAINED = {
    "majority": "no model: always the diagnosis most frequent among the hospital's own training "
    "patients",
    "local_only": "each hospital trains a model on its own patients and shares nothing",
    "best_site": "the one model of these that is best for all hospitals' training patients, used "
    "everywhere",
    "federated": "the shared model of this run; patients never leave their hospital",
    "pooled": "one model trained on the patients of all hospitals in one place, which privacy "
    "often forbids",
}
_METRICS_EXPLAINED = {
    "accuracy": "share of patients classified correctly",
    "sensitivity": "share of the patients with the condition who are found",
    "specificity": "share of the patients without it who are left alone",
    "loss": "mean logarithmic loss in nats, lower is better; it also judges probabilities",
}
_TIMES = {  # key in the timings: words, colour
    "compile_s": ("compiling", "#0072B2"),
    "run_s": ("federated rounds", "#009E73"),
    "evaluate_s": ("evaluation", "#E69F00"),
    "checkpoint_s": ("checkpoints", "#CC79A7"),
}


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
        page.section("The data", data_section(result["dataset"], result["clients"])),
        page.section("Time and use of the machine", _performance(result)),
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
        f'<p class="muted">{page.text(metric.capitalize())} over all {count:,} test patients.</p>'
    )


def _plain_summary(result: Mapping[str, Any]) -> str:
    """The outcome in sentences."""
    metric = result["main_metric"]
    clients = result["clients"]
    count = sum(client["test"] for client in clients)
    value = value_of(result, "federated", metric, None)
    rounds = result["rounds"]
    text = (
        f"Federated model: {metric} <strong>{page.number(value)}</strong> over {count:,} test "
        f"patients of {len(clients):,} hospitals"
    )
    if metric == "accuracy" and value is not None:
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
    for method, words in (
        ("local_only", "each hospital alone reaches"),
        ("pooled", "training on all patients pooled"),
        ("majority", "always predicting the hospital's most frequent diagnosis"),
    ):
        other = method in result["final"] and value_of(result, method, metric, None)
        if other:
            compared.append(f"{words} {page.number(other)}")
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
        f"{excluded}{page.figure(svg, 'Learning curves of the federated model on test patients')}"
        f'<p class="note">The federated model, judged {len(rounds):,} times on patients it was not '
        f"trained on. The thick line is over all patients; {lines}.</p>"
    )


def _finals(result: Mapping[str, Any], svg: str) -> str:
    metric = result["main_metric"]
    methods = [name for name in METHODS if name in result["final"]]
    others = [name for name in result["higher_is_better"] if name != metric]
    explained = "".join(
        f"<dt>{page.text(METHODS[name])}</dt><dd>{page.text(_EXPLAINED[name])}</dd>"
        for name in methods
    )
    note = ""
    few = [c["name"] for c in result["clients"] if c["test"] < _FEW_PATIENTS]
    if few:
        note = (
            f'<p class="note">&dagger; Fewer than {_FEW_PATIENTS} test patients: a single patient '
            "moves these values by more than 3&nbsp;%, so differences there say little.</p>"
        )
    return (
        f'<dl class="pairs">{explained}</dl>'
        f"{page.figure(svg, f'Final {metric} of every hospital beside the baselines')}"
        f"{_metric_table(result, metric, methods)}{note}"
        '<p class="note">Best values of a row are highlighted, ties included. Differences well '
        "inside the 95&nbsp;% interval may be chance.</p>"
        f'<div class="grid">{"".join(_metric_table(result, m, methods) for m in others)}</div>'
    )


def _metric_table(result: Mapping[str, Any], metric: str, methods: list[str]) -> str:
    shown, hidden = shown_clients(result)
    names = [client["name"] for client in result["clients"]]
    head = "".join(f'<th scope="col">{page.text(METHODS[name])}</th>' for name in methods)
    main = metric == result["main_metric"]
    with_interval = metric == "accuracy"
    if main:
        head = '<th scope="col">test patients</th>' + head
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
        label = "All patients" if name is None else page.client(name, names.index(name))
        css = ' class="total"' if name is None else ""
        rows.append(f'<tr{css}><th scope="row">{label}{few * (not main)}</th>{cells}</tr>')
    if len(names) > 1:
        rows += _rows_over_hospitals(result, metric, methods, before=main, after=with_interval)
    more = f'<p class="note">The {hidden:,} smaller clients are in result.json.</p>' * bool(hidden)
    explained = _METRICS_EXPLAINED.get(metric)
    about = f'<p class="note">{page.text(explained.capitalize())}.</p>' if explained else ""
    return (
        f"<section><h3>{page.text(metric.capitalize())}</h3>{about}"
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


def data_section(data: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> str:
    """Patients and diagnoses of every hospital, and where the data is from.

    Args:
      data: licence, source and citation.
      clients: of `FederatedDataset.summary`.
    """
    shown, hidden = shown_clients({"clients": clients})
    names = [client["name"] for client in clients]
    labels = list(clients[0].get("label_counts", {}))
    splits = [s for s in ("train", "validation", "test") if any(c[s] for c in clients)]
    head = "".join(f'<th scope="col">{s}</th>' for s in splits)
    head += "".join(f'<th scope="col">{page.text(label)}</th>' for label in labels)
    head += '<th scope="col">mix of diagnoses</th>' * bool(labels)
    rows = []
    for client in shown:
        cells = "".join(f"<td>{client[s]:,}</td>" for s in splits)
        cells += "".join(f"<td>{client['label_counts'][label]:,}</td>" for label in labels)
        if labels:
            cells += f"<td>{_mix(client['label_counts'])}</td>"
        label = page.client(client["name"], names.index(client["name"]))
        rows.append(f'<tr><th scope="row">{label}</th>{cells}</tr>')
    total = "".join(f"<td>{sum(c[s] for c in clients):,}</td>" for s in splits)
    counts = {k: sum(c["label_counts"][k] for c in clients) for k in labels}
    total += "".join(f"<td>{counts[label]:,}</td>" for label in labels)
    total += f"<td>{_mix(counts)}</td>" * bool(labels)
    rows.append(f'<tr class="total"><th scope="row">All patients</th>{total}</tr>')
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


def _mix(counts: Mapping[str, int]) -> str:
    total = sum(counts.values()) or 1
    parts = "".join(
        f'<span style="width:{100 * n / total:.2f}%;background:{LABELS[i % len(LABELS)]}"></span>'
        for i, n in enumerate(counts.values())
    )
    words = ", ".join(f"{100 * n / total:.0f} % {label}" for label, n in counts.items())
    return f'<span class="bar mix" role="img" aria-label="{page.text(words)}">{parts}</span>'


def _performance(result: Mapping[str, Any]) -> str:
    speed = result["performance"]
    timings = speed["timings_s"]
    total = timings["total_s"]
    known = {words: (timings[key], colour) for key, (words, colour) in _TIMES.items()}
    rest = max(0.0, total - sum(seconds for seconds, _ in known.values()))
    known["preparing and other"] = (rest, "#9aa5b1")
    parts = "".join(
        f'<span style="width:{100 * seconds / total:.2f}%;background:{colour}" '
        f'title="{page.text(words)}"></span>'
        for words, (seconds, colour) in known.items()
    )
    legend = "".join(
        f"<li>{page.swatch(colour)}{page.text(words)} {_seconds(seconds)} "
        f"({100 * seconds / total:.0f}&nbsp;%)</li>"
        for words, (seconds, colour) in known.items()
    )
    before = speed["rounds_before"]
    resumed = (
        f'<p class="note">This run was resumed after {before:,} rounds; times are of the rest.</p>'
        * bool(before)
    )
    fraction = speed["useful_fraction"]
    useful = '<p class="note">No rounds were left to run, so it was not measured.</p>'
    if fraction is not None:
        useful = (
            '<div class="bar" role="img" '
            f'aria-label="{100 * fraction:.0f} % useful">'
            f'<span style="width:{100 * fraction:.2f}%;background:#009E73"></span></div>'
            f'<ul class="legend"><li>{page.swatch("#009E73")}training a hospital '
            f"{100 * fraction:.1f}&nbsp;%</li><li>{page.swatch('#e4e7eb')}waiting for the longest lane "
            f"{100 * (1 - fraction):.1f}&nbsp;%</li></ul>"
        )
    per_round = speed["seconds_per_round_median"]
    memory = speed["memory_bytes"]
    facts = [
        ("time per round, median", "not measured" if per_round is None else _seconds(per_round)),
        ("devices", speed["placement"]),
        ("lanes per device", f"{speed['lanes']:,}"),
    ]
    if memory:
        needed = memory.get("arguments", 0) + memory.get("temporaries", 0)
        facts.append(("memory of the training program", f"{_bytes(needed)} per device"))
    return (
        f'<div class="grid"><section><h3>Time split: {_seconds(total)} in all</h3>'
        f'<div class="bar" role="img" aria-label="time split">{parts}</div>'
        f'<ul class="legend">{legend}</ul>{resumed}</section>'
        f"<section><h3>Useful fraction of the lanes</h3>{useful}</section></div>"
        f'{page.pairs(facts)}<p class="note">Baselines are not included.</p>'
    )


def _options(configuration: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    return ((name.replace("_", " "), page.shown(value)) for name, value in configuration.items())


def _seconds(seconds: float) -> str:
    if seconds >= 100:
        return f"{seconds / 60:,.1f} min"
    if seconds >= 0.1:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    return f"{1000 * seconds:.2g} ms"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"
