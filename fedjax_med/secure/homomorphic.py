"""Sums of encrypted updates: CKKS by TenSEAL, outside of compiled rounds.

Clients encrypt under one key that they share, the server adds ciphertexts, and whoever has the secret key
decrypts the sum. So the server learns nothing, and a server with one client everything: keys belong to
the clients, and the server gets a context without the secret key (`public_context`).

References:
  Cheon, Kim, Kim and Song, "Homomorphic Encryption for Arithmetic of Approximate Numbers", ASIACRYPT
  2017. https://eprint.iacr.org/2016/421
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree

from fedjax_med.engine.contracts import Aggregator, PyTree

# 128 bits of security for sums: https://homomorphicencryption.org, table of the 2018 standard, allows
# moduli of up to 218 bits for 8,192 coefficients; these chains have 140.
_DEGREE = 8192
_CHAIN = (60, 40, 40)
_SCALE = 2.0**40
SLOTS = _DEGREE // 2
"""Numbers of one ciphertext."""


def _tenseal() -> Any:
    try:
        import tenseal
    except ImportError as error:
        raise ImportError(
            "Homomorphic aggregation needs the package tenseal; install fedjax-med[homomorphic]."
        ) from error
    return tenseal


def new_context() -> Any:
    """A CKKS context with a new secret key, for the clients.

    Raises:
      ImportError: if `tenseal` is not installed.
    """
    ts = _tenseal()
    context = ts.context(ts.SCHEME_TYPE.CKKS, _DEGREE, coeff_mod_bit_sizes=list(_CHAIN))
    context.global_scale = _SCALE
    return context


def public_context(context: Any) -> Any:
    """What the server gets: enough to add ciphertexts, without the secret key."""
    ts = _tenseal()
    return ts.context_from(
        context.serialize(
            save_public_key=True,
            save_secret_key=False,
            save_galois_keys=False,
            save_relin_keys=False,
        )
    )


class Encrypted:
    """A vector in ciphertexts of `SLOTS` numbers each, which can be added to another."""

    def __init__(self, parts: list[Any], size: int):
        """Takes `tenseal` vectors that hold `size` numbers together."""
        self.parts, self.size = parts, size

    @classmethod
    def of(cls, vector: np.ndarray, context: Any) -> Encrypted:
        """Encrypts a vector under the key of a context."""
        ts = _tenseal()
        chunks = [vector[i : i + SLOTS] for i in range(0, len(vector), SLOTS)]
        return cls([ts.ckks_vector(context, chunk.tolist()) for chunk in chunks], len(vector))

    def __add__(self, other: Encrypted) -> Encrypted:
        """The sum, without decrypting."""
        if self.size != other.size:
            raise ValueError(f"A vector of {self.size} numbers was added to one of {other.size}.")
        return Encrypted([a + b for a, b in zip(self.parts, other.parts, strict=True)], self.size)

    def decrypt(self, secret_key: Any = None) -> np.ndarray:
        """The numbers, float64; `secret_key` if the context of the ciphertexts has none.

        Raises:
          ValueError: without any secret key.
        """
        keys = () if secret_key is None else (secret_key,)
        parts = [np.asarray(part.decrypt(*keys)) for part in self.parts]
        return np.concatenate(parts) if parts else np.zeros(0)

    def serialize(self) -> list[bytes]:
        """What is sent."""
        return [part.serialize() for part in self.parts]

    @classmethod
    def load(cls, messages: list[bytes], size: int, context: Any) -> Encrypted:
        """The inverse of `serialize`, for example under a `public_context`."""
        ts = _tenseal()
        return cls([ts.ckks_vector_from(context, m) for m in messages], size)


def homomorphic_mean(context: Any) -> Aggregator:
    """The weighted mean of updates, whose weighted sum is taken of ciphertexts.

    An aggregator like any other, for `SequentialExecutor`: TenSEAL computes on the host, so it cannot
    be part of a compiled round. Weights travel inside the ciphertexts too. Errors of the sum are
    about 1e-8 of its largest number for each client.

    Args:
      context: of `new_context`, with the secret key: in the simulation one process plays all parts.
    """

    def encode(update: PyTree, weight: jax.Array, state: PyTree, key: jax.Array) -> Encrypted:
        del state, key
        vector, _ = ravel_pytree(update)
        if isinstance(vector, Tracer):
            raise TypeError(
                "Homomorphic aggregation cannot run inside a compiled round; use SequentialExecutor, "
                "or masks (secure_mean)."
            )
        w = float(weight)
        return Encrypted.of(np.append(w * np.asarray(vector, np.float64), w), context)

    def decode(reduced: Encrypted, state: PyTree) -> tuple[PyTree, PyTree]:
        total = reduced.decrypt()
        # A weight of nothing comes back as noise of about 1e-9.
        divisor = total[-1] if total[-1] > 1e-6 else 1.0
        zeros, unravel = ravel_pytree(state)
        mean = unravel(jnp.asarray(total[:-1] / divisor, zeros.dtype))
        return jax.tree.map(lambda m, u: m.astype(u.dtype), mean, state), state

    return Aggregator(
        # The server keeps the shapes that the decrypted vector is unpacked to.
        init=lambda update: jax.tree.map(jnp.zeros_like, update),
        encode=encode,
        decode=decode,
        reduction="sum",
    )
