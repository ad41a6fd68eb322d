"""Federated learning simulation for medical research: whole rounds compiled by JAX."""

from fedjax_med._version import __version__

__all__ = ["__version__"]
