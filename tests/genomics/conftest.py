import numpy as np
import pytest

from fedjax_med.data import ClientArrays, FederatedDataset

SIZES = np.array([23, 9, 30])
NUM_SNPS = 40


@pytest.fixture(scope="session")
def hospitals():
    """62 people of three hospitals that differ in ancestry; some genotypes are missing."""
    rng = np.random.default_rng(3)
    ancestral = rng.uniform(0.2, 0.8, NUM_SNPS)
    frequency = np.clip(ancestral + rng.normal(0, 0.15, (3, NUM_SNPS)), 0.05, 0.95)
    x = rng.binomial(2, np.repeat(frequency, SIZES, axis=0)).astype(np.float32)
    x[rng.random(x.shape) < 0.04] = np.nan
    return FederatedDataset(
        name="small",
        client_names=("North", "South", "East"),
        train=ClientArrays({"x": x}, SIZES),
        feature_names=tuple(f"rs{i}" for i in range(NUM_SNPS)),
    )


@pytest.fixture(scope="session")
def pooled(hospitals):
    """All dosages float64 about their means, 0 where missing, and those means."""
    x = hospitals.train.examples["x"].astype(np.float64)
    mean = np.nanmean(x, axis=0)
    return np.where(np.isnan(x), 0, x - mean), mean
