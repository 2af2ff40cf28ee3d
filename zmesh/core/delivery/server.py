"""The requests that this node has received (`ServerExchange`), until their final word has been acknowledged.

A request is accepted at most once: clients number their requests (`ReplayWindow`), so a late copy is recognized. The
exchange is over when the client has acknowledged the last reply or no longer knows the request, or when it has been
unreachable or silent for too long; the work is then aborted, unless the request is detached and complete.
"""

from __future__ import annotations

from zmesh.core import wire
from zmesh.core.delivery.peers import POKE_LIMIT, Carrier, Peer, Peers
from zmesh.core.delivery.receiver import Receiver
from zmesh.core.delivery.sender import SILENCE, Exchange, Sender
from zmesh.core.delivery.streams import CHUNK_OVERHEAD
from zmesh.core.effects import Abort, Deliver, Report
from zmesh.core.limits import DEFAULT_LIMITS, Limits
from zmesh.core.message import Address, Eof, MessageId, ReplyHeader, RequestHeader, Stream
from zmesh.core.wire import CLOSED, FLAG_EOF, FLAG_LAST, MAX_TEXT, AckItem, Chunk, Kind

LEAF_GRACE = 5.0


class ServerExchange(Exchange):
    """A request of another node (or of this one).

    `detached`: its caller waits for nothing, so that its work goes on without the caller once the request is `whole`.
    `heard` is when something last came for it.
    """

    __slots__ = ("aborted", "detached", "heard", "whole")

    def __init__(self, message_id: MessageId, caller: Peer, incarnation: int, now: float) -> None:
        super().__init__(message_id, caller, incarnation, request=False)
        self.aborted = False
        self.heard = now
        self.detached = False
        self.whole = False


