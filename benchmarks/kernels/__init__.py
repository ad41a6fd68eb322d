"""Benchmarks of the kernels: `python -m benchmarks.kernels`."""

from benchmarks.kernels.command import main, make_parser

__all__ = ["main", "make_parser"]
