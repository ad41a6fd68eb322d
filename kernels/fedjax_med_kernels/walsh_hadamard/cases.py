"""Lengths of real updates and awkward ones, for tests and benchmarks alike."""

CASES = {
    "one": (1, 1),
    "two": (3, 2),
    "heart-disease-silos": (4, 14),
    "one-below-a-power": (2, 127),
    "power": (2, 128),
    "one-above-a-power": (2, 129),
    "logistic-regression": (5, 785),
    "no-batch": (2048,),
}
"""Shapes of the input; the transform runs over the last axis."""

LARGE = {
    "ehr-mlp": (64, 16_384),
    "cifar-cnn": (8, 131_072),
    "resnet": (1 << 20,),
    "unet": (1 << 24,),
}
"""Sizes for benchmarks; the dense reference does not reach them."""
