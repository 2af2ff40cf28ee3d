"""The facade of delivery: all exchanges of a node, with what the engine, the program and the mesh do to them.

An exchange has two streams, one out and one in, named by its message id and a direction. The client's table has the
requests that this node has made, the server's those that it has received. An event about an outbound stream (an ack, a
frame that came back, an expired timer, a change of the route to its peer) goes to the table that has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from zmesh.core import wire
from zmesh.core.delivery.client import Client
from zmesh.core.delivery.exchange import Exchange
from zmesh.core.delivery.peers import PROBE_LIMIT, Peer, Peers, TableFull
from zmesh.core.delivery.receiver import Receiver
from zmesh.core.delivery.sender import LEAF_PROBE_INTERVAL, PROBE_INTERVAL, Sender
from zmesh.core.delivery.server import Server
from zmesh.core.effects import Report
from zmesh.core.forwarding import Forwarding
from zmesh.core.limits import DEFAULT_LIMITS, Limits
from zmesh.core.message import Address, LinkId, MessageId, NodeId, Stream
from zmesh.core.timers import Alarm
from zmesh.core.wire import ACKS, CLOSED, MAX_TTL, AckItem, Chunk, Kind, Packet

_CHUNK = int(Kind.CHUNK)  # a look-up in an enum costs as much as a call

TIMERS_PER_TICK = 250
"""Timers of exchanges that one tick serves; the others follow when the program has had its turn."""


class Delivery:
    """Both tables. `route_timeout`: seconds that an exchange may be without a route to its peer."""

    def __init__(
        self,
        forwarding: Forwarding,
        route_timeout: float,
        alarm: Alarm,
        *,
        leaf: bool = False,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._forwarding = forwarding
        self._peers = Peers(forwarding, alarm, self._on_moved, limits)
        self._sender = Sender(forwarding, self._peers, alarm, LEAF_PROBE_INTERVAL if leaf else PROBE_INTERVAL)
        self._receiver = Receiver(forwarding, self._peers)
        self.client = Client(forwarding, self._peers, self._sender, self._receiver, alarm, route_timeout)
        self.server = Server(forwarding, self._peers, self._sender, self._receiver, route_timeout, limits)

    def set_limits(self, limits: Limits | None, route_timeout: float) -> None:
        """Apply other limits, and another `route_timeout`, to the exchanges that are opened from now on."""
        self.client.route_timeout = self.server.route_timeout = route_timeout
        if limits is not None:
            self._peers.limits = self.server.limits = limits

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def has_undelivered_requests(self) -> bool:
        """Whether a request of this node has not arrived whole at its server."""
        return self.client.has_undelivered

    @property
    def waiting_bytes(self) -> int:
        """Bytes of payload of this node's requests that are unsent or unacknowledged."""
        return self._sender.waiting_bytes

    @property
    def waiting_streams(self) -> int:
        """Requests and replies of which no chunk was sent yet."""
        return self._sender.waiting_streams

    def is_lost(self, message_id: MessageId) -> bool:
        """Whether there is no route to the server of this request."""
        exchange = self.client.get(message_id)
        return exchange is not None and exchange.unreachable_since is not None

    def neighbour_of(self, message_id: MessageId) -> NodeId | None:
        """The neighbour that the quota of this received request's client belongs to; None: this node, or it is over."""
        exchange = self.server.get(message_id)
        return None if exchange is None else exchange.peer.quota.neighbour

    def obstacle(self, message_id: MessageId, now: float) -> str:
        """The cause that holds a request of this node back, as errors say it; empty if there is none."""
        return self.client.obstacle(message_id, now)

    def counts(self) -> dict[str, int]:
        """How many entries each table has; all 0 when no exchange is open and idle peers are forgotten."""
        return {
            "requests_made": len(self.client),
            "requests_received": len(self.server),
            "pending_acks": self._peers.pending_acks(),
            "waiting_bytes": self._sender.waiting_bytes,
            "peers": len(self._peers),
        }

    def knows(self, name: str, incarnation: int) -> bool:
        """Whether there is something between this node and that incarnation of a node, or a leaf (its id and `@`)."""
        return self._peers.knows(name, incarnation)

    def usage(self) -> dict[str, int]:
        """The amounts that this node keeps for others, by the name of the limit."""
        return self._peers.usage()

    def room(self, stream: Stream) -> int:
        """How many bytes of payload the stream takes now; 0 as well if it is over."""
        exchange = self._get(stream)
        return 0 if exchange is None else self._sender.room(exchange)

    def is_open(self, stream: Stream) -> bool:
        """Whether the stream may take more payload."""
        exchange = self._get(stream)
        return exchange is not None and not exchange.outbound.complete

    # -- from the program ----------------------------------------------------------------------------------------

    def cancel(self, message_id: MessageId, now: float, reset_code: int = 0) -> None:
        """Cancel a request of this node, or with a code reset it; its last reply comes as with any other."""
        self.client.cancel(message_id, now, reset_code)

    def feed(self, stream: Stream, body: bytes, *, last: bool, now: float) -> None:
        """Append payload to the message that is being sent; `last` ends the message."""
        self._table(stream).feed(stream.message_id, body, last=last, now=now)

    def release_credit(self, stream: Stream, credit: int, now: float) -> None:
        """The reader of an inbound stream has read so much of it."""
        exchange = self._get(Stream(stream.message_id, not stream.request))
        if exchange is not None:
            self._receiver.release_credit(exchange, credit, now)

    def attach(self, message_id: MessageId, handle: object) -> None:
        """Have each Deliver and Abort of a received request carry `handle` from now on."""
        exchange = self.server.get(message_id)
        if exchange is not None:
            exchange.handle = handle

    # -- frames --------------------------------------------------------------------------------------------------

    def on_frame(self, packet: Packet, now: float, via: NodeId | None = None) -> str | None:
        """A frame for this node has come, from neighbour `via`, or None if it is this node's own.

        Returns why it is dropped, or None; after `restarted` its source must get an UNREACHABLE. Raises WireError.
        """
        kind, ttl, _, source, _, head, body = packet[:7]
        try:
            if kind == _CHUNK:
                hops = 0 if source == self._forwarding.node else MAX_TTL - ttl + 1
                return self.on_chunk(source, wire.decode_chunk(head), body, hops, now, via)
            match kind:
                case Kind.ACK:
                    return None if self.on_ack(source, wire.decode_ack(head), now, via) else "restarted"
                case Kind.CANCEL:
                    self.on_cancel(source, wire.decode_cancel(head), now, via)
                case Kind.UNREACHABLE:
                    self._on_note(wire.decode_unreachable(head), body, now)
                case _:
                    expired = wire.decode_expired(head)
                    self._forwarding.emit(Report("expired", expired.at, None, expired.destination))
        except TableFull as error:
            return error.limit
        return None

    def on_chunk(
        self, source: Address, chunk: Chunk, body: bytes, hops: int, now: float, via: NodeId | None = None
    ) -> str | None:
        """A chunk has come. Returns why it is dropped, or None. Raises TableFull, but not for a request."""
        if chunk.target != self._forwarding.incarnation:
            return "restarted"
        try:
            peer = self._peers.identify(source, chunk.incarnation, now, via)
        except TableFull as error:
            if not chunk.request:
                raise
            if error.limit == "new_peers":  # it is retransmitted
                return error.limit
            self.server.refuse(source, chunk, error.limit)
            return None
        if peer is None:
            return "stale"
        if ACKS in chunk.extensions:
            self._on_acks(peer, wire.decode_acks(chunk.extensions[ACKS]), now)
        if chunk.request:
            self.server.on_chunk(peer, chunk, body, hops, now)
        else:
            self.client.on_chunk(peer, chunk, body, hops, now)
        return None

    def on_ack(self, source: Address, ack: wire.Ack, now: float, via: NodeId | None = None) -> bool:
        """Acks have come; False if they are for an earlier incarnation of this node, which their source must learn.

        Raises TableFull.
        """
        if ack.target not in (0, self._forwarding.incarnation):
            return False
        peer = self._peers.identify(source, ack.incarnation, now, via)
        if peer is None:
            self._drop(source, "stale")
            return True
        self._on_acks(peer, ack.acks, now)
        return True

    def on_cancel(self, source: Address, cancel: wire.Cancel, now: float, via: NodeId | None = None) -> None:
        """The client cancels a request, or (`request` False) the server has nothing to cancel. Raises TableFull."""
        is_stale = cancel.target not in (0, self._forwarding.incarnation)
        peer = None if is_stale else self._peers.identify(source, cancel.incarnation, now, via)
        if peer is None:
            self._drop(source, "stale")
            return
        if cancel.request:
            self.server.on_cancel(peer, cancel, now)
        else:
            self.client.on_nothing_to_cancel(cancel.message_id, source, now)

    def on_returned(self, stream: Stream, sequence: int, note: wire.Unreachable, now: float) -> None:
        """A chunk of this stream came back: a forwarder had no route, or its queue was full."""
        exchange = self._get(stream)
        if exchange is not None and note.is_held:
            self.on_unreachable(stream, note, now)
        elif exchange is not None:
            refused = note.reason == "full"
            self._sender.on_returned(exchange, sequence, now, refused=refused)
            if not refused:
                self.on_unreachable(stream, note, now)

    def on_unreachable(self, stream: Stream, note: wire.Unreachable, now: float) -> None:
        """A forwarder had no route for a frame of this stream, or the peer has restarted."""
        exchange = self._get(stream)
        if exchange is None or exchange.address != note.destination:  # it is over, or its leaf has moved
            return
        if note.is_held:  # it was passed on, or has arrived
            if stream.request:
                self.client.on_held(stream.message_id, note)
        else:
            self._table(stream).on_unreachable(stream.message_id, note, now)

    # -- routes and links ----------------------------------------------------------------------------------------

    def on_route(self, host: NodeId, incarnation: int | None, now: float) -> None:
        """The route to `host` has changed (None: it is lost); frames in flight may be lost with the old one."""
        for exchange in self._sender.exchanges.with_host(host):
            table, message_id = self._table(exchange.outbound_id), exchange.message_id
            if incarnation is None:
                table.on_route_lost(message_id, now)
            elif "@" in exchange.address or exchange.peer_incarnation in (0, incarnation):
                table.on_route(message_id, now)
            else:
                table.on_restart(message_id, now)

    def on_contested(self, now: float) -> None:
        """Another node has this one's id."""
        self.client.on_contested(now)

    def on_uncontested(self) -> None:
        """No other node has this one's id any more."""
        self.client.contested = False

    def on_attached(self, address: Address | None, now: float) -> None:
        """The leaf at `address` has a link to this node, or (None) this leaf has an uplink: its exchanges go on."""
        for exchange in self._sender.exchanges.with_address(address):
            self._table(exchange.outbound_id).on_route(exchange.message_id, now)

    def on_detached(self, address: Address | None, now: float) -> None:
        """The leaf at `address` has no link to this node any more, or (None) this leaf has lost its uplink."""
        for exchange in self._sender.exchanges.with_address(address):
            self._table(exchange.outbound_id).on_route_lost(exchange.message_id, now)

    def on_link_ready(self, link: LinkId, lagging: Callable[[], bool], now: float) -> None:
        """The queue of a link has drained."""
        self._sender.on_link_ready(link, lagging, now)

    def link_down(self, link: LinkId, now: float) -> None:
        """A link is gone."""
        self._sender.link_down(link, now)

    def close(self) -> None:
        """The node is about to leave: send pending acks, so that peers free their retransmission buffers."""
        self._peers.flush_all()

    # -- time ----------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `tick` has work."""
        deadlines = (self._peers.next_deadline(), self._sender.next_deadline(), self.client.next_deadline())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def tick(self, now: float) -> None:
        """Acknowledge, retransmit, probe, end the exchanges whose time is up, and forget idle peers."""
        for stream in self._sender.expire(now, TIMERS_PER_TICK):
            if self._get(stream) is not None:
                self._table(stream).on_timer(stream.message_id, now)
        self.client.expire(now)
        if self._sender.sweep_due(now):
            for exchange in self._sender.exchanges.with_address(None):
                if self._forwarding.next_hop(exchange.address) is None:
                    self._table(exchange.outbound_id).on_route_lost(exchange.message_id, now)
            self.server.end_silent(now)
            self.client.end_silent(now)
            self._sender.sweep(now)
        self._peers.tick(now)

    def rtt(self, address: Address) -> float | None:
        """The smoothed round-trip time to a node that there are exchanges with, or were lately, in seconds."""
        return self._peers.rtt(address)

    def check(self) -> None:
        """Raise AssertionError if the tables contradict each other."""
        self.server.check()
        self._sender.check()
        exchanges = self._sender.exchanges.with_address(None)
        self._receiver.check(exchanges)
        by_address: dict[Address, int] = {}
        for exchange in exchanges:
            by_address[exchange.address] = by_address.get(exchange.address, 0) + 1
            if self._get(exchange.outbound_id) is not exchange:
                raise AssertionError("a stream that is sent for an exchange that is over")
        if sum(by_address.values()) != len(self.client) + len(self.server):
            raise AssertionError("the streams by host are not those of the tables")
        self._peers.check(by_address)

    # -- inside --------------------------------------------------------------------------------------------------

    def _get(self, stream: Stream) -> Exchange | None:
        """The exchange with this outbound stream."""
        return self.client.get(stream.message_id) if stream.request else self.server.get(stream.message_id)

    def _table(self, stream: Stream) -> Client | Server:
        """The table of the exchange with this outbound stream."""
        return self.client if stream.request else self.server

    def _drop(self, source: Address, reason: str) -> None:
        self._forwarding.emit(Report("frame_dropped", wire.host_of(source), None, reason))

    def _on_note(self, note: wire.Unreachable, head: bytes, now: float) -> None:
        """A frame came back; only what this incarnation has sent counts."""
        match note.kind:
            case Kind.CHUNK:
                chunk = wire.decode_chunk(head)
                if chunk.incarnation == self._forwarding.incarnation:
                    self.on_returned(Stream(chunk.message_id, chunk.request), chunk.sequence, note, now)
            case Kind.CANCEL:
                self.on_unreachable(Stream(wire.decode_cancel(head).message_id, True), note, now)
            case Kind.ACK:
                if note.reason == "gone":
                    self.on_detached(note.destination, now)
                for item in wire.decode_ack(head).acks:
                    if note.reason == "restarted" or item.limit == PROBE_LIMIT:
                        # It was about the inbound stream, or a discovery for the outbound one.
                        stream = Stream(item.message_id, item.request)
                        known = self._get(stream) is not None
                        self.on_unreachable(stream if known else Stream(item.message_id, not item.request), note, now)

    def _on_acks(self, peer: Peer, acks: Iterable[AckItem], now: float) -> None:
        for item in acks:
            self._on_ack_item(peer, item, now)
        self._sender.serve(peer, now)

    def _on_ack_item(self, peer: Peer, item: AckItem, now: float) -> None:
        message_id, request, following, limit = item
        table = self.client if request else self.server
        exchange = table.get(message_id)
        if exchange is not None:
            if exchange.peer is peer:
                table.on_ack(message_id, item, now)
            else:
                self._drop(peer.address, "not_its_request")
        elif following != CLOSED:
            is_probe = limit == PROBE_LIMIT
            self._peers.schedule_ack(peer, Stream(message_id, not request), None, now, at_once=is_probe)
        elif not request:
            self.client.on_discovered(message_id, peer, now)

    def _on_moved(self, peer: Peer, before: Address, now: float) -> None:
        """A leaf has attached to another node: its exchanges go on there."""
        for exchange in self._sender.exchanges.with_address(before):
            self._sender.exchanges.move(exchange, peer.address)
            self._table(exchange.outbound_id).on_route(exchange.message_id, now)
