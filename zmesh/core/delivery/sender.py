"""The sending half of the exchanges: what goes out when, and what goes out again.

A stream sends as much as its window allows and as its link keeps up with, BURST chunks at a time; one whose link lags
waits its turn among the others. While chunks are under way a stream has a resending timer; exchanges without one are
gone through every POKE seconds, and the other end is asked whether it still knows them.

Every chunk names the incarnation that it is for. A node has it from its route; a leaf, which has none, asks the other
end before the first chunk goes out, and every LEAF_POKE seconds whether it is the same still.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from zmesh.core import wire
from zmesh.core.delivery.peers import Carrier, Peer, Peers
from zmesh.core.delivery.streams import BACKLOG, InboundStream, OutboundChunk, OutboundStream
from zmesh.core.effects import Pull, StreamOver
from zmesh.core.message import Address, Eof, LinkId, MessageId, NodeId, ReplyHeader, RequestHeader, Stream
from zmesh.core.timers import Alarm, Timers
from zmesh.core.wire import MAX_BODY, AckItem, Kind

BURST = 16
POKE = 15.0
SILENCE = 45.0
LEAF_POKE = 1.0


class Exchange:
    """What a request made here and one received here have in common: two streams, and the node at the other end.

    `stream` names the outbound one, `inward` the other. `target` is the other end's incarnation, 0 as long as that is
    not known; `link` what was last sent on; `lost_since` is when the other end was found to be out of reach; `kept` is
    the credit that is counted for it: of a request made here what it waits with, else what the peer takes up; `handle`
    is the shell's own object for the exchange, which each Deliver and Abort carries.
    """

    __slots__ = (
        "address",
        "handle",
        "inbound",
        "inward",
        "kept",
        "link",
        "lost_since",
        "message_id",
        "number",
        "outbound",
        "peer",
        "stream",
        "target",
    )

    def __init__(self, message_id: MessageId, peer: Peer, target: int, *, request: bool) -> None:
        self.message_id = message_id
        self.peer = peer
        self.address = peer.address
        self.target = target
        self.number = 0
        self.stream = Stream(message_id, request)
        self.inward = Stream(message_id, not request)
        self.outbound = OutboundStream()
        self.inbound = InboundStream()
        self.link: LinkId | None = None
        self.lost_since: float | None = None
        self.kept = 0
        self.handle: object = None

    def weigh(self) -> int:
        """The credit of what is kept here for the peer: what is unread of its request and unacknowledged of the reply;
        of replies to this node what came before its turn. How much of those waits to be read is up to the program."""
        if self.stream.request:
            return self.inbound.held_credit
        return self.inbound.unread + self.outbound.kept_bytes

    def charge(self) -> None:
        """Have the peer's share follow what is kept for it."""
        kept = self.weigh()
        if kept != self.kept:
            self.peer.quota.add_bytes(kept - self.kept)
            self.kept = kept


