"""The frame: its kinds, its route, and its checksum."""

from __future__ import annotations

import hashlib
import zlib
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from zmesh.core.message import Address, NodeId
from zmesh.core.wire.fields import ChecksumError, WireError, pack, read_address, read_array, read_int, unpack
from zmesh.core.wire.limits import MAX_ROUTE, MAX_TTL, SUM_BYTES, U63, VERSION

Frames = tuple[bytes, bytes, bytes]

EMPTY = b""

_RESIDUE = 0x2144DF1C  # the CRC-32 of anything that ends with its own CRC-32, lowest byte first


class Kind(IntEnum):
    """The kind of a frame."""

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
    CHUNK = 16
    ACK = 17
    CANCEL = 18
    UNREACHABLE = 19
    EXPIRED = 20


FIRST_ROUTED = 16
_KINDS = frozenset(int(kind) for kind in Kind)


class Route(NamedTuple):
    """The first part of a frame. `host` is the node that `destination` is or is attached to; `onward` is the same part
    with a ttl of one less, empty when the ttl is used up; `sum` is the initial value of the frame's checksum."""

    version: int
    kind: int
    ttl: int
    destination: Address
    source: Address
    host: NodeId
    onward: bytes
    sum: int


@lru_cache(maxsize=4096)
def encode_route(kind: int, destination: Address | str = "", source: Address | str = "", ttl: int = MAX_TTL) -> bytes:
    """Encode the first part of a frame; frames that stay on a link have no destination and no source."""
    return pack((VERSION, int(kind), ttl, destination, source))


@lru_cache(maxsize=4096)
def decode_route(data: bytes) -> Route:
    """Decode the first part of a frame. A HELLO of another version is accepted, so that it can be refused."""
    version, kind, ttl, destination, source = read_array(unpack(data, MAX_ROUTE), 5)
    version, kind, ttl = read_int(version, U63), read_int(kind, 255), read_int(ttl, MAX_TTL)
    if version != VERSION and kind != Kind.HELLO:
        raise WireError(f"version {version}, not {VERSION}")
    if kind not in _KINDS:
        raise WireError(f"unknown kind {kind}")
    if kind < FIRST_ROUTED:
        if destination != "" or source != "":
            raise WireError("an address on a frame that stays on its link")
        return Route(version, kind, ttl, Address(""), Address(""), NodeId(Address("")), EMPTY, _sum(kind, "", ""))
    to, of = read_address(destination), read_address(source)
    onward = encode_route(kind, to, of, ttl - 1) if ttl > 1 else EMPTY
    return Route(version, kind, ttl, to, of, host_of(to), onward, _sum(kind, to, of))


@lru_cache(maxsize=4096)
def host_of(address: Address) -> NodeId:
    """The node that an address is, or is attached to."""
    return NodeId(Address(address[address.find("@") + 1 :]))


def encode(head: tuple[object, ...]) -> bytes:
    """Encode the head of a frame, without its checksum."""
    return pack(head)


def encode_link(kind: Kind, head: tuple[object, ...] = ()) -> Frames:
    """Encode a frame that stays on its link."""
    return seal(kind, "", "", pack(head), EMPTY)


@lru_cache(maxsize=4096)
def _sum(kind: int, destination: str, source: str) -> int:
    """The checksum of the fields of a route that forwarders do not change."""
    return zlib.crc32(f"{int(kind)} {destination} {source}".encode())


@lru_cache(maxsize=4096)
def _opening(kind: int, destination: str, source: str) -> tuple[bytes, int]:
    """The route of a frame as it leaves its source, and the initial value of its checksum."""
    return encode_route(kind, destination, source), _sum(kind, destination, source)


def seal(kind: Kind, destination: Address | str, source: Address | str, head: bytes, body: bytes) -> Frames:
    """Encode a frame as it leaves its source: the head ends with the CRC-32 of kind, addresses, body and head."""
    route, total = _opening(kind, destination, source)
    return (route, head + zlib.crc32(head, zlib.crc32(body, total)).to_bytes(SUM_BYTES, "little"), body)


def unseal(route: Route, head: bytes, body: bytes) -> bytes:
    """Verify the checksum of a frame; returns the head without it. Raises ChecksumError."""
    if zlib.crc32(head, zlib.crc32(body, route.sum)) != _RESIDUE:
        raise ChecksumError("its checksum does not fit")
    return head[:-SUM_BYTES]


def digest(data: bytes) -> int:
    """64 bits of BLAKE2b. The sum of these (modulo 2**64) over a table is compared with a neighbour's."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
