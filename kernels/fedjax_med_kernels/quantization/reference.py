"""What packing and rounding have to compute, in numpy."""

import numpy as np


def stochastic_round_reference(x: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Rounds away from zero where 32 random bits, as a fraction, fall below that of `|x|`.

    Args:
      x: float64.
      bits: uint32, the draws.

    Returns:
      Whole numbers, float64.
    """
    lower = np.floor(np.abs(x))
    away = bits.astype(np.float64) / 2**32 < np.abs(x) - lower
    return np.sign(x) * (lower + away)


def pack_reference(codes: np.ndarray, bits: int) -> np.ndarray:
    """The words of `pack` for one vector, bit by bit, as Python integers."""
    group = 32 // np.gcd(bits, 32)  # codes that fill whole words
    columns = -(-len(codes) // group)
    padded = np.zeros(group * columns, np.int64)
    padded[: len(codes)] = codes
    words = []
    for column in padded.reshape(group, columns).T:
        stream = sum(int(code) << (i * bits) for i, code in enumerate(column))
        words.append([(stream >> (32 * w)) & 0xFFFFFFFF for w in range(group * bits // 32)])
    return np.array(words, np.uint32).reshape(columns, group * bits // 32).T.reshape(-1)
