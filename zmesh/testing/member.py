"""A neighbour over real sockets that speaks the wire itself: it sends what a test wants, as fast as the link takes it.

It greets as a node does and answers probes, so that its link stays up; with `advertise` it has a route and a record, so
that others can answer it. All else is up to the test: nothing is acknowledged, retransmitted or remembered.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple, Self

from zmesh.core import wire
from zmesh.core.message import Address, LinkId, MessageId, NodeId, RequestHeader
from zmesh.core.wire import FLAG_FIRST, FLAG_LAST, Frames, Kind
from zmesh.transport import Transport

BATCH = 64
MAX_HEARD = 10_000


class Heard(NamedTuple):
    """A frame that has come, with its checksum taken off."""

    kind: Kind
    source: Address
    destination: Address
    head: bytes
    body: bytes


class Member:
    """A neighbour of one node. `async with Member("m", url) as member:` greets that node and leaves it in the end.

    `heard` are the last MAX_HEARD frames that came, but for probes, greetings and routes. `incarnations` are those of
    the nodes that the neighbour has advertised. `links_lost` counts how often it has hung up; it is dialled again then.
    """

    def __init__(self, node: str, url: str, *, advertise: bool = True, leaf: bool = False) -> None:
        self.node = NodeId(Address(node))
        self.address = Address(node)
        self.incarnation = secrets.randbits(63) | 1
        self.neighbour = NodeId(Address(""))
        self.incarnations: dict[str, int] = {}
        self.heard: deque[Heard] = deque(maxlen=MAX_HEARD)
        self.links_lost = 0
        self._url = url
        self._advertise = advertise
        self._leaf = leaf
        self._number = 0
        self._link: LinkId | None = None
        self._joined = asyncio.Event()
        self._writable = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._transport = Transport(self)
        self._transport.dial(self._url)
        async with asyncio.timeout(60.0):
            await self._joined.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.leave()

    async def leave(self) -> None:
        """Close the link without a GOODBYE. Harmless when done twice."""
        await self._transport.close()

    # -- what it says --------------------------------------------------------------------------------------------

    def send(self, frames: Frames) -> bool:
        """Put a frame on the link; False if the link is full. What is sent while there is no link is lost."""
        if self._link is None:
            return True
        sent = self._transport.send(self._link, frames)
        self._transport.settle()
        if not sent:
            self._writable.clear()
        return sent

    async def flood(self, frames: Iterable[Frames]) -> int:
        """Send all of these as fast as the link takes them; returns how many there were."""
        count = 0
        for each in frames:
            while not self.send(each):
                await self._writable.wait()
            count += 1
            if not count % BATCH:
                await asyncio.sleep(0)  # a turn for others, and for the neighbour's probes
        return count

    def chunk(
        self,
        destination: str,
        body: bytes = b"",
        *,
        message_id: bytes | None = None,
        directive: str | None = "echo:echo",
        sequence: int = 0,
        last: bool = False,
        source: str | None = None,
        target: int | None = None,
    ) -> Frames:
        """A chunk of a request: by default the first of one whose payload is not complete. `directive` None: no header.

        `source`: in the name of this node; `target`: the incarnation that it is for, by default the advertised one.
        """
        if message_id is None:
            message_id = secrets.token_bytes(16)
        header = None if directive is None else RequestHeader(directive, time.time())
        flags = (FLAG_FIRST if header is not None else 0) | (FLAG_LAST if last else 0)
        number, self._number = self._number, self._number + 1
        incarnation = self.incarnations.get(destination, 0) if target is None else target
        head = wire.Chunk(
            MessageId(message_id), True, sequence, flags, number, 0, self.incarnation, incarnation, header, None
        )
        return self.routed(Kind.CHUNK, destination, head, body, source=source)

    def routed(
        self, kind: Kind, destination: str, head: tuple[object, ...], body: bytes = b"", *, source: str | None = None
    ) -> Frames:
        """A routed frame, from this member unless another `source` is named; `head` is a value of zmesh.core.wire."""
        return wire.encode_packet(kind, destination, source or self.address, wire.encode(head), body)

    # -- events of the transport (TransportHandler) --------------------------------------------------------------------

    def on_link_up(self, link: LinkId, *, dialled: bool, cost: int, channel: bytes = b"", local: bool = False) -> None:
        """Send a HELLO."""
        self._link = link
        hello = wire.Hello(self.node, self.incarnation, time.time(), self._leaf, int(link), 0)
        self.send(wire.encode_link(Kind.HELLO, hello))

    def on_link_down(self, link: LinkId, reason: str) -> None:
        """The neighbour has closed the connection."""
        self._link = None
        self.links_lost += 1
        self._joined.clear()
        self._writable.set()

    def on_link_ready(self, link: LinkId) -> None:
        """The link may take more."""
        self._writable.set()

    def on_link_suspect(self, link: LinkId) -> None:
        """Do nothing."""

    def on_burst(self) -> None:
        """Do nothing: each message is handled by itself."""

    def on_burst_end(self) -> None:
        """Do nothing, as in `on_burst`."""

    def on_dial_failed(self, url: str, reason: str, code: str = "") -> None:
        """The transport dials again."""

    def on_frames_lost(self, link: LinkId | None, reason: str) -> None:
        """Dropped: no one waits for them."""

    def on_connection_shut(self, reason: str) -> None:
        """It does not listen."""

    def on_stranger(self, code: str, text: str) -> None:
        """It does not listen."""

    def on_frames(self, link: LinkId, frames: list[bytes]) -> None:
        """Answer probes, learn who is there, and keep all else but empty messages, which a listener sends to a
        connection to find out whether it is open."""
        if frames == [b""]:
            return
        route = wire.read_packet(frames)
        head, body = route.head, bytes(route.body)
        match route.kind:
            case Kind.PROBE:
                self.send(wire.encode_link(Kind.ECHO, wire.Echo(wire.decode_probe(head).token)))
            case Kind.HELLO:
                self._on_hello(wire.decode_hello(head))
            case Kind.UPDATE:
                for destination, incarnation, *_ in wire.decode_update(head).entries:
                    self.incarnations[destination] = incarnation
            case _:
                self.heard.append(Heard(Kind(route.kind), route.source, route.destination, head, body))

    def _on_hello(self, hello: wire.Hello) -> None:
        self.neighbour = hello.node
        self.incarnations[hello.node] = hello.incarnation
        if self._leaf:
            self.address = Address(f"{self.node}@{hello.node}")
        elif self._advertise:
            row = (self.node, self.incarnation, 1, 0, 0, 0)
            self.send(wire.encode_update(wire.Update(wire.FULL_BEGIN | wire.FULL_END, 1, [row])))
            record = wire.Record(self.node, self.incarnation, 1, (), ((hello.node, 100),), b"")
            self.send(wire.encode_records([wire.encode(record)]))
        self._joined.set()
