"""Models: adapters for Flax NNX, Flax Linen and plain functions, and small models for tables."""

from fedjax_med.models.adapters import Model, from_function, from_linen, from_nnx
from fedjax_med.models.augmentation import Augmentation, affine, augmented, intensity
from fedjax_med.models.columns import Columns, columns_of
from fedjax_med.models.embeddings import tabular_network
from fedjax_med.models.factorisation import response_factorisation
from fedjax_med.models.feature_tokens import feature_tokens
from fedjax_med.models.graph_embeddings import (
    GraphModel,
    compl_ex,
    dist_mult,
    rotat_e,
    trans_e,
)
from fedjax_med.models.normalisation import BatchNorm
from fedjax_med.models.resnet import ResNet, resnet, resnet18
from fedjax_med.models.response import response_autoencoder
from fedjax_med.models.tabular import linear, mlp
from fedjax_med.models.trees import boosted_trees
from fedjax_med.models.unet import unet

__all__ = [
    "Augmentation",
    "BatchNorm",
    "Columns",
    "GraphModel",
    "Model",
    "ResNet",
    "affine",
    "augmented",
    "boosted_trees",
    "columns_of",
    "compl_ex",
    "dist_mult",
    "feature_tokens",
    "from_function",
    "from_linen",
    "from_nnx",
    "intensity",
    "linear",
    "mlp",
    "resnet",
    "resnet18",
    "response_autoencoder",
    "response_factorisation",
    "rotat_e",
    "tabular_network",
    "trans_e",
    "unet",
]
