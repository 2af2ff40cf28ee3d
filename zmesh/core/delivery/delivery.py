"""The exchanges of a node: the requests that it has made (`Client`) and those that it has received (`Server`).

An exchange has two streams, one out and one in. What comes for its outbound stream (acknowledgements, notes that a
frame got no further, silence) and what becomes of the way to its other end is handed to the table that it is in, by the
name of that stream.
"""

from __future__ import annotations

from collections.abc import Callable

from zmesh.core import wire
from zmesh.core.delivery.client import Client
from zmesh.core.delivery.peers import POKE_LIMIT, Carrier, Peer, Peers, TableFull
from zmesh.core.delivery.receiver import Receiver
from zmesh.core.delivery.sender import LEAF_POKE, POKE, Exchange, Sender
from zmesh.core.delivery.server import Server
from zmesh.core.effects import Report
from zmesh.core.limits import DEFAULT_LIMITS, Limits
from zmesh.core.message import Address, Eof, LinkId, MessageId, NodeId, ReplyHeader, RequestHeader, Stream
from zmesh.core.timers import Alarm
from zmesh.core.wire import CLOSED, MAX_TTL, AckItem, Chunk, Kind, Route

AT_ONCE = 250
"""Timers of exchanges that one tick looks after; the others follow when the program has had its turn."""


