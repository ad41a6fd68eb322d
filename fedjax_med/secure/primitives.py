"""Cryptography of the protocol between parties, by the package `cryptography`; imported when used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

KEY_BYTES = 32
_NO_NONCE = bytes(12)  # every mask key is of one round and one pair


def cryptography_parts() -> Any:
    """The parts of `cryptography` that are used.

    Raises:
      ImportError: if it is not installed, with the way out.
    """
    try:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import x25519
        from cryptography.hazmat.primitives.ciphers import Cipher, aead, algorithms
        from cryptography.hazmat.primitives.kdf import hkdf
    except ImportError as error:
        raise ImportError(
            "The protocol needs the package cryptography; install fedjax-med[secure]."
        ) from error

    class Crypto(NamedTuple):
        hashes: Any
        x25519: Any
        Cipher: Any
        AESGCM: Any
        ChaCha20: Any
        HKDF: Any

    return Crypto(hashes, x25519, Cipher, aead.AESGCM, algorithms.ChaCha20, hkdf.HKDF)


def agree(private: bytes, public: bytes, purpose: bytes) -> bytes:
    """A key of 32 bytes that the holders of two X25519 keys derive alike, by HKDF with SHA-256."""
    c = cryptography_parts()
    shared = c.x25519.X25519PrivateKey.from_private_bytes(private).exchange(
        c.x25519.X25519PublicKey.from_public_bytes(public)
    )
    kdf = c.HKDF(algorithm=c.hashes.SHA256(), length=KEY_BYTES, salt=None, info=purpose)
    return kdf.derive(shared)


def stream(key: bytes, num_words: int, nonce: bytes = _NO_NONCE) -> np.ndarray:
    """ChaCha20's keystream from block 0, uint32 `[num_words]`; that of `masks.keystream`."""
    c = cryptography_parts()
    # This library takes the counter of the first block in front of the nonce of RFC 8439.
    cipher = c.Cipher(c.ChaCha20(key, bytes(4) + nonce), mode=None).encryptor()
    return np.frombuffer(cipher.update(bytes(4 * num_words)), "<u4").astype(np.uint32)


def mask(
    self_seed: bytes,
    pair_keys: Mapping[int, bytes],
    signs: Mapping[int, int],
    num_words: int,
    nonce: bytes = _NO_NONCE,
) -> np.ndarray:
    """What a client adds to its message, uint32 `[num_words]` modulo 2**32."""
    total = stream(self_seed, num_words, nonce)
    for partner, key in pair_keys.items():
        one = stream(key, num_words, nonce)
        total = total + one if signs[partner] > 0 else total - one
    return total
