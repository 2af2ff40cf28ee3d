"""The packet: a header of 16 bytes, two addresses, a head, and a body in the same ZeroMQ part or in one of its own.

    0         1         2         3         4         5         6                   8
    +---------+---------+---------+---------+---------+---------+-------------------+
    | version |  kind   |  flags  |   ttl   | dst len | src len |     reserved      |
    +---------+---------+---------+---------+---------+---------+-------------------+
    |              head length              |               CRC-32                  |
    +---------------------------------------+---------------------------------------+
    | destination, source, head, body ...                                           |

Integers are unsigned, the highest byte first. A packet of at most SINGLE_PART bytes is one part; of a longer one the
body is a second part (FLAG_BODY_APART), which a forwarder passes on uncopied. A forwarder reads the version, the ttl
and the destination, and changes the ttl alone.

The CRC-32 (that of zlib) covers what no forwarder changes: it starts from the kind, the flags and the lengths, and
runs over all that follows the header. TCP has a checksum as well, but that is short, ends at every forwarder, and
covers nothing of what happens in a machine's memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import partial
from struct import Struct
from typing import NamedTuple, TypeVar, cast

from zmesh.core.message import Address, NodeId
from zmesh.core.wire.checksum import crc32
from zmesh.core.wire.fields import ChecksumError, WireError, pack, read_address
from zmesh.core.wire.limits import MAX_BODY, MAX_HEAD, MAX_TTL, VERSION
from zmesh.core.wire.version1 import check_version1

HEADER_BYTES = 16
SINGLE_PART = 16 * 1024
MAX_KNOWN = 1 << 18
FLAG_BODY_APART = 1
FLAG_SEALED = 2
FLAG_LEAF = 4
"""With FLAG_SEALED: sealed by a leaf itself or for one, whose node can't open it."""
_SEALING = FLAG_SEALED | FLAG_LEAF
SEAL_TAG_BYTES = 16

T = TypeVar("T")
Frames = tuple[bytes, ...]
"""The one or two parts of a packet."""

FIRST_ROUTED = 16


class Kind(IntEnum):
    """Kinds of frames, with their numbers on the wire."""

    HELLO = 1
    REFUSE = 2
    ASK = 3
    GOODBYE = 4
    PROBE = 5
    ECHO = 6
    UPDATE = 7
    RECORD = 8
    SEQNO_REQUEST = 9
    RESEND = 10
    CERTIFICATE_REQUEST = 11
    CERTIFICATE = 12
    STATEMENT = 13
    BATCH = 14
    GRANT = 15
    CHUNK = 16
    ACK = 17
    CANCEL = 18
    UNREACHABLE = 19
    EXPIRED = 20
    KEY_EXCHANGE = 21


_HEADER = Struct(">BBBBBBHII")
_READ = Struct(">HBBBBHII")
"""The header, with the version and the kind as one number."""
_TTL = 3
_TO_LENGTH = 4
_AT = ord("@")
_KINDS = {VERSION << 8 | kind: int(kind) for kind in Kind}
_ROUTED = frozenset(number for number, kind in _KINDS.items() if kind >= FIRST_ROUTED)
_LONGEST = SINGLE_PART - HEADER_BYTES - 2 * 255
"""Bytes of head and body that are sent in one part whatever the addresses are."""
_addresses: dict[bytes, tuple[Address, NodeId]] = {}
_TTLS = [bytes((ttl,)) for ttl in range(MAX_TTL + 1)]


class Packet(NamedTuple):
    """A packet as it was read. `host` is the node that `destination` is or is attached to; of a packet that stays on
    its link both addresses are empty. `start` is where its checksum starts; a sealed one has none. `sealed` is 0 if it
    is in plain, else FLAG_SEALED, and FLAG_LEAF beside it.
    """

    kind: int
    ttl: int
    destination: Address
    source: Address
    host: NodeId
    head: bytes
    body: bytes
    checksum: int
    start: int
    sealed: int = 0


_packet = cast("Callable[[tuple[object, ...]], Packet]", partial(tuple.__new__, Packet))  # spares a call of Python code


