"""What a trace of `jax.profiler` says: host phases, and operations of the compiled programs.

Only the trace's own events are counted. An operation belongs to the part of a round whose
`jax.named_scope` its instruction carries in the compiled program; a fusion of several parts to
that of its last operation. Operations contain others (a loop contains its body), so what is
added up is the time of each without what it contains.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

# The parts of a round on the device, in their order.
PARTS = (
    "begin",
    "minibatch",
    "forward",
    "backward",
    "optimizer",
    "rest of the local step",
    "end of a client",
    "aggregation",
    "server step",
    "loops and dispatch",
    "rest of the round",
)
_STEP_ORDER = {part: i for i, part in enumerate(PARTS[1:5])}
# Most events that XLA writes into a trace for viewers; what comes after is left out.
_MOST_EVENTS = 1_000_000
_SCOPES = {
    "minibatch": "minibatch",
    "begin": "begin",
    "end": "end of a client",
    "server_step": "server step",
    "aggregate": "aggregation",
}
_CONTROL = re.compile(r"(while|conditional)(\.|$)")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = ")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_OPERAND = re.compile(r"%([\w.\-]+)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_CALLS = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
# Lines of a device in a trace that repeat the time of its operations in other words.
_DERIVED = ("XLA Modules", "Steps", "Framework", "Source", "Launch", "XLA TraceMe")


class Operation(NamedTuple):
    """One instruction of a compiled program.

    Attributes:
      program: "rounds", "evaluation" or "other programs".
      name: of the instruction.
      seconds: in all its calls together, without the operations inside it.
      calls: how often it ran.
    """

    program: str
    name: str
    seconds: float
    calls: int


class Trace(NamedTuple):
    """A profile, added up.

    Attributes:
      window_s: from the first host phase to the end of the last.
      phases_s: `{host phase: seconds}`.
      operations: of all programs, longest first; empty if the trace has none.
      busy_s: `{program: seconds}` in which it ran an operation, mean over the devices.
      devices: how many devices ran operations.
      complete: False if there were more events than a trace can hold.
    """

    window_s: float
    phases_s: dict[str, float]
    operations: list[Operation]
    busy_s: dict[str, float]
    devices: int
    complete: bool


def read_trace(path: Path, phase_prefix: str, rounds_module: str) -> Trace:
    """Reads a `perfetto_trace.json.gz`.

    Args:
      path: of the trace.
      phase_prefix: of the names of host phases; in that named "evaluate" the devices do nothing
        but evaluate.
      rounds_module: name of the program that runs rounds, see `module_name`.

    Raises:
      ValueError: if it has no host phase (an event whose name starts with `phase_prefix`).
    """
    with gzip.open(path, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    names = _names(events)
    complete = [e for e in events if e.get("ph") == "X"]
    phases = [e for e in complete if e["name"].startswith(phase_prefix)]
    if not phases:
        raise ValueError(f"{path} has no event whose name starts with {phase_prefix!r}.")
    phases_s: dict[str, float] = defaultdict(float)
    for event in phases:
        phases_s[event["name"].removeprefix(phase_prefix)] += event["dur"] / 1e6
    start = min(e["ts"] for e in phases)
    window = max(e["ts"] + e["dur"] for e in phases) - start
    evaluations = [
        (e["ts"], e["ts"] + e["dur"]) for e in phases if e["name"] == f"{phase_prefix}evaluate"
    ]

    def program(event: Mapping[str, Any]) -> str:
        # Not by name alone: `pmap` gives all programs the same.
        if any(start <= event["ts"] < end for start, end in evaluations):
            return "evaluation"
        of_rounds = event["args"].get("hlo_module") == rounds_module
        return "rounds" if of_rounds else "other programs"

    seconds, calls, spans = _operations(_of_devices(complete, names), program)
    operations = [
        Operation(kind, name, total / 1e6, calls[kind, name])
        for (kind, name), total in seconds.items()
    ]
    busy_s, devices = _busy(spans)
    return Trace(
        window_s=window / 1e6,
        phases_s=dict(phases_s),
        operations=sorted(operations, key=lambda op: -op.seconds),
        busy_s=busy_s,
        devices=devices,
        complete=len(events) < _MOST_EVENTS,
    )


def _names(events: Iterable[Mapping[str, Any]]) -> dict[tuple[Any, Any], str]:
    """Names of processes, by `(pid, None)`, and of their threads, by `(pid, tid)`."""
    return {
        (e["pid"], e.get("tid") if e["name"] == "thread_name" else None): e["args"]["name"]
        for e in events
        if e.get("ph") == "M" and e["name"] in ("process_name", "thread_name")
    }


def _of_devices(events: list[dict[str, Any]], names: Mapping[Any, str]) -> list[dict[str, Any]]:
    """The events that are operations of a compiled program, each once."""
    found = [e for e in events if "hlo_op" in (e.get("args") or {})]
    # An accelerator has a process of its own, and the host's events only launch its operations.
    on_device = [e for e in found if names.get((e["pid"], None), "").startswith("/device:")]
    thread = {(e["pid"], e["tid"]): names.get((e["pid"], e["tid"]), "") for e in on_device}
    on_device = [e for e in on_device if not thread[e["pid"], e["tid"]].startswith(_DERIVED)]
    if any(name.startswith("XLA Ops") for name in thread.values()):
        on_device = [e for e in on_device if thread[e["pid"], e["tid"]].startswith("XLA Ops")]
    return on_device or found


def _operations(
    events: list[dict[str, Any]], program: Callable[[Mapping[str, Any]], str]
) -> tuple[dict, dict, dict]:
    """Own time and calls of every operation, and `{(program, device): [(start, end)]}` [µs]."""
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    calls: dict[tuple[str, str], int] = defaultdict(int)
    spans: dict[tuple[str, Any], list[tuple[float, float]]] = defaultdict(list)
    by_thread: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        by_thread[event["pid"], event["tid"]].append(event)
    for (pid, _), of_thread in by_thread.items():
        stack: list[tuple[float, tuple[str, str]]] = []  # end and name of what is running
        for event in sorted(of_thread, key=lambda e: (e["ts"], -e["dur"])):
            args, start, length = event["args"], float(event["ts"]), float(event["dur"])
            key = (program(event), args["hlo_op"])
            while stack and stack[-1][0] <= start:
                stack.pop()
            if stack:
                # Clocks are rounded: what ends after its parent does is cut.
                length = min(length, stack[-1][0] - start)
                seconds[stack[-1][1]] -= length
            else:
                device = (pid, args.get("device_ordinal"))
                spans[key[0], device].append((start, start + length))
            seconds[key] += length
            calls[key] += 1
            stack.append((start + length, key))
    return seconds, calls, spans


def _busy(spans: Mapping[tuple[str, Any], list[tuple[float, float]]]) -> tuple[dict, int]:
    devices = {device for _, device in spans}
    busy: dict[str, float] = defaultdict(float)
    for (kind, _), intervals in spans.items():
        busy[kind] += _length_of_union(intervals) / 1e6 / len(devices)
    return dict(busy), len(devices)


def _length_of_union(intervals: list[tuple[float, float]]) -> float:
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def module_name(program_text: str) -> str:
    """The name of a compiled program, from `compiled.as_text()`."""
    found = re.match(r"HloModule ([\w.\-]+)", program_text)
    return found[1] if found else ""


def operation_scopes(program_text: str) -> dict[str, str]:
    """Where each instruction of a compiled program comes from, by name.

    Compilers leave some instructions (copies, rewritten matrix products) without a scope. Those
    that call a computation get that of its last instruction, others that of the operand which
    comes last in a round, since what is computed from it cannot come earlier, or that of their
    first use where those operands are the rows of the minibatch.

    Args:
      program_text: of `compiled.as_text()`.

    Returns:
      `{instruction: path of scopes}`; no entry where nothing is known.
    """
    scopes: dict[str, str] = {}
    last: dict[str, str] = {}
    guessed: set[str] = set()
    computation = ""
    for line in program_text.splitlines():
        if start := _COMPUTATION.match(line):
            computation = start[1]
        if not (found := _INSTRUCTION.match(line)):
            continue
        name, rest = found[1], line[found.end() :]
        scope = _OP_NAME.search(rest)
        # Some passes keep the bare name of the primitive only.
        if scope and "/" in scope[1]:
            scopes[name] = last[computation] = scope[1]
        elif (called := _CALLS.search(rest)) and called[1] in last:
            scopes[name] = last[called[1]]
        else:
            operands = [scopes[o] for o in _OPERAND.findall(rest) if o in scopes]
            if operands:
                scopes[name] = max(operands, key=lambda o: _STEP_ORDER.get(part_of(o), -1))
                guessed.add(name)
        # What is computed from the rows alone, for the model, is the model's.
        for operand in _OPERAND.findall(rest):
            if operand in guessed and part_of(scopes[operand]) == "minibatch" and name in scopes:
                scopes[operand] = scopes[name]
    return scopes


def part_of(scope: str, name: str = "") -> str:
    """The part of a round (one of `PARTS`) that an operation belongs to.

    Args:
      scope: path of scopes, as in the metadata of the compiled program.
      name: of the instruction; a loop's own time is its conditions and the launching of its body.
    """
    words = re.split(r"[/()]+", scope)
    if _CONTROL.match(name) or words[-3:-1] == ["while", "cond"]:
        return "loops and dispatch"
    if "local_step" in words:
        if "optimizer" in words:
            return "optimizer"
        if "transpose(" in scope:
            return "backward"
        return "forward" if "jvp(" in scope else "rest of the local step"
    # The outermost scope of ours decides: a model may have a scope named `end` of its own.
    known = next((word for word in words if word in _SCOPES), None)
    return _SCOPES[known] if known else "rest of the round"
