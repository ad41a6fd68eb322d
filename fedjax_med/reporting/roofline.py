"""What a device can do at most, measured: the two lines of a roofline.

A program that computes `flops` and moves `bytes` takes at least

    max(flops / peak_flops_per_s, bytes / peak_bytes_per_s)

seconds, which is what its own time is compared with.

References:
  Williams et al., "Roofline: An Insightful Visual Performance Model for Multicore
  Architectures", CACM 2009. https://doi.org/10.1145/1498765.1498785
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# Batch and side of the square matrices, and elements of the copy, by platform. Several shapes,
# because libraries are at their best at different ones; the best counts.
_PRODUCTS = {"cpu": ((1, 1024), (8, 512)), "other": ((1, 8192), (16, 4096))}
_COPY_BYTES = {"cpu": 2**28, "other": 2**31}
_CALL_S = 0.05


class Peaks(NamedTuple):
    """Measured limits of one device.

    Attributes:
      flops_per_s: of a large batched matrix product, a multiplication and an addition counted
        as two.
      bytes_per_s: of a large copy, bytes read and bytes written both counted.
      dtype: of the matrix product.
      product: `[batch, rows, columns]` of the matrices of the product that was fastest.
      copy_bytes: bytes that one copy reads and writes.
    """

    flops_per_s: float
    bytes_per_s: float
    dtype: str
    product: tuple[int, int, int]
    copy_bytes: int

    def least_seconds(self, flops: int | float, num_bytes: int | float) -> float:
        """Seconds below which no program of that size can be."""
        return max(flops / self.flops_per_s, num_bytes / self.bytes_per_s)


def measure_peaks(dtype: Any = jnp.float32, *, repeats: int = 7, scale: float = 1.0) -> Peaks:
    """Measures the first device; takes seconds, and wants the machine for itself.

    Args:
      dtype: of the matrix product, in the default precision of the device.
      repeats: timed calls of each kind; the fastest counts.
      scale: factor on the sides of the matrices and the size of the copy; below 1 for tests.
    """
    kind = "cpu" if jax.default_backend() == "cpu" else "other"
    results = []
    for batch, side in _PRODUCTS[kind]:
        side = max(8, int(side * scale))
        seconds = seconds_per_call(*_product(batch, side, dtype), repeats)
        results.append((2 * batch * side**3 / seconds, (batch, side, side)))
    flops_per_s, product = max(results)
    copy_bytes = int(_COPY_BYTES[kind] * scale)
    return Peaks(
        flops_per_s=flops_per_s,
        bytes_per_s=copy_bandwidth(copy_bytes, repeats=repeats),
        dtype=jnp.dtype(dtype).name,
        product=product,
        copy_bytes=copy_bytes,
    )


@functools.cache
def copy_bandwidth(num_bytes: int, *, repeats: int = 7) -> float:
    """Bytes per second of a copy that reads and writes `num_bytes` together.

    Small copies stay in the caches and are faster than the memory: the limit of programs that
    move no more than that.
    """
    half = jnp.ones(max(1, num_bytes // 8), jnp.float32)
    seconds = seconds_per_call(lambda x, _: -x, half, repeats)
    return 2 * half.nbytes / seconds


def _product(batch: int, side: int, dtype: Any) -> tuple[Callable, jax.Array]:
    shape = (batch, side, side)
    # Of norm about 1: repeated products neither overflow nor become subnormal, which is slow.
    matrix = jax.random.normal(jax.random.key(0), shape, jnp.float32) / side**0.5
    return jnp.matmul, matrix.astype(dtype)


def seconds_per_call(fn: Callable, x: jax.Array, repeats: int) -> float:
    """Shortest time of `x = fn(x, first x)`, repeated inside one program: a limit is a best case."""

    @functools.partial(jax.jit, donate_argnums=1)
    def loop(count, x, first):
        return lax.fori_loop(0, count, lambda i, x: fn(x, first), x)

    first, x = x, jax.block_until_ready(loop(1, x.copy(), x))

    def timed(count: int) -> float:
        nonlocal x
        start = time.perf_counter()
        x = jax.block_until_ready(loop(count, x, first))
        return (time.perf_counter() - start) / count

    count = max(1, round(_CALL_S / max(timed(1), 1e-7)))
    count = max(1, round(_CALL_S / max(timed(count), 1e-7)))
    return min(timed(count) for _ in range(repeats))
