"""Models: adapters for Flax NNX, Flax Linen and plain functions, and small models for tables."""

from fedjax_med.models.adapters import Model, from_function, from_linen, from_nnx
from fedjax_med.models.columns import Columns, columns_of
from fedjax_med.models.embeddings import tabular_network
from fedjax_med.models.feature_tokens import feature_tokens
from fedjax_med.models.tabular import linear, mlp
from fedjax_med.models.trees import boosted_trees

__all__ = [
    "Columns",
    "Model",
    "boosted_trees",
    "columns_of",
    "feature_tokens",
    "from_function",
    "from_linen",
    "from_nnx",
    "linear",
    "mlp",
    "tabular_network",
]
