"""Benchmarks: run as modules from the repository root, results under `benchmarks/results/`."""
