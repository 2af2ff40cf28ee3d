"""The exchanges of a node: the requests that it made (`Call`) and those that it received (`Service`).

What holds for each: a call ends exactly once, by the final word of the recipient or by one that is made up here when
the recipient can't be reached, has restarted, or the time is up. A service takes its request at most once, and lives
until its final word has been acknowledged or the caller knows nothing of it any more.
"""

from __future__ import annotations

from collections.abc import Callable

from zmesh.core import wire
from zmesh.core.effects import Abort, Deliver, Report
from zmesh.core.message import Address, Eof, LinkId, MessageId, NodeId, ReplyHeader, RequestHeader, Stream
from zmesh.core.peers import POKE_LIMIT, Carrier, Peer, Peers
from zmesh.core.sending import LEAF_POKE, POKE, Exchange, Sending
from zmesh.core.streams import ACK_EVERY, CHUNK_OVERHEAD
from zmesh.core.timers import Alarm, Timers
from zmesh.core.wire import CLOSED, FLAG_LAST, MAX_TEXT, AckItem, Chunk, Kind

POKE_SOON = 1.0
CANCEL_AGAIN = 0.5
CANCEL_GRACE = 10.0
LEAF_GRACE = 5.0
MAX_CLOCK_ERROR_MS = 10


class Call(Exchange):
    """A request of this node, until its final word. `asked_at` and `deadline` in the engine's time."""

    __slots__ = ("asked_at", "cancelled_at", "deadline", "unreachable")

    def __init__(self, message_id: MessageId, recipient: Peer, deadline: float | None, now: float) -> None:
        super().__init__(message_id, recipient, 0, request=True)
        self.deadline = deadline
        self.asked_at = now
        self.cancelled_at: float | None = None
        self.unreachable: wire.Unreachable | None = None


class Service(Exchange):
    """A request of another node (or of this one), until its final word has been acknowledged.

    `detached`: its caller waits for nothing, so that its work goes on without the caller once the request is `whole`.
    """

    __slots__ = ("aborted", "detached", "whole")

    def __init__(self, message_id: MessageId, caller: Peer, incarnation: int) -> None:
        super().__init__(message_id, caller, incarnation, request=False)
        self.aborted = False
        self.detached = False
        self.whole = False