def encode_packet(kind: int, destination: str, source: str, head: bytes, body: bytes, ttl: int = MAX_TTL) -> Frames:
    """A packet as it leaves its source; one that stays on its link has no addresses."""
    to, of, size = destination.encode("ascii"), source.encode("ascii"), len(head)
    to_length, of_length = len(to), len(of)
    start = (kind << 24 | to_length << 8 | of_length) ^ size
    if size + len(body) > _LONGEST and HEADER_BYTES + to_length + of_length + size + len(body) > SINGLE_PART:
        rest = b"".join((to, of, head))
        checksum = crc32(body, crc32(rest, start ^ FLAG_BODY_APART << 16))
        header = _HEADER.pack(VERSION, kind, FLAG_BODY_APART, ttl, to_length, of_length, 0, size, checksum)
        return (header + rest, body)
    rest = b"".join((to, of, head, body))
    return (_HEADER.pack(VERSION, kind, 0, ttl, to_length, of_length, 0, size, crc32(rest, start)) + rest,)


def encode_sealed(
    kind: int, destination: str, source: str, head: bytes, body: bytes, ttl: int = MAX_TTL, sealed: int = FLAG_SEALED
) -> Frames:
    """A packet whose head and body are sealed, as it leaves its source. The tags of both are its checksum."""
    to, of, size = destination.encode("ascii"), source.encode("ascii"), len(head)
    to_length, of_length = len(to), len(of)
    if HEADER_BYTES + to_length + of_length + size + len(body) > SINGLE_PART:
        header = _HEADER.pack(VERSION, kind, sealed | FLAG_BODY_APART, ttl, to_length, of_length, 0, size, 0)
        return (b"".join((header, to, of, head)), body)
    header = _HEADER.pack(VERSION, kind, sealed, ttl, to_length, of_length, 0, size, 0)
    return (b"".join((header, to, of, head, body)),)


def decode_packet(frames: Frames | list[bytes]) -> Packet:
    """Read a packet, all of it but the head, whose checksum `verify` looks at. Raises WireError."""
    count = len(frames)
    if not 1 <= count <= 2:
        check_version1(frames)
        raise WireError(f"{count} parts")
    first = frames[0]
    length = len(first)
    if length < HEADER_BYTES:
        raise WireError(f"a packet of {length} bytes")
    number, flags, ttl, to_length, of_length, reserved, size, checksum = _READ.unpack_from(first)
    kind = _KINDS.get(number)
    sealed = flags & _SEALING
    if kind is None or flags - sealed != count - 1 or sealed == FLAG_LEAF or reserved:
        text = f"version {number >> 8}, kind {number & 255}, flags {flags}, reserved {reserved}, {count} parts"
        raise WireError(text)
    head_at = HEADER_BYTES + to_length + of_length
    body_at = head_at + size
    if size > MAX_HEAD or length < body_at or (count == 2 and length != body_at):
        raise WireError(f"a head of {size} bytes in a packet of {length}")
    body = frames[1] if count == 2 else first[body_at:]
    if len(body) > (MAX_BODY + SEAL_TAG_BYTES if sealed else MAX_BODY):
        raise WireError(f"a body of {len(body)} bytes where {MAX_BODY} are allowed")
    start = (kind << 24 | flags << 16 | to_length << 8 | of_length) ^ size
    if kind < FIRST_ROUTED:
        if to_length or of_length or sealed:
            raise WireError("an address on a packet that stays on its link")
        return _packet((kind, ttl, "", "", "", first[head_at:body_at], body, checksum, start, 0))
    source_at = HEADER_BYTES + to_length
    to, of = first[HEADER_BYTES:source_at], first[source_at:head_at]
    destination, host = _addresses.get(to) or _address(to)
    source, _ = _addresses.get(of) or _address(of)
    return _packet((kind, ttl, destination, source, host, first[head_at:body_at], body, checksum, start, sealed))


def _address(data: bytes) -> tuple[Address, NodeId]:
    """An address that was not read of late, checked, and the node that it is or is attached to."""
    try:
        address = read_address(str(data, "ascii"))
    except UnicodeDecodeError:
        raise WireError("not an address") from None
    if len(_addresses) >= MAX_KNOWN:
        _addresses.clear()
    known = _addresses[data] = (address, host_of(address))
    return known


