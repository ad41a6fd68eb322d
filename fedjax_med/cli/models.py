"""Names of the models of every modality, which commands can tell without starting JAX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

# The default first. The models themselves: `tasks.for_table` and `tasks.modalities.NETWORKS`.
MODELS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "table": ("linear", "mlp", "embeddings", "transformer"),
        "signal": ("resnet", "convolution", "gru"),
        "image": ("resnet", "resnet-augmented", "resnet-group-norm", "resnet18", "linear"),
        "segmentation": ("unet", "small-unet"),
        "visits": ("gru", "transformer", "bag", "last-visit"),
        "graph": ("TransE", "DistMult", "ComplEx", "RotatE"),
        "responses": ("factorisation", "autoencoder"),
        "series": ("autoregression", "convolution", "gru"),
    }
)
