"""The table at the end of a run."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedjax_med.reporting import words
from fedjax_med.reporting.summary import METHODS, best_methods, best_of, shown_clients, value_of


def print_result(result: dict[str, Any], console: Console) -> None:
    """Prints the final main metric of every hospital beside the baselines."""
    metric = result["main_metric"]
    methods = [name for name in METHODS if name in result["final"]]
    examples = words.examples(result["kind"])
    title = f"{metric} on test {examples} after {result['rounds']} rounds"
    table = Table(title=title, title_justify="left")
    table.add_column("hospital")
    table.add_column(f"test {examples}", justify="right")
    for name in methods:
        table.add_column(METHODS[name], justify="right")
    shown, hidden = shown_clients(result)
    for client in shown:
        table.add_row(client["name"], f"{client['test']:,}", *_row(result, methods, client["name"]))
    table.add_section()
    total = sum(client["test"] for client in result["clients"])
    table.add_row(f"all {examples}", f"{total:,}", *_row(result, methods, None))
    if len(result["clients"]) > 1:
        table.add_row("mean of the hospitals", "", *_means(result, methods))
        table.add_row("worst hospital", "", *_worst(result, methods))
    console.print(table)
    if hidden:
        console.print(f"and {hidden:,} smaller ones, in result.json")
    if told := result.get("privacy"):
        by = "".join(
            f", {told[f'epsilon_{name}']:.4g} by {name.upper()}"
            for name in ("pld", "rdp")
            if told[f"epsilon_{name}"] is not None
        )
        console.print(
            f"epsilon {told['epsilon']:.4g} for every {told['unit']} at delta {told['delta']:.2g}{by}"
            "; baselines are trained without noise"
        )


def _row(result: dict[str, Any], methods: list[str], client: str | None) -> list[str]:
    metric = result["main_metric"]
    best = best_methods(result, metric, client)
    return [_cell(value_of(result, name, metric, client), name in best) for name in methods]


def _means(result: dict[str, Any], methods: list[str]) -> list[str]:
    metric = result["main_metric"]
    values = {name: result["final"][name]["mean"].get(metric) for name in methods}
    best = best_of(values, result["higher_is_better"][metric])
    return [_cell(values[name], name in best) for name in methods]


def _worst(result: dict[str, Any], methods: list[str]) -> list[str]:
    """The worst value of each method, and under it whose it is."""
    metric = result["main_metric"]
    worst = {name: result["final"][name]["worst"].get(metric, {}) for name in methods}
    values = {name: worst[name].get("value") for name in methods}
    best = best_of(values, result["higher_is_better"][metric])
    return [
        _cell(values[name], name in best)
        + f"\n[dim]{escape(worst[name].get('client') or '')}[/dim]"
        for name in methods
    ]


def _cell(value: float | None, best: bool) -> str:
    text = "-" if value is None else f"{value:.3f}"
    return f"[bold]{text}[/bold]" if best else text
