"""Nodes that speak other versions of the protocol: a later one, or the former one.

`OtherRange` runs the engine of this version, and speaks as one does that knows more: it names another range of versions
in HELLO, and its HELLOs, records and chunks have an extension that no other node knows. It takes that out of its
own record where that comes back, and counts it in the digests of PROBEs, since nodes compare records by their bytes.
`Version1` speaks version 1 as far as that goes between nodes that have no version in common: HELLO and REFUSE.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from zmesh.core import wire
from zmesh.core.effects import HangUp
from zmesh.core.message import LinkId, NodeId
from zmesh.core.wire import Frames, Kind, Packet
from zmesh.testing.simnode import SimNode

if TYPE_CHECKING:
    from zmesh.testing.simulator import Simulator

UNKNOWN = wire.CRITICAL - 1
"""An extension that this version ignores; one more, and it refuses the message."""

CONTENT = b"of another version"
REASON = "thinks_about_it"
"""A reason of UNREACHABLEs that this version does not know."""
RANGES = ((2, 3), (1, 2), (2, 200))
"""The lowest and the highest version of nodes that can speak with this one."""

_DIGESTS = 1 << 64

MakeNode = Callable[["Simulator", str, dict[str, object]], SimNode]


def any_kind(rng: random.Random) -> MakeNode:
    """A function that makes a node of this version, or one with another range of versions, as the seed draws."""
    if rng.random() < 0.5:
        return SimNode
    lowest, highest = rng.choice(RANGES)
    return partial(OtherRange, lowest=lowest, highest=highest)


class OtherRange(SimNode):
    """A node that speaks the versions from `lowest` to `highest`, and adds an extension to what it sends."""

    batches = False

    def __init__(
        self,
        sim: Simulator,
        id: str,
        options: dict[str, object],
        lowest: int,
        highest: int,
        extension: int = UNKNOWN,
    ) -> None:
        self.lowest, self.highest = lowest, highest
        self.extensions = {extension: CONTENT}
        super().__init__(sim, id, options)

    def transmit(self, link: LinkId, frames: Frames) -> bool:
        """Put frames on a link, those of this node as it speaks."""
        if len(frames) > 2:  # a HELLO for nodes of version 1
            return super().transmit(link, frames)
        packet = wire.decode_packet(frames)
        match packet.kind:
            case Kind.HELLO:
                hello = wire.decode_hello(packet.head)
                extended = {**hello.extensions, **self.extensions}
                hello = hello._replace(lowest=self.lowest, highest=self.highest, extensions=extended)
                frames = wire.encode_link(Kind.HELLO, hello)
            case Kind.PROBE:
                frames = self._count(packet, 1)
            case Kind.RECORD:
                frames = self._rewrite(packet, self._extend)
            case Kind.CHUNK if packet.source == self.id and not packet.sealed:
                chunk = wire.decode_chunk(packet.head)
                extended = {**chunk.extensions, **self.extensions}
                flags = chunk.flags | wire.FLAG_EXTENDED
                head = wire.encode_chunk(*chunk._replace(flags=flags, extensions=extended))
                frames = wire.encode_packet(Kind.CHUNK, packet.destination, packet.source, head, packet.body)
            case Kind.CHUNK if not packet.sealed and packet.host != self.id:
                if not super().transmit(link, frames):  # it is tried again, and what is sent meanwhile would be why
                    return False
                self._hold(packet)
                return True
        return super().transmit(link, frames)

    def _hold(self, packet: Packet) -> None:
        """Have the source of a chunk that is passed on know of something that only this version has a reason for."""
        back = self.engine.routing.route(NodeId(wire.host_of(packet.source)))
        if back is not None:
            note = wire.Unreachable(Kind.CHUNK, REASON, self.id, packet.destination, (), 0.0)
            head = wire.encode(note)
            super().transmit(back.link, wire.encode_packet(Kind.UNREACHABLE, packet.source, self.id, head, packet.head))

    def receive(self, link: LinkId, frames: Frames) -> None:
        """Take frames in, with this node's own record as its engine knows it."""
        if len(frames) <= 2:
            packet = wire.decode_packet(frames)
            if packet.kind == Kind.PROBE:
                frames = self._count(packet, -1)
            elif packet.kind == Kind.RECORD:
                frames = self._rewrite(packet, self._strip)
        super().receive(link, frames)

    def own_record(self) -> wire.Record | None:
        """The record of the node with this id, as it is flooded."""
        record = super().own_record()
        if record is None or record.incarnation != self.engine.incarnation:
            return record
        return self._extend(record)

    def records(self) -> Mapping[NodeId, wire.Record]:
        """All records that this node knows, as they are flooded."""
        records = dict(super().records())
        own = self.own_record()
        return records if own is None else {**records, self.id: own}

    def _extend(self, record: wire.Record) -> wire.Record:
        return record._replace(extensions={**record.extensions, **self.extensions})

    def _strip(self, record: wire.Record) -> wire.Record:
        kept = {number: content for number, content in record.extensions.items() if number not in self.extensions}
        return record._replace(extensions=kept)

    def _rewrite(self, packet: Packet, change: Callable[[wire.Record], wire.Record]) -> Frames:
        """A RECORD with the record of this node changed."""
        blobs = []
        for record, blob in wire.decode_records(packet.head)[0]:
            blobs.append(wire.encode(change(record)) if record.node == self.id else blob)
        return wire.encode_records(blobs)

    def _count(self, packet: Packet, sign: int) -> Frames:
        """A PROBE whose digest of records has this node's own as others know it, or (-1) as its engine does."""
        probe = wire.decode_probe(packet.head)
        known, flooded = super().own_record(), self.own_record()
        if known is None or flooded is None:
            return wire.encode_link(Kind.PROBE, probe)
        more = wire.digest(wire.encode(flooded)) - wire.digest(wire.encode(known))
        return wire.encode_link(Kind.PROBE, probe._replace(records=(probe.records + sign * more) % _DIGESTS))


class Version1(SimNode):
    """A node of version 1: it greets and refuses in that version, and nothing else of it is sent."""

    TEXT = "protocol version 2 is not 1, which this node speaks"

    def __init__(self, sim: Simulator, id: str, options: dict[str, object]) -> None:
        self.refusals: list[str] = []
        """The reasons with which it was refused, as it read them."""
        super().__init__(sim, id, options)

    def transmit(self, link: LinkId, frames: Frames) -> bool:
        """Send a HELLO of version 1 in the place of the engine's."""
        if len(frames) > 2 or wire.decode_packet(frames).kind != Kind.HELLO:
            return True
        return super().transmit(link, wire.hello_for_version1(1))

    def receive(self, link: LinkId, frames: Frames) -> None:
        """Refuse a HELLO of another version; a packet of version 2 is none to it."""
        try:
            wire.decode_packet(frames)
        except wire.ForeignVersion as foreign:
            if foreign.refused:
                self.refusals.append(foreign.text)
            elif foreign.version != 1:
                super().transmit(link, wire.refuse_version1(self.TEXT))
            else:
                return
            self.hang_up(HangUp(link, foreign.text, 5.0))
