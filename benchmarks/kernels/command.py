"""Time, work and limits of the kernels, as JSON lines.

Every implementation is checked first, against the plain one in float64 or a reference of its own,
and then timed in turns with the others, in a loop inside one compiled program.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks import records

# Without importing JAX, so that arguments are judged at once.
KERNELS = (
    "convolution",
    "pooling",
    "resampling",
    "clip_and_sum",
    "order_statistics",
    "walsh_hadamard",
    "quantization",
    "masks",
)


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.parser("kernels", __doc__)
    whole = records.at_least
    parser.add_argument("--kernel", required=True, choices=(*KERNELS, "all"))
    parser.add_argument("--case", help="one case of the kernel (default: all)")
    parser.add_argument(
        "--implementation", help="one implementation, beside plain JAX (default: all)"
    )
    parser.add_argument(
        "--pass",
        dest="only_pass",
        choices=("forward", "gradient"),
        help="the result alone, or with its gradients (default: both)",
    )
    parser.add_argument(
        "--clients",
        type=whole(1),
        default=4,
        help="clients vmapped, where the case does not say how many (default: 4)",
    )
    parser.add_argument(
        "--repeats", type=whole(1), default=9, help="timed calls of each (default: 9)"
    )
    return parser


def kernels() -> dict[str, tuple[list[str], Callable[[str, int], Any]]]:
    """The cases of every kernel, and what makes their benchmarks."""
    from benchmarks.kernels import cohorts, images

    return {
        "convolution": (images.CONVOLUTIONS, images.convolution),
        "pooling": (images.POOLINGS, images.pool),
        "resampling": (images.RESAMPLINGS, images.resample),
        "clip_and_sum": (cohorts.CLIPS, cohorts.clipping),
        "order_statistics": (cohorts.ORDERS, cohorts.order_statistic),
        "walsh_hadamard": (cohorts.TRANSFORMS, cohorts.transform),
        "quantization": (cohorts.QUANTIZATIONS, cohorts.quantize),
        "masks": (cohorts.MASKS, cohorts.mask),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    if a.kernel == "all" and (a.case or a.implementation):
        option = "--case" if a.case else "--implementation"
        parser.error(f"{option} is for one kernel, not for --kernel all")
    made = kernels()
    chosen = KERNELS if a.kernel == "all" else (a.kernel,)
    cases = [(kernel, case) for kernel in chosen for case in made[kernel][0]]
    if a.case is not None:
        cases = [(kernel, case) for kernel, case in cases if case == a.case]
        if not cases:
            known = ", ".join(made[a.kernel][0])
            parser.error(f"--case {a.case!r} is no case of {a.kernel}; it has {known}")
    if a.implementation is not None:
        known = list(made[a.kernel][1](cases[0][1], a.clients).implementations)
        if a.implementation not in known:
            parser.error(
                f"--implementation {a.implementation!r} is none of {a.kernel} on this device; it "
                f"has {', '.join(known)}"
            )
    output = records.Output(a.json, parser)

    from benchmarks.kernels.measure import WrongResult
    from benchmarks.kernels.roofline import Limits

    limits = Limits()
    common = {**records.environment(), "command": records.shown_command("kernels", arguments)}
    for kernel, case in cases:
        print(f"{kernel} {case}", file=sys.stderr, flush=True)
        benchmark = made[kernel][1](case, a.clients)
        try:
            for record in measure(benchmark, limits, a):
                output.write(
                    {"benchmark": "kernels", "kernel": kernel, "case": case, **record, **common}
                )
        except WrongResult as error:
            sys.exit(f"{kernel} {case}, {error}")


def measure(benchmark: Any, limits: Any, a: Any) -> Iterator[dict[str, Any]]:
    """One record for every pass and implementation of a case.

    Raises:
      WrongResult: if an implementation computes something else; before anything is timed.
    """
    import jax
    import jax.numpy as jnp

    from benchmarks.kernels import measure as measuring
    from benchmarks.kernels.benchmark import PASSES, result_and_gradients

    names = [
        name
        for name in benchmark.implementations
        if a.implementation in (None, name) or name == benchmark.plain
    ]
    out = jax.eval_shape(benchmark.implementations[benchmark.plain], *benchmark.arguments)
    cotangent = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), out)
    passes = [p for p in PASSES if a.only_pass in (None, p)]
    for pass_name in passes:
        gradient = pass_name == "gradient"
        if gradient and not benchmark.differentiated:
            continue
        inputs = (cotangent, *benchmark.arguments) if gradient else benchmark.arguments
        programs = {}
        for name in names:
            fn = benchmark.implementations[name]
            if gradient:
                fn = result_and_gradients(fn, benchmark.differentiated)
            try:
                programs[name] = measuring.compile_in_loop(fn, inputs)
            except NotImplementedError as error:
                print(f"  {name}: {error}", file=sys.stderr)
        checked = _check_all(benchmark, programs, inputs, cotangent if gradient else None)
        times = measuring.times_in_turns(programs, inputs, a.repeats)
        plain_s = measuring.summarise(times[benchmark.plain])["median_s"]
        for name, program in programs.items():
            summary = measuring.summarise(times[name])
            median = summary["median_s"]
            yield {
                "pass": pass_name,
                "implementation": name,
                "is_default": name == benchmark.default,
                "is_plain": name == benchmark.plain,
                "clients": benchmark.arguments[0].shape[0] if benchmark.per_client else None,
                "arguments": [list(x.shape) for x in jax.tree.leaves(benchmark.arguments)],
                "dtype": str(jax.tree.leaves(out)[0].dtype),
                "checked_against": checked,
                **summary,
                "speedup_over_plain": plain_s / median,
                "compile_s": program.compile_s,
                **limits.of(benchmark.cost, pass_name, median),
                "memory_bytes": program.memory,
                "peak_memory_bytes": _peak(program.memory),
            }


def _check_all(benchmark: Any, programs: Any, inputs: Any, cotangent: Any) -> str:
    """Runs every implementation once and compares; returns with what."""
    import jax
    import jax.numpy as jnp

    from benchmarks.kernels import measure as measuring
    from benchmarks.kernels.images import of_some_clients

    results = {
        name: program.executable(jnp.int32(1), *inputs) for name, program in programs.items()
    }
    if benchmark.check is not None:
        for name, result in results.items():
            problem = benchmark.check(result, benchmark.arguments)
            if problem is not None:
                raise measuring.WrongResult(f"{name}: {problem}.")
        return "reference"
    some, words = benchmark, "plain JAX in float64"
    if benchmark.per_client:
        # A client's result does not depend on the others: two of them, not the vmapped whole,
        # whose float64 would take minutes.
        count = benchmark.arguments[0].shape[0]
        chosen = sorted({0, count - 1})
        some = benchmark._replace(arguments=of_some_clients(benchmark.arguments, chosen))
        results = {name: of_some_clients(result, chosen) for name, result in results.items()}
        cotangent = None if cotangent is None else of_some_clients(cotangent, chosen)
        words += ", first and last client"
    want, sizes = measuring.expected(some, cotangent)
    for name, result in results.items():
        measuring.check(name, some, result, want, sizes)
    jax.block_until_ready(results)
    return words


def _peak(memory: dict[str, int]) -> int | None:
    if not memory:
        return None
    held = memory["arguments"] + memory["results"] + memory["temporaries"]
    return held - memory["reused"]
