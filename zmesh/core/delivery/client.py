"""The client's side of exchanges: the requests that this node has made, until their last reply.

An exchange ends exactly once: with the last reply of the server, or with one that is made here when the server can't be
reached, has restarted, or the time is up. Each of these is an event of its own, or a deadline: that of the request,
that for finding a route, or that for the confirmation of a cancel. One timer has the earlier of the last two.
"""

from __future__ import annotations

from zmesh.core import wire
from zmesh.core.delivery.client_exchange import CANCEL_TIMEOUT, ClientExchange, ClientState
from zmesh.core.delivery.exchange import SILENCE_TIMEOUT
from zmesh.core.delivery.flow_control import CHUNK_OVERHEAD, credit_of
from zmesh.core.delivery.peers import PROBE_LIMIT, Peer, Peers
from zmesh.core.delivery.receiver import Receiver
from zmesh.core.delivery.sender import Sender
from zmesh.core.durations import exact
from zmesh.core.effects import Deliver, Report, deliver
from zmesh.core.forwarding import Forwarding
from zmesh.core.message import Address, Eof, MessageId, RequestHeader, Stream
from zmesh.core.timers import Alarm, Timeouts, Timers
from zmesh.core.wire import CLOSED, FLAG_EOF, FLAG_FIRST, FLAG_LAST, STOP_SENDING, AckItem, Chunk, Kind

WHOLE = FLAG_FIRST | FLAG_LAST | FLAG_EOF
"""The flags of a chunk that is the only reply, and ends the exchange."""

FIRST_PROBE_DELAY = 1.0
CANCEL_RETRY_INTERVAL = 0.5
WORTH_SAYING = 1.0
"""Seconds for which a request had a route, from which on an error says since when it has none: the answer that a node
is unknown comes sooner."""


