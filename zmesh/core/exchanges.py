"""The exchanges of a node: the requests that it made (`Call`) and those that it received (`Service`).

What holds for each: a call ends exactly once, by the final word of the recipient or by one that is made up here when
the recipient can't be reached, has restarted, or the time is up. A service takes its request at most once, and lives
until its final word has been acknowledged or the caller knows nothing of it any more.

Acknowledgements ride on chunks that go the same way; only when there is none for ACK_DELAY, or the window is used up,
or something is amiss, do they travel alone. So a small request and its reply are two messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from zmesh.core import wire
from zmesh.core.effects import Abort, Deliver, Effect, Pull, Report
from zmesh.core.message import Address, Eof, LinkId, MessageId, NodeId, ReplyHeader, RequestHeader, Stream
from zmesh.core.streams import ACK_EVERY, BACKLOG, CHUNK_OVERHEAD, Inbound, Outbound, PathTime, Piece, Replays
from zmesh.core.timers import Timers
from zmesh.core.wire import CLOSED, FLAG_LAST, FLAG_RESENT, MAX_ACKS, AckItem, Chunk, Kind

ACK_DELAY = 0.020
POKE = 15.0
POKE_LIMIT = 0
POKE_SOON = 1.0
CANCEL_AGAIN = 0.5
CANCEL_GRACE = 10.0
LEAF_GRACE = 5.0
FORGET_PEER = 30.0
BURST = 16


class Way(NamedTuple):
    """How frames leave for a node: the link, the node's incarnation (0: not known here), and whether the link lags."""

    link: LinkId
    incarnation: int
    lagging: bool


class Carrier(Protocol):
    """What the exchanges need of the engine."""

    node: NodeId
    incarnation: int

    def way(self, destination: Address) -> Way | None: ...
    def carry(self, destination: Address, kind: Kind, head: bytes, body: bytes) -> None: ...
    def emit(self, effect: Effect) -> None: ...
    def hint(self, destination: Address) -> str: ...


class Call:
    """A request of this node, until its final word."""

    __slots__ = (
        "asked_at",
        "cancelled_at",
        "deadline",
        "inbound",
        "lost_since",
        "message_id",
        "number",
        "outbound",
        "recipient",
        "target",
        "unreachable",
    )

    def __init__(self, message_id: MessageId, recipient: Address, deadline: float | None, now: float) -> None:
        self.message_id = message_id
        self.recipient = recipient
        self.deadline = deadline
        self.asked_at = now
        self.number = 0
        self.target = 0
        self.outbound = Outbound()
        self.inbound = Inbound()
        self.lost_since: float | None = None
        self.cancelled_at: float | None = None
        self.unreachable: wire.Unreachable | None = None


class Service:
    """A request of another node (or of this one), until its final word has been acknowledged."""

    __slots__ = ("aborted", "incarnation", "inbound", "lost_since", "message_id", "outbound", "peer")

    def __init__(self, message_id: MessageId, peer: Address, incarnation: int) -> None:
        self.message_id = message_id
        self.peer = peer
        self.incarnation = incarnation
        self.inbound = Inbound()
        self.outbound = Outbound()
        self.lost_since: float | None = None
        self.aborted = False


class Peer:
    """What is kept for a node that there are exchanges with."""

    __slots__ = ("acks", "busy", "incarnation", "next_number", "path", "replays", "unsettled")

    def __init__(self, first_number: int) -> None:
        self.incarnation = 0
        self.replays = Replays()
        self.next_number = first_number
        self.unsettled: dict[int, None] = {}
        self.acks: dict[Stream, tuple[int, int]] = {}
        self.path = PathTime()
        self.busy = 0


