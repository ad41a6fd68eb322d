"""The numbers of a profile as plain JSON: what its table and its figure are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedjax_med.reporting.profile_trace import PARTS, Trace, part_of
from fedjax_med.reporting.roofline import Peaks

_SHOWN_OPERATIONS = 30


def seconds_of_rounds(chunks: Sequence[tuple[int, float]], first: int, last: int) -> float:
    """Seconds of the rounds from `first` up to `last`, which begin and end chunks.

    Args:
      chunks: of `Run.seconds_per_round`.
      first: rounds that were done before.
      last: rounds that were done after.

    Raises:
      ValueError: if a chunk reaches over one of the ends.
    """
    total, done = 0.0, 0
    for count, per_round in chunks:
        if done < first < done + count or done < last < done + count:
            raise ValueError(f"rounds {first} to {last} must be whole chunks, got {list(chunks)}.")
        if first <= done < last:
            total += count * per_round
        done += count
    return total


def throughput(
    *,
    seconds_per_round: float,
    steps_per_round: float,
    useful_fraction: float,
    step_flops: float | None,
    step_bytes: float | None,
    peaks: Peaks,
    num_devices: int,
) -> dict[str, float | None]:
    """Floating-point operations and bytes per second, and their share of what is possible.

    Achieved is what useful local steps do, in the whole time of a round; executed counts the
    steps of lanes without a client too. None where the compiler does not count.

    Args:
      seconds_per_round: measured without a profiler.
      steps_per_round: local steps of all clients.
      useful_fraction: share of lane steps that train a client.
      step_flops: of one local step of one client.
      step_bytes: read and written by its operations.
      peaks: of one device.
      num_devices: devices that have peaks of their own.
    """

    def rate(per_step: float | None) -> float | None:
        return None if per_step is None else per_step * steps_per_round / seconds_per_round

    flops, num_bytes = rate(step_flops), rate(step_bytes)
    peak_flops = peaks.flops_per_s * num_devices
    peak_bytes = peaks.bytes_per_s * num_devices
    return {
        "achieved_flops_per_s": flops,
        "executed_flops_per_s": None if flops is None else flops / useful_fraction,
        "share_of_peak_flops": None if flops is None else flops / peak_flops,
        "bytes_per_s": num_bytes,
        "share_of_peak_bandwidth": None if num_bytes is None else num_bytes / peak_bytes,
        "flops_per_byte": step_flops / step_bytes if step_flops and step_bytes else None,
    }


def where_time_goes(trace: Trace, scopes: Mapping[str, str], rounds: int) -> dict[str, Any]:
    """The traced rounds: host phases, devices, parts of a round, single operations.

    Args:
      trace: of `read_trace`.
      scopes: of `operation_scopes`, of the program that runs rounds.
      rounds: that were traced.

    Returns:
      All seconds are per traced round. `parts_s` adds up the own time of all operations, which
      run side by side on several cores and devices; `busy_s` is the time in which one ran.
    """
    parts: dict[str, float] = dict.fromkeys((*PARTS, "evaluation", "other programs"), 0.0)
    operations: list[dict[str, Any]] = []
    for op in trace.operations:
        of_rounds = op.program == "rounds"
        scope = scopes.get(op.name, "") if of_rounds else ""
        part = part_of(scope, op.name) if of_rounds else op.program
        parts[part] += op.seconds / rounds
        operations.append(
            {
                "operation": op.name,
                "program": op.program,
                "part": part,
                "scope": scope,
                "seconds": op.seconds / rounds,
                "calls": op.calls / rounds,
            }
        )
    busy = {program: seconds / rounds for program, seconds in trace.busy_s.items()}
    window = trace.window_s / rounds
    host = {name: seconds / rounds for name, seconds in trace.phases_s.items()}
    return {
        "window_s": window,
        "host_phases_s": {**host, "between phases": max(0.0, window - sum(host.values()))},
        "devices": trace.devices,
        "busy_s": {
            **busy,
            "idle": max(0.0, window - sum(busy.values())) if trace.operations else None,
        },
        "parts_s": {name: seconds for name, seconds in parts.items() if seconds},
        "operations": operations[:_SHOWN_OPERATIONS],
        "operations_in_all": len(operations),
    }


def notes(trace: Trace, *, has_loops: bool, passes: int, counted: bool) -> list[str]:
    """What the numbers leave out, one sentence each."""
    said = []
    if not trace.operations:
        said.append(
            "The trace names no operations of the compiled programs on this device, so only host "
            "phases are told apart."
        )
    if not trace.complete:
        said.append("The trace is full and its end is missing; profile fewer rounds.")
    if not counted:
        said.append("The compiler of this device does not count floating-point operations.")
    if has_loops:
        said.append(
            "A local step contains loops, whose body the compiler counts once: floating-point "
            "operations and bytes are too low."
        )
    if passes > 1:
        said.append(f"A round runs {passes} times over its cohort; only the first is counted.")
    return said
