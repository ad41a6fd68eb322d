"""Windows of real models and awkward ones, for tests and benchmarks alike."""

from typing import NamedTuple


class PoolingCase(NamedTuple):
    """One pooling, with the arguments of `max_pool`.

    Attributes:
      shape: of the operand.
      window: `window_dimensions`.
      strides: `window_strides`, None for 1.
      padding: a name, or pairs for every dimension.
      base_dilation: None for 1.
      window_dilation: None for 1.
    """

    shape: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    padding: str | tuple[tuple[int, int], ...] = "VALID"
    base_dilation: tuple[int, ...] | None = None
    window_dilation: tuple[int, ...] | None = None


MODELS = {
    "cifar-cnn": PoolingCase((10, 28, 28, 64), (1, 2, 2, 1), (1, 2, 2, 1)),
    "resnet-stem": PoolingCase((10, 32, 32, 64), (1, 3, 3, 1), (1, 2, 2, 1), "SAME"),
    "resnet-head": PoolingCase((10, 7, 7, 512), (1, 7, 7, 1)),
    "inception": PoolingCase((4, 16, 16, 64), (1, 3, 3, 1), (1, 1, 1, 1), "SAME"),
    "unet-3d": PoolingCase((1, 16, 16, 16, 32), (1, 2, 2, 2, 1), (1, 2, 2, 2, 1)),
    "ecg": PoolingCase((16, 1000, 32), (1, 2, 1), (1, 2, 1)),
    "ecg-overlapping": PoolingCase((16, 1000, 32), (1, 3, 1), (1, 2, 1), "SAME"),
    "channels-first": PoolingCase((10, 64, 28, 28), (1, 1, 2, 2), (1, 1, 2, 2)),
}

AWKWARD = {
    "ragged-border": PoolingCase((2, 7, 5, 3), (1, 2, 2, 1), (1, 2, 2, 1)),
    "ragged-border-same": PoolingCase((2, 7, 5, 3), (1, 2, 2, 1), (1, 2, 2, 1), "SAME"),
    "oblong": PoolingCase((1, 9, 8, 2), (1, 3, 2, 1), (1, 3, 2, 1)),
    "one-element": PoolingCase((2, 3, 3, 1), (1, 1, 1, 1)),
    "subsampling": PoolingCase((2, 7, 3), (1, 1, 1), (1, 3, 1)),
    "skipping": PoolingCase((2, 11), (1, 2), (1, 5)),
    "strides-of-3": PoolingCase((3, 17, 2), (1, 5, 1), (1, 3, 1), "SAME"),
    "global": PoolingCase((2, 100, 3), (1, 100, 1)),
    "long-tiles": PoolingCase((2, 33, 2), (1, 11, 1), (1, 11, 1)),
    "long-padded-tile": PoolingCase((2, 9, 2), (1, 12, 1), (1, 5, 1), ((0, 0), (2, 1), (0, 0))),
    "padding-only": PoolingCase((3, 4), (1, 2), (1, 2), ((0, 0), (4, 3))),
    "cut-off": PoolingCase((9, 8), (2, 3), (1, 2), ((-2, 1), (0, -1))),
    "window-dilated": PoolingCase((2, 12, 9), (1, 3, 2), (1, 2, 1), "SAME", None, (1, 2, 3)),
    "base-dilated": PoolingCase((2, 5, 4), (1, 3, 2), (1, 2, 1), "VALID", (1, 2, 3)),
    "all-dimensions": PoolingCase((4, 5, 3, 4), (2, 2, 2, 3), (2, 1, 1, 2), "SAME_LOWER"),
    "scalar": PoolingCase((), ()),
}

POOLINGS = MODELS | AWKWARD
