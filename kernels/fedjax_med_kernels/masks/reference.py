"""ChaCha20 of RFC 8439, one word at a time in plain Python: the definition, and far too slow."""

import numpy as np

CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)
"""The first four words of every state: "expand 32-byte k", little-endian."""

_MASK = 0xFFFFFFFF


def quarter_round_reference(a: int, b: int, c: int, d: int) -> tuple[int, int, int, int]:
    """RFC 8439, section 2.1, on Python integers."""
    a = (a + b) & _MASK
    d = _rotate(d ^ a, 16)
    c = (c + d) & _MASK
    b = _rotate(b ^ c, 12)
    a = (a + b) & _MASK
    d = _rotate(d ^ a, 8)
    c = (c + d) & _MASK
    b = _rotate(b ^ c, 7)
    return a, b, c, d


def chacha20_block_reference(key: np.ndarray, counter: int, nonce: np.ndarray) -> tuple[int, ...]:
    """RFC 8439, section 2.3: the 16 words of one block."""
    initial = [*CONSTANTS, *map(int, key), counter & _MASK, *map(int, nonce)]
    state = list(initial)

    def quarter_round(a: int, b: int, c: int, d: int):
        words = quarter_round_reference(state[a], state[b], state[c], state[d])
        state[a], state[b], state[c], state[d] = words

    for _ in range(10):
        for column in range(4):
            quarter_round(column, 4 + column, 8 + column, 12 + column)
        for diagonal in range(4):
            quarter_round(
                diagonal, 4 + (diagonal + 1) % 4, 8 + (diagonal + 2) % 4, 12 + (diagonal + 3) % 4
            )
    return tuple((s + i) & _MASK for s, i in zip(state, initial, strict=True))


def keystream_reference(
    key: np.ndarray, nonce: np.ndarray, num_words: int, counter: int = 0
) -> np.ndarray:
    """RFC 8439, section 2.4: `num_words` words of consecutive blocks, uint32."""
    blocks = range(counter, counter - (-num_words // 16))
    words = [w for block in blocks for w in chacha20_block_reference(key, block, nonce)]
    return np.array(words[:num_words], np.uint32)


def masks_sum_reference(
    keys: np.ndarray, coefficient: np.ndarray, nonce: np.ndarray, num_words: int, bits: int = 32
) -> np.ndarray:
    """The sum of `coefficient` times keystream over all keys, modulo `2**bits`, uint32."""
    total = np.zeros(num_words, object)
    for key, c in zip(keys, coefficient, strict=True):
        total = total + int(c) * keystream_reference(key, nonce, num_words).astype(object)
    return (total % 2**bits).astype(np.uint32)


def _rotate(word: int, by: int) -> int:
    return ((word << by) | (word >> (32 - by))) & _MASK
