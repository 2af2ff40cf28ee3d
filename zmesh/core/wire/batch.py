"""A BATCH: several packets that leave on a link at the same time, as the body of one packet.

    +------------+------------+------------+------------+-----
    | length (2) | packet     | length (2) | packet     | ...
    +------------+------------+------------+------------+-----

ZeroMQ costs as much for each message, however small, as all that is done here for it: a call, a wake-up of its thread
and one of ours. Only packets that travel are in a batch, each in one part; a neighbour gets none unless its HELLO has
the extension BATCHES.
"""

from __future__ import annotations

from struct import Struct

from zmesh.core.wire.fields import WireError
from zmesh.core.wire.packet import FIRST_ROUTED, HEADER_BYTES, SINGLE_PART, Frames, Kind, encode_packet

BATCHES = 3
"""The extension of a HELLO, empty, of a node that takes batches."""

MAX_BATCHED = 64
"""Packets in a batch, since all of them are taken in at one turn of the event loop."""

_LENGTH = Struct(">H")
LENGTH_BYTES = _LENGTH.size
MAX_BATCH_BYTES = SINGLE_PART - HEADER_BYTES
_KIND = 1


def is_batchable(frames: Frames) -> bool:
    """Whether a packet may be in a batch: it travels, and is one part."""
    return len(frames) == 1 and frames[0][_KIND] >= FIRST_ROUTED


def encode_batch(packets: list[Frames]) -> Frames:
    """Several packets as one; they are batchable, at most MAX_BATCHED, and with their lengths MAX_BATCH_BYTES."""
    parts: list[bytes] = []
    for (packet,) in packets:
        parts += (_LENGTH.pack(len(packet)), packet)
    return encode_packet(Kind.BATCH, "", "", b"", b"".join(parts))


def decode_batch(body: bytes) -> list[Frames]:
    """The packets of a batch, none of which has been read. Raises WireError."""
    packets: list[Frames] = []
    at, end = 0, len(body)
    while at < end:
        start = at + LENGTH_BYTES
        if start > end or len(packets) == MAX_BATCHED:
            raise WireError(f"a batch of {end} bytes, and more than {len(packets)} packets")
        at = start + int(_LENGTH.unpack_from(body, start - LENGTH_BYTES)[0])
        packet = body[start:at]
        if at > end or len(packet) < HEADER_BYTES or packet[_KIND] < FIRST_ROUTED:
            raise WireError(f"a batch with {len(packet)} bytes that are no packet which travels")
        packets.append((packet,))
    if not packets:
        raise WireError("an empty batch")
    return packets
