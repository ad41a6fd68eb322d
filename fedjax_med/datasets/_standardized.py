"""The `standardize` option that tabular datasets share."""

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.data.standardize import fit, fit_per_client


def standardized(dataset: FederatedDataset, how: str | None) -> FederatedDataset:
    """Standardises every column of `x` as `how` says: "global", "per-client" or None.

    Raises:
      DataError: for another value of `how`.
    """
    if how is None:
        return dataset
    if how == "global":
        return fit(dataset).apply(dataset)
    if how == "per-client":
        return fit_per_client(dataset).apply(dataset)
    raise DataError(f"standardize must be 'global', 'per-client' or None, got {how!r}.")
