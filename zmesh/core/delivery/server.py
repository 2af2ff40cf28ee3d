"""The server's side of exchanges: the requests that this node has received, until their last reply is acknowledged.

A request is accepted at most once: clients number their requests (`ReplayWindow`), so a late copy is recognized. The
exchange ends when the client has acknowledged the last reply or no longer knows the request, or when it has been
unreachable or silent for too long; the work is then aborted, unless the request is detached and has arrived whole.
"""

from __future__ import annotations

import enum

from zmesh.core import wire
from zmesh.core.delivery.exchange import SILENCE_TIMEOUT, Exchange
from zmesh.core.delivery.flow_control import ACK_EVERY, CHUNK_OVERHEAD, credit_of
from zmesh.core.delivery.peers import PROBE_LIMIT, Peer, Peers
from zmesh.core.delivery.receiver import Receiver
from zmesh.core.delivery.sender import Sender
from zmesh.core.effects import Abort, Report, ReportDelay, deliver
from zmesh.core.forwarding import Forwarding
from zmesh.core.limits import DEFAULT_LIMITS, Limits, TokenBucket
from zmesh.core.message import Address, Eof, MessageId, ReplyHeader, RequestHeader, Stream
from zmesh.core.wire import CLOSED, FLAG_EOF, FLAG_EXTENDED, FLAG_FIRST, FLAG_LAST, MAX_TEXT, AckItem, Chunk, Kind

WHOLE = FLAG_FIRST | FLAG_LAST
"""The flags of a chunk that is all of a request."""

LEAF_ROUTE_TIMEOUT = 5.0


class ServerState(enum.Enum):
    """The state of an exchange at its server; `ServerExchange` has the transitions."""

    OPEN = enum.auto()
    ROUTE_LOST = enum.auto()
    ABORTED = enum.auto()
    COMPLETE = enum.auto()
    ENDED = enum.auto()


class ServerExchange(Exchange):
    """A request of another node (or of this one).

    | state | means | event | next state |
    | --- | --- | --- | --- |
    | OPEN | the work may run, and there is a route to the client | no route | ROUTE_LOST |
    | ROUTE_LOST | there is none, since `unreachable_since` | a route, or a frame of the client | OPEN |
    | ABORTED | the work was aborted, with or without a route | | |
    | COMPLETE | the last reply was given, and waits for its acknowledgement, with or without a route | | |
    | OPEN, ROUTE_LOST | | cancelled by the client | ABORTED |
    | OPEN, ROUTE_LOST, ABORTED | | the work gives the last reply | COMPLETE |
    | any | | last reply acknowledged; client restarted, unreachable or silent for too long | ENDED |

    `detached`: the client waits for nothing, so the work goes on without it once the request is `whole`. `last_heard`
    is when a frame last came for it.
    """

    __slots__ = ("detached", "last_heard", "state", "whole")

    def __init__(self, message_id: MessageId, client: Peer, incarnation: int, now: float) -> None:
        Exchange.__init__(self, message_id, client, incarnation, request=False)  # as in ClientExchange
        self.state = ServerState.OPEN
        self.last_heard = now
        self.detached = False
        self.whole = False

    # -- transitions ---------------------------------------------------------------------------------------------

    def lose_route(self, now: float) -> None:
        """There is no route to the client any more."""
        self.unreachable_since = now
        if self.state is ServerState.OPEN:
            self.state = ServerState.ROUTE_LOST

    def find_route(self) -> None:
        """There is a route to the client, or a frame has come from it."""
        self.unreachable_since = None
        if self.state is ServerState.ROUTE_LOST:
            self.state = ServerState.OPEN

    def abort(self) -> bool:
        """Stop the work; False if it was stopped or has given its last reply already."""
        if self.state is not ServerState.OPEN and self.state is not ServerState.ROUTE_LOST:
            return False
        self.state = ServerState.ABORTED
        return True

    def complete(self) -> None:
        """The work has given its last reply."""
        self.state = ServerState.COMPLETE

    def end(self) -> None:
        """The exchange is over."""
        self.state = ServerState.ENDED

    def check(self) -> None:
        """Raise AssertionError if the state contradicts what is known."""
        super().check()
        expected = ServerState.OPEN if self.unreachable_since is None else ServerState.ROUTE_LOST
        if self.outbound.complete:
            expected = ServerState.COMPLETE
        if self.state is not expected and (self.state is not ServerState.ABORTED or self.outbound.complete):
            raise AssertionError(f"the state of a received request is {self.state.name}, not {expected.name}")