class Exchanges:
    """The tables of exchanges. `route_timeout`: seconds that a request waits for a route before it is Unreachable."""

    def __init__(self, carrier: Carrier, route_timeout: float, started: float) -> None:
        self._carrier = carrier
        self._route_timeout = route_timeout
        self._started = started
        self._calls: dict[MessageId, Call] = {}
        self._services: dict[MessageId, Service] = {}
        self._peers: dict[Address, Peer] = {}
        self._of_host: dict[NodeId, dict[Stream, None]] = {}
        self._blocked: dict[LinkId, dict[Stream, None]] = {}
        self._highest_number = 0
        self._again: Timers[Stream] = Timers()
        self._limits: Timers[MessageId] = Timers()
        self._acks: Timers[Address] = Timers()
        self._idle: Timers[Address] = Timers()
        self.waiting_bytes = 0

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def handing_over(self) -> bool:
        """True while something that was sent has not arrived whole at its recipient."""
        return any(not call.outbound.done for call in self._calls.values())

    def counts(self) -> dict[str, int]:
        """How many entries each table has; all 0 when nothing is under way (peers are forgotten after a while)."""
        return {
            "calls": len(self._calls),
            "services": len(self._services),
            "acks": sum(len(peer.acks) for peer in self._peers.values()),
            "waiting_bytes": self.waiting_bytes,
            "peers": len(self._peers),
        }

    def room(self, stream: Stream) -> int:
        """How many bytes of payload the stream can take now; 0 as well if it is over."""
        outbound = self._outbound(stream)
        if outbound is None:
            return 0
        room = outbound.room()
        outbound.pulled = room == 0
        return room

    def is_open(self, stream: Stream) -> bool:
        """True until the stream's exchange is over at this node."""
        return self._outbound(stream) is not None

    # -- from the program ----------------------------------------------------------------------------------------

    def call(
        self,
        message_id: MessageId,
        recipient: Address,
        header: RequestHeader,
        body: bytes,
        *,
        last: bool,
        timeout: float | None,
        now: float,
    ) -> None:
        """Open an exchange; `last` False: more payload follows through `feed`."""
        call = Call(message_id, recipient, None if timeout is None else now + timeout, now)
        self._calls[message_id] = call
        peer = self._peer(recipient)
        peer.busy += 1
        call.number = peer.next_number
        peer.next_number += 1
        self._highest_number = max(self._highest_number, peer.next_number)
        peer.unsettled[call.number] = None
        stream = Stream(message_id, True)
        self._of_host.setdefault(wire.host_of(recipient), {})[stream] = None
        self._push(call.outbound, header, body, last=last, eof=None, complete=last)
        if call.deadline is not None:
            self._limits.set(message_id, call.deadline)
        self._pump(stream, now)

    def feed(self, stream: Stream, body: bytes, *, last: bool, now: float) -> None:
        """More payload of the message that is being sent; `last` ends the request's stream."""
        outbound = self._outbound(stream)
        if outbound is not None and not outbound.complete:
            self._push(outbound, None, body, last=last, eof=None, complete=last and stream.request)
            self._pump(stream, now)

    def reply(
        self,
        message_id: MessageId,
        header: ReplyHeader | None,
        body: bytes,
        *,
        last: bool,
        eof: Eof | None,
        now: float,
    ) -> None:
        """A reply, or its beginning (`last` False), or with `eof` the final word. Nothing happens if the caller is gone."""
        service = self._services.get(message_id)
        if service is not None and not service.outbound.complete:
            self._push(service.outbound, header, body, last=last, eof=eof, complete=eof is not None)
            self._pump(Stream(message_id, False), now)

    def cancel(self, message_id: MessageId, now: float) -> None:
        """Ask the recipient to stop; a request that never left ends at once. Harmless on what is over."""
        call = self._calls.get(message_id)
        if call is None or call.cancelled_at is not None:
            return
        if call.outbound.next == 0:
            self._end(call, "cancelled", "cancelled before it was sent", now)
            return
        call.cancelled_at = now
        self._forget_unsent(call.outbound)
        self._send_cancel(call)
        self._again.set(Stream(message_id, True), now + CANCEL_AGAIN)
        self._watch(call)

    def consumed(self, stream: Stream, weight: int, now: float) -> None:
        """The reader of an inbound stream has taken this much of it."""
        exchange = self._services.get(stream.message_id) if stream.request else self._calls.get(stream.message_id)
        if exchange is not None and exchange.inbound.consume(weight):
            peer_address = exchange.peer if isinstance(exchange, Service) else exchange.recipient
            self._owe(peer_address, stream, exchange.inbound)
            self._flush_acks(peer_address)

    # -- from the mesh -------------------------------------------------------------------------------------------

    def on_chunk(self, source: Address, chunk: Chunk, body: bytes, hops: int, now: float) -> str | None:
        """A chunk has come; the reason for which it can't be taken, or None."""
        carrier = self._carrier
        if chunk.target not in (0, carrier.incarnation) or (
            chunk.target == 0 and chunk.age > 1000 * (now - self._started) + 1000
        ):
            return "restarted"
        if not self._meet(source, chunk.incarnation, now):
            return "stale"
        if chunk.acks:
            self._on_acks(source, chunk.acks, now)
        if chunk.request:
            self._on_request(source, chunk, body, hops, now)
        else:
            self._on_reply(source, chunk, body, hops, now)
        return None

    def on_ack(self, source: Address, ack: wire.Ack, now: float) -> None:
        """Acknowledgements have come alone."""
        if ack.target in (0, self._carrier.incarnation) and self._meet(source, ack.incarnation, now):
            self._on_acks(source, ack.acks, now)

    def on_cancel(self, source: Address, cancel: wire.Cancel, now: float) -> None:
        """The caller wants its work stopped, or (`request` False) the recipient has nothing to stop."""
        if cancel.target not in (0, self._carrier.incarnation) or not self._meet(source, cancel.incarnation, now):
            return
        message_id = cancel.message_id
        if not cancel.request:
            call = self._calls.get(message_id)
            if call is not None and call.cancelled_at is not None and call.recipient == source:
                self._end(call, "cancelled", f"cancelled; {source!r} had not begun, or was done", now)
            return
        service = self._services.get(message_id)
        if service is None:
            self._peer(source).replays.accept(cancel.number, cancel.floor)
            answer = wire.Cancel(message_id, False, 0, 0, self._carrier.incarnation, cancel.incarnation)
            self._carrier.carry(source, Kind.CANCEL, wire.encode(answer), b"")
            self._idle.set_default(source, now + FORGET_PEER)
        elif service.peer == source:
            self._abort(service, "cancelled")

    def on_unreachable(self, note: wire.Unreachable, stream: Stream, now: float) -> None:
        """A node on the way could not pass a frame of this stream on."""
        if stream.request:
            call = self._calls.get(stream.message_id)
            if call is None:
                return
            call.unreachable = note
            if note.reason == "restarted":
                self._end(call, "node_restarted", f"node {call.recipient!r} has restarted and lost the request", now)
            elif call.lost_since is None:
                call.lost_since = now
                self._watch(call)
                if not call.outbound.unacked:
                    self._again.set(stream, now + POKE_SOON)
            host = wire.host_of(note.destination)
            self._carrier.emit(Report("unreachable", host, None, note.reason, note.near, note.settled))
            return
        service = self._services.get(stream.message_id)
        if service is None:
            return
        if note.reason == "restarted":
            self._drop(service, "cancelled", now)
        elif service.lost_since is None:
            service.lost_since = now
            self._again.set_sooner(stream, now + (LEAF_GRACE if note.reason == "gone" else self._route_timeout))

    def on_route(self, host: NodeId, incarnation: int | None, *, moved: bool, now: float) -> None:
        """The route to `host` is there (or not: None), `moved` if frames under way may be lost with the old one."""
        for stream in list(self._of_host.get(host, ())):
            exchange = self._calls.get(stream.message_id) if stream.request else self._services.get(stream.message_id)
            if exchange is None:
                continue
            if incarnation is None:
                if exchange.lost_since is None:
                    exchange.lost_since = now
                    self._watch_lost(stream, exchange, now)
            elif isinstance(exchange, Call):
                self._call_route(exchange, stream, incarnation, moved=moved, now=now)
            elif "@" not in exchange.peer and incarnation != exchange.incarnation:
                self._drop(exchange, "cancelled", now)
            else:
                exchange.lost_since = None
                if moved:
                    self._send_again(stream, exchange.outbound, now)
                self._pump(stream, now)

    def on_attached(self, address: Address | None, now: float) -> None:
        """The leaf at `address` is linked to this node, or (None) this leaf has a node to hang on: all go on."""
        for stream, exchange in self._at(address):
            exchange.lost_since = None
            if isinstance(exchange, Call) and exchange.cancelled_at is not None:
                self._send_cancel(exchange)
                continue
            self._send_again(stream, exchange.outbound, now)
            self._pump(stream, now)

    def on_detached(self, address: Address | None, now: float) -> None:
        """The leaf at `address` has gone, or (None) this leaf has lost the node that it hung on."""
        for stream, exchange in self._at(address):
            if exchange.lost_since is None:
                exchange.lost_since = now
            if isinstance(exchange, Call):
                self._watch(exchange)
            else:
                self._again.set_sooner(stream, now + LEAF_GRACE)

    def on_link_ready(self, link: LinkId, lagging: Callable[[], bool], now: float) -> None:
        """The link's queue has run low: the streams that waited for it go on, a burst each in turn."""
        waiting = self._blocked.get(link)
        while waiting and not lagging():
            stream = next(iter(waiting))
            del waiting[stream]
            self._pump(stream, now)
        if waiting is not None and not waiting:
            self._blocked.pop(link, None)

    def link_down(self, link: LinkId, now: float) -> None:
        """The streams that waited for this link look for another."""
        for stream in self._blocked.pop(link, ()):
            self._pump(stream, now)

    # -- time ----------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `tick` has work."""
        deadlines = (
            self._acks.next_deadline(),
            self._again.next_deadline(),
            self._limits.next_deadline(),
            self._idle.next_deadline(),
        )
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def tick(self, now: float) -> None:
        """Do what is due: acknowledge, send again, end what has run out of time, forget idle peers."""
        for address in self._acks.expire(now):
            self._flush_acks(address)
        for stream in self._again.expire(now):
            self._on_silence(stream, now)
        for message_id in self._limits.expire(now):
            self._on_limit(message_id, now)
        for address in self._idle.expire(now):
            peer = self._peers.get(address)
            if peer is not None and not peer.busy:
                del self._peers[address]
                self._acks.cancel(address)

    def check(self) -> None:
        """Raise AssertionError if the tables contradict each other."""
        busy: dict[Address, int] = {}
        for call in self._calls.values():
            busy[call.recipient] = busy.get(call.recipient, 0) + 1
            if call.message_id not in self._limits and Stream(call.message_id, True) not in self._again:
                raise AssertionError("a call that nothing will wake")
        for service in self._services.values():
            busy[service.peer] = busy.get(service.peer, 0) + 1
            if Stream(service.message_id, False) not in self._again:
                raise AssertionError("a service that nothing will wake")
            if service.outbound.done:
                raise AssertionError("a service that is over is still there")
        if busy != {address: peer.busy for address, peer in self._peers.items() if peer.busy}:
            raise AssertionError("a peer's count of exchanges is not that of the tables")
        streams = {Stream(id, True) for id in self._calls} | {Stream(id, False) for id in self._services}
        if streams != {stream for listed in self._of_host.values() for stream in listed}:
            raise AssertionError("the streams by host are not those of the tables")
        waiting = sum(call.outbound.unsent_bytes for call in self._calls.values())
        waiting += sum(service.outbound.unsent_bytes for service in self._services.values())
        if waiting != self.waiting_bytes:
            raise AssertionError("the count of waiting bytes is not that of the streams")
        if any(not peer.busy and address not in self._idle for address, peer in self._peers.items()):
            raise AssertionError("an idle peer that nothing will forget")

    # -- inside: sending -----------------------------------------------------------------------------------------

    def _at(self, address: Address | None) -> list[tuple[Stream, Call | Service]]:
        found: list[tuple[Stream, Call | Service]] = []
        found += [(Stream(id, True), call) for id, call in self._calls.items() if address in (None, call.recipient)]
        found += [(Stream(id, False), work) for id, work in self._services.items() if address in (None, work.peer)]
        return found

    def _outbound(self, stream: Stream) -> Outbound | None:
        exchange = self._calls.get(stream.message_id) if stream.request else self._services.get(stream.message_id)
        return None if exchange is None else exchange.outbound

    def _peer(self, address: Address) -> Peer:
        peer = self._peers.get(address)
        if peer is None:
            peer = self._peers[address] = Peer(self._highest_number)
        return peer

    def _push(
        self,
        outbound: Outbound,
        header: RequestHeader | ReplyHeader | None,
        body: bytes,
        *,
        last: bool,
        eof: Eof | None,
        complete: bool,
    ) -> None:
        outbound.push(header, body, last=last, eof=eof, complete=complete)
        self.waiting_bytes += len(body)

    def _forget_unsent(self, outbound: Outbound) -> None:
        self.waiting_bytes -= outbound.unsent_bytes
        outbound.unsent_bytes = 0
        outbound.unsent.clear()
        outbound.complete = True

    def _pump(self, stream: Stream, now: float) -> None:
        """Send what the window and the link allow, BURST chunks at most before others get their turn."""
        message_id, request = stream
        call: Call | None = None
        if request:
            call = self._calls.get(message_id)
            if call is None or call.cancelled_at is not None:
                return
            outbound, address, target = call.outbound, call.recipient, call.target
        else:
            service = self._services.get(message_id)
            if service is None:
                return
            outbound, address, target = service.outbound, service.peer, service.incarnation
        if not outbound.unsent:
            return
        way = self._carrier.way(address)
        if way is None:
            if call is not None and call.lost_since is None:
                call.lost_since = now
                self._watch(call)
            return
        if call is not None and not target:
            target = call.target = way.incarnation
        for _ in range(BURST):
            if way.lagging:
                break
            before = len(outbound.unsent[0].body) if outbound.unsent else 0
            piece = outbound.take(now)
            if piece is None:
                break
            self.waiting_bytes -= before
            self._send(stream, piece, address, target, call, now)
            way = self._carrier.way(address) or way
        else:
            way = way._replace(lagging=True)
        if way.lagging and outbound.unsent:
            self._blocked.setdefault(way.link, {})[stream] = None
        if outbound.unacked:
            self._again.set_sooner(stream, now + self._peer(address).path.timeout(outbound.tries))
        if outbound.pulled and outbound.unsent_bytes <= BACKLOG // 2:
            outbound.pulled = False
            self._carrier.emit(Pull(stream))

    def _send(
        self, stream: Stream, piece: Piece, address: Address, target: int, call: Call | None, now: float
    ) -> None:
        peer = self._peer(address)
        number = floor = 0
        if call is not None:
            number = call.number
            floor = next(iter(peer.unsettled), number)
        acks = self._take_acks(peer, address) if peer.acks else ()
        chunk = (
            stream.message_id,
            stream.request,
            piece.sequence,
            piece.flags | (FLAG_RESENT if piece.times > 1 else 0),
            number,
            floor,
            self._carrier.incarnation,
            target,
            int(1000 * (now - piece.first_sent)),
            acks,
            piece.header,
            piece.eof,
        )
        body = piece.body
        self._carrier.carry(
            address, Kind.CHUNK, wire.encode(chunk), body if isinstance(body, bytes) else bytes(body)
        )

    def _send_again(self, stream: Stream, outbound: Outbound, now: float) -> None:
        call = self._calls.get(stream.message_id) if stream.request else None
        if call is not None:
            address, target = call.recipient, call.target
        else:
            service = self._services.get(stream.message_id)
            if service is None:
                return
            address, target = service.peer, service.incarnation
        if self._carrier.way(address) is None:
            return
        for piece in outbound.again(now):
            self._send(stream, piece, address, target, call, now)

    def _send_cancel(self, call: Call) -> None:
        floor = next(iter(self._peer(call.recipient).unsettled), call.number)
        cancel = wire.Cancel(
            call.message_id, True, call.number, floor, self._carrier.incarnation, call.target
        )
        if self._carrier.way(call.recipient) is not None:
            self._carrier.carry(call.recipient, Kind.CANCEL, wire.encode(cancel), b"")

    # -- inside: acknowledging -----------------------------------------------------------------------------------

    def _owe(self, address: Address, stream: Stream, inbound: Inbound | None) -> None:
        """Note that the peer is to hear how far a stream has come (None: that it is not known here)."""
        self._peer(address).acks[stream] = (CLOSED, 0) if inbound is None else inbound.acknowledge()

    def _owe_soon(self, address: Address, stream: Stream, inbound: Inbound, now: float) -> None:
        self._peer(address).acks[stream] = inbound.acknowledge()
        self._acks.set_default(address, now + ACK_DELAY)

    def _take_acks(self, peer: Peer, address: Address) -> tuple[tuple[bytes, bool, int, int], ...]:
        if len(peer.acks) <= MAX_ACKS:
            taken = tuple((*stream, *state) for stream, state in peer.acks.items())
            peer.acks.clear()
            self._acks.cancel(address)
            return taken
        streams = [stream for stream, _ in zip(peer.acks, range(MAX_ACKS), strict=False)]
        return tuple((*stream, *peer.acks.pop(stream)) for stream in streams)

    def _flush_acks(self, address: Address) -> None:
        peer = self._peers.get(address)
        while peer is not None and peer.acks:
            if self._carrier.way(address) is None:
                peer.acks.clear()
                break
            head = (self._carrier.incarnation, peer.incarnation, self._take_acks(peer, address))
            self._carrier.carry(address, Kind.ACK, wire.encode(head), b"")
        self._acks.cancel(address)

    def _on_acks(self, source: Address, acks: tuple[AckItem, ...], now: float) -> None:
        for item in acks:
            stream = Stream(item.message_id, item.request)
            if item.request:
                call = self._calls.get(item.message_id)
                if call is not None and call.recipient == source:
                    self._call_acknowledged(call, stream, item, now)
                elif call is None and item.next != CLOSED:
                    self._owe(source, Stream(item.message_id, False), None)
                    self._acks.set_default(source, now + ACK_DELAY)
            else:
                service = self._services.get(item.message_id)
                if service is not None and service.peer == source:
                    self._service_acknowledged(service, stream, item, now)
                elif service is None and item.next != CLOSED:
                    self._owe(source, Stream(item.message_id, True), None)
                    self._acks.set_default(source, now + ACK_DELAY)

    def _call_acknowledged(self, call: Call, stream: Stream, item: AckItem, now: float) -> None:
        if item.next == CLOSED:
            if call.outbound.next and call.cancelled_at is None:
                self._end(call, "unreachable", f"node {call.recipient!r} gave the request up while cut off", now)
            return
        self._progress(stream, call.outbound, item, call.recipient, now)
        if item.next > 0:
            self._peer(call.recipient).unsettled.pop(call.number, None)
        call.lost_since = None
        call.unreachable = None
        if not call.outbound.done:
            self._pump(stream, now)

    def _service_acknowledged(self, service: Service, stream: Stream, item: AckItem, now: float) -> None:
        if item.next == CLOSED:
            self._drop(service, "cancelled", now)
            return
        self._progress(stream, service.outbound, item, service.peer, now)
        service.lost_since = None
        if item.limit == POKE_LIMIT:
            self._owe(service.peer, Stream(service.message_id, True), service.inbound)
            self._flush_acks(service.peer)
        if service.outbound.done:
            self._drop(service, "", now)
        else:
            self._pump(stream, now)

    def _progress(self, stream: Stream, outbound: Outbound, item: AckItem, address: Address, now: float) -> None:
        sample = outbound.acknowledge(item.next, item.limit, now)
        if sample is not None and sample >= 0:
            self._peer(address).path.measure(sample)
        if not outbound.unacked:
            self._again.set(stream, now + POKE)

    # -- inside: receiving ---------------------------------------------------------------------------------------

    def _meet(self, source: Address, incarnation: int, now: float) -> bool:
        """Note which incarnation of a node speaks; False for the voice of one that is no more."""
        peer = self._peer(source)
        if peer.incarnation == incarnation:
            return True
        if peer.incarnation:
            way = self._carrier.way(source)
            if way is not None and way.incarnation not in (0, incarnation):
                return False
            peer.replays = Replays()
        peer.incarnation = incarnation
        if not peer.busy:
            self._idle.set_default(source, now + FORGET_PEER)
        return True

    def _on_request(self, source: Address, chunk: Chunk, body: bytes, hops: int, now: float) -> None:
        message_id = chunk.message_id
        stream = Stream(message_id, True)
        service = self._services.get(message_id)
        if service is None:
            peer = self._peer(source)
            if not peer.replays.accept(chunk.number, chunk.floor):
                self._owe(source, stream, None)
                self._flush_acks(source)
                return
            service = self._services[message_id] = Service(message_id, source, chunk.incarnation)
            peer.busy += 1
            self._of_host.setdefault(wire.host_of(source), {})[Stream(message_id, False)] = None
            self._again.set(Stream(message_id, False), now + POKE)
        elif service.incarnation != chunk.incarnation or service.peer != source:
            return
        service.lost_since = None
        inbound = service.inbound
        ready = inbound.accept(chunk, body, hops)
        if ready is None:
            self._owe(source, stream, inbound)
            self._flush_acks(source)
            return
        emit = self._carrier.emit
        for piece, content, crossed in ready:
            weight = len(content) + CHUNK_OVERHEAD
            last = bool(piece.flags & FLAG_LAST)
            emit(Deliver(stream, source, piece.header, content, last, None, weight, crossed))
        if inbound.since_ack >= ACK_EVERY:
            self._owe(source, stream, inbound)
            self._flush_acks(source)
        else:
            self._owe_soon(source, stream, inbound, now)

    def _on_reply(self, source: Address, chunk: Chunk, body: bytes, hops: int, now: float) -> None:
        stream = Stream(chunk.message_id, False)
        call = self._calls.get(chunk.message_id)
        if call is None or call.recipient != source:
            self._owe(source, stream, None)
            self._flush_acks(source)
            return
        if call.target not in (0, chunk.incarnation):
            return
        call.target = chunk.incarnation
        call.lost_since = None
        inbound = call.inbound
        ready = inbound.accept(chunk, body, hops)
        if ready is None:
            self._owe(source, stream, inbound)
            self._flush_acks(source)
            return
        emit = self._carrier.emit
        for piece, content, crossed in ready:
            weight = len(content) + CHUNK_OVERHEAD
            last = bool(piece.flags & FLAG_LAST)
            emit(Deliver(stream, source, piece.header, content, last, piece.eof, weight, crossed))
            if piece.eof is not None:
                self._owe_soon(source, stream, inbound, now)
                self._forget(call, now)
                return
        if inbound.since_ack >= ACK_EVERY:
            self._owe(source, stream, inbound)
            self._flush_acks(source)
        else:
            self._owe_soon(source, stream, inbound, now)

    # -- inside: ending ------------------------------------------------------------------------------------------

    def _call_route(self, call: Call, stream: Stream, incarnation: int, *, moved: bool, now: float) -> None:
        if call.target and incarnation and incarnation != call.target:
            self._end(call, "node_restarted", f"node {call.recipient!r} has restarted and lost the request", now)
            return
        was_lost = call.lost_since is not None
        call.lost_since = None
        if call.cancelled_at is not None:
            self._send_cancel(call)
            return
        if moved:
            self._send_again(stream, call.outbound, now)
        self._pump(stream, now)
        if was_lost and not call.outbound.unacked:
            self._again.set(stream, now)

    def _on_silence(self, stream: Stream, now: float) -> None:
        """Nothing was heard of a stream for as long as its timer allows."""
        exchange = self._calls.get(stream.message_id) if stream.request else self._services.get(stream.message_id)
        if exchange is None:
            return
        outbound = exchange.outbound
        if isinstance(exchange, Call):
            if exchange.cancelled_at is not None:
                self._send_cancel(exchange)
                self._again.set(stream, now + CANCEL_AGAIN)
                return
            address = exchange.recipient
        else:
            address = exchange.peer
            patience = LEAF_GRACE if "@" in address else self._route_timeout
            if exchange.lost_since is not None and now - exchange.lost_since >= patience:
                self._drop(exchange, "unreachable", now)
                return
        path = self._peer(address).path
        due = outbound.overdue(path.timeout(outbound.tries))
        if due is None:
            self._poke(stream, address, exchange.inbound)
            due = now + POKE
        elif due <= now:
            outbound.tries += 1
            self._send_again(stream, outbound, now)
            due = now + path.timeout(outbound.tries)
        self._again.set(stream, due)

    def _poke(self, stream: Stream, address: Address, inbound: Inbound) -> None:
        """Nothing is under way: hear whether the other end still knows the exchange."""
        limit = POKE_LIMIT if stream.request else inbound.limit
        self._peer(address).acks[Stream(stream.message_id, not stream.request)] = (inbound.expected, limit)
        self._flush_acks(address)

    def _watch(self, call: Call) -> None:
        """Set the call's limit to whatever comes first."""
        limits = [call.deadline] if call.deadline is not None else []
        if call.lost_since is not None:
            limits.append(call.lost_since + self._route_timeout)
        if call.cancelled_at is not None:
            limits.append(call.cancelled_at + CANCEL_GRACE)
        if limits:
            self._limits.set(call.message_id, min(limits))

    def _watch_lost(self, stream: Stream, exchange: Call | Service, now: float) -> None:
        if isinstance(exchange, Call):
            self._watch(exchange)
        else:
            self._again.set_sooner(stream, now + self._route_timeout)

    def _on_limit(self, message_id: MessageId, now: float) -> None:
        call = self._calls.get(message_id)
        if call is None:
            return
        waited = now - call.asked_at
        if call.deadline is not None and call.deadline <= now:
            if call.lost_since is not None:
                self._end(call, "timed_out", self._no_route(call, waited), now)
            else:
                self._end(call, "timed_out", f"no final reply from {call.recipient!r} within {waited:.3g} s", now)
        elif call.cancelled_at is not None and call.cancelled_at + CANCEL_GRACE <= now:
            self._end(call, "cancelled", f"cancelled; {call.recipient!r} has not confirmed it", now)
        elif call.lost_since is not None and call.lost_since + self._route_timeout <= now:
            self._end(call, "unreachable", self._no_route(call, waited), now)
        else:
            self._watch(call)

    def _no_route(self, call: Call, waited: float) -> str:
        text = f"no route to {call.recipient!r} after {waited:.3g} s"
        if call.unreachable is not None and call.unreachable.at != self._carrier.node:
            text += f"; the last node on the way was {call.unreachable.at!r}"
            if call.unreachable.near:
                text += f" (did you mean {call.unreachable.near[0]!r}?)"
            return text
        return text + self._carrier.hint(call.recipient)

    def _end(self, call: Call, reason: str, text: str, now: float) -> None:
        """End a call with a final word of our own; the recipient is told to stop, if it may be at work."""
        if call.outbound.next and reason in ("timed_out", "unreachable") and call.cancelled_at is None:
            self._send_cancel(call)
        stream = Stream(call.message_id, False)
        eof = Eof(1, reason, text)
        self._carrier.emit(Deliver(stream, call.recipient, None, b"", False, eof, 0, 0))
        self._forget(call, now)

    def _forget(self, call: Call, now: float) -> None:
        del self._calls[call.message_id]
        self._forget_unsent(call.outbound)
        self._limits.cancel(call.message_id)
        peer = self._peer(call.recipient)
        peer.unsettled.pop(call.number, None)
        self._leave(Stream(call.message_id, True), call.recipient, peer, now)

    def _abort(self, service: Service, reason: str) -> None:
        if not service.aborted and not service.outbound.complete:
            service.aborted = True
            self._carrier.emit(Abort(service.message_id, reason))

    def _drop(self, service: Service, reason: str, now: float) -> None:
        if reason:
            self._abort(service, reason)
        del self._services[service.message_id]
        self._forget_unsent(service.outbound)
        self._leave(Stream(service.message_id, False), service.peer, self._peer(service.peer), now)

    def _leave(self, stream: Stream, address: Address, peer: Peer, now: float) -> None:
        self._again.cancel(stream)
        peer.busy -= 1
        if not peer.busy:
            self._idle.set(address, now + FORGET_PEER)
        host = wire.host_of(address)
        streams = self._of_host.get(host)
        if streams is not None:
            streams.pop(stream, None)
            if not streams:
                del self._of_host[host]
