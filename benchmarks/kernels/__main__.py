"""`python -m benchmarks.kernels`."""

from benchmarks.kernels.command import main

main()
