"""The requests that this node has made (`ClientExchange`), until their final word.

A call ends exactly once: by the final word of the recipient, or by one that is made up here when the recipient can't be
reached, has restarted, or the time is up. Each of these is an event of its own or one limit, of which the call has the
earliest: its deadline, the patience for a route, or that for the confirmation of a cancel.
"""

from __future__ import annotations

from zmesh.core import wire
from zmesh.core.delivery.peers import POKE_LIMIT, Carrier, Peer, Peers
from zmesh.core.delivery.receiver import Receiver
from zmesh.core.delivery.sender import SILENCE, Exchange, Sender
from zmesh.core.delivery.streams import CHUNK_OVERHEAD
from zmesh.core.effects import Deliver, Report
from zmesh.core.message import Address, Eof, MessageId, RequestHeader, Stream
from zmesh.core.timers import Alarm, Timers
from zmesh.core.wire import CLOSED, FLAG_LAST, AckItem, Chunk, Kind

POKE_SOON = 1.0
CANCEL_AGAIN = 0.5
CANCEL_GRACE = 10.0


class ClientExchange(Exchange):
    """A request of this node. `asked_at`, `deadline` and `heard` in the engine's time; `patience`: its seconds without
    a way. `heard` is when something last came for it.
    """

    __slots__ = ("asked_at", "cancelled_at", "deadline", "heard", "patience", "unreachable")

    def __init__(
        self, message_id: MessageId, recipient: Peer, deadline: float | None, patience: float, now: float
    ) -> None:
        super().__init__(message_id, recipient, 0, request=True)
        self.deadline = deadline
        self.patience = patience
        self.asked_at = self.heard = now
        self.cancelled_at: float | None = None
        self.unreachable: wire.Unreachable | None = None


