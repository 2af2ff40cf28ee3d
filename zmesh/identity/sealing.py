"""Payloads sealed from end to end: forwarders see routes and sizes, and change nothing unnoticed.

Each node has an X25519 key (RFC 7748), whose public half its signed record carries. Two nodes derive a key for each
direction by HKDF-SHA256 (RFC 5869) from the shared secret, over the mesh's name, both ids and incarnations, and who
sends. The head and the body of a packet are sealed by an AEAD with a counter that the sender never uses twice under a
key, which travels before the head; what identifies the route is authenticated with the head. A receiver takes each
counter once, and none that is WINDOW or more below the highest (RFC 4303 section 3.4.3). A key seals LAST_COUNTER
packets at most. The nonce says whether a head has a body, so that none can be taken away; the head of a packet that
comes back is opened without it.

The AEAD is AES-256-GCM, unless either node's processor has no AES instructions: then it is ChaCha20-Poly1305 (RFC
8439), which is several times as fast without them. Such a node says so in a byte after its key, in its signed record;
so both ends choose the same, and a node between them can't choose for them.

Forward secrecy reaches from one key of an incarnation to the next: who learns an X25519 key reads what was sealed to
it.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from zmesh.core.credentials import Unsealable

KEY_BYTES = 32
COUNTER_BYTES = 8
KEY_ID_BYTES = 4
TAG_BYTES = 16
LAST_COUNTER = 1 << 32
WINDOW = 1024
_ALL_SEEN = (1 << WINDOW) - 1
CHACHA20 = b"\x01"
"""Suffix of the public key of a node that prefers ChaCha20-Poly1305."""
_INFO = {AESGCM: b"zmesh seal 1", ChaCha20Poly1305: b"zmesh seal 1 chacha20-poly1305"}
_PREFIX_BYTES = 2 * KEY_ID_BYTES
_CIPHERTEXT_AT = _PREFIX_BYTES + COUNTER_BYTES
_ALONE, _HEAD, _BODY = bytes(4), b"\0\0\0\1", b"\0\0\0\2"
"""Prefixes of the counter in a nonce: for a head without a body, a head with one, and that body."""


Cipher = type[AESGCM] | type[ChaCha20Poly1305]


class ExchangeKey:
    """The X25519 key of one incarnation of a node. `public` says which AEAD the node prefers, too."""

    __slots__ = ("_key", "public")

    def __init__(self, private: bytes, *, prefers_chacha20: bool = False) -> None:
        """`private`: 32 random bytes."""
        self._key = X25519PrivateKey.from_private_bytes(private)
        public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public: bytes = public + CHACHA20 if prefers_chacha20 else public

    def shared(self, public: bytes) -> bytes:
        """The secret that this key and another node's public key have in common. Raises Unsealable for a bad key."""
        if public[KEY_BYTES:] not in (b"", CHACHA20):
            raise Unsealable("bad_key")
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public[:KEY_BYTES]))
        except ValueError:  # all zeros (RFC 7748 section 6.1), or not 32 bytes
            raise Unsealable("bad_key") from None


def cipher_of(*keys: bytes) -> Cipher:
    """The AEAD of a session of these public keys: ChaCha20-Poly1305 if one of them prefers it, else AES-256-GCM."""
    return ChaCha20Poly1305 if any(key[KEY_BYTES:] for key in keys) else AESGCM


def direction_key(
    secret: bytes, mesh: str, sender: tuple[str, int], receiver: tuple[str, int], cipher: Cipher = AESGCM
) -> bytes:
    """The key of what `sender` seals for `receiver`, each an id and an incarnation."""
    info = b"\0".join(
        (_INFO[cipher], *(part for id, incarnation in (sender, receiver) for part in _words(id, incarnation)))
    )
    return HKDF(SHA256(), KEY_BYTES, salt=mesh.encode(), info=info).derive(secret)


