"""Proof of identity: the extensions of HELLO and RECORD, certificates, and the bytes that nodes sign.

    IDENTITY    time 8 | signature 64 | certificate        of a HELLO
    ENDORSEMENTS    those of its authority              of a HELLO
    GRANTS      empty                                   of a HELLO and of a RECORD
    SIGNATURE   digest of the certificate 16 | signature 64    of a RECORD

A KEY_EXCHANGE is between a leaf that has a certificate or a grant and another end: the key of either, and its proof. A
GRANT stays on the link of a leaf and its node: the leaf sends its public key in one, and gets its grant in another.

`time` is the sender's clock in milliseconds since 1970, and the certificate that of OpenSSH, in its binary form. What
is signed is never sent: both ends make it of what they know.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from zmesh.core.wire.fields import CRITICAL, WireError, pack, read_array, read_int, read_items, unpack
from zmesh.core.wire.limits import MAX_HEAD, MAX_KEY, MAX_RECORDS, U64
from zmesh.core.wire.packet import Frames, Kind, encode_link

IDENTITY = CRITICAL
"""The extension of a HELLO with the sender's proof of its identity."""

ENROLLING = 1
"""The extension of a HELLO, empty, of a leaf that has no certificate yet, or an expired one, and asks for one."""

ENDORSEMENTS = 2
"""The extension of a HELLO with what makes the authority of its certificate trusted: endorsements, packed."""

GRANTS = 4
"""The extension, empty, of the HELLO of a node that gives grants on this link, or of a leaf that takes one; and of the
RECORD of a node that takes the key exchanges of leaves which have one.
"""

SIGNATURE = 1
"""The extension of a RECORD with its node's signature."""

MAX_CERTIFICATE = 3072
MAX_CERTIFICATES = MAX_RECORDS
MAX_STATEMENT = 1280
MAX_STATEMENTS = MAX_RECORDS
MAX_ENDORSEMENTS = 8
MAX_ENDORSEMENT_BYTES = 4 * 1024
DIGEST_BYTES = 16
BATCH_BYTES = 48 * 1024
SIGNATURE_BYTES = 64
MAX_VOUCHER = MAX_CERTIFICATE + 512
MAX_PROOF = 8 + SIGNATURE_BYTES + MAX_VOUCHER
MAX_GRANT = 2 * MAX_VOUCHER
PUBLIC_BYTES = 32
MAX_KEY_EXCHANGE = MAX_PROOF + 256
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
    """The bytes that the dialling node signs: `channel` holds the CURVE key that it has made at its start."""
    return pack(("zmesh hello 1", "dialler", mesh, channel, time, node, incarnation))


def signed_by_listener(
    mesh: str, channel: bytes, time: int, node: str, incarnation: int, dialler: str, its_incarnation: int
) -> bytes:
    """The bytes that the listener signs: both ids and incarnations, since its CURVE key is that of earlier starts."""
    return pack(("zmesh hello 1", "listener", mesh, channel, time, node, incarnation, dialler, its_incarnation))


class Grant(NamedTuple):
    """The head of a GRANT: the Ed25519 key of the leaf, and its node's grant for it; empty where the leaf asks."""

    key: bytes
    grant: bytes = b""


def decode_grant(head: bytes) -> Grant:
    """Decode the head of a GRANT. Raises WireError."""
    key, grant = read_array(unpack(head, MAX_HEAD), 2)
    if not (type(key) is type(grant) is bytes and len(key) == PUBLIC_BYTES and len(grant) <= MAX_GRANT):
        raise WireError("not a grant")
    return Grant(key, grant)


class KeyExchange(NamedTuple):
    """The head of a KEY_EXCHANGE: an X25519 key that was made for the other end; `answers`: the key that it answers,
    empty in the first of the two. `proof`: as in a HELLO.
    """

    incarnation: int
    key: bytes
    answers: bytes
    proof: bytes


def decode_key_exchange(head: bytes) -> KeyExchange:
    """Decode the head of a KEY_EXCHANGE. Raises WireError."""
    incarnation, key, answers, proof = read_array(unpack(head, MAX_KEY_EXCHANGE), 4)
    if not (type(key) is type(answers) is type(proof) is bytes and 0 < len(key) <= MAX_KEY and len(answers) <= MAX_KEY):
        raise WireError("not a key exchange")
    return KeyExchange(read_int(incarnation, U64), key, answers, proof)


def signed_key_exchange(
    mesh: str, time: int, name: str, incarnation: int, key: bytes, other: str, answers: bytes
) -> bytes:
    """The bytes that an end of a key exchange signs: `name` and `other` are a node's id, or that of a leaf and `@`."""
    return pack(("zmesh key exchange 1", mesh, time, name, incarnation, key, other, answers))


def encode_signature(digest: bytes, signature: bytes) -> bytes:
    """The content of the extension SIGNATURE."""
    return digest + signature


def decode_signature(data: bytes) -> tuple[bytes, bytes]:
    """The digest of the certificate and the signature. Raises WireError."""
    if len(data) != DIGEST_BYTES + SIGNATURE_BYTES:
        raise WireError(f"a signature of {len(data)} bytes")
    return data[:DIGEST_BYTES], data[DIGEST_BYTES:]


def encode_certificate_requests(digests: list[bytes]) -> list[Frames]:
    """CERTIFICATE_REQUESTs of those digests."""
    return [
        encode_link(Kind.CERTIFICATE_REQUEST, tuple(digests[start : start + MAX_CERTIFICATES]))
        for start in range(0, len(digests), MAX_CERTIFICATES)
    ]


def decode_certificate_requests(head: bytes) -> list[bytes]:
    """Decode the head of a CERTIFICATE_REQUEST: digests."""
    return _byte_strings(head, DIGEST_BYTES, DIGEST_BYTES)


def encode_certificates(certificates: list[bytes]) -> list[Frames]:
    """CERTIFICATEs, of about BATCH_BYTES each."""
    return _batches(Kind.CERTIFICATE, certificates)


def decode_certificates(head: bytes) -> list[bytes]:
    """Decode the head of a CERTIFICATE."""
    return _byte_strings(head, 1, MAX_CERTIFICATE)


def encode_statements(statements: list[bytes]) -> list[Frames]:
    """STATEMENTs, of about BATCH_BYTES each."""
    return _batches(Kind.STATEMENT, statements)


def decode_statements(head: bytes) -> list[bytes]:
    """Decode the head of a STATEMENT."""
    return _byte_strings(head, 1, MAX_STATEMENT)


def encode_endorsements(statements: list[bytes]) -> bytes:
    """The content of the extension ENDORSEMENTS: the first MAX_ENDORSEMENTS of them."""
    return pack(tuple(statements[:MAX_ENDORSEMENTS]))


def decode_endorsements(data: bytes) -> list[bytes]:
    """Read the content of the extension ENDORSEMENTS. Raises WireError."""
    return _byte_strings(data, 1, MAX_STATEMENT, MAX_ENDORSEMENTS)


def _batches(kind: Kind, items: list[bytes]) -> list[Frames]:
    batches: list[list[bytes]] = [[]]
    size = 0
    for item in items:
        if size + len(item) > BATCH_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(item)
        size += len(item)
    return [encode_link(kind, tuple(batch)) for batch in batches if batch]


def _byte_strings(head: bytes, low: int, high: int, most: int = MAX_CERTIFICATES) -> list[bytes]:
    found = []
    for item in read_items(unpack(head, MAX_HEAD), most):
        if type(item) is not bytes or not low <= len(item) <= high:
            raise WireError(f"not {low} to {high} bytes")
        found.append(item)
    return found
