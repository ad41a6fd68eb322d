"""The table and the figures of the kernels in the documents, from committed results.

    python -m benchmarks.kernels.report benchmarks/results/kernels-cpu.jsonl

writes `docs/kernels-cpu.md` and `docs/figures/kernels-cpu-images.png` and `-cohorts.png`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import records

_IMAGES = ("convolution", "pooling", "resampling")


class Row(NamedTuple):
    """One case and pass: what runs by default beside plain JAX.

    Attributes:
      kernel: its name.
      case: its name.
      pass_name: "forward" or "gradient".
      ours: the record of the implementation that runs by default; where none does, the fastest.
      plain: the record of plain JAX.
      others: the records of the rest.
    """

    kernel: str
    case: str
    pass_name: str
    ours: dict[str, Any]
    plain: dict[str, Any]
    others: list[dict[str, Any]]


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a file of results.

    Raises:
      ValueError: if it has a line that is no record of a kernel.
    """
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            record = json.loads(line)
        except ValueError:
            raise ValueError(f"{path}, line {number}, is not JSON") from None
        if not isinstance(record, dict) or record.get("benchmark") != "kernels":
            raise ValueError(f"{path}, line {number}, is no record of the benchmark kernels")
        found.append(record)
    if not found:
        raise ValueError(f"{path} has no records")
    return found


def rows(found: Sequence[dict[str, Any]]) -> list[Row]:
    """One row per kernel, case and pass, in the order of the records."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for record in found:
        key = (record["kernel"], record["case"], record["pass"])
        groups.setdefault(key, []).append(record)
    made = []
    for (kernel, case, pass_name), group in groups.items():
        plain = next((r for r in group if r["is_plain"]), None)
        if plain is None:
            continue
        default = [r for r in group if r["is_default"]]
        candidates = default or [r for r in group if not r["is_plain"]] or [plain]
        ours = min(candidates, key=lambda r: r["median_s"])
        others = [r for r in group if r is not ours and r is not plain]
        made.append(Row(kernel, case, pass_name, ours, plain, others))
    return made


def rate(record: dict[str, Any]) -> str:
    """The rate that counts: of operations or of bytes, whichever limits."""
    if record["limited_by"] == "bytes":
        return f"{_digits(record['gbytes_per_s'])} GB/s"
    unit = "GFLOP/s" if record["operations_are"] == "flops" else "Gop/s"
    return f"{_digits(record['gflops_per_s'])} {unit}"


def table(found: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of every implementation of every case."""
    first = found[0]
    versions = (
        f"JAX {first['jax']}, commit {first['commit'][:12] if first['commit'] else 'unknown'}"
    )
    commands = list(dict.fromkeys(record["command"] for record in found))
    lines = [
        f"# Kernels on {first['device_kind']}",
        "",
        f"{first['processor']}, {first['cpu_count']} cores, {versions}. Made by "
        f"`python -m benchmarks.kernels.report` from results of",
        "",
        *(f"    {command}" for command in commands),
        "",
        "Times are medians of one execution inside a loop, for all clients of the case; *gradient* "
        "is the result and all gradients. *Roofline* is the least time that this device allows "
        "for the operations and bytes of the definition, over the time taken; *plain JAX* is how "
        "many times faster than plain JAX in the same process. Bold is what runs by default.",
        "",
    ]
    kernel = None
    for row in rows(found):
        if row.kernel != kernel:
            kernel = row.kernel
            lines += [
                "",
                f"## {kernel}",
                "",
                "| case | pass | implementation | µs | rate | roofline | plain JAX | compilation |",
                "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
            ]
        seen = [row.ours, *row.others]
        if row.plain is not row.ours:
            seen.append(row.plain)
        for number, r in enumerate(seen):
            name = f"**{r['implementation']}**" if r["is_default"] else r["implementation"]
            where = f"{row.case} | {row.pass_name}" if number == 0 else " | "
            lines.append(
                f"| {where} | {name} | {_digits(r['median_s'] * 1e6)} | {rate(r)} "
                f"| {r['roofline_ratio']:.1%} | {_digits(r['speedup_over_plain'])} "
                f"| {r['compile_s']:.2f} s |"
            )
    return "\n".join(lines) + "\n"


def _digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = records.bare_parser("kernels.report", __doc__)
    parser.add_argument("results", help="file of JSON lines, as kernels-cpu.jsonl")
    parser.add_argument("--docs", default="docs", help="folder of the documents (default: docs)")
    a = parser.parse_args(arguments)
    path, docs = Path(a.results), Path(a.docs)
    try:
        found = read(path)
        (docs / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        parser.error(str(error))

    from benchmarks.kernels.figure import write_figure

    text = table(found)
    for group, members in (("images", True), ("cohorts", False)):
        chosen = [row for row in rows(found) if (row.kernel in _IMAGES) == members]
        if chosen:
            name = f"figures/{path.stem}-{group}.png"
            write_figure(docs / name, chosen)
            text += f"\n![{group}]({name})\n"
            print(f"wrote {docs / name}", file=sys.stderr)
    (docs / f"{path.stem}.md").write_text(text, encoding="utf-8")
    print(f"wrote {docs / path.stem}.md", file=sys.stderr)


if __name__ == "__main__":
    main()