class Client:
    """The table of calls. `route_timeout`: seconds that a request waits for a route before it is Unreachable,
    unless it has one of its own."""

    def __init__(
        self,
        carrier: Carrier,
        peers: Peers,
        sending: Sender,
        receiving: Receiver,
        alarm: Alarm,
        route_timeout: float,
    ) -> None:
        self._carrier = carrier
        self._peers = peers
        self._sender = sending
        self._receiver = receiving
        self._route_timeout = route_timeout
        self._exchanges: dict[MessageId, ClientExchange] = {}
        self._limits: Timers[MessageId] = Timers(alarm)
        self.contested = False
        """Whether another node bears this one's name, and replies may go there."""

    def __len__(self) -> int:
        return len(self._exchanges)

    def get(self, message_id: MessageId) -> ClientExchange | None:
        """The call, or None if it is over."""
        return self._exchanges.get(message_id)

    @property
    def handing_over(self) -> bool:
        """True while something that was sent has not arrived whole at its recipient."""
        return any(not call.outbound.done for call in self._exchanges.values())

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
        peer = self._peers.enter(recipient)
        patience = self._route_timeout if route_timeout is None else route_timeout
        call = ClientExchange(message_id, peer, None if timeout is None else now + timeout, patience, now)
        call.handle = handle
        self._exchanges[message_id] = call
        call.number = self._peers.number(peer)
        self._sender.enlist(call, now)
        self._sender.push(call, header, body, last=last, eof=None, complete=last)
        if call.deadline is not None:
            self._limits.set(message_id, call.deadline)
        self._pump(call, now)
        if self.contested:
            self._lose(call, now)

    def feed(self, message_id: MessageId, body: bytes, *, last: bool, now: float) -> None:
        """More payload of the request; `last` ends it."""
        call = self._exchanges.get(message_id)
        if call is not None and not call.outbound.complete:
            self._sender.push(call, None, body, last=last, eof=None, complete=last)
            if call.target:
                self._pump(call, now)

    def cancel(self, message_id: MessageId, now: float) -> None:
        """Ask the recipient to stop; a request that never arrived ends at once. Harmless on what is over."""
        call = self._exchanges.get(message_id)
        if call is None or call.cancelled_at is not None:
            return
        if _never_arrived(call):
            self._end(call, "cancelled", f"cancelled; it had not reached {call.address!r}", now)
            return
        call.cancelled_at = now
        self._sender.drop_unsent(call)
        self._send_cancel(call)
        self._sender.timers.set(call.stream, now + CANCEL_AGAIN)
        self._watch(call)

    # -- from the mesh -------------------------------------------------------------------------------------------

    def on_chunk(self, peer: Peer, chunk: Chunk, body: bytes, hops: int, now: float) -> None:
        """A piece of the replies has come."""
        call = self._exchanges.get(chunk.message_id)
        if call is None or call.peer is not peer:
            self._peers.owe(peer, Stream(chunk.message_id, False), None, now, at_once=True)
            return
        if call.target not in (0, chunk.incarnation):
            self._carrier.emit(Report("frame_dropped", wire.host_of(call.address), None, "not_its_request"))
            return
        call.target = chunk.incarnation
        call.heard = now
        ready = self._receiver.accept(call, chunk, body, hops)
        for piece, content, crossed in ready or ():
            credit = len(content) + CHUNK_OVERHEAD
            last, eof = bool(piece.flags & FLAG_LAST), piece.eof
            self._carrier.emit(
                Deliver(call.inward, call.address, piece.header, content, last, eof, credit, crossed, call.handle)
            )
            if eof is not None:
                self._peers.owe(peer, call.inward, call.inbound, now, at_once=False)
                self._forget(call, now)
                return
        self._receiver.owe(call, ready, now)

    def on_ack(self, message_id: MessageId, item: AckItem, now: float) -> None:
        """The recipient says how far the request has come."""
        call = self._exchanges[message_id]
        call.heard = now
        if item.next == CLOSED:
            if call.target and call.outbound.next and call.cancelled_at is None:
                text = f"node {call.address!r} gave the request up while cut off; its work was stopped"
                self._end(call, "unreachable", text, now)
            return
        self._sender.progress(call, item, now)
        if item.next > 0:
            call.target = call.target or call.peer.incarnation
            call.peer.unsettled.pop(call.number, None)
        call.lost_since = None
        call.unreachable = None
        if item.limit == POKE_LIMIT:
            self._peers.owe(call.peer, call.inward, call.inbound, now, at_once=True)
        if call.cancelled_at is not None:
            self._sender.timers.set_sooner(call.stream, now + CANCEL_AGAIN)
        elif call.outbound.waiting:
            self._pump(call, now)

    def on_met(self, message_id: MessageId, peer: Peer, now: float) -> None:
        """The recipient has said who it is, as it was asked for this request; all that waits for that goes out."""
        call = self._exchanges.get(message_id)
        if call is None or call.target or call.peer is not peer:
            return
        peer.current = peer.incarnation
        for exchange in self._sender.at(peer.address):
            waiting = self._exchanges.get(exchange.message_id)
            if waiting is not None and not waiting.target:
                waiting.unreachable = None
                waiting.outbound.tries = 0
                self.regain(waiting.message_id, now)

    def on_nothing_to_stop(self, message_id: MessageId, source: Address, now: float) -> None:
        """The recipient of a cancel had not begun, or was done."""
        call = self._exchanges.get(message_id)
        if call is not None and call.cancelled_at is not None and call.address == source:
            self._end(call, "cancelled", f"cancelled; {source!r} had not begun, or was done", now)

    def on_unreachable(self, message_id: MessageId, note: wire.Unreachable, now: float) -> None:
        """A node on the way could not pass the request on, or the recipient is not what it was."""
        call = self._exchanges[message_id]
        call.unreachable = note
        host = wire.host_of(note.destination)
        self._carrier.emit(Report("unreachable", host, None, note.reason, note.near, note.settled, note.text))
        if note.reason == "restarted":
            self.on_restart(message_id, now)
        elif call.cancelled_at is not None and _never_arrived(call):
            self._end(call, "cancelled", f"cancelled; it had not reached {call.address!r}", now)
        elif call.lost_since is None:
            call.lost_since = now
            self._watch(call)
            if not call.outbound.unacked:
                self._sender.timers.set(call.stream, now + POKE_SOON)

    def on_restart(self, message_id: MessageId, now: float) -> None:
        """The recipient has begun a new life, and knows nothing of the request."""
        call = self._exchanges[message_id]
        if call.cancelled_at is None and _never_arrived(call):
            if not self._sender.begin_anew(call, now):
                self._lose(call, now)
                self._sender.timers.set(call.stream, now + POKE_SOON)
            return
        text = f"node {call.address!r} has restarted and lost the request; send it again if it may run twice"
        self._end(call, "node_restarted", text, now)

    def on_contested(self, now: float) -> None:
        """Another node bears this one's name, so replies may go there; a call that hears nothing must end."""
        self.contested = True
        for call in self._exchanges.values():
            self._lose(call, now)

    def lose(self, message_id: MessageId, now: float) -> None:
        """There is no way to the recipient; the call has route_timeout to find another."""
        self._lose(self._exchanges[message_id], now)

    def regain(self, message_id: MessageId, now: float) -> None:
        """There is a way to the recipient, another one maybe; what was under way may be lost with the old one."""
        call = self._exchanges[message_id]
        call.heard = now
        if call.cancelled_at is not None:
            call.lost_since = None
            self._send_cancel(call)
        elif not self._sender.resume(call, now):
            self._lose(call, now)

    # -- time ----------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `expire` has work."""
        return self._limits.next_deadline()

    def expire(self, now: float) -> None:
        """End the calls that have run out of time or patience."""
        for message_id in self._limits.expire(now):
            call = self._exchanges.get(message_id)
            if call is not None:
                self._on_limit(call, now)

    def give_up_silent(self, now: float) -> None:
        """End the calls whose recipient can be reached and has said nothing for SILENCE, whatever was asked of it.

        Somebody on the way, who is there, swallows what he should pass on, or the recipient does not take part.
        """
        for call in [each for each in self._exchanges.values() if each.heard + max(SILENCE, each.patience) <= now]:
            if call.lost_since is None and call.cancelled_at is None:
                text = f"nothing was heard of {call.address!r} for {now - call.heard:.3g} s, although there is a route"
                self._end(call, "unreachable", text + self._last_seen(call), now)

    def on_silence(self, message_id: MessageId, now: float) -> None:
        """Nothing was heard for as long as the stream's timer allows."""
        call = self._exchanges[message_id]
        if call.cancelled_at is not None:
            self._send_cancel(call)
            self._sender.timers.set(call.stream, now + CANCEL_AGAIN)
        else:
            self._sender.on_silence(call, now)

    # -- inside --------------------------------------------------------------------------------------------------

    def _pump(self, call: ClientExchange, now: float) -> None:
        if not self._sender.pump(call, now):
            self._lose(call, now)

    def _send_cancel(self, call: ClientExchange) -> None:
        if self._carrier.next_hop(call.address) is None:
            return
        floor = next(iter(call.peer.unsettled), call.number)
        cancel = wire.Cancel(call.message_id, True, call.number, floor, self._carrier.incarnation, call.target)
        self._carrier.originate(call.address, Kind.CANCEL, wire.encode(cancel), b"")

    def _lose(self, call: ClientExchange, now: float) -> None:
        if call.lost_since is None:
            call.lost_since = now
            self._watch(call)

    def _watch(self, call: ClientExchange) -> None:
        """Set the call's limit to whatever comes first."""
        limits = [call.deadline] if call.deadline is not None else []
        if call.lost_since is not None:
            limits.append(call.lost_since + call.patience)
        if call.cancelled_at is not None:
            limits.append(call.cancelled_at + CANCEL_GRACE)
        if limits:
            self._limits.set(call.message_id, min(limits))

    def _on_limit(self, call: ClientExchange, now: float) -> None:
        waited = now - call.asked_at
        lost = call.lost_since is not None
        if call.deadline is not None and call.deadline <= now:
            text = f"no final reply from {call.address!r} within {waited:.3g} s{self._last_seen(call)}"
            reason = "unreachable" if lost and self._has_left(call) else "timed_out"
            self._end(call, reason, self._no_route(call, waited, now) if lost else text, now)
        elif call.cancelled_at is not None and call.cancelled_at + CANCEL_GRACE <= now:
            text = f"cancelled; {call.address!r} has not confirmed within {CANCEL_GRACE:g} s that the work has ended"
            self._end(call, "cancelled", text, now)
        elif call.lost_since is not None and call.lost_since + call.patience <= now:
            self._end(call, "unreachable", self._no_route(call, waited, now), now)
        else:
            self._watch(call)

    def _has_left(self, call: ClientExchange) -> bool:
        """Whether this node, or the one that sent the request back, knows that the recipient has left the mesh."""
        note = call.unreachable
        return self._carrier.has_left(call.address) or (note is not None and note.reason in ("left", "gone"))

    def _no_route(self, call: ClientExchange, waited: float, now: float) -> str:
        text = f"no route to {call.address!r} after {waited:.3g} s"
        if self.contested:
            return f"{text}; another node is called {self._carrier.node!r} as well, and gets what is for this one"
        note = call.unreachable
        if note is None or note.at == self._carrier.node or self._carrier.has_left(call.address):
            return text + self._last_seen(call) + self._carrier.hint(call.address, now)
        return text + self._last_seen(call) + (f"; {note.text}" if note.text else "")

    def _last_seen(self, call: ClientExchange) -> str:
        """The last node that the request is known to have reached, for the text of an error."""
        note, here = call.unreachable, self._carrier.node
        if call.number not in call.peer.unsettled or call.inbound.expected:
            return f"; the request had reached {call.address!r}"
        if note is not None and note.at != here:
            likely = f" (did you mean {note.near[0]!r}?)" if note.near else ""
            return f"; the last node on the way was {note.at!r}{likely}"
        if not call.outbound.next:
            return f"; the request has not left {here!r}"
        handed_to = self._carrier.neighbour(call.link) if call.link is not None else None
        if handed_to in (None, call.address.partition("@")[0]):
            return f"; nothing was heard of the request since it left {here!r}"
        return f"; the last node on the way was {handed_to!r}"

    def _end(self, call: ClientExchange, reason: str, text: str, now: float) -> None:
        """End a call with a final word of our own; the recipient is told to stop, if it may be at work."""
        if call.outbound.next and reason in ("timed_out", "unreachable") and call.cancelled_at is None:
            self._send_cancel(call)
        final = Eof(1, reason, text)
        self._carrier.emit(Deliver(call.inward, call.address, None, b"", False, final, 0, 0, call.handle))
        self._forget(call, now)

    def _forget(self, call: ClientExchange, now: float) -> None:
        del self._exchanges[call.message_id]
        self._limits.cancel(call.message_id)
        call.peer.unsettled.pop(call.number, None)
        self._receiver.end(call)
        self._sender.strike_off(call, now)


def _never_arrived(call: ClientExchange) -> bool:
    """Whether no copy of any chunk can have reached the recipient: none has left, or all came back."""
    under_way = call.outbound.unacked.values()
    return len(under_way) == call.outbound.next and all(piece.returned == piece.times for piece in under_way)
