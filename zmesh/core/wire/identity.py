"""What proves who a node is: the extension IDENTITY of a HELLO, and the bytes that nodes sign.

    IDENTITY    time 8 | signature 64 | certificate

`time` is the sender's clock in milliseconds since 1970, and the certificate that of OpenSSH, in its binary form. What
is signed is never sent: both ends make it of what they know.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from zmesh.core.wire.fields import CRITICAL, WireError, pack

IDENTITY = CRITICAL
"""The extension of a HELLO with the sender's proof of its identity."""

ENROLLING = 1
"""The extension of a HELLO, empty, of a leaf that has no certificate yet, or an expired one, and asks for one."""

MAX_CERTIFICATE = 3072
SIGNATURE_BYTES = 64
MAX_PROOF = 8 + SIGNATURE_BYTES + MAX_CERTIFICATE
_PROOF = Struct(f">Q{SIGNATURE_BYTES}s")
_MAX_TIME = 1 << 53


class Proof(NamedTuple):
    """The extension IDENTITY of a HELLO; `time` in milliseconds since 1970."""

    time: int
    signature: bytes
    certificate: bytes


def encode_proof(proof: Proof) -> bytes:
    """The content of the extension."""
    return _PROOF.pack(proof.time, proof.signature) + proof.certificate


def decode_proof(data: bytes) -> Proof:
    """Read the content of the extension. Raises WireError."""
    if not _PROOF.size < len(data) <= MAX_PROOF:
        raise WireError(f"a proof of identity of {len(data)} bytes")
    time, signature = _PROOF.unpack_from(data)
    if time > _MAX_TIME:
        raise WireError("a proof of identity with a time out of its limits")
    return Proof(time, signature, data[_PROOF.size :])


def signed_by_dialler(mesh: str, channel: bytes, time: int, node: str, incarnation: int) -> bytes:
    """What the node that dials signs: `channel` holds the CURVE key that it has made at its start."""
    return pack(("zmesh hello 1", "dialler", mesh, channel, time, node, incarnation))


def signed_by_listener(
    mesh: str, channel: bytes, time: int, node: str, incarnation: int, dialler: str, its_incarnation: int
) -> bytes:
    """What the node that listens signs: both ids and incarnations, since its CURVE key is that of earlier starts."""
    return pack(("zmesh hello 1", "listener", mesh, channel, time, node, incarnation, dialler, its_incarnation))
