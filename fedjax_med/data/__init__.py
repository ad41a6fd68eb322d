"""Federated data on the host: clients, partitions, checks and federated preprocessing.

Nothing here imports JAX; arrays go to devices in `fedjax_med.engine`.
"""

from fedjax_med.data import partition, standardize
from fedjax_med.data.client_arrays import ClientArrays
from fedjax_med.data.errors import DataError
from fedjax_med.data.federated_dataset import FederatedDataset
from fedjax_med.data.validate import check

__all__ = [
    "ClientArrays",
    "DataError",
    "FederatedDataset",
    "check",
    "partition",
    "standardize",
]
