"""The table at the end of a run."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from fedjax_med.reporting.summary import METHODS, best_methods, shown_clients


def print_result(result: dict[str, Any], console: Console) -> None:
    """Prints the final main metric of every hospital beside the baselines."""
    metric = result["main_metric"]
    methods = [name for name in METHODS if name in result["final"]]
    title = f"{metric} on test patients after {result['rounds']} rounds"
    table = Table(title=title, title_justify="left")
    table.add_column("hospital")
    table.add_column("test patients", justify="right")
    for name in methods:
        table.add_column(METHODS[name], justify="right")
    shown, hidden = shown_clients(result)
    for client in shown:
        table.add_row(client["name"], f"{client['test']:,}", *_row(result, methods, client["name"]))
    table.add_section()
    total = sum(client["test"] for client in result["clients"])
    table.add_row("all patients", f"{total:,}", *_row(result, methods, None))
    console.print(table)
    if hidden:
        console.print(f"and {hidden:,} smaller ones, in result.json")


def _row(result: dict[str, Any], methods: list[str], client: str | None) -> list[str]:
    metric = result["main_metric"]
    best = best_methods(result, metric, client)
    cells = []
    for name in methods:
        final = result["final"][name]
        value = (final["pooled"] if client is None else final["per_client"][client]).get(metric)
        text = "-" if value is None else f"{value:.3f}"
        cells.append(f"[bold]{text}[/bold]" if name in best else text)
    return cells
