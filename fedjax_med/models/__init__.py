"""Models: adapters for Flax NNX, Flax Linen and plain functions, and small models for tables."""

from fedjax_med.models.adapters import Model, from_function, from_linen, from_nnx
from fedjax_med.models.tabular import linear, mlp

__all__ = ["Model", "from_function", "from_linen", "from_nnx", "linear", "mlp"]
