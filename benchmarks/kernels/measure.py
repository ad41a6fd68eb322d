"""Checks implementations of a kernel and takes their times in turns."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import records
from benchmarks.kernels.benchmark import Benchmark, Function, PyTree, result_and_gradients

# A timed call should last about this long: dispatch from Python is then nothing of it.
CALL_S = 0.05
# No more repeats are started once those of one implementation have taken this long.
_MOST_S = 6.0
_LEAST_REPEATS = 3
# An execution that takes this long is the same the second time.
_SLOW_S = 1.0
# Unit roundoff of the inputs of matrix products that accelerators take by default (TF32, and
# bfloat16 with its 8 bits on TPUs).
_PRODUCT_EPS = {"cpu": 0.0, "gpu": 2.0**-10, "tpu": 2.0**-7}


class WrongResult(RuntimeError):
    """An implementation does not compute what it should; nothing of it is worth a time."""


class Compiled(NamedTuple):
    """A function in a loop, and what compiling it took."""

    executable: Any
    compile_s: float
    memory: dict[str, int]


class Times(NamedTuple):
    """Seconds of single executions.

    Attributes:
      seconds: one per timed call, the mean over the executions inside it.
      executions: per call.
    """

    seconds: list[float]
    executions: int


def _in_loop(fn: Function) -> Function:
    """`(count, *arguments) -> result` of the last of `count` executions inside one loop.

    The engine runs kernels inside loops as well, where XLA compiles some of them differently.
    Every execution depends on the one before through one element of every argument, which keeps
    its value without the compiler knowing: nothing can be taken out of the loop.
    """

    def tied(x: jax.Array, never: jax.Array) -> jax.Array:
        if not x.size:
            return x
        first = (0,) * x.ndim
        return x.at[first].set(jnp.where(never, jnp.ones((), x.dtype), x[first]))

    def loop(count: jax.Array, *arguments: PyTree) -> PyTree:
        shapes = jax.eval_shape(fn, *arguments)
        start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def body(_, carry):
            held, result = carry
            leaf = next(x for x in jax.tree.leaves(result) if x.size)
            element = leaf[(0,) * leaf.ndim]
            is_float = jnp.issubdtype(leaf.dtype, jnp.inexact)
            never = jnp.isnan(element) if is_float else element == np.array(0xA5, leaf.dtype)
            held = jax.tree.map(lambda x: tied(x, never), held)
            return held, fn(*held)

        return lax.fori_loop(0, count, body, (arguments, start))[1]

    return loop


def compile_in_loop(fn: Function, arguments: tuple[PyTree, ...]) -> Compiled:
    """Compiles `fn` in a loop for arguments of these shapes.

    Raises:
      NotImplementedError: if it cannot compute this, or not on this device.
    """
    start = time.perf_counter()
    executable = jax.jit(_in_loop(fn)).lower(jnp.int32(1), *arguments).compile()
    compile_s = time.perf_counter() - start
    analysis = executable.memory_analysis()
    memory = {}
    if analysis is not None:
        memory = {
            "arguments": int(analysis.argument_size_in_bytes),
            "results": int(analysis.output_size_in_bytes),
            "temporaries": int(analysis.temp_size_in_bytes),
            "reused": int(analysis.alias_size_in_bytes),
        }
    return Compiled(executable, compile_s, memory)


def times_in_turns(
    programs: dict[str, Compiled], arguments: tuple[PyTree, ...], repeats: int
) -> dict[str, Times]:
    """Times of all programs on the same arguments, one call of each after the other."""
    arguments = jax.block_until_ready(jax.device_put(arguments))

    def call(name: str, count: int) -> float:
        start = time.perf_counter()
        jax.block_until_ready(programs[name].executable(jnp.int32(count), *arguments))
        return time.perf_counter() - start

    counts, seconds = {}, {name: [] for name in programs}
    for name in programs:
        each = call(name, 1)  # warms up
        if each < _SLOW_S:
            each = call(name, 1)
        # Once more with several, because a single short execution is mostly dispatch.
        few = min(100, round(CALL_S / 4 / max(each, 1e-6)))
        if few > 1:
            each = call(name, few) / few
        counts[name] = max(1, round(CALL_S / max(each, 1e-8)))
    for _ in range(repeats):
        for name, so_far in seconds.items():
            count = counts[name]
            if len(so_far) < _LEAST_REPEATS or sum(so_far) * count < _MOST_S:
                so_far.append(call(name, count) / count)
    return {name: Times(seconds[name], counts[name]) for name in programs}


def summarise(times: Times) -> dict[str, Any]:
    """Median and quartiles [s]."""
    q1, median, q3 = records.quartiles(times.seconds)
    return {
        "median_s": median,
        "q1_s": q1,
        "q3_s": q3,
        "repeats": len(times.seconds),
        "executions_per_call": times.executions,
    }


def expected(
    benchmark: Benchmark, cotangent: PyTree | None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What the plain implementation computes in float64, and the sizes of its sums.

    Args:
      benchmark: the case.
      cotangent: of the result, for the gradient pass; None for the forward pass.
    """
    bound = benchmark.bound
    assert bound is not None
    with jax.enable_x64(True):
        wide = jax.tree.map(_float64, benchmark.arguments)
        plain = benchmark.implementations[benchmark.plain]
        if cotangent is None:
            fn, inputs = plain, wide
            absolute = bound.absolute
        else:
            fn = result_and_gradients(plain, benchmark.differentiated)
            inputs = (jax.tree.map(_float64, cotangent), *wide)
            absolute = (0, *(p + 1 for p in bound.absolute))
        want = jax.jit(fn)(*inputs)
        sizes_of = fn if cotangent is None else bound.gradient_sizes or fn
        large = [jax.tree.map(jnp.abs, x) if p in absolute else x for p, x in enumerate(inputs)]
        sizes = jax.jit(sizes_of)(*large)
        # In float64 all the way: without x64 the next operation would round to float32.
        return ([np.asarray(x) for x in jax.tree.leaves(tree)] for tree in (want, sizes))  # type: ignore[return-value]


def _float64(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x


def check(
    name: str, benchmark: Benchmark, got: PyTree, want: list[np.ndarray], sizes: list[np.ndarray]
) -> None:
    """Compares a result (or result and gradients) with float64.

    Raises:
      WrongResult: says by how much the bound is exceeded, and where.
    """
    bound = benchmark.bound
    assert bound is not None
    leaves = [np.asarray(x) for x in jax.tree.leaves(got)]
    for index, (g, w, size) in enumerate(zip(leaves, want, sizes, strict=True)):
        if g.dtype.kind not in "fV":
            if not np.array_equal(g, w):
                raise WrongResult(f"{name}: result {index} differs from the plain implementation.")
            continue
        unit = bound.terms[index] * float(np.finfo(np.float32).eps)
        if bound.products:
            unit += 2 * _PRODUCT_EPS.get(jax.default_backend(), 0.0)
        size = np.abs(size)
        if name in bound.growth:
            size = np.full_like(size, bound.growth[name] * size.max())
        allowed = unit * size + 1e-300
        error = np.abs(np.asarray(g, np.float64) - w)
        if not np.all(error <= allowed):  # this way round, NaN is refused as well
            place = np.unravel_index(
                int(np.argmax(np.nan_to_num(error / allowed, nan=np.inf))), g.shape
            )
            raise WrongResult(
                f"{name}: result {index} at {tuple(map(int, place))} is {g[place]!r}, in float64 "
                f"{w[place]!r}; allowed is an error of {allowed[place]:.3g}."
            )