class Sender:
    """The outbound streams of a node; `poke` are the seconds between two sweeps."""

    def __init__(self, carrier: Carrier, peers: Peers, alarm: Alarm, poke: float = POKE) -> None:
        self._poke_every = poke
        self._carrier = carrier
        self._peers = peers
        self._alarm = alarm
        self._sweep_at = math.inf
        self._blocked: dict[LinkId, dict[Stream, Exchange]] = {}
        self._of_host: dict[NodeId, dict[Stream, Exchange]] = {}
        self.timers: Timers[Stream] = Timers(alarm)
        self.waiting_bytes = 0
        self.waiting_streams = 0
        """Streams with something to send of which nothing has left yet."""

    # -- which exchanges there are -------------------------------------------------------------------------------

    def enlist(self, exchange: Exchange, now: float) -> None:
        """An exchange has begun; the next sweep is at most `poke` seconds away."""
        self._of_host.setdefault(wire.host_of(exchange.address), {})[exchange.stream] = exchange
        if self._sweep_at == math.inf:
            self._sweep_at = now + self._poke_every
            self._alarm.at(self._sweep_at)

    def strike_off(self, exchange: Exchange, now: float) -> None:
        """An exchange is over: send no more of it."""
        outbound = exchange.outbound
        if exchange.outbound.unsent or not outbound.complete:
            self.drop_unsent(exchange)
        if exchange.stream.request:
            self.waiting_bytes -= outbound.kept_bytes
        self.timers.cancel(exchange.stream)
        for waiting in self._blocked.values():
            waiting.pop(exchange.stream, None)
        self._delist(exchange)
        self._peers.leave(exchange.peer, now)

    def move(self, exchange: Exchange, address: Address) -> None:
        """The exchange's other end is a leaf, which has another address from now on."""
        self._delist(exchange)
        exchange.address = address
        self._of_host.setdefault(wire.host_of(address), {})[exchange.stream] = exchange

    def of(self, host: NodeId) -> list[Exchange]:
        """The exchanges with a node, and with the leaves that hang on it."""
        return list(self._of_host.get(host, {}).values())

    def at(self, address: Address | None) -> list[Exchange]:
        """The exchanges with whoever has that address; with None, all."""
        if address is None:
            return [exchange for listed in self._of_host.values() for exchange in listed.values()]
        return [exchange for exchange in self.of(wire.host_of(address)) if exchange.address == address]

    def _delist(self, exchange: Exchange) -> None:
        host = wire.host_of(exchange.address)
        listed = self._of_host[host]
        del listed[exchange.stream]
        if not listed:
            del self._of_host[host]

    def check(self) -> None:
        """Raise AssertionError if something is under way that nothing will see to, or is counted wrongly."""
        exchanges = self.at(None)
        for exchange in exchanges:
            exchange.outbound.check()
            if exchange.outbound.unacked and exchange.stream not in self.timers:
                raise AssertionError("chunks under way that nothing will send again")
        if exchanges and self.next_deadline() is None:
            raise AssertionError("exchanges that nothing will wake")
        requests = [exchange.outbound for exchange in exchanges if exchange.stream.request]
        if sum(outbound.kept_bytes for outbound in requests) != self.waiting_bytes:
            raise AssertionError("the count of waiting bytes is not that of the streams")
        if any(exchange.kept != exchange.weigh() for exchange in exchanges):
            raise AssertionError("a share is not charged with what is kept")
        unsent = sum(bool(exchange.outbound.unsent) and not exchange.outbound.next for exchange in exchanges)
        if unsent != self.waiting_streams:
            raise AssertionError("the count of waiting streams is not that of the streams")

    # -- what is sent --------------------------------------------------------------------------------------------

    def sweep_due(self, now: float) -> bool:
        """True if it is time for a sweep."""
        return now >= self._sweep_at

    def sweep(self, now: float) -> None:
        """Ask for each exchange that nothing is under way of whether the other end still knows it."""
        exchanges = self.at(None)
        asked: dict[Address, Peer] = {}
        for exchange in exchanges:
            if exchange.stream not in self.timers:
                self.poke(exchange, flush=False)
                asked[exchange.address] = exchange.peer
        for peer in asked.values():
            self._peers.flush(peer)
        self._sweep_at = now + self._poke_every if exchanges else math.inf

    def next_deadline(self) -> float | None:
        """When a timer or the sweep is due."""
        soonest = self.timers.next_deadline()
        if soonest is None or self._sweep_at < soonest:
            return self._sweep_at if self._sweep_at < math.inf else None
        return soonest

    def push(
        self,
        exchange: Exchange,
        header: RequestHeader | ReplyHeader | None,
        body: bytes,
        *,
        last: bool,
        eof: Eof | None,
        complete: bool,
    ) -> None:
        """Append to the exchange's outbound stream; `pump` sends it."""
        outbound = exchange.outbound
        if not outbound.unsent and not outbound.next:
            self.waiting_streams += 1
        outbound.push(header, body, last=last, eof=eof, complete=complete)
        if exchange.stream.request:
            self.waiting_bytes += len(body)
        else:
            exchange.charge()
        if complete and outbound.pulled:
            outbound.pulled = False
            self._carrier.emit(StreamOver(exchange.stream))

    def pump(self, exchange: Exchange, now: float) -> bool:
        """Send what the windows and the link allow; False if there is something to send and no way to send it."""
        outbound = exchange.outbound
        if not (outbound.unsent or outbound.lost):
            return True
        next_hop = self._carrier.next_hop(exchange.address)
        if next_hop is None:
            return False
        exchange.link = next_hop.link
        if not exchange.target:
            exchange.target = next_hop.incarnation or exchange.peer.current
            if not exchange.target:
                self._peers.ask(exchange.peer, exchange.stream)
                self.timers.set(exchange.stream, now + exchange.peer.path.timeout(outbound.tries))
                return True
        sent = 0
        while not next_hop.lagging and sent < BURST and (piece := outbound.take(now)) is not None:
            if piece.times == 1 and not piece.sequence:
                self.waiting_streams -= 1
            self._send(exchange, piece, next_hop.link)
            sent += 1
            if not (outbound.unsent or outbound.lost):
                break
            next_hop = self._carrier.next_hop(exchange.address) or next_hop
        if (next_hop.lagging or sent == BURST) and outbound.waiting:
            self._blocked.setdefault(next_hop.link, {})[exchange.stream] = exchange
        self.timers.set_sooner(exchange.stream, now + exchange.peer.path.timeout(outbound.tries))
        self._pull(exchange)
        return True

    def room(self, exchange: Exchange) -> int:
        """How many bytes of payload the exchange may take; of 0 there will be a Pull, or a StreamOver.

        A peer that takes up much is replied to piece by piece: the next one when the last was acknowledged.
        """
        outbound = exchange.outbound
        room = outbound.room()
        if room and not exchange.stream.request and exchange.peer.quota.is_nearly_full():
            room = 0 if outbound.kept_bytes else min(room, MAX_BODY)
        outbound.pulled = room == 0 and not outbound.complete
        return room

    def _pull(self, exchange: Exchange) -> None:
        outbound = exchange.outbound
        if outbound.pulled and outbound.unsent_bytes <= BACKLOG // 2:
            outbound.pulled = False
            self._carrier.emit(Pull(exchange.stream))

    def resume(self, exchange: Exchange, now: float) -> bool:
        """There is a way again, or another one: go on, and ask how things stand after a loss. False as for `pump`."""
        was_lost = exchange.lost_since is not None
        exchange.lost_since = None
        exchange.outbound.on_path()
        sent = self.pump(exchange, now)
        if was_lost and exchange.target and not exchange.outbound.unacked:
            self.poke(exchange)
        return sent

    def begin_anew(self, exchange: Exchange, now: float) -> bool:
        """The life that this was for is over and has had nothing of it; False if no other is known of."""
        former, exchange.target = exchange.target, 0
        if exchange.peer.current == former:
            exchange.peer.current = 0
        exchange.outbound.on_path()
        next_hop = self._carrier.next_hop(exchange.address)
        return next_hop is not None and next_hop.incarnation != former and self.pump(exchange, now)

    def progress(self, exchange: Exchange, item: AckItem, now: float) -> None:
        """Take in an acknowledgement of the exchange's outbound stream."""
        outbound = exchange.outbound
        before = outbound.unacked_bytes
        sample = outbound.acknowledge(item.next, item.limit, now)
        if outbound.unacked_bytes != before:
            if exchange.stream.request:
                self.waiting_bytes += outbound.unacked_bytes - before
            else:
                exchange.charge()
        self._pull(exchange)
        if sample is not None and sample >= 0:
            exchange.peer.path.measure(sample)
        if not outbound.unacked and not outbound.unsent:
            self.timers.cancel(exchange.stream)

    def on_silence(self, exchange: Exchange, now: float) -> None:
        """The exchange's timer has run out: send again what was not acknowledged, or ask how things stand.

        Asking is for a window that is shut, since the word that opens it may be lost, and for a way that was lost.
        """
        outbound, path = exchange.outbound, exchange.peer.path
        due = outbound.overdue(path.timeout(outbound.tries))
        if due is not None and due > now:
            self.timers.set_sooner(exchange.stream, due)
            return
        if due is not None:
            outbound.on_timeout(now)
        elif exchange.target or not outbound.waiting:
            self.poke(exchange)
            if not outbound.waiting:
                return
        outbound.tries += 1
        self.pump(exchange, now)
        self.timers.set_sooner(exchange.stream, now + path.timeout(outbound.tries))

    def poke(self, exchange: Exchange, *, flush: bool = True) -> None:
        """Have the other end say how far it has come, or that it knows nothing of the exchange."""
        if exchange.stream.request and exchange.outbound.unsent and not exchange.outbound.next:
            return  # it has not left yet, so nobody can know it
        self._peers.poke(exchange.peer, exchange.inward, exchange.inbound, flush=flush)

    def on_link_ready(self, link: LinkId, lagging: Callable[[], bool], now: float) -> None:
        """The link's queue has run low: the streams that waited for it go on, a burst each in turn."""
        turn = self._blocked.pop(link, {})
        while turn and not lagging():
            exchange = turn.pop(next(iter(turn)))
            self.pump(exchange, now)
        if turn:
            self._blocked[link] = {**turn, **self._blocked.get(link, {})}

    def link_down(self, link: LinkId, now: float) -> None:
        """The streams that waited for this link look for another."""
        for exchange in self._blocked.pop(link, {}).values():
            self.pump(exchange, now)

    def blocked(self) -> bool:
        """True if a stream waits for its turn on a link."""
        return bool(self._blocked)

    def drop_unsent(self, exchange: Exchange) -> None:
        """Forget what was not sent yet, and take no more; what is under way stays."""
        outbound = exchange.outbound
        if outbound.unsent and not outbound.next:
            self.waiting_streams -= 1
        if exchange.stream.request:
            self.waiting_bytes -= outbound.unsent_bytes
        outbound.unsent_bytes = 0
        outbound.unsent.clear()
        outbound.complete = True
        if outbound.partial or outbound.pulled:
            outbound.partial = outbound.pulled = False
            self._carrier.emit(StreamOver(exchange.stream))

    def _send(self, exchange: Exchange, piece: OutboundChunk, link: LinkId) -> None:
        message_id, request = exchange.stream
        chunk = (
            message_id,
            request,
            piece.sequence,
            piece.flags,
            exchange.number,
            next(iter(exchange.peer.unsettled), exchange.number) if request else 0,
            self._carrier.incarnation,
            exchange.target,
            piece.header,
            piece.eof,
        )
        self._carrier.originate(exchange.address, Kind.CHUNK, wire.encode(chunk), piece.body, link)
