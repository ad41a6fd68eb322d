"""Secure aggregation between parties: key agreement, encrypted shares, masked input, unmasking.

The protocol that `masking.py` simulates, as objects for one round of a small cohort: each
`ProtocolClient` makes its own secrets and sees only what a client would see, `ProtocolServer` only what
a server would. Sums are the integers of the compiled path. It protects against a server that follows
the protocol and looks at all it gets, alone or with fewer than `threshold` neighbours of a client. It
does not authenticate public keys, so a server that forges them is not stopped, and keys stay in the
memory of Python.

References:
  Bonawitz et al., CCS 2017, figure 4. https://eprint.iacr.org/2017/281
  Bell et al., CCS 2020, algorithm 2. https://eprint.iacr.org/2020/704
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from fedjax_med.secure import shamir
from fedjax_med.secure.primitives import KEY_BYTES, agree, cryptography_parts, mask, stream
from fedjax_med.secure.ring import degree, signs_on_ring


class ProtocolError(ValueError):
    """The round cannot go on."""


class Advertisement(NamedTuple):
    """A client's public keys, X25519, 32 bytes each: for shares and for masks."""

    cipher_key: bytes
    mask_key: bytes


class Revealed(NamedTuple):
    """Shares that a client reveals, by the id of their owner; uint32 `[32]` each.

    Attributes:
      self_seeds: of neighbours that handed in.
      secrets: of neighbours that did not.
    """

    self_seeds: dict[int, np.ndarray]
    secrets: dict[int, np.ndarray]


class ProtocolClient:
    """One client in one round.

    Attributes:
      client_id: its number among the clients.
    """

    def __init__(self, client_id: int, *, neighbours: int, threshold: int, bits: int = 32):
        """Draws its secrets."""
        self.client_id = client_id
        self._neighbours, self._threshold, self._bits = neighbours, threshold, bits
        private = cryptography_parts().x25519.X25519PrivateKey
        self._cipher, self._secret = (private.generate() for _ in range(2))
        self._self_seed = secrets.token_bytes(KEY_BYTES)
        self._public: dict[int, Advertisement] = {}
        self._signs: dict[int, int] = {}
        self._held: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._revealed = False

    def advertise(self) -> Advertisement:
        """Step 0: its public keys."""
        return Advertisement(
            self._cipher.public_key().public_bytes_raw(),
            self._secret.public_key().public_bytes_raw(),
        )

    def share(self, advertisements: Mapping[int, Advertisement]) -> dict[int, bytes]:
        """Step 1: for each neighbour the shares of its two secrets, encrypted for it alone.

        Raises:
          ProtocolError: if so few clients advertised that its secrets could not be recovered.
        """
        self._signs = signs_on_ring(self.client_id, list(advertisements), self._neighbours)
        self._public = {i: advertisements[i] for i in self._signs}
        if len(self._signs) < self._threshold:
            raise ProtocolError(
                f"Client {self.client_id} has {len(self._signs)} neighbours, fewer than the "
                f"{self._threshold} (threshold) whose shares recover its secrets."
            )
        points = np.arange(1, len(self._signs) + 1, dtype=np.uint32)
        both = [
            shamir.share(_elements(secret), _random_elements(self._threshold - 1), points)
            for secret in (self._self_seed, self._secret.private_bytes_raw())
        ]
        out = {}
        for number, partner in enumerate(self._signs):
            plain = b"".join(shares[number].astype("<u2").tobytes() for shares in both)
            nonce = secrets.token_bytes(12)
            sealed = (
                cryptography_parts()
                .AESGCM(self._share_key(partner))
                .encrypt(nonce, plain, _route(self.client_id, partner))
            )
            out[partner] = nonce + sealed
        return out

    def masked(self, words: np.ndarray, received: Mapping[int, bytes]) -> np.ndarray:
        """Step 2: the masked message; `received` are the shares that neighbours sent it.

        Args:
          words: uint32 `[num_words]`, below `2**bits`.
          received: by sender; all of its neighbours have to be there.

        Raises:
          ProtocolError: if a neighbour's shares are missing, or were changed on their way.
        """
        missing = sorted(set(self._signs) - set(received))
        if missing:
            raise ProtocolError(
                f"Client {self.client_id} has no shares of neighbours {missing}; masks with them "
                "could not be taken off."
            )
        for sender in self._signs:
            self._held[sender] = self._decrypt(sender, received[sender])
        private = self._secret.private_bytes_raw()
        keys = {i: agree(private, a.mask_key, b"mask") for i, a in self._public.items()}
        total = words + mask(self._self_seed, keys, self._signs, len(words))
        return total & np.uint32(2**self._bits - 1)

    def reveal(self, handed_in: Collection[int]) -> Revealed:
        """Step 3: for each neighbour one share: of its self seed if it handed in, else of its secret.

        Raises:
          ProtocolError: when asked a second time (with another list it would give both away), or if
            fewer than `threshold` clients handed in.
        """
        if self._revealed:
            raise ProtocolError(f"Client {self.client_id} reveals shares once in a round.")
        if len(handed_in) < self._threshold:
            raise ProtocolError(
                f"{len(handed_in)} clients handed in, fewer than {self._threshold} (threshold)."
            )
        self._revealed = True
        seeds = {i: own for i, (own, _) in self._held.items() if i in handed_in}
        others = {i: secret for i, (_, secret) in self._held.items() if i not in handed_in}
        return Revealed(seeds, others)

    def _share_key(self, partner: int) -> bytes:
        return agree(self._cipher.private_bytes_raw(), self._public[partner].cipher_key, b"shares")

    def _decrypt(self, sender: int, message: bytes) -> tuple[np.ndarray, np.ndarray]:
        from cryptography.exceptions import InvalidTag

        aes = cryptography_parts().AESGCM(self._share_key(sender))
        try:
            plain = aes.decrypt(message[:12], message[12:], _route(sender, self.client_id))
        except InvalidTag as error:
            raise ProtocolError(
                f"The shares of client {sender} for client {self.client_id} were changed."
            ) from error
        both = np.frombuffer(plain, "<u2").astype(np.uint32).reshape(2, shamir.BYTES)
        return both[0], both[1]


