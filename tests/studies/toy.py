"""Three small hospitals that agree about the disease, one of which codes its patients the wrong way."""

import numpy as np

from fedjax_med.data import FederatedDataset
from fedjax_med.studies import Settings

SIZES = {"North": 40, "South": 30, "West": 24}


def make_hospitals(kind="binary", *, seed=0, upside_down=(), missing=0.1):
    """Age in years and two laboratory values; `upside_down` hospitals have the opposite outcome."""
    rng = np.random.default_rng(seed)
    train, test = {}, {}
    for name, size in SIZES.items():
        x = rng.normal([60, 5, 0], [10, 2, 1], (size, 3)).astype(np.float32)
        score = (x[:, 0] - 60) / 10 - (x[:, 1] - 5) / 2 + 0.3 * rng.standard_normal(size)
        score = -score if name in upside_down else score
        examples = {"x": np.where(rng.random(x.shape) < missing, np.nan, x).astype(np.float32)}
        if kind == "binary":
            examples["y"] = (score > 0).astype(np.int32)
        elif kind == "regression":
            examples["y"] = (100 + 20 * score).astype(np.float32)
        else:
            examples["time"] = np.exp(3 - score).astype(np.float32)
            examples["event"] = (rng.random(size) < 0.8).astype(np.int32)
        held = max(4, size // 4)
        train[name] = {key: value[held:] for key, value in examples.items()}
        test[name] = {key: value[:held] for key, value in examples.items()}
    return FederatedDataset.from_clients(
        train, test=test, name="toy", feature_names=("age", "crp", "sodium")
    )


def settings(**chosen):
    """A study of seconds."""
    quick = {
        "methods": ("fedavg", "ditto"),
        "rounds": 3,
        "batch_size": 8,
        "learning_rates": (0.03, 0.3),
        "num_seeds": 2,
        "num_splits": 2,
        "num_resamples": 30,
    }
    return Settings(**{**quick, **chosen})
