"""Payloads sealed from end to end: forwarders see routes and sizes, and change nothing unnoticed.

Each incarnation of a node has X25519 keys (RFC 7748), whose public half its signed record carries. Two nodes derive a
key for each direction by HKDF-SHA256 (RFC 5869) from the shared secret, over the mesh's name, both ids and
incarnations, and who sends. A frame is sealed by AES-256-GCM with a counter that the sender never uses twice under a
key, which travels before it; what identifies the route is authenticated with it. A receiver takes each counter once,
and none that is WINDOW or more below the highest (RFC 4303 section 3.4.3). A key seals LAST_COUNTER frames at most.

Forward secrecy reaches from one key of an incarnation to the next: who learns an X25519 key reads what was sealed to
it.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

KEY_BYTES = 32
COUNTER_BYTES = 8
TAG_BYTES = 16
OVERHEAD = COUNTER_BYTES + TAG_BYTES
LAST_COUNTER = 1 << 32
WINDOW = 1024
_INFO = b"zmesh seal 1"
_NONCE_PREFIX = bytes(4)


class Unsealable(Exception):
    """A frame that was sealed for another receiver, was changed, or has come before. `reason` in a word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ExchangeKey:
    """The X25519 key of one incarnation of a node."""

    __slots__ = ("_key", "public")

    def __init__(self, private: bytes) -> None:
        """`private`: 32 random bytes."""
        self._key = X25519PrivateKey.from_private_bytes(private)
        self.public: bytes = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def shared(self, public: bytes) -> bytes:
        """The secret that this key and another node's public key have in common. Raises Unsealable for a bad key."""
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:  # all zeros (RFC 7748 section 6.1), or not 32 bytes
            raise Unsealable("bad_key") from None


def direction_key(secret: bytes, mesh: str, sender: tuple[str, int], receiver: tuple[str, int]) -> bytes:
    """The key of what `sender` seals for `receiver`, each an id and an incarnation."""
    info = b"\0".join((_INFO, *(part for id, incarnation in (sender, receiver) for part in _words(id, incarnation))))
    return HKDF(SHA256(), KEY_BYTES, salt=mesh.encode(), info=info).derive(secret)


def _words(id: str, incarnation: int) -> tuple[bytes, bytes]:
    return id.encode(), incarnation.to_bytes(8, "big").hex().encode()


class Sealer:
    """One direction, at the sender."""

    __slots__ = ("_aead", "counter")

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)
        self.counter = 0

    @property
    def is_used_up(self) -> bool:
        """Whether the key may seal no more, and another is needed."""
        return self.counter >= LAST_COUNTER

    def seal(self, data: bytes, route: bytes) -> bytes:
        """The counter, and `data` sealed; `route` is authenticated beside it."""
        if self.is_used_up:
            raise OverflowError("this key has sealed all that it may")
        self.counter += 1
        counter = self.counter.to_bytes(COUNTER_BYTES, "big")
        return counter + self._aead.encrypt(_NONCE_PREFIX + counter, data, route)


class Opener:
    """One direction, at the receiver."""

    __slots__ = ("_aead", "_highest", "_seen")

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)
        self._highest = 0
        self._seen = 0
        """A bit for each counter from the highest on downwards that was taken."""

    def open(self, sealed: bytes, route: bytes) -> bytes:
        """What was sealed. Raises Unsealable; a frame that is refused changes nothing here."""
        if len(sealed) < OVERHEAD:
            raise Unsealable("too_short")
        head = sealed[:COUNTER_BYTES]
        counter = int.from_bytes(head, "big")
        if not self._is_new(counter):
            raise Unsealable("replayed")
        try:
            data = self._aead.decrypt(_NONCE_PREFIX + head, sealed[COUNTER_BYTES:], route)
        except InvalidTag:
            raise Unsealable("forged") from None
        self._take(counter)
        return data

    def _is_new(self, counter: int) -> bool:
        if counter > self._highest:
            return counter <= LAST_COUNTER
        below = self._highest - counter
        return counter > 0 and below < WINDOW and not self._seen >> below & 1

    def _take(self, counter: int) -> None:
        if counter > self._highest:
            self._seen = (self._seen << (counter - self._highest) | 1) & ((1 << WINDOW) - 1)
            self._highest = counter
        else:
            self._seen |= 1 << (self._highest - counter)
