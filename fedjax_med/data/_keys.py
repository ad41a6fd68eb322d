"""Counter-based random keys: the same on every platform and NumPy version, and vectorised.

NumPy may change the streams of its `Generator` methods between versions, which would move
patients between training and test sets. SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) is
three lines and fixed for ever.
"""

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """The SplitMix64 finaliser, a bijection of uint64; overflow wraps around by intent."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def random_keys(seed: int, stream: np.ndarray | np.uint64, counter: np.ndarray) -> np.ndarray:
    """Uniform uint64 keys of shape `counter.shape`, a function of (seed, stream, counter) alone.

    Args:
      seed: any integer; taken modulo 2**64.
      stream: uint64, broadcast against `counter`; one independent sequence per value.
      counter: integer position within the sequence.
    """
    with np.errstate(over="ignore"):
        root = _mix(np.asarray([seed % 2**64], np.uint64))
        start = _mix(root ^ np.asarray(stream, np.uint64))
        return _mix(start + _GOLDEN * (np.asarray(counter, np.uint64) + np.uint64(1)))


def stream_of(text: str) -> int:
    """A 64-bit stream number for a name (Python's own `hash` differs from run to run)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def permutation(seed: int, stream: str, size: int) -> np.ndarray:
    """A random order of `range(size)`, int64, from keys of `random_keys`."""
    keys = random_keys(seed, np.uint64(stream_of(stream)), np.arange(size))
    return np.argsort(keys, kind="stable")
