"""What members make up: routes to destinations that are not there, and records in others' names."""

import secrets
import time
from collections.abc import Iterator

from zmesh.core import wire
from zmesh.core.message import Address, NodeId
from zmesh.core.routing.serials import MAX_LEAD_MS
from zmesh.core.wire import MAX_ENTRIES, Frames, Record

MEBIBYTE = 1024 * 1024
BOUND = 96 * MEBIBYTE
"""What the routes to as many destinations as are kept may take up, with all that depends on them."""
HEARTBEAT = 5.0
"""So long that no link is lost because the machine that runs the tests is busy with everybody's part of this."""
PER_FRAME = 200


def advertised(*names: str, seqno: int = 5, metric: int = 50) -> Iterator[Frames]:
    """UPDATEs about these destinations."""
    for start in range(0, len(names), MAX_ENTRIES):
        rows = [(NodeId(Address(name)), 9, seqno, metric, 1, 0) for name in names[start : start + MAX_ENTRIES]]
        yield wire.encode_update(wire.Update(0, 0, rows))


def made_up(count: int, prefix: str = "made-up", start: int = 0) -> list[str]:
    """So many names of nodes that are not there."""
    return [f"{prefix}-{number}" for number in range(start, start + count)]


def record_frames(*records: Record) -> Iterator[Frames]:
    """RECORD frames of these."""
    for start in range(0, len(records), PER_FRAME):
        yield wire.encode_records([wire.encode(record) for record in records[start : start + PER_FRAME]])


def forged(node: str, serial: int, incarnation: int | None = None) -> Record:
    """A record in another's name."""
    used = secrets.randbits(63) if incarnation is None else incarnation
    return Record(NodeId(Address(node)), used, serial, ("forged:one",), (), b"")


def just_accepted() -> int:
    """A serial that is a second below the highest that is accepted."""
    return int(1000 * time.time()) + MAX_LEAD_MS - 1000