class Server:
    """The table of services. `route_timeout`: seconds that work goes on for a caller that can't be reached."""

    def __init__(
        self,
        carrier: Carrier,
        peers: Peers,
        sending: Sender,
        receiving: Receiver,
        route_timeout: float,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._carrier = carrier
        self._peers = peers
        self._sender = sending
        self._receiver = receiving
        self._route_timeout = route_timeout
        self._limits = limits
        self._exchanges: dict[MessageId, ServerExchange] = {}

    def __len__(self) -> int:
        return len(self._exchanges)

    def get(self, message_id: MessageId) -> ServerExchange | None:
        """The service, or None if it is over."""
        return self._exchanges.get(message_id)

    # -- from the program ----------------------------------------------------------------------------------------

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
        service = self._exchanges.get(message_id)
        if service is None or service.outbound.complete:
            return
        if eof is not None:
            if eof.error:
                eof = eof._replace(error=eof.error[:MAX_TEXT].encode(errors="replace").decode())
            # It says more than an acknowledgement of the request would.
            service.peer.acks.pop(service.inward, None)
        self._sender.push(service, header, body, last=last, eof=eof, complete=eof is not None)
        self._pump(service, now)

    def feed(self, message_id: MessageId, body: bytes, *, last: bool, now: float) -> None:
        """More payload of the reply that is being sent; `last` ends it."""
        self.reply(message_id, None, body, last=last, eof=None, now=now)

    # -- from the mesh -------------------------------------------------------------------------------------------

    def on_chunk(self, peer: Peer, chunk: Chunk, body: bytes, hops: int, now: float) -> None:
        """A piece of a request has come."""
        message_id = chunk.message_id
        service = self._exchanges.get(message_id)
        if service is None:
            if peer.replays.knows(chunk.number):
                peer.left_at = now  # more copies may come, so what it has sent must not be forgotten yet
                self._peers.owe(peer, Stream(message_id, True), None, now, at_once=True)
                return
            limit = peer.quota.request_limit() or peer.quota.byte_limit(len(body) + CHUNK_OVERHEAD)
            if limit:
                self.refuse(peer.address, chunk, limit)
                return
            self._peers.accept(peer, chunk.number, chunk.floor)
            service = self._exchanges[message_id] = ServerExchange(message_id, peer, chunk.incarnation, now)
            peer.busy += 1
            peer.quota.add_requests(1)
            self._sender.enlist(service, now)
        elif service.target != chunk.incarnation or service.peer is not peer:
            self._carrier.emit(Report("frame_dropped", wire.host_of(peer.address), None, "not_its_request"))
            return
        else:
            service.heard = now
        if isinstance(chunk.header, RequestHeader) and chunk.header.detached:
            service.detached = True
        ready = self._receiver.accept(service, chunk, body, hops)
        stream, address = service.inward, service.address
        for piece, content, crossed in ready or ():
            credit = len(content) + CHUNK_OVERHEAD
            last = bool(piece.flags & FLAG_LAST)
            service.whole = service.whole or last
            self._carrier.emit(
                Deliver(stream, address, piece.header, content, last, None, credit, crossed, service.handle)
            )
        self._receiver.owe(service, ready, now)

    def refuse(self, source: Address, chunk: Chunk, limit: str) -> None:
        """Answer a request for which there is no room with a final word, and keep nothing of it.

        If that is lost the request comes again, and may begin then.
        """
        self._carrier.emit(Report("overloaded", wire.host_of(source), None, limit))
        if self._carrier.next_hop(source) is None:
            return
        text = (
            f"node {self._carrier.node!r} has no room for another request of {source!r} "
            f"({limit} is {getattr(self._limits, limit)}); wait for replies before sending more"
        )
        word = (chunk.message_id, False, 0, FLAG_EOF, 0, 0, self._carrier.incarnation, chunk.incarnation, None)
        self._carrier.originate(source, Kind.CHUNK, wire.encode((*word, Eof(1, "overloaded", text))), b"")

    def on_ack(self, message_id: MessageId, item: AckItem, now: float) -> None:
        """The caller says how far the replies have come."""
        service = self._exchanges[message_id]
        service.heard = now
        if item.next == CLOSED:
            self._drop(service, "cancelled", now)
            return
        self._sender.progress(service, item, now)
        service.lost_since = None
        if service.outbound.done:
            self._drop(service, "", now)
            return
        if item.limit == POKE_LIMIT:
            self._peers.owe(service.peer, service.inward, service.inbound, now, at_once=True)
        if service.outbound.waiting:
            self._pump(service, now)

    def on_cancel(self, peer: Peer, cancel: wire.Cancel, now: float) -> None:
        """The caller wants its work stopped."""
        message_id, source = cancel.message_id, peer.address
        service = self._exchanges.get(message_id)
        if service is not None and service.address != source:
            self._carrier.emit(Report("frame_dropped", wire.host_of(source), None, "not_its_request"))
            return
        if service is not None and service.inbound.expected:
            self._abort(service, "cancelled")
            return
        self._peers.accept(peer, cancel.number, cancel.floor)
        if service is not None:  # the cancel has overtaken the first chunk, so there is nothing to stop, nor to begin
            self._drop(service, "", now)
        answer = wire.Cancel(message_id, False, 0, 0, self._carrier.incarnation, cancel.incarnation)
        if self._carrier.next_hop(source) is not None:
            self._carrier.originate(source, Kind.CANCEL, wire.encode(answer), b"")

    def on_unreachable(self, message_id: MessageId, note: wire.Unreachable, now: float) -> None:
        """A node on the way could not pass a reply on, or the caller is not what it was."""
        if note.reason == "restarted":
            self.on_restart(message_id, now)
        else:
            self.lose(message_id, now)

    def on_restart(self, message_id: MessageId, now: float) -> None:
        """The caller has begun a new life, and knows nothing of what it asked for."""
        self._drop(self._exchanges[message_id], "cancelled", now)

    def lose(self, message_id: MessageId, now: float) -> None:
        """There is no way to the caller; the work goes on for a while."""
        self._lose(self._exchanges[message_id], now)

    def regain(self, message_id: MessageId, now: float) -> None:
        """There is a way to the caller, another one maybe; what was under way may be lost with the old one."""
        service = self._exchanges[message_id]
        service.heard = now
        if not self._sender.resume(service, now):
            self._lose(service, now)

    # -- time ----------------------------------------------------------------------------------------------------

    def on_silence(self, message_id: MessageId, now: float) -> None:
        """Nothing was heard for as long as the stream's timer allows."""
        service = self._exchanges[message_id]
        if service.lost_since is not None:
            given_up_at = self._given_up_at(service, service.lost_since)
            if now >= given_up_at:
                self._drop(service, "unreachable", now)
                return
            self._sender.timers.set(service.stream, given_up_at)
        self._sender.on_silence(service, now)

    def expire(self, now: float) -> None:
        """Give up those whose callers can be reached and have said nothing for SILENCE, whatever was asked of them."""
        silence = max(SILENCE, self._route_timeout)
        for service in [each for each in self._exchanges.values() if each.heard + silence <= now]:
            if service.lost_since is None:
                self._drop(service, "unreachable", now)

    def check(self) -> None:
        """Raise AssertionError if a service is there that should not be."""
        if any(service.outbound.done for service in self._exchanges.values()):
            raise AssertionError("a service that is over is still there")

    # -- inside --------------------------------------------------------------------------------------------------

    def _pump(self, service: ServerExchange, now: float) -> None:
        if not self._sender.pump(service, now):
            self._lose(service, now)

    def _lose(self, service: ServerExchange, now: float) -> None:
        if service.lost_since is None:
            service.lost_since = now
            self._sender.timers.set_sooner(service.stream, self._given_up_at(service, now))

    def _given_up_at(self, service: ServerExchange, lost_since: float) -> float:
        return lost_since + (LEAF_GRACE if "@" in service.address else self._route_timeout)

    def _abort(self, service: ServerExchange, reason: str) -> None:
        if not service.aborted and not service.outbound.complete:
            service.aborted = True
            self._carrier.emit(Abort(service.message_id, reason, service.handle))

    def _drop(self, service: ServerExchange, reason: str, now: float) -> None:
        if reason and not (service.detached and service.whole):
            self._abort(service, reason)
        del self._exchanges[service.message_id]
        service.peer.quota.add_requests(-1)
        self._receiver.end(service)
        self._sender.strike_off(service, now)