class Delivery:
    """Both tables. `route_timeout`: seconds that an exchange waits for a way to its other end."""

    def __init__(
        self,
        carrier: Carrier,
        route_timeout: float,
        alarm: Alarm,
        *,
        leaf: bool = False,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._carrier = carrier
        self._peers = Peers(carrier, alarm, self._on_moved, limits)
        self._sender = Sender(carrier, self._peers, alarm, LEAF_POKE if leaf else POKE)
        self._receiver = Receiver(carrier, self._peers)
        self.client = Client(carrier, self._peers, self._sender, self._receiver, alarm, route_timeout)
        self.server = Server(carrier, self._peers, self._sender, self._receiver, route_timeout, limits)

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def handing_over(self) -> bool:
        """True while something that was sent has not arrived whole at its recipient."""
        return self.client.handing_over

    @property
    def waiting_bytes(self) -> int:
        """Bytes of payload of this node's requests that wait here, for a route, a window or an acknowledgement."""
        return self._sender.waiting_bytes

    @property
    def waiting_streams(self) -> int:
        """Requests, and replies, of which nothing has left yet."""
        return self._sender.waiting_streams

    def is_lost(self, message_id: MessageId) -> bool:
        """True while no way leads to the recipient of this request of ours, as far as is known."""
        call = self.client.get(message_id)
        return call is not None and call.lost_since is not None

    def counts(self) -> dict[str, int]:
        """How many entries each table has; all 0 when nothing is under way (peers are forgotten after a while)."""
        return {
            "calls": len(self.client),
            "services": len(self.server),
            "acks": self._peers.owed(),
            "waiting_bytes": self._sender.waiting_bytes,
            "peers": len(self._peers),
        }

    def kept(self) -> dict[str, int]:
        """What others take up here, by the name of its limit."""
        return self._peers.kept()

    def room(self, stream: Stream) -> int:
        """How many bytes of payload the stream can take now; 0 as well if it is over."""
        exchange = self._get(stream)
        return 0 if exchange is None else self._sender.room(exchange)

    def is_open(self, stream: Stream) -> bool:
        """True while the stream may take more payload."""
        exchange = self._get(stream)
        return exchange is not None and not exchange.outbound.complete

    def attach(self, message_id: MessageId, handle: object) -> None:
        """Have each Deliver and Abort of a request that was received here carry `handle` from now on."""
        exchange = self.server.get(message_id)
        if exchange is not None:
            exchange.handle = handle

    # -- from the program ----------------------------------------------------------------------------------------

    def open_request(
        self,
        message_id: MessageId,
        recipient: Address,
        header: RequestHeader,
        body: bytes,
        *,
        last: bool,
        timeout: float | None,
        now: float,
        route_timeout: float | None = None,
        handle: object = None,
    ) -> None:
        """Send a request; `last` False: more payload follows through `feed`. `timeout` and `route_timeout`: seconds."""
        self.client.open(
            message_id,
            recipient,
            header,
            body,
            last=last,
            timeout=timeout,
            now=now,
            route_timeout=route_timeout,
            handle=handle,
        )

    def cancel(self, message_id: MessageId, now: float) -> None:
        """Cancel a request of this node; its last reply comes as with any other."""
        self.client.cancel(message_id, now)

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
        """Reply to a request; `eof` ends the exchange. No effect if the exchange is over."""
        self.server.reply(message_id, header, body, last=last, eof=eof, now=now)

    def feed(self, stream: Stream, body: bytes, *, last: bool, now: float) -> None:
        """More payload of the message that is being sent; `last` ends the message."""
        self._table(stream).feed(stream.message_id, body, last=last, now=now)

    def release_credit(self, stream: Stream, credit: int, now: float) -> None:
        """The reader of an inbound stream has taken this much of it."""
        exchange = self._get(Stream(stream.message_id, not stream.request))
        if exchange is not None:
            self._receiver.release_credit(exchange, credit, now)

    # -- from the mesh -------------------------------------------------------------------------------------------

    def on_frame(self, route: Route, head: bytes, body: bytes, now: float, via: NodeId | None = None) -> str | None:
        """A frame for this node has come, from neighbour `via` unless it is this node's own. Returns why it is dropped;
        `restarted`: its source must hear of that.

        Raises WireError.
        """
        source = route.source
        try:
            match route.kind:
                case Kind.CHUNK:
                    hops = 0 if source == self._carrier.node else MAX_TTL - route.ttl + 1
                    return self.on_chunk(source, wire.decode_chunk(head), body, hops, now, via)
                case Kind.ACK:
                    return None if self.on_ack(source, wire.decode_ack(head), now, via) else "restarted"
                case Kind.CANCEL:
                    self.on_cancel(source, wire.decode_cancel(head), now, via)
                case Kind.UNREACHABLE:
                    self._on_note(wire.decode_unreachable(head), body, now)
                case _:
                    expired = wire.decode_expired(head)
                    self._carrier.emit(Report("expired", expired.at, None, expired.destination))
        except TableFull as error:
            return error.limit
        return None

    def on_chunk(
        self, source: Address, chunk: Chunk, body: bytes, hops: int, now: float, via: NodeId | None = None
    ) -> str | None:
        """A chunk has come; the reason for which it can't be taken, or None. Raises TableFull, but for a request."""
        if chunk.target != self._carrier.incarnation:
            return "restarted"
        try:
            peer = self._peers.meet(source, chunk.incarnation, now, via)
        except TableFull as error:
            if not chunk.request:
                raise
            self.server.refuse(source, chunk, error.limit)
            return None
        if peer is None:
            return "stale"
        if chunk.request:
            self.server.on_chunk(peer, chunk, body, hops, now)
        else:
            self.client.on_chunk(peer, chunk, body, hops, now)
        return None

    def on_ack(self, source: Address, ack: wire.Ack, now: float, via: NodeId | None = None) -> bool:
        """Acknowledgements have come; False if they are for an earlier incarnation, and the sender should know.

        Raises TableFull.
        """
        if ack.target not in (0, self._carrier.incarnation):
            return False
        peer = self._peers.meet(source, ack.incarnation, now, via)
        if peer is None:
            self._drop(source, "stale")
            return True
        for item in ack.acks:
            self._on_acknowledged(peer, item, now)
        return True

    def on_cancel(self, source: Address, cancel: wire.Cancel, now: float, via: NodeId | None = None) -> None:
        """The client cancels a request, or (`request` False) the server has nothing to cancel. Raises TableFull."""
        stale = cancel.target not in (0, self._carrier.incarnation)
        peer = None if stale else self._peers.meet(source, cancel.incarnation, now, via)
        if peer is None:
            self._drop(source, "stale")
            return
        if cancel.request:
            self.server.on_cancel(peer, cancel, now)
        else:
            self.client.on_nothing_to_stop(cancel.message_id, source, now)

    def on_returned(self, stream: Stream, sequence: int, note: wire.Unreachable, now: float) -> None:
        """A chunk of this stream came back: it got no further, or a queue on the way was full."""
        exchange = self._get(stream)
        if exchange is not None:
            refused = note.reason == "full"
            exchange.outbound.on_returned(sequence, now, refused=refused)
            if not refused:
                self.on_unreachable(stream, note, now)

    def on_unreachable(self, stream: Stream, note: wire.Unreachable, now: float) -> None:
        """A node on the way could not pass a frame of this stream on, or the recipient is not what it was."""
        exchange = self._get(stream)
        if exchange is not None and exchange.address == note.destination:  # else it is over, or moved with its leaf
            self._table(stream).on_unreachable(stream.message_id, note, now)

    def on_route(self, host: NodeId, incarnation: int | None, now: float) -> None:
        """The route to `host` has changed (None: it is gone); frames under way may be lost with the old one."""
        for exchange in self._sender.of(host):
            table, message_id = self._table(exchange.stream), exchange.message_id
            if incarnation is None:
                table.lose(message_id, now)
            elif "@" in exchange.address or exchange.target in (0, incarnation):
                table.regain(message_id, now)
            else:
                table.on_restart(message_id, now)

    def on_contested(self, now: float) -> None:
        """Another node bears this one's name."""
        self.client.on_contested(now)

    def on_uncontested(self) -> None:
        """No other node bears this one's name any more."""
        self.client.contested = False

    def on_attached(self, address: Address | None, now: float) -> None:
        """The leaf at `address` is linked to this node, or (None) this leaf has a node to hang on: all go on."""
        for exchange in self._sender.at(address):
            self._table(exchange.stream).regain(exchange.message_id, now)

    def on_detached(self, address: Address | None, now: float) -> None:
        """The leaf at `address` has gone, or (None) this leaf has lost the node that it hung on."""
        for exchange in self._sender.at(address):
            self._table(exchange.stream).lose(exchange.message_id, now)

    def on_link_ready(self, link: LinkId, lagging: Callable[[], bool], now: float) -> None:
        """The link's queue has run low."""
        self._sender.on_link_ready(link, lagging, now)

    def link_down(self, link: LinkId, now: float) -> None:
        """The link is gone."""
        self._sender.link_down(link, now)

    def close(self) -> None:
        """The node is about to leave: acknowledge what has come, lest others keep it for this one."""
        self._peers.flush_all()

    # -- time ----------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `tick` has work."""
        deadlines = (self._peers.next_deadline(), self._sender.next_deadline(), self.client.next_deadline())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def tick(self, now: float) -> None:
        """Do what is due: acknowledge, send again, end what has run out of time, forget idle peers."""
        for stream in self._sender.timers.expire(now, AT_ONCE):
            if self._get(stream) is not None:
                self._table(stream).on_silence(stream.message_id, now)
        self.client.expire(now)
        if self._sender.sweep_due(now):
            for exchange in self._sender.at(None):
                if self._carrier.next_hop(exchange.address) is None:
                    self._table(exchange.stream).lose(exchange.message_id, now)
            self.server.expire(now)
            self.client.give_up_silent(now)
            self._sender.sweep(now)
        self._peers.tick(now)

    def check(self) -> None:
        """Raise AssertionError if the tables contradict each other."""
        self.server.check()
        self._sender.check()
        self._receiver.check(self._sender.at(None))
        busy: dict[Address, int] = {}
        for exchange in self._sender.at(None):
            busy[exchange.address] = busy.get(exchange.address, 0) + 1
            if self._get(exchange.stream) is not exchange:
                raise AssertionError("a stream that is sent for an exchange that is over")
        if sum(busy.values()) != len(self.client) + len(self.server):
            raise AssertionError("the streams by host are not those of the tables")
        self._peers.check(busy)

    # -- inside --------------------------------------------------------------------------------------------------

    def _get(self, stream: Stream) -> Exchange | None:
        """The exchange whose outbound stream this is."""
        return self.client.get(stream.message_id) if stream.request else self.server.get(stream.message_id)

    def _table(self, stream: Stream) -> Client | Server:
        """The table of the exchange whose outbound stream this is."""
        return self.client if stream.request else self.server

    def _drop(self, source: Address, reason: str) -> None:
        self._carrier.emit(Report("frame_dropped", wire.host_of(source), None, reason))

    def _on_note(self, note: wire.Unreachable, head: bytes, now: float) -> None:
        """A frame of ours came back; only what this incarnation sent is looked at."""
        match note.kind:
            case Kind.CHUNK:
                chunk = wire.decode_chunk(head)
                if chunk.incarnation == self._carrier.incarnation:
                    self.on_returned(Stream(chunk.message_id, chunk.request), chunk.sequence, note, now)
            case Kind.CANCEL:
                self.on_unreachable(Stream(wire.decode_cancel(head).message_id, True), note, now)
            case Kind.ACK:
                if note.reason == "gone":
                    self.on_detached(note.destination, now)
                for item in wire.decode_ack(head).acks:
                    if note.reason == "restarted" or item.limit == POKE_LIMIT:
                        # It was about the stream that comes in, or asked who is there for the one that goes out.
                        stream = Stream(item.message_id, item.request)
                        known = self._get(stream) is not None
                        self.on_unreachable(stream if known else Stream(item.message_id, not item.request), note, now)

    def _on_acknowledged(self, peer: Peer, item: AckItem, now: float) -> None:
        stream = Stream(item.message_id, item.request)
        exchange = self._get(stream)
        if exchange is not None:
            if exchange.peer is peer:
                self._table(stream).on_ack(item.message_id, item, now)
            else:
                self._drop(peer.address, "not_its_request")
        elif item.next != CLOSED:
            asked = item.limit == POKE_LIMIT
            self._peers.owe(peer, Stream(item.message_id, not item.request), None, now, at_once=asked)
        elif not item.request:
            self.client.on_met(item.message_id, peer, now)

    def _on_moved(self, peer: Peer, before: Address, now: float) -> None:
        """A leaf hangs on another node: what is open with it goes on there."""
        for exchange in self._sender.at(before):
            self._sender.move(exchange, peer.address)
            self._table(exchange.stream).regain(exchange.message_id, now)