def verify(frames: Frames | list[bytes], packet: Packet) -> None:
    """Raise ChecksumError unless the packet is what its source sent."""
    total = crc32(frames[0][HEADER_BYTES:], packet.start)
    if len(frames) == 2:
        total = crc32(frames[1], total)
    if total != packet.checksum:
        raise ChecksumError("its checksum does not fit")


def pass_on(frames: Frames | list[bytes], table: Mapping[bytes, T], node: bytes) -> tuple[T, Frames] | None:
    """The entry of `table` for the destination of a packet, and the packet as a forwarder passes it on, its ttl one
    less. None if it has nothing, or the packet ends here, is not sound, or names `node` or an address that was not read
    of late as its source: `decode_packet` is for these.
    """
    first = frames[0] if frames else b""
    length = len(first)
    if length < HEADER_BYTES:
        return None
    source_at = HEADER_BYTES + first[_TO_LENGTH]
    found = table.get(first[HEADER_BYTES:source_at])
    if found is None:
        return None
    number, flags, ttl, _, of_length, reserved, size, _ = _READ.unpack_from(first)
    head_at = source_at + of_length
    body_at = head_at + size
    # Of an address, nothing is read but that it is known: with many pairs, each object that is read is a cache miss.
    source = first[source_at:head_at]
    if source not in _addresses or number not in _ROUTED or ttl < 2 or reserved or size > MAX_HEAD:
        return None
    if source == node or (source.endswith(node) and source[-len(node) - 1] == _AT):
        return None
    passed = first[:_TTL] + _TTLS[ttl - 1] + first[_TTL + 1 :]
    sealed = flags & _SEALING
    most = MAX_BODY + SEAL_TAG_BYTES if sealed else MAX_BODY
    if flags == sealed:
        return (found, (passed,)) if body_at <= length <= body_at + most and len(frames) == 1 else None
    sound = len(frames) == 2 and flags - sealed == FLAG_BODY_APART and length == body_at and len(frames[1]) <= most
    return (found, (passed, frames[1])) if sound else None


def onward(frames: Frames | list[bytes]) -> Frames:
    """The packet with a ttl of one less, which a forwarder passes on."""
    first = frames[0]
    return (first[:_TTL] + _TTLS[first[_TTL] - 1] + first[_TTL + 1 :], *frames[1:])


def encode_link(kind: Kind, head: tuple[object, ...] = ()) -> Frames:
    """A packet that stays on its link."""
    return encode_packet(kind, "", "", pack(head), b"")


def read_packet(frames: Frames | list[bytes]) -> Packet:
    """Read a packet and verify its checksum. Raises WireError."""
    packet = decode_packet(frames)
    verify(frames, packet)
    return packet


def loop_packet(kind: int, node: Address, head: bytes, body: bytes) -> Packet:
    """A packet of a node for itself, which needs no bytes and has no checksum."""
    return _packet((kind, MAX_TTL, node, node, node, head, body, 0, 0, 0))


def in_plain(packet: Packet, head: bytes, body: bytes) -> Packet:
    """A sealed packet whose head and body were opened."""
    return _packet((*packet[:5], head, body, 0, 0, 0))


def host_of(address: Address) -> NodeId:
    """The node that an address is, or is attached to."""
    return NodeId(Address(address[address.find("@") + 1 :]))


def name_of(address: Address) -> str:
    """Whose an address is: a node's id, that of a leaf with a certificate (it has a dot) and `@` wherever it is
    attached, and of any other leaf the address, since its name means something at its own node only.
    """
    leaf, at, _ = address.partition("@")
    return leaf + at if "." in leaf else address


def size_of(frames: Frames) -> int:
    """The bytes of a packet."""
    return len(frames[0]) if len(frames) == 1 else len(frames[0]) + len(frames[1])


def digest(data: bytes) -> int:
    """64 bits of BLAKE2b; tables add these up (modulo 2**64) to compare themselves with a neighbour's."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