class Server:
    """The table of received requests. `route_timeout`: seconds that work goes on for a client without a route."""

    def __init__(
        self,
        forwarding: Forwarding,
        peers: Peers,
        sender: Sender,
        receiver: Receiver,
        route_timeout: float,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._forwarding = forwarding
        self._peers = peers
        self._sender = sender
        self._receiver = receiver
        self.route_timeout = route_timeout
        self.limits = limits
        self._delays = TokenBucket(limits.reported_delays, 0.0)
        self._exchanges: dict[MessageId, ServerExchange] = {}
        self._refused: dict[MessageId, str] = {}
        """The latest requests that were refused, and the limit: a late copy of one must not run."""

    def __len__(self) -> int:
        return len(self._exchanges)

    def get(self, message_id: MessageId) -> ServerExchange | None:
        """The exchange, or None if it is over."""
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
        """A reply, or its beginning (`last` False), or with `eof` the last one; no effect if the exchange is over."""
        exchange = self._exchanges.get(message_id)
        if exchange is None or exchange.outbound.complete:
            return
        if eof is not None:
            if eof.error:
                eof = eof._replace(error=eof.error[:MAX_TEXT].encode(errors="replace").decode())
            # The last reply implies that the request has arrived.
            exchange.peer.acks.pop(exchange.inbound_id, None)
            exchange.complete()
        if eof is None or not self._sender.send_only(exchange, header, body, now, last=last, eof=eof):
            self._sender.push(exchange, header, body, last=last, eof=eof, complete=eof is not None)
            self._pump(exchange, now)
        if eof is not None and not exchange.whole:
            self._stop_sending(exchange, now, at_once=bool(exchange.outbound.unsent))

    def reset(self, message_id: MessageId, code: int, error: str, now: float) -> None:
        """End the exchange abruptly: what was not sent of the replies is dropped, and the client is given `code`."""
        exchange = self._exchanges.get(message_id)
        if exchange is not None and not exchange.outbound.complete:
            self._sender.drop_unsent(exchange)
            exchange.outbound.complete = False
            self.reply(message_id, None, b"", last=False, eof=Eof(1, "cancelled", error, code), now=now)

    def report_delay(self, message_id: MessageId, text: str) -> None:
        """Answer a probe of the client: the work waits to begin, for what `text` says. It comes after the ack."""
        exchange = self._exchanges.get(message_id)
        if exchange is None or self._forwarding.next_hop(exchange.address) is None:
            return
        here = self._forwarding
        note = wire.Unreachable(Kind.ACK, "queued", here.node, here.address, (), 0.0, text[:MAX_TEXT])
        probe = wire.encode_ack(exchange.peer_incarnation, here.incarnation, [(message_id, True, 0, PROBE_LIMIT)])
        here.originate(exchange.address, Kind.UNREACHABLE, wire.encode(note), probe)

    def stop_sending(self, message_id: MessageId, now: float) -> None:
        """The work wants no more of the request: have the client stop sending it (STOP_SENDING, RFC 9000)."""
        exchange = self._exchanges.get(message_id)
        if exchange is not None and not exchange.whole and not exchange.inbound.stopped:
            self._stop_sending(exchange, now, at_once=True)

    def feed(self, message_id: MessageId, body: bytes, *, last: bool, now: float) -> None:
        """Append payload to the reply that is being sent; `last` ends it."""
        self.reply(message_id, None, body, last=last, eof=None, now=now)

    # -- from the mesh -------------------------------------------------------------------------------------------

    def on_chunk(self, peer: Peer, chunk: Chunk, body: bytes, hops: int, now: float) -> None:
        """A chunk of a request has come."""
        message_id = chunk.message_id
        exchange = self._exchanges.get(message_id)
        if exchange is None:
            if peer.replay_window.knows(chunk.request_number):
                peer.last_used = now  # more copies may come, so what it has sent must not be forgotten yet
                self._peers.schedule_ack(peer, Stream(message_id, True), None, now, at_once=True)
                return
            limit = (
                self._refused.get(message_id)
                or peer.quota.request_limit()
                or peer.quota.byte_limit(len(body) + CHUNK_OVERHEAD)
            )
            if limit:
                self.refuse(peer.address, chunk, limit)
                return
            exchange = self._accept(peer, chunk, now)
            if chunk.flags & ~FLAG_EXTENDED == WHOLE and not chunk.sequence:
                self._deliver_whole(exchange, chunk, body, hops, now)
                return
        elif exchange.peer_incarnation != chunk.incarnation or exchange.peer is not peer:
            self._forwarding.emit(Report("frame_dropped", wire.host_of(peer.address), None, "not_its_request"))
            return
        else:
            exchange.last_heard = now
        if isinstance(chunk.header, RequestHeader) and chunk.header.detached:
            exchange.detached = True
        ready = self._receiver.accept(exchange, chunk, body, hops)
        stream, address, handle = exchange.inbound_id, exchange.address, exchange.handle
        for each, content, crossed in ready or ():
            flags = each.flags
            last = flags & FLAG_LAST != 0
            exchange.whole = exchange.whole or last
            credit = credit_of(flags, len(content))
            self._forwarding.emit(deliver((stream, address, each.header, content, last, None, credit, crossed, handle)))
        self._receiver.schedule_ack(exchange, ready, now)

    def _deliver_whole(self, exchange: ServerExchange, chunk: Chunk, body: bytes, hops: int, now: float) -> None:
        """Deliver a request that is one chunk, as most are; what follows here does so for any."""
        header = chunk.header
        exchange.detached = isinstance(header, RequestHeader) and header.detached
        exchange.whole = True
        inbound, stream, credit = exchange.inbound, exchange.inbound_id, len(body) + CHUNK_OVERHEAD
        inbound.expected = 1
        inbound.received = inbound.unacked_credit = credit
        exchange.update_quota()
        address, handle = exchange.address, exchange.handle
        self._forwarding.effects.append(deliver((stream, address, header, body, True, None, credit, hops, handle)))
        self._peers.schedule_ack(exchange.peer, stream, inbound, now, at_once=credit >= ACK_EVERY)

    def _accept(self, peer: Peer, chunk: Chunk, now: float) -> ServerExchange:
        self._peers.accept(peer, chunk.request_number, chunk.lowest_outstanding)
        exchange = self._exchanges[chunk.message_id] = ServerExchange(chunk.message_id, peer, chunk.incarnation, now)
        peer.exchanges += 1
        peer.quota.add_requests(1)
        self._sender.add(exchange, now)
        return exchange

    def refuse(self, source: Address, chunk: Chunk, limit: str) -> None:
        """Answer a request for which there is no room with a last reply that says so, and remember its id alone.

        Copies of it are refused as well, since the client may have read by then that it has not begun.
        """
        self._forwarding.emit(Report("overloaded", wire.host_of(source), None, limit))
        if self._forwarding.next_hop(source) is None:
            return
        self._refused[chunk.message_id] = limit
        if len(self._refused) > self.limits.refused_requests:
            del self._refused[next(iter(self._refused))]
        text = (
            f"node {self._forwarding.node!r} has no room for another request of {source!r} "
            f"({limit} is {getattr(self.limits, limit)}); wait for replies before sending more"
        )
        head = (chunk.message_id, False, 0, FLAG_EOF, 0, 0, self._forwarding.incarnation, chunk.incarnation, None)
        eof = Eof(1, "overloaded", text)
        self._forwarding.originate(source, Kind.CHUNK, wire.encode_chunk(*head, eof), b"")

    def on_ack(self, message_id: MessageId, item: AckItem, now: float) -> None:
        """The client acknowledges the replies so far."""
        exchange = self._exchanges[message_id]
        exchange.last_heard = now
        if item.next == CLOSED:
            self._end(exchange, "cancelled", now)
            return
        outbound = exchange.outbound
        if outbound.complete and item.next == outbound.next and outbound.is_last_in_flight:
            self._sender.on_last_ack(exchange, now)
            self._end(exchange, "", now)
            return
        self._sender.on_ack(exchange, item, now)
        if exchange.unreachable_since is not None:
            exchange.find_route()
        if outbound.is_finished:
            self._end(exchange, "", now)
            return
        if item.limit == PROBE_LIMIT:
            self._peers.schedule_ack(exchange.peer, exchange.inbound_id, exchange.inbound, now, at_once=True)
            if exchange.handle is not None and not outbound.next and self._delays.has(now):
                self._delays.spend(1)
                self._forwarding.emit(ReportDelay(message_id, exchange.handle))
        if exchange.outbound.has_pending:
            self._pump(exchange, now)

    def on_cancel(self, peer: Peer, cancel: wire.Cancel, now: float) -> None:
        """The client cancels its request."""
        message_id, source = cancel.message_id, peer.address
        exchange = self._exchanges.get(message_id)
        if exchange is not None and exchange.address != source:
            self._forwarding.emit(Report("frame_dropped", wire.host_of(source), None, "not_its_request"))
            return
        if exchange is not None and exchange.inbound.expected:
            self._abort(exchange, "cancelled", cancel.code)
            return
        self._peers.accept(peer, cancel.request_number, cancel.lowest_outstanding)
        if exchange is not None:  # the cancel has overtaken the first chunk, so the work has not begun and must not
            self._end(exchange, "", now)
        answer = wire.Cancel(message_id, False, 0, 0, self._forwarding.incarnation, cancel.incarnation)
        if self._forwarding.next_hop(source) is not None:
            self._forwarding.originate(source, Kind.CANCEL, wire.encode_cancel(answer), b"")

    def on_unreachable(self, message_id: MessageId, note: wire.Unreachable, now: float) -> None:
        """A forwarder had no route for a reply, or the client has restarted."""
        if note.reason == "restarted":
            self.on_restart(message_id, now)
        else:
            self.on_route_lost(message_id, now)

    def on_restart(self, message_id: MessageId, now: float) -> None:
        """The client has a new incarnation, which does not know the request."""
        self._end(self._exchanges[message_id], "cancelled", now)

    def on_route_lost(self, message_id: MessageId, now: float) -> None:
        """There is no route to the client; the work goes on for `route_timeout`."""
        self._lose_route(self._exchanges[message_id], now)

    def on_route(self, message_id: MessageId, now: float) -> None:
        """There is a route to the client, maybe another one; what was in flight may be lost with the old one."""
        exchange = self._exchanges[message_id]
        exchange.last_heard = now
        if not self._sender.resume(exchange, now):
            self._lose_route(exchange, now)

    # -- time ----------------------------------------------------------------------------------------------------

    def on_timer(self, message_id: MessageId, now: float) -> None:
        """The timer of the outbound stream has expired."""
        exchange = self._exchanges[message_id]
        if exchange.unreachable_since is not None:
            ends_at = self._ends_at(exchange, exchange.unreachable_since)
            if now >= ends_at:
                self._end(exchange, "unreachable", now)
                return
            self._sender.timers.set(exchange.outbound_id, ends_at)
        self._sender.on_timer(exchange, now)

    def end_silent(self, now: float) -> None:
        """End the exchanges whose client has a route and was silent for SILENCE_TIMEOUT, or `route_timeout`."""
        silence = max(SILENCE_TIMEOUT, self.route_timeout)
        for exchange in list(self._exchanges.values()):
            if exchange.last_heard + silence <= now and exchange.unreachable_since is None:
                self._end(exchange, "unreachable", now)

    def check(self) -> None:
        """Raise AssertionError if an exchange that is over is still in the table."""
        if any(exchange.outbound.is_finished for exchange in self._exchanges.values()):
            raise AssertionError("an exchange that is over is still in the table")

    # -- inside --------------------------------------------------------------------------------------------------

    def _pump(self, exchange: ServerExchange, now: float) -> None:
        if not self._sender.pump(exchange, now):
            self._lose_route(exchange, now)

    def _lose_route(self, exchange: ServerExchange, now: float) -> None:
        if exchange.unreachable_since is None:
            exchange.lose_route(now)
            self._sender.timers.set_sooner(exchange.outbound_id, self._ends_at(exchange, now))

    def _ends_at(self, exchange: ServerExchange, unreachable_since: float) -> float:
        return unreachable_since + (LEAF_ROUTE_TIMEOUT if "@" in exchange.address else self.route_timeout)

    def _abort(self, exchange: ServerExchange, reason: str, reset_code: int = 0) -> None:
        if exchange.abort():
            self._forwarding.emit(Abort(exchange.message_id, reason, exchange.handle, reset_code))

    def _stop_sending(self, exchange: ServerExchange, now: float, *, at_once: bool) -> None:
        """Acknowledge the request with STOP_SENDING from now on; `at_once`: no reply says the same."""
        exchange.inbound.stopped = True
        if at_once:
            self._peers.schedule_ack(exchange.peer, exchange.inbound_id, exchange.inbound, now, at_once=True)

    def _end(self, exchange: ServerExchange, reason: str, now: float) -> None:
        """End an exchange; with a `reason` the work is aborted, unless it is detached and the request is whole."""
        if reason and not (exchange.detached and exchange.whole):
            self._abort(exchange, reason)
        exchange.end()
        del self._exchanges[exchange.message_id]
        exchange.peer.quota.add_requests(-1)
        self._receiver.close(exchange)
        self._sender.remove(exchange, now)
