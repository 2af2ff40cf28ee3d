"""Sealed packets: what stands before the ciphertext of a head, and how much longer sealing makes a packet.

    sender's key 4 | receiver's key 4 | counter 8 | ciphertext of the head | tag 16

A key is named by the first bytes of the X25519 public key that its node's record has. The body is ciphertext and a tag;
an empty one stays empty. The kind, the destination and the source are authenticated with the head. The tags replace the
packet's checksum, which is 0.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from zmesh.core.wire.fields import WireError
from zmesh.core.wire.limits import VERSION
from zmesh.core.wire.packet import SEAL_TAG_BYTES

KEY_ID_BYTES = 4
_SEAL = Struct(">4s4sQ")
SEAL_HEAD_BYTES = _SEAL.size + SEAL_TAG_BYTES


class Seal(NamedTuple):
    """The fields before the ciphertext of a head: the ids of both keys, and the sender's count of packets."""

    sender: bytes
    receiver: bytes
    counter: int


def decode_seal(head: bytes) -> Seal:
    """Read the beginning of a sealed head. Raises WireError."""
    if len(head) < SEAL_HEAD_BYTES:
        raise WireError(f"a sealed head of {len(head)} bytes")
    return Seal(*_SEAL.unpack_from(head))


def key_ids(head: bytes) -> tuple[bytes, bytes]:
    """The ids of the sender's and the receiver's key at the beginning of a sealed head. Raises WireError."""
    if len(head) < SEAL_HEAD_BYTES:
        raise WireError(f"a sealed head of {len(head)} bytes")
    return head[:KEY_ID_BYTES], head[KEY_ID_BYTES : 2 * KEY_ID_BYTES]


def encode_seal(seal: Seal) -> bytes:
    """The beginning of a sealed head."""
    return _SEAL.pack(*seal)


def authenticated(kind: int, destination: str, source: str) -> bytes:
    """The additional authenticated data of a sealed head (RFC 5116), which is not sent a second time."""
    return b"%c%c%b %b" % (VERSION, kind, destination.encode("ascii"), source.encode("ascii"))
