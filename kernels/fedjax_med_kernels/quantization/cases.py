"""Lengths of real updates and awkward ones, for tests and benchmarks alike."""

CASES = {
    "empty": 0,
    "one": 1,
    "heart-disease-silos": 14,
    "one-below-a-group": 31,
    "group": 32,
    "one-above-a-group": 33,
    "logistic-regression": 785,
}
"""Numbers of codes, packed with 1 to 8 bits each."""

LARGE = {"ehr-mlp": 20_000, "cifar-cnn": 1_000_000, "unet": 8_000_000}
"""Sizes for benchmarks, too slow for the reference bit by bit."""
