"""Pooling whose gradient stays fast under `vmap` over clients and inside `scan`."""

from fedjax_med_kernels.pooling.pool import avg_pool, choose, max_pool, min_pool, sum_pool

__all__ = ["avg_pool", "choose", "max_pool", "min_pool", "sum_pool"]
