"""Reads the text of a compiled program: its computations, who calls whom, what crosses devices."""

import re
from typing import NamedTuple

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "reduce-scatter",
    "collective-permute",
    "collective-broadcast",
)
_OPCODE = re.compile(r"^(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z][a-z0-9\-]*)\(")
_CALLED = re.compile(
    r"(?:to_apply|calls|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_SHAPE = re.compile(r"([a-z]+\d+)\[([\d,]*)\]")


class Instruction(NamedTuple):
    """One line of a computation."""

    opcode: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]  # (dtype, shape) of its results
    called: tuple[str, ...]
    text: str


class Program:
    """The computations of an optimized HLO module."""

    def __init__(self, text):
        self.computations = {}
        current = None
        for line in text.splitlines():
            header = re.match(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$", line)
            if header:
                current = self.computations.setdefault(header[2], [])
                if header[1]:
                    self.entry = header[2]
            elif line.startswith("}"):
                current = None
            elif current is not None and (found := _OPCODE.match(line.strip())):
                current.append(_instruction(line.strip(), *found.groups()))

    def reachable(self, name, stop=()):
        """All instructions that a computation runs, in those it calls too."""
        seen, queue, found = set(), [name], []
        while queue:
            name = queue.pop()
            if name in seen or name in stop:
                continue
            seen.add(name)
            for instruction in self.computations[name]:
                found.append(instruction)
                queue.extend(instruction.called)
        return found

    def loops_with(self, marker):
        """Bodies of the while loops around instructions that match a regex, outermost first."""
        bodies = {
            re.search(r"body=%?([\w.\-]+)", i.text)[1]
            for i in self.reachable(self.entry)
            if i.opcode == "while"
        }
        around = [b for b in bodies if any(re.search(marker, i.text) for i in self.reachable(b))]
        return sorted(around, key=lambda b: -len(self.reachable(b)))


def _instruction(line, result, opcode):
    called = _CALLED.findall(line)
    for branches in _BRANCHES.findall(line):
        called += [name.strip().lstrip("%") for name in branches.split(",")]
    shapes = tuple(
        (dtype, tuple(int(n) for n in dims.split(",") if n))
        for dtype, dims in _SHAPE.findall(result)
    )
    return Instruction(opcode, shapes, tuple(called), line)


def collectives(instructions):
    """Those that move data between devices; a start and its end count once."""
    return [
        i
        for i in instructions
        if i.opcode.removesuffix("-start") in COLLECTIVES and not i.opcode.endswith("-done")
    ]
