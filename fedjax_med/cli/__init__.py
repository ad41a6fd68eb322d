"""The command line `fedjax-med`. JAX is imported only when something runs."""

from fedjax_med.cli.app import main

__all__ = ["main"]
