"""The tables of `fedjax-med profile`."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from fedjax_med.reporting.quantities import share, with_unit

_SHOWN = 10


def print_profile(result: dict[str, Any], console: Console) -> None:
    """Prints speed, host phases, parts of a round, and the longest operations."""
    console.print(_speed(result))
    traced = result["traced"]
    console.print(_host(traced))
    if traced["parts_s"]:
        console.print(_device(traced))
        console.print(_operations(traced))
    for note in result["notes"]:
        console.print(f"Note: {note}")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _speed(result: dict[str, Any]) -> Table:
    rates, peaks = result["throughput"], result["peaks"]
    devices = result["peak_devices"]
    table = _table(f"{result['dataset']}, {result['algorithm']}: a round", "", "measured", "limit")
    table.add_row("time", with_unit(result["seconds_per_round"], "s"), "")
    table.add_row("time under the profiler", with_unit(result["traced_seconds_per_round"], "s"), "")
    table.add_row("compilation", with_unit(result["compile_s"], "s"), "")
    table.add_row("local steps", f"{result['local_steps_per_round']:.1f}", "")
    table.add_row("lanes", str(result["lanes"]), "")
    table.add_row("useful lane slots", share(result["useful_fraction"]), "100 %")
    table.add_row(
        "arithmetic of useful steps",
        f"{with_unit(rates['achieved_flops_per_s'], 'FLOP/s')} "
        f"({share(rates['share_of_peak_flops'])})",
        with_unit(peaks["flops_per_s"] * devices, "FLOP/s"),
    )
    table.add_row(
        "bytes of their operations",
        f"{with_unit(rates['bytes_per_s'], 'B/s')} ({share(rates['share_of_peak_bandwidth'])})",
        with_unit(peaks["bytes_per_s"] * devices, "B/s"),
    )
    memory = result["memory_bytes"]
    if memory:
        needed = memory.get("arguments", 0) + memory.get("temporaries", 0)
        table.add_row("memory of the program, per device", with_unit(needed, "B"), "")
    return table


def _host(traced: dict[str, Any]) -> Table:
    table = _table("Host, per traced round", "phase", "time", "share")
    for name, seconds in traced["host_phases_s"].items():
        table.add_row(name, with_unit(seconds, "s"), share(seconds / traced["window_s"]))
    return table


def _device(traced: dict[str, Any]) -> Table:
    parts, busy = traced["parts_s"], traced["busy_s"]
    total = sum(parts.values())
    idle = share(busy["idle"] / traced["window_s"])
    title = (
        f"Devices, per traced round: compiled rounds {with_unit(busy.get('rounds', 0.0), 's')}, "
    )
    table = _table(f"{title}idle {idle}", "part", "time", "share")
    for name, seconds in parts.items():
        table.add_row(name, with_unit(seconds, "s"), share(seconds / total))
    return table


def _operations(traced: dict[str, Any]) -> Table:
    shown = traced["operations"][:_SHOWN]
    title = f"Longest of {traced['operations_in_all']} operations, per traced round"
    table = _table(title, "operation", "part", "calls", "time")
    for op in shown:
        table.add_row(
            op["operation"], op["part"], f"{op['calls']:.1f}", with_unit(op["seconds"], "s")
        )
    return table