class ProtocolServer:
    """The server of one round."""

    def __init__(self, *, neighbours: int, threshold: int, bits: int = 32):
        """Knows nothing yet."""
        self._neighbours, self._threshold, self._bits = neighbours, threshold, bits
        self._public: dict[int, Advertisement] = {}
        self._total: np.ndarray | None = None
        self._handed_in: set[int] = set()

    def announce(self, advertisements: Mapping[int, Advertisement]) -> dict[int, Advertisement]:
        """After step 0: the public keys of all, for everybody."""
        degree(self._neighbours, len(advertisements))
        self._public = dict(sorted(advertisements.items()))
        return self._public

    def receive(self, client_id: int, masked: np.ndarray) -> None:
        """In step 2: adds what a client handed in."""
        self._handed_in.add(client_id)
        self._total = masked if self._total is None else self._total + masked

    def unmask(self, revealed: Mapping[int, Revealed]) -> np.ndarray:
        """After step 3: the sum of the messages that were handed in.

        Raises:
          ProtocolError: if a client that has to be recovered has fewer than `threshold` shares.
        """
        if self._total is None:
            raise ProtocolError("Nobody handed in.")
        total, num_words = self._total, len(self._total)
        for owner in self._public:
            signs = signs_on_ring(owner, list(self._public), self._neighbours)
            alive = owner in self._handed_in
            shares = {}
            for number, holder in enumerate(signs):
                if holder in revealed:
                    told = revealed[holder]
                    found = (told.self_seeds if alive else told.secrets).get(owner)
                    if found is not None:
                        shares[number + 1] = found
            if len(shares) < self._threshold:
                raise ProtocolError(
                    f"Client {owner} {'handed in' if alive else 'dropped out'} and {len(shares)} of "
                    f"its neighbours revealed shares, fewer than {self._threshold} (threshold): the "
                    "round is rejected."
                )
            secret = _recovered(shares, self._threshold)
            if alive:
                total = total - stream(secret, num_words)
                continue
            for partner, sign in signs.items():
                if partner in self._handed_in:
                    key = agree(secret, self._public[partner].mask_key, b"mask")
                    # The partner's sign is the opposite one.
                    one = stream(key, num_words)
                    total = total + one if sign > 0 else total - one
        return total & np.uint32(2**self._bits - 1)


class ProtocolSum(NamedTuple):
    """A round of the protocol.

    Attributes:
      words: uint32 `[num_words]`, the sum of the messages that were handed in.
      masked: what was handed in, by client.
      bytes_up: what the largest sender among the clients sent, of all four steps.
    """

    words: np.ndarray
    masked: dict[int, np.ndarray]
    bytes_up: int


def run_protocol(
    messages: Mapping[int, np.ndarray],
    *,
    neighbours: int,
    threshold: int,
    dropped: Collection[int] = (),
    bits: int = 32,
) -> ProtocolSum:
    """All parties of a round in one process, one after the other.

    Args:
      messages: uint32 `[num_words]` by client id.
      neighbours: clients that each shares masks with, even.
      threshold: shares that recover a secret.
      dropped: clients that vanish after they have sent their shares.
      bits: sums are modulo `2**bits`.

    Raises:
      ProtocolError: if the sum cannot be recovered.
    """
    sizes = {"neighbours": neighbours, "threshold": threshold, "bits": bits}
    server = ProtocolServer(**sizes)
    clients = {i: ProtocolClient(i, **sizes) for i in sorted(messages)}
    public = server.announce({i: c.advertise() for i, c in clients.items()})
    sent = {i: c.share(public) for i, c in clients.items()}
    alive = [i for i in clients if i not in dropped]
    masked = {}
    for i in alive:
        received = {j: shares[i] for j, shares in sent.items() if i in shares}
        masked[i] = clients[i].masked(messages[i], received)
        server.receive(i, masked[i])
    revealed = {i: clients[i].reveal(alive) for i in alive}
    up = [
        2 * KEY_BYTES
        + sum(map(len, sent[i].values()))
        + masked[i].nbytes
        + 2 * shamir.BYTES * sum(map(len, revealed[i]))
        for i in alive
    ]
    return ProtocolSum(server.unmask(revealed), masked, max(up, default=0))


def _elements(secret: bytes) -> np.ndarray:
    return np.frombuffer(secret, np.uint8).astype(np.uint32)


def _random_elements(num: int) -> np.ndarray:
    """Uniform field elements `[num, 32]`, from the system's generator."""
    flat = [secrets.randbelow(shamir.PRIME) for _ in range(num * shamir.BYTES)]
    return np.array(flat, np.uint32).reshape(num, shamir.BYTES)


def _recovered(shares: Mapping[int, np.ndarray], threshold: int) -> bytes:
    points = np.array(sorted(shares)[:threshold], np.uint32)
    elements = shamir.recover(points, np.stack([shares[int(x)] for x in points]))
    return (elements % 256).astype(np.uint8).tobytes()


def _route(sender: int, receiver: int) -> bytes:
    """Goes into the authentication, so that shares cannot be passed to somebody else."""
    return f"{sender} to {receiver}".encode()