class Exchanges:
    """The tables of exchanges. `route_timeout`: seconds that a request waits for a route before it is Unreachable."""

    def __init__(
        self, carrier: Carrier, route_timeout: float, started: float, alarm: Alarm, *, leaf: bool = False
    ) -> None:
        self._carrier = carrier
        self._route_timeout = route_timeout
        self._started = started
        self._calls: dict[MessageId, Call] = {}
        self._services: dict[MessageId, Service] = {}
        self._of_host: dict[NodeId, dict[Stream, Call | Service]] = {}
        self._limits: Timers[MessageId] = Timers(alarm)
        self._peers = Peers(carrier, alarm, self._on_moved)
        self._sending = Sending(carrier, self._peers, alarm, LEAF_POKE if leaf else POKE)
        self.contested = False
        """Whether another node bears this one's name, and replies may go there."""

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def handing_over(self) -> bool:
        """True while something that was sent has not arrived whole at its recipient."""
        return any(not call.outbound.done for call in self._calls.values())

    @property
    def waiting_bytes(self) -> int:
        """Bytes of payload that wait here for a route or a window."""
        return self._sending.waiting_bytes

    def counts(self) -> dict[str, int]:
        """How many entries each table has; all 0 when nothing is under way (peers are forgotten after a while)."""
        return {
            "calls": len(self._calls),
            "services": len(self._services),
            "acks": self._peers.owed(),
            "waiting_bytes": self._sending.waiting_bytes,
            "peers": len(self._peers),
        }

    def room(self, stream: Stream) -> int:
        """How many bytes of payload the stream can take now; 0 as well if it is over."""
        exchange = self._get(stream)
        if exchange is None:
            return 0
        room = exchange.outbound.room()
        exchange.outbound.pulled = room == 0
        return room

    def is_open(self, stream: Stream) -> bool:
        """True until the stream's exchange is over at this node."""
        return self._get(stream) is not None

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
        peer = self._peers.enter(recipient)
        call = Call(message_id, peer, None if timeout is None else now + timeout, now)
        self._calls[message_id] = call
        call.number = self._peers.number(peer)
        self._enlist(call)
        self._sending.begin(now)
        self._sending.push(call, header, body, last=last, eof=None, complete=last)
        if call.deadline is not None:
            self._limits.set(message_id, call.deadline)
        self._pump(call, now)
        if self.contested:
            self._lose(call, now)

    def feed(self, stream: Stream, body: bytes, *, last: bool, now: float) -> None:
        """More payload of the message that is being sent; `last` ends the request's stream."""
        exchange = self._get(stream)
        if exchange is not None and not exchange.outbound.complete:
            self._sending.push(exchange, None, body, last=last, eof=None, complete=last and stream.request)
            self._pump(exchange, now)

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
        """A reply, or its beginning (`last` False), or with `eof` the final word; nothing if the caller is gone."""
        service = self._services.get(message_id)
        if service is not None and not service.outbound.complete:
            if eof is not None:
                if eof.error:
                    eof = eof._replace(error=eof.error[:MAX_TEXT].encode(errors="replace").decode())
                # It says more than an acknowledgement of the request would.
                service.peer.acks.pop(Stream(message_id, True), None)
            self._sending.push(service, header, body, last=last, eof=eof, complete=eof is not None)
            self._pump(service, now)

    def cancel(self, message_id: MessageId, now: float) -> None:
        """Ask the recipient to stop; a request that never left ends at once. Harmless on what is over."""
        call = self._calls.get(message_id)
        if call is None or call.cancelled_at is not None:
            return
        if call.outbound.next == 0:
            self._end(call, "cancelled", "cancelled before it was sent", now)
            return
        call.cancelled_at = now
        self._sending.drop_unsent(call)
        self._send_cancel(call)
        self._sending.timers.set(call.stream, now + CANCEL_AGAIN)
        self._watch(call)

    def consumed(self, stream: Stream, weight: int, now: float) -> None:
        """The reader of an inbound stream has taken this much of it."""
        exchange = self._services.get(stream.message_id) if stream.request else self._calls.get(stream.message_id)
        if exchange is not None and exchange.inbound.consume(weight):
            self._peers.owe(exchange.peer, stream, exchange.inbound, now, at_once=True)

    # -- from the mesh -------------------------------------------------------------------------------------------

    def on_chunk(self, source: Address, chunk: Chunk, body: bytes, hops: int, now: float) -> str | None:
        """A chunk has come; the reason for which it can't be taken, or None."""
        if chunk.target != self._carrier.incarnation and (
            chunk.target or chunk.age > 1000 * (now - self._started) + MAX_CLOCK_ERROR_MS
        ):
            return "restarted"
        peer = self._peers.meet(source, chunk.incarnation, now)
        if peer is None:
            return "stale"
        if chunk.request:
            self._on_request(peer, chunk, body, hops, now)
        else:
            self._on_reply(peer, chunk, body, hops, now)
        return None

    def on_ack(self, source: Address, ack: wire.Ack, now: float) -> bool:
        """Acknowledgements have come; False if they are for an earlier incarnation, and the sender should know."""
        if ack.target not in (0, self._carrier.incarnation):
            return False
        peer = self._peers.meet(source, ack.incarnation, now)
        if peer is not None:
            self._on_acks(peer, ack.acks, now)
        return True

    def on_cancel(self, source: Address, cancel: wire.Cancel, now: float) -> None:
        """The caller wants its work stopped, or (`request` False) the recipient has nothing to stop."""
        if cancel.target not in (0, self._carrier.incarnation):
            return
        peer = self._peers.meet(source, cancel.incarnation, now)
        if peer is None:
            return
        message_id = cancel.message_id
        if not cancel.request:
            call = self._calls.get(message_id)
            if call is not None and call.cancelled_at is not None and call.address == source:
                self._end(call, "cancelled", f"cancelled; {source!r} had not begun, or was done", now)
            return
        service = self._services.get(message_id)
        if service is not None and service.address != source:
            return
        if service is not None and service.inbound.expected:
            self._abort(service, "cancelled")
            return
        peer.replays.accept(cancel.number, cancel.floor)
        if service is not None:  # the cancel has overtaken the first chunk, so there is nothing to stop, nor to begin
            self._drop(service, "", now)
        answer = wire.Cancel(message_id, False, 0, 0, self._carrier.incarnation, cancel.incarnation)
        if self._carrier.way(source) is not None:
            self._carrier.carry(source, Kind.CANCEL, wire.encode(answer), b"")

    def on_returned(self, stream: Stream, sequence: int, note: wire.Unreachable, now: float) -> None:
        """A chunk of this stream came back."""
        exchange = self._get(stream)
        if exchange is not None:
            exchange.outbound.returned(sequence)
            self.on_unreachable(stream, note, now)

    def on_unreachable(self, stream: Stream, note: wire.Unreachable, now: float) -> None:
        """A node on the way could not pass a frame of this stream on, or the recipient is not what it was."""
        exchange = self._get(stream)
        if exchange is None or exchange.address != note.destination:  # it is over, or moved on with its leaf
            return
        if isinstance(exchange, Call):
            self._call_unreachable(exchange, note, now)
        elif note.reason == "restarted":
            self._drop(exchange, "cancelled", now)
        else:
            self._lose(exchange, now)

    def on_route(self, host: NodeId, incarnation: int | None, now: float) -> None:
        """The route to `host` has changed (None: it is gone); frames under way may be lost with the old one."""
        for exchange in list(self._of_host.get(host, {}).values()):
            if incarnation is None:
                self._lose(exchange, now)
            elif "@" in exchange.address or exchange.target in (0, incarnation):
                self._regain(exchange, now)
            elif isinstance(exchange, Call):
                self._end(exchange, "node_restarted", self._restarted(exchange), now)
            else:
                self._drop(exchange, "cancelled", now)

    def on_contested(self, now: float) -> None:
        """Another node bears this one's name, so replies may go there; a call that hears nothing must end."""
        self.contested = True
        for call in self._calls.values():
            self._lose(call, now)

    def on_attached(self, address: Address | None, now: float) -> None:
        """The leaf at `address` is linked to this node, or (None) this leaf has a node to hang on: all go on."""
        for exchange in self._at(address):
            self._regain(exchange, now)

    def on_detached(self, address: Address | None, now: float) -> None:
        """The leaf at `address` has gone, or (None) this leaf has lost the node that it hung on."""
        for exchange in self._at(address):
            self._lose(exchange, now)

    def on_link_ready(self, link: LinkId, lagging: Callable[[], bool], now: float) -> None:
        """The link's queue has run low."""
        self._sending.on_link_ready(link, lagging, now)

    def link_down(self, link: LinkId, now: float) -> None:
        """The link is gone."""
        self._sending.link_down(link, now)

    # -- time ----------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `tick` has work."""
        deadlines = (
            self._peers.next_deadline(),
            self._sending.next_deadline(),
            self._limits.next_deadline(),
        )
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def tick(self, now: float) -> None:
        """Do what is due: acknowledge, send again, end what has run out of time, forget idle peers."""
        for stream in self._sending.timers.expire(now):
            self._on_silence(stream, now)
        for message_id in self._limits.expire(now):
            self._on_limit(message_id, now)
        if self._sending.sweep_due(now):
            for exchange in self._at(None):
                if self._carrier.way(exchange.address) is None:
                    self._lose(exchange, now)
            self._sending.sweep(self._at(None), now)
        self._peers.tick(now)

    def check(self) -> None:
        """Raise AssertionError if the tables contradict each other."""
        exchanges: list[Exchange] = [*self._calls.values(), *self._services.values()]
        busy: dict[Address, int] = {}
        for exchange in exchanges:
            busy[exchange.address] = busy.get(exchange.address, 0) + 1
            if exchange.outbound.unacked and exchange.stream not in self._sending.timers:
                raise AssertionError("chunks under way that nothing will send again")
        if exchanges and self._sending.next_deadline() is None:
            raise AssertionError("exchanges that nothing will wake")
        if any(service.outbound.done for service in self._services.values()):
            raise AssertionError("a service that is over is still there")
        self._peers.check(busy)
        if {exchange.stream for exchange in exchanges} != {x for listed in self._of_host.values() for x in listed}:
            raise AssertionError("the streams by host are not those of the tables")
        if sum(exchange.outbound.unsent_bytes for exchange in exchanges) != self._sending.waiting_bytes:
            raise AssertionError("the count of waiting bytes is not that of the streams")

    # -- inside: finding and sending -----------------------------------------------------------------------------

    def _get(self, stream: Stream) -> Call | Service | None:
        """The exchange whose outbound stream this is."""
        return self._calls.get(stream.message_id) if stream.request else self._services.get(stream.message_id)

    def _at(self, address: Address | None) -> list[Call | Service]:
        exchanges: list[Call | Service] = [*self._calls.values(), *self._services.values()]
        return [exchange for exchange in exchanges if address in (None, exchange.address)]

    def _pump(self, exchange: Call | Service, now: float) -> None:
        if not self._sending.pump(exchange, now):
            self._lose(exchange, now)

    def _send_cancel(self, call: Call) -> None:
        if self._carrier.way(call.address) is None:
            return
        floor = next(iter(call.peer.unsettled), call.number)
        cancel = wire.Cancel(call.message_id, True, call.number, floor, self._carrier.incarnation, call.target)
        self._carrier.carry(call.address, Kind.CANCEL, wire.encode(cancel), b"")

    # -- inside: acknowledgements --------------------------------------------------------------------------------

    def _on_acks(self, peer: Peer, acks: tuple[AckItem, ...], now: float) -> None:
        for item in acks:
            exchange = self._get(Stream(item.message_id, item.request))
            if exchange is None:
                if item.next != CLOSED:
                    self._peers.owe(peer, Stream(item.message_id, not item.request), None, now, at_once=False)
            elif exchange.peer is peer:
                if isinstance(exchange, Call):
                    self._call_acknowledged(exchange, item, now)
                else:
                    self._service_acknowledged(exchange, item, now)

    def _call_acknowledged(self, call: Call, item: AckItem, now: float) -> None:
        if item.next == CLOSED:
            if call.outbound.next and call.cancelled_at is None:
                self._end(call, "unreachable", f"node {call.address!r} gave the request up while cut off", now)
            return
        self._sending.progress(call, item, now)
        if item.next > 0:
            call.peer.unsettled.pop(call.number, None)
        call.lost_since = None
        call.unreachable = None
        if item.limit == POKE_LIMIT:
            self._peers.owe(call.peer, Stream(call.message_id, False), call.inbound, now, at_once=True)
        if call.cancelled_at is not None:
            self._sending.timers.set_sooner(call.stream, now + CANCEL_AGAIN)
        elif call.outbound.unsent:
            self._pump(call, now)

    def _service_acknowledged(self, service: Service, item: AckItem, now: float) -> None:
        if item.next == CLOSED:
            self._drop(service, "cancelled", now)
            return
        self._sending.progress(service, item, now)
        service.lost_since = None
        if service.outbound.done:
            self._drop(service, "", now)
            return
        if item.limit == POKE_LIMIT:
            self._peers.owe(service.peer, Stream(service.message_id, True), service.inbound, now, at_once=True)
        if service.outbound.unsent:
            self._pump(service, now)

    # -- inside: receiving ---------------------------------------------------------------------------------------

    def _on_request(self, peer: Peer, chunk: Chunk, body: bytes, hops: int, now: float) -> None:
        message_id = chunk.message_id
        service = self._services.get(message_id)
        if service is None:
            if not peer.replays.accept(chunk.number, chunk.floor):
                self._peers.owe(peer, Stream(message_id, True), None, now, at_once=True)
                return
            service = self._services[message_id] = Service(message_id, peer, chunk.incarnation)
            peer.busy += 1
            self._enlist(service)
            self._sending.begin(now)
        elif service.target != chunk.incarnation or service.peer is not peer:
            return
        if isinstance(chunk.header, RequestHeader) and chunk.header.detached:
            service.detached = True
        self._take(service, Stream(message_id, True), chunk, body, hops, now)

    def _on_reply(self, peer: Peer, chunk: Chunk, body: bytes, hops: int, now: float) -> None:
        stream = Stream(chunk.message_id, False)
        call = self._calls.get(chunk.message_id)
        if call is None or call.peer is not peer:
            self._peers.owe(peer, stream, None, now, at_once=True)
        elif call.target in (0, chunk.incarnation):
            call.target = chunk.incarnation
            self._take(call, stream, chunk, body, hops, now)

    def _take(self, exchange: Exchange, stream: Stream, chunk: Chunk, body: bytes, hops: int, now: float) -> None:
        """Take in a chunk of the exchange's inbound stream."""
        exchange.lost_since = None
        inbound = exchange.inbound
        ready = inbound.accept(chunk, body, hops)
        for piece, content, crossed in ready or ():
            eof = piece.eof if isinstance(exchange, Call) else None
            weight = len(content) + CHUNK_OVERHEAD
            last = bool(piece.flags & FLAG_LAST)
            if last and isinstance(exchange, Service):
                exchange.whole = True
            self._carrier.emit(Deliver(stream, exchange.address, piece.header, content, last, eof, weight, crossed))
            if eof is not None and isinstance(exchange, Call):
                self._peers.owe(exchange.peer, stream, inbound, now, at_once=False)
                self._forget(exchange, now)
                return
        at_once = ready is None or inbound.since_ack >= ACK_EVERY
        self._peers.owe(exchange.peer, stream, inbound, now, at_once=at_once)

    def _on_moved(self, peer: Peer, before: Address, now: float) -> None:
        """A leaf hangs on another node: what is open with it goes on there."""
        for exchange in self._at(before):
            self._strike_off(exchange)
            exchange.address = peer.address
            self._enlist(exchange)
            self._regain(exchange, now)

    # -- inside: reachability ------------------------------------------------------------------------------------

    def _lose(self, exchange: Call | Service, now: float) -> None:
        """There is no way to the other end; it may take as long as it may, and then the exchange is over."""
        if exchange.lost_since is not None:
            return
        exchange.lost_since = now
        if isinstance(exchange, Call):
            self._watch(exchange)
        else:
            self._sending.timers.set_sooner(exchange.stream, self._given_up_at(exchange, now))

    def _given_up_at(self, service: Service, lost_since: float) -> float:
        return lost_since + (LEAF_GRACE if "@" in service.address else self._route_timeout)

    def _regain(self, exchange: Call | Service, now: float) -> None:
        was_lost = exchange.lost_since is not None
        exchange.lost_since = None
        if isinstance(exchange, Call) and exchange.cancelled_at is not None:
            self._send_cancel(exchange)
            return
        self._sending.send_again(exchange, now)
        self._pump(exchange, now)
        if was_lost and not exchange.outbound.unacked:
            self._sending.poke(exchange)

    def _call_unreachable(self, call: Call, note: wire.Unreachable, now: float) -> None:
        call.unreachable = note
        host = wire.host_of(note.destination)
        self._carrier.emit(Report("unreachable", host, None, note.reason, note.near, note.settled))
        if note.reason == "restarted":
            self._end(call, "node_restarted", self._restarted(call), now)
        elif call.lost_since is None:
            call.lost_since = now
            self._watch(call)
            if not call.outbound.unacked:
                self._sending.timers.set(call.stream, now + POKE_SOON)

    def _on_silence(self, stream: Stream, now: float) -> None:
        """Nothing was heard of a stream for as long as its timer allows."""
        exchange = self._get(stream)
        if exchange is None:
            return
        if isinstance(exchange, Call):
            if exchange.cancelled_at is not None:
                self._send_cancel(exchange)
                self._sending.timers.set(stream, now + CANCEL_AGAIN)
                return
        elif exchange.lost_since is not None:
            given_up_at = self._given_up_at(exchange, exchange.lost_since)
            if now >= given_up_at:
                self._drop(exchange, "unreachable", now)
                return
            self._sending.timers.set(stream, given_up_at)
        self._sending.on_silence(exchange, now)

    # -- inside: ending ------------------------------------------------------------------------------------------

    def _watch(self, call: Call) -> None:
        """Set the call's limit to whatever comes first."""
        limits = [call.deadline] if call.deadline is not None else []
        if call.lost_since is not None:
            limits.append(call.lost_since + self._route_timeout)
        if call.cancelled_at is not None:
            limits.append(call.cancelled_at + CANCEL_GRACE)
        if limits:
            self._limits.set(call.message_id, min(limits))

    def _on_limit(self, message_id: MessageId, now: float) -> None:
        call = self._calls.get(message_id)
        if call is None:
            return
        waited = now - call.asked_at
        lost = call.lost_since is not None
        if call.deadline is not None and call.deadline <= now:
            text = f"no final reply from {call.address!r} within {waited:.3g} s"
            self._end(call, "timed_out", self._no_route(call, waited) if lost else text, now)
        elif call.cancelled_at is not None and call.cancelled_at + CANCEL_GRACE <= now:
            self._end(call, "cancelled", f"cancelled; {call.address!r} has not confirmed it", now)
        elif call.lost_since is not None and call.lost_since + self._route_timeout <= now:
            self._end(call, "unreachable", self._no_route(call, waited), now)
        else:
            self._watch(call)

    def _no_route(self, call: Call, waited: float) -> str:
        text = f"no route to {call.address!r} after {waited:.3g} s"
        if self.contested:
            return f"{text}; another node is called {self._carrier.node!r} as well, and gets what is for this one"
        if call.unreachable is None or call.unreachable.at == self._carrier.node:
            return text + self._carrier.hint(call.address)
        text += f"; the last node on the way was {call.unreachable.at!r}"
        if call.unreachable.near:
            text += f" (did you mean {call.unreachable.near[0]!r}?)"
        return text

    def _restarted(self, call: Call) -> str:
        return f"node {call.address!r} has restarted and lost the request"

    def _end(self, call: Call, reason: str, text: str, now: float) -> None:
        """End a call with a final word of our own; the recipient is told to stop, if it may be at work."""
        if call.outbound.next and reason in ("timed_out", "unreachable") and call.cancelled_at is None:
            self._send_cancel(call)
        stream = Stream(call.message_id, False)
        self._carrier.emit(Deliver(stream, call.address, None, b"", False, Eof(1, reason, text), 0, 0))
        self._forget(call, now)

    def _forget(self, call: Call, now: float) -> None:
        del self._calls[call.message_id]
        self._limits.cancel(call.message_id)
        call.peer.unsettled.pop(call.number, None)
        self._leave(call, now)

    def _abort(self, service: Service, reason: str) -> None:
        if not service.aborted and not service.outbound.complete:
            service.aborted = True
            self._carrier.emit(Abort(service.message_id, reason))

    def _drop(self, service: Service, reason: str, now: float) -> None:
        if reason and not (service.detached and service.whole):
            self._abort(service, reason)
        del self._services[service.message_id]
        self._leave(service, now)

    def _leave(self, exchange: Call | Service, now: float) -> None:
        self._sending.end(exchange)
        self._peers.leave(exchange.peer, now)
        self._strike_off(exchange)

    def _enlist(self, exchange: Call | Service) -> None:
        self._of_host.setdefault(wire.host_of(exchange.address), {})[exchange.stream] = exchange

    def _strike_off(self, exchange: Exchange) -> None:
        host = wire.host_of(exchange.address)
        listed = self._of_host[host]
        del listed[exchange.stream]
        if not listed:
            del self._of_host[host]