class Client:
    """The table of this node's requests. `route_timeout`: seconds that one may be without a route before it ends as
    unreachable, unless it has a limit of its own."""

    def __init__(
        self,
        forwarding: Forwarding,
        peers: Peers,
        sender: Sender,
        receiver: Receiver,
        alarm: Alarm,
        route_timeout: float,
    ) -> None:
        self._forwarding = forwarding
        self._peers = peers
        self._sender = sender
        self._receiver = receiver
        self.route_timeout = route_timeout
        self._exchanges: dict[MessageId, ClientExchange] = {}
        self._deadlines: Timeouts[MessageId] = Timeouts(alarm)
        self._limits: Timers[MessageId] = Timers(alarm)
        self.contested = False
        """Whether another node has this one's id, so that replies may go there."""

    def __len__(self) -> int:
        return len(self._exchanges)

    def get(self, message_id: MessageId) -> ClientExchange | None:
        """The exchange, or None if it is over."""
        return self._exchanges.get(message_id)

    @property
    def has_undelivered(self) -> bool:
        """Whether a request has not arrived whole at its server."""
        return any(not exchange.outbound.is_finished for exchange in self._exchanges.values())

    # -- from the program ----------------------------------------------------------------------------------------

    def open(
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
        """Open an exchange; `last` False: more payload follows through `feed`. `route_timeout`: its own."""
        peer = self._peers.open_exchange(recipient)
        exchange = ClientExchange(
            message_id,
            peer,
            timeout,
            self.route_timeout if route_timeout is None else route_timeout,
            now,
        )
        exchange.handle = handle
        self._exchanges[message_id] = exchange
        exchange.request_number = self._peers.next_request_number(peer)
        self._sender.add(exchange, now)
        if exchange.probe_after is not None:
            self._deadlines.start(message_id, exchange.probe_after, now)
        if not last or not self._sender.send_only(exchange, header, body, now, last=True, eof=None):
            self._sender.push(exchange, header, body, last=last, eof=None, complete=last)
            self._pump(exchange, now)
        if self.contested:
            self._lose_route(exchange, now)

    def feed(self, message_id: MessageId, body: bytes, *, last: bool, now: float) -> None:
        """Append payload to the request; `last` ends it."""
        exchange = self._exchanges.get(message_id)
        if exchange is not None and not exchange.outbound.complete:
            self._sender.push(exchange, None, body, last=last, eof=None, complete=last)
            if exchange.peer_incarnation:
                self._pump(exchange, now)

    def cancel(self, message_id: MessageId, now: float, reset_code: int = 0) -> None:
        """Cancel a request, with a code above 0 for the server's program: reset it.

        One that can't have arrived ends at once. No effect if it is over, or cancelled already.
        """
        exchange = self._exchanges.get(message_id)
        if exchange is None or exchange.state is ClientState.CANCELLING:
            return
        if exchange.cannot_have_arrived():
            self._end(exchange, "cancelled", f"cancelled; it had not reached {exchange.address!r}", now)
            return
        exchange.cancel(reset_code, now)
        self._sender.drop_unsent(exchange)
        self._send_cancel(exchange)
        self._sender.wake_after(exchange, CANCEL_RETRY_INTERVAL, now)
        self._set_limit(exchange)

    # -- from the mesh -------------------------------------------------------------------------------------------

    def on_chunk(self, peer: Peer, chunk: Chunk, body: bytes, hops: int, now: float) -> None:
        """A chunk of the replies has come."""
        exchange = self._exchanges.get(chunk.message_id)
        if exchange is None or exchange.peer is not peer:
            self._peers.schedule_ack(peer, Stream(chunk.message_id, False), None, now, at_once=True)
            return
        if exchange.peer_incarnation != chunk.incarnation:
            if exchange.peer_incarnation:
                host = wire.host_of(exchange.address)
                self._forwarding.emit(Report("frame_dropped", host, None, "not_its_request"))
                return
            exchange.set_incarnation(chunk.incarnation)
        exchange.last_heard = now
        inbound = exchange.inbound
        if chunk.flags & WHOLE == WHOLE and not (chunk.sequence or inbound.expected or inbound.buffered):
            self._deliver_whole(exchange, chunk, body, hops, now)
            return
        exchange.last_note = None  # its work has begun, and there is a route back
        ready = self._receiver.accept(exchange, chunk, body, hops)
        for each, content, crossed in ready or ():
            flags, eof = each.flags, each.eof
            credit, last = credit_of(flags, len(content)), flags & FLAG_LAST != 0
            address, handle = exchange.address, exchange.handle
            self._forwarding.emit(
                deliver((exchange.inbound_id, address, each.header, content, last, eof, credit, crossed, handle))
            )
            if eof is not None:
                self._peers.schedule_ack(peer, exchange.inbound_id, exchange.inbound, now, at_once=False)
                self._remove(exchange, now)
                return
        self._receiver.schedule_ack(exchange, ready, now)

    def _deliver_whole(self, exchange: ClientExchange, chunk: Chunk, body: bytes, hops: int, now: float) -> None:
        """Deliver the only reply of an exchange, which is one chunk, as most are; `on_chunk` does so for any."""
        inbound, stream, credit = exchange.inbound, exchange.inbound_id, len(body) + CHUNK_OVERHEAD
        inbound.expected = 1
        inbound.received = inbound.unacked_credit = credit
        address, handle = exchange.address, exchange.handle
        whole = deliver((stream, address, chunk.header, body, True, chunk.eof, credit, hops, handle))
        self._forwarding.effects.append(whole)
        self._peers.schedule_ack(exchange.peer, stream, inbound, now, at_once=False)
        self._remove(exchange, now)

    def on_ack(self, message_id: MessageId, item: AckItem, now: float) -> None:
        """The server acknowledges the request so far."""
        exchange = self._exchanges[message_id]
        exchange.last_heard = now
        if item.next == CLOSED:
            if exchange.peer_incarnation and exchange.outbound.next and exchange.state is not ClientState.CANCELLING:
                text = f"node {exchange.address!r} gave the request up while cut off; its work was stopped"
                self._end(exchange, "unreachable", text, now)
            return
        self._sender.on_ack(exchange, item, now)
        if item.next > 0:
            if item.limit == STOP_SENDING and exchange.outbound.next:
                self._sender.drop_unsent(exchange)
            if not exchange.peer_incarnation:
                exchange.set_incarnation(exchange.peer.incarnation)
            exchange.peer.unacked_requests.pop(exchange.request_number, None)
        if exchange.unreachable_since is not None:
            exchange.find_route()
        exchange.last_note = None
        if item.limit == PROBE_LIMIT:
            self._peers.schedule_ack(exchange.peer, exchange.inbound_id, exchange.inbound, now, at_once=True)
        if exchange.state is ClientState.CANCELLING:
            self._sender.timers.set_sooner(exchange.outbound_id, now + CANCEL_RETRY_INTERVAL)
        elif exchange.outbound.has_pending:
            self._pump(exchange, now)

    def on_discovered(self, message_id: MessageId, peer: Peer, now: float) -> None:
        """The server has answered the discovery of its incarnation: send all requests that wait for it."""
        exchange = self._exchanges.get(message_id)
        if exchange is None or exchange.peer_incarnation or exchange.peer is not peer:
            return
        peer.target_incarnation = peer.incarnation
        for each in self._sender.exchanges.with_address(peer.address):
            waiting = self._exchanges.get(each.message_id)
            if waiting is not None and not waiting.peer_incarnation:
                waiting.last_note = None
                waiting.outbound.retries = 0
                self.on_route(waiting.message_id, now)

    def on_nothing_to_cancel(self, message_id: MessageId, source: Address, now: float) -> None:
        """The server answers a CANCEL: the work had not begun, or was done."""
        exchange = self._exchanges.get(message_id)
        if exchange is not None and exchange.state is ClientState.CANCELLING and exchange.address == source:
            self._end(exchange, "cancelled", f"cancelled; {source!r} had not begun, or was done", now)

    def on_unreachable(self, message_id: MessageId, note: wire.Unreachable, now: float) -> None:
        """A forwarder had no route for a frame of the request, or the server has restarted."""
        exchange = self._exchanges[message_id]
        exchange.last_note = note
        host = wire.host_of(note.destination)
        self._forwarding.emit(Report("unreachable", host, None, note.reason, note.near, note.settled, note.text))
        if note.reason == "restarted":
            self.on_restart(message_id, now)
        elif note.reason == "not_trusted":  # its server does not take the keys of this leaf
            self._end(exchange, "not_trusted", note.text, now)
        elif exchange.state is ClientState.CANCELLING and exchange.cannot_have_arrived():
            self._end(exchange, "cancelled", f"cancelled; it had not reached {exchange.address!r}", now)
        elif exchange.unreachable_since is None:
            self._lose_route(exchange, now)
            if not exchange.outbound.unacked:
                self._sender.wake_after(exchange, FIRST_PROBE_DELAY, now)

    def on_held(self, message_id: MessageId, note: wire.Unreachable) -> None:
        """The event loop of a node on the path, or of the server, is blocked, the work waits to begin, or whatever a
        later version says: kept for the text of an error. That work waits is stale once it has replied."""
        exchange = self._exchanges[message_id]
        if note.reason != "queued" or not (exchange.inbound.expected or exchange.inbound.buffered):
            exchange.last_note = note

    def on_restart(self, message_id: MessageId, now: float) -> None:
        """The server has a new incarnation, which does not know the request."""
        exchange = self._exchanges[message_id]
        if exchange.state is not ClientState.CANCELLING and exchange.cannot_have_arrived():
            if not self._sender.restart_discovery(exchange, now):
                self._lose_route(exchange, now)
                self._sender.wake_after(exchange, FIRST_PROBE_DELAY, now)
            return
        text = f"node {exchange.address!r} has restarted and lost the request; send it again if it may run twice"
        self._end(exchange, "node_restarted", text, now)

    def on_contested(self, now: float) -> None:
        """Another node has this one's id, so replies may go there; a request without an answer must end."""
        self.contested = True
        for exchange in self._exchanges.values():
            self._lose_route(exchange, now)

    def on_route_lost(self, message_id: MessageId, now: float) -> None:
        """There is no route to the server; the exchange ends unless one is found within its `route_timeout`."""
        self._lose_route(self._exchanges[message_id], now)

    def on_route(self, message_id: MessageId, now: float) -> None:
        """There is a route to the server, maybe another one; what was in flight may be lost with the old one."""
        exchange = self._exchanges[message_id]
        exchange.last_heard = now
        if exchange.state is ClientState.CANCELLING:
            exchange.find_route()
            self._send_cancel(exchange)
        elif not self._sender.resume(exchange, now):
            self._lose_route(exchange, now)

    # -- time ----------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `expire` has work."""
        deadlines = (self._deadlines.next_deadline(), self._limits.next_deadline())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def expire(self, now: float) -> None:
        """End the exchanges one of whose deadlines has passed."""
        for message_id in self._deadlines.expire(now):
            exchange = self._exchanges.get(message_id)
            if exchange is not None:
                self._on_deadline_near(exchange, now)
        for message_id in self._limits.expire(now):
            exchange = self._exchanges.get(message_id)
            if exchange is not None:
                self._on_limit(exchange, now)

    def end_silent(self, now: float) -> None:
        """End the exchanges whose server has a route and was silent for SILENCE_TIMEOUT, or `route_timeout` if longer.

        A forwarder drops what it should forward, or the server does not take part.
        """
        for exchange in list(self._exchanges.values()):
            is_silent = exchange.last_heard + max(SILENCE_TIMEOUT, exchange.route_timeout) <= now
            if is_silent and exchange.state in (ClientState.DISCOVERING, ClientState.OPEN):
                silence = now - exchange.last_heard
                text = f"nothing was heard of {exchange.address!r} for {exact(silence)}, although there is a route"
                self._end(exchange, "unreachable", text + self._progress(exchange), now)

    def on_timer(self, message_id: MessageId, now: float) -> None:
        """The timer of the outbound stream has expired."""
        exchange = self._exchanges[message_id]
        if exchange.state is ClientState.CANCELLING:
            self._send_cancel(exchange)
            self._sender.wake_after(exchange, CANCEL_RETRY_INTERVAL, now)
        else:
            self._sender.on_timer(exchange, now)

    # -- inside --------------------------------------------------------------------------------------------------

    def _pump(self, exchange: ClientExchange, now: float) -> None:
        if not self._sender.pump(exchange, now):
            self._lose_route(exchange, now)

    def _send_cancel(self, exchange: ClientExchange) -> None:
        if self._forwarding.next_hop(exchange.address) is None:
            return
        cancel = wire.Cancel(
            exchange.message_id,
            True,
            exchange.request_number,
            next(iter(exchange.peer.unacked_requests), exchange.request_number),
            self._forwarding.incarnation,
            exchange.peer_incarnation,
            exchange.reset_code,
        )
        self._forwarding.originate(exchange.address, Kind.CANCEL, wire.encode_cancel(cancel), b"")

    def _lose_route(self, exchange: ClientExchange, now: float) -> None:
        if exchange.unreachable_since is None:
            exchange.lose_route(now)
            self._set_limit(exchange)

    def _set_limit(self, exchange: ClientExchange) -> None:
        limit = exchange.next_limit()
        if limit is not None:
            self._limits.set(exchange.message_id, limit)

    def _on_deadline_near(self, exchange: ClientExchange, now: float) -> None:
        exchange.is_deadline_near = True
        if exchange.state is ClientState.OPEN and exchange.deadline is not None and now < exchange.deadline:
            self._sender.probe(exchange)
        self._on_limit(exchange, now)

    def _on_limit(self, exchange: ClientExchange, now: float) -> None:
        waited = now - exchange.opened_at
        is_unreachable = exchange.unreachable_since is not None
        if exchange.deadline is not None and exchange.deadline <= now:
            text = f"no final reply from {exchange.address!r} within {exact(waited)}{self._progress(exchange)}"
            text += self._obstacle(exchange) or self._rest(exchange)
            reason = "unreachable" if is_unreachable and self._has_left(exchange) else "timed_out"
            self._end(exchange, reason, self._no_route(exchange, waited, now) if is_unreachable else text, now)
        elif exchange.cancelled_at is not None and exchange.cancelled_at + CANCEL_TIMEOUT <= now:
            server = repr(exchange.address)
            text = f"cancelled; {server} has not confirmed within {CANCEL_TIMEOUT:g} s that the work has ended"
            self._end(exchange, "cancelled", text, now)
        elif exchange.unreachable_since is not None and exchange.unreachable_since + exchange.route_timeout <= now:
            self._end(exchange, "unreachable", self._no_route(exchange, waited, now), now)
        else:
            self._set_limit(exchange)

    def _has_left(self, exchange: ClientExchange) -> bool:
        """Whether this node, or the one that sent the request back, knows that the server has left the mesh."""
        note = exchange.last_note
        return self._forwarding.has_left(exchange.address) or (note is not None and note.reason in ("left", "gone"))

    def _no_route(self, exchange: ClientExchange, waited: float, now: float) -> str:
        text = f"no route to {exchange.address!r} after {exact(waited)}"
        lost_at = exchange.unreachable_since
        if lost_at is not None and lost_at >= exchange.opened_at + WORTH_SAYING:
            text += f", none for the last {exact(now - lost_at)}"
        if self.contested:
            return f"{text}; another node is called {self._forwarding.node!r} as well, and gets what is for this one"
        note = exchange.last_note
        if note is None or note.at == self._forwarding.node or self._forwarding.has_left(exchange.address):
            return text + self._progress(exchange) + self._forwarding.hint(exchange.address, now)
        return text + self._progress(exchange) + (f"; {note.text}" if note.text else "")

    def obstacle(self, message_id: MessageId, now: float) -> str:
        """The cause that holds a request back, and where if it has not arrived, as errors say it; empty if none."""
        exchange = self._exchanges.get(message_id)
        if exchange is None:
            return ""
        if exchange.unreachable_since is not None:
            return self._no_route(exchange, now - exchange.opened_at, now)
        progress = "" if self._has_arrived(exchange) else self._progress(exchange)
        return f"{progress}{self._obstacle(exchange)}".removeprefix("; ")

    def _has_arrived(self, exchange: ClientExchange) -> bool:
        return exchange.request_number not in exchange.peer.unacked_requests or exchange.inbound.expected > 0

    def _progress(self, exchange: ClientExchange) -> str:
        """The last node that the request is known to have reached, for the text of an error."""
        note, here = exchange.last_note, self._forwarding.node
        if self._has_arrived(exchange):
            return f"; the request had reached {exchange.address!r}"
        if note is not None and note.at != here and not note.is_held:
            likely = f" (did you mean {note.near[0]!r}?)" if note.near else ""
            return f"; the last node on the path was {note.at!r}{likely}"
        if not exchange.outbound.next:
            return f"; the request has not left {here!r}"
        neighbour = self._forwarding.neighbour(exchange.link) if exchange.link is not None else None
        if neighbour in (None, exchange.address.partition("@")[0]):
            return f"; nothing was heard of the request since it left {here!r}"
        return f"; the last node on the path was {neighbour!r}"

    def _obstacle(self, exchange: ClientExchange) -> str:
        """The cause that holds the request back, as far as it is known here, for the text of an error."""
        note, outbound, forwarding = exchange.last_note, exchange.outbound, self._forwarding
        if note is not None and note.is_held:
            return f"; {note.obstacle}"
        if blocked := forwarding.describe_block(exchange.address):
            return f"; {blocked}"
        if outbound.is_finished:
            return ""
        hop = forwarding.next_hop(exchange.address)
        if hop is not None and hop.lagging:
            return f"; the link to {forwarding.neighbour(hop.link)!r} is full"
        if outbound.is_flow_blocked:
            return f"; {exchange.address!r} has stopped reading the payload, and its window is full"
        if exchange.peer.path.is_waiting(exchange):
            return f"; the rest of the payload waits for what is in flight to {exchange.address!r}"
        sent = max((chunk.transmissions for chunk in outbound.unacked.values()), default=0)
        if sent > 1:
            return f"; it was sent {sent} times without an ack"
        return ""

    def _rest(self, exchange: ClientExchange) -> str:
        outbound = exchange.outbound
        return "" if outbound.complete or outbound.unacked else "; its payload has not ended here"

    def _end(self, exchange: ClientExchange, reason: str, text: str, now: float) -> None:
        """End an exchange with a last reply made here; the server gets a CANCEL, if it may be at work."""
        if (
            exchange.outbound.next
            and reason in ("timed_out", "unreachable")
            and exchange.state is not ClientState.CANCELLING
        ):
            self._send_cancel(exchange)
        eof = Eof(1, reason, text)
        self._forwarding.emit(
            Deliver(exchange.inbound_id, exchange.address, None, b"", False, eof, 0, 0, exchange.handle)
        )
        self._remove(exchange, now)

    def _remove(self, exchange: ClientExchange, now: float) -> None:
        exchange.end()
        del self._exchanges[exchange.message_id]
        if exchange.probe_after is not None:
            self._deadlines.cancel(exchange.message_id, exchange.probe_after)
        self._limits.cancel(exchange.message_id)
        exchange.peer.unacked_requests.pop(exchange.request_number, None)
        self._receiver.close(exchange)
        self._sender.remove(exchange, now)