def _words(id: str, incarnation: int) -> tuple[bytes, bytes]:
    return id.encode(), incarnation.to_bytes(8, "big").hex().encode()


class Session:
    """Seals packets of one node for another, and opens those that the other has sealed.

    `head` is what stands before each sealed head but for the counter: the ids of both keys. `counter` and `highest`:
    how many packets these keys have sealed before at this node, and what the highest counter was that has come.
    """

    __slots__ = ("_opens", "_prefix", "_seals", "_seen", "_theirs", "counter", "highest")

    def __init__(
        self,
        sealing: bytes,
        opening: bytes,
        ours: bytes,
        theirs: bytes,
        counter: int = 0,
        highest: int = 0,
        cipher: Cipher = AESGCM,
    ) -> None:
        self._seals, self._opens = cipher(sealing), cipher(opening)
        self._prefix, self._theirs = ours + theirs, theirs + ours
        self.counter = counter
        self.highest = highest
        self._seen = _ALL_SEEN if highest else 0
        """A bit for each counter from the highest on downwards that was taken."""

    def seal(self, route: bytes, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        """The head and the body, sealed; `route` is authenticated beside them.

        Raises OverflowError after LAST_COUNTER packets.
        """
        if self.counter >= LAST_COUNTER:
            raise OverflowError("this key has sealed all that it may")
        self.counter = count = self.counter + 1
        counter = count.to_bytes(COUNTER_BYTES, "big")
        seal = self._seals.encrypt
        if not body:
            return self._prefix + counter + seal(_ALONE + counter, head, route), b""
        sealed = seal(_BODY + counter, body if type(body) is bytes else memoryview(body), None)  # as below
        return self._prefix + counter + seal(_HEAD + counter, head, route), sealed

    def open(self, route: bytes, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        """The head and the body that were sealed. Raises Unsealable for one that is forged or replayed; it changes
        nothing.
        """
        counter = head[_PREFIX_BYTES:_CIPHERTEXT_AT]
        if len(head) < _CIPHERTEXT_AT + TAG_BYTES or head[:_PREFIX_BYTES] != self._theirs:
            raise Unsealable("forged")
        count = int.from_bytes(counter, "big")
        is_next = count == self.highest + 1  # as most are
        if not (is_next and count <= LAST_COUNTER) and not self._is_new(count):
            raise Unsealable("replayed")
        opens = self._opens.decrypt
        content = b""
        try:
            if not body:
                plain = opens(_ALONE + counter, head[_CIPHERTEXT_AT:], route)
            else:
                plain = opens(_HEAD + counter, head[_CIPHERTEXT_AT:], route)
                # A view, since large bodies come from ZeroMQ uncopied, as what only its own types and views can read.
                content = opens(_BODY + counter, body if type(body) is bytes else memoryview(body), None)
        except InvalidTag:
            raise Unsealable("forged") from None
        if is_next:
            self._seen = (self._seen << 1 | 1) & _ALL_SEEN
            self.highest = count
        else:
            self._take(count)
        return plain, content

    def reopen(self, route: bytes, head: bytes) -> bytes:
        """The head of a packet that was sealed here, and comes back without its body. Raises Unsealable."""
        counter = head[_PREFIX_BYTES:_CIPHERTEXT_AT]
        for kind in (_HEAD, _ALONE):
            try:
                return self._seals.decrypt(kind + counter, head[_CIPHERTEXT_AT:], route)
            except (InvalidTag, ValueError):
                continue
        raise Unsealable("forged")

    def _is_new(self, counter: int) -> bool:
        if counter > self.highest:
            return counter <= LAST_COUNTER
        below = self.highest - counter
        return counter > 0 and below < WINDOW and not self._seen >> below & 1

    def _take(self, counter: int) -> None:
        if counter > self.highest:
            ahead = min(counter - self.highest, WINDOW)
            self._seen = (self._seen << ahead | 1) & _ALL_SEEN
            self.highest = counter
        else:
            self._seen |= 1 << (self.highest - counter)
