"""Work per second of a kernel, and how near that is to what this device can do at most."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.kernels.benchmark import Cost
from fedjax_med.reporting import roofline

# Operations on integers per element in the loop that measures them, and elements.
_CHAIN = 64
_ELEMENTS = {"cpu": 2**20, "other": 2**26}
# Copies are measured in sizes of powers of two, the smallest being this many bytes.
_LEAST_COPY = 2**16


class Limits:
    """The limits of the first device, each measured when first needed."""

    @functools.cached_property
    def peaks(self) -> roofline.Peaks:
        """Of a large matrix product and a large copy."""
        return roofline.measure_peaks(jnp.float32)

    @functools.cached_property
    def integer_operations_per_s(self) -> float:
        """Of additions, exclusive ors and shifts of 32-bit integers."""
        kind = "cpu" if jax.default_backend() == "cpu" else "other"
        x = jnp.arange(_ELEMENTS[kind], dtype=jnp.uint32)
        seconds = roofline.seconds_per_call(_integer_chain, x, 7)
        return 3 * _CHAIN * x.size / seconds

    def bandwidth(self, num_bytes: float) -> float:
        """Of copies as large as what a kernel moves, which may fit the caches; not below memory's."""
        size = _LEAST_COPY
        while size * 2 <= min(num_bytes, self.peaks.copy_bytes):
            size *= 2
        return max(roofline.copy_bandwidth(size), self.peaks.bytes_per_s)

    def of(self, cost: Cost, pass_name: str, seconds: float) -> dict[str, Any]:
        """Work, rates and ratios of a pass that takes `seconds`.

        The roofline ratio is the least time by the device's limits over the time taken: 1 is
        perfect, and above 1 means a wrong count or a wrong clock.
        """
        operations, num_bytes = cost.of(pass_name)
        flops_limit = self.integer_operations_per_s if cost.integers else self.peaks.flops_per_s
        bandwidth = self.bandwidth(num_bytes)
        compute_s, memory_s = operations / flops_limit, num_bytes / bandwidth
        memory_peak_s = num_bytes / self.peaks.bytes_per_s
        return {
            "operations": operations,
            "operations_are": "integer operations" if cost.integers else "flops",
            "operations_counted": cost.counted,
            "bytes": num_bytes,
            "gflops_per_s": operations / seconds / 1e9,
            "gbytes_per_s": num_bytes / seconds / 1e9,
            "limited_by": "operations" if compute_s > memory_s else "bytes",
            "roofline_ratio": max(compute_s, memory_s) / seconds,
            # With the bandwidth of the memory, also for what fits the caches.
            "memory_roofline_ratio": max(compute_s, memory_peak_s) / seconds,
            "peak_gflops_per_s": flops_limit / 1e9,
            "peak_gbytes_per_s": self.peaks.bytes_per_s / 1e9,
            "cache_gbytes_per_s": bandwidth / 1e9,
        }


def _integer_chain(x: jax.Array, first: jax.Array) -> jax.Array:
    del first

    def mix(_: int, x: jax.Array) -> jax.Array:
        return (x + jnp.uint32(0x9E3779B9)) ^ (x << jnp.uint32(7))

    # Unrolled, so that it is one loop over the elements, in registers.
    return lax.fori_loop(0, _CHAIN, mix, x, unroll=True)
