"""Federated data on the host: clients, partitions, checks and federated preprocessing."""

from fedjax_med.data.errors import DataError
from fedjax_med.data.federated_dataset import ClientArrays, FederatedDataset

__all__ = ["ClientArrays", "DataError", "FederatedDataset"]
