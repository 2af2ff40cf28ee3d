"""The receiving half of the exchanges: what is taken in, what is owed for it, and how much more may come.

A reader has one window of what it has not read. A sender that could send more than that says so (FLAG_BLOCKED); if the
reader keeps up, its window is doubled, up to MAX_WINDOW for each stream and MAX_WIDENED for all of a node together.
"""

from __future__ import annotations

from zmesh.core import wire
from zmesh.core.delivery.congestion import MAX_WINDOW
from zmesh.core.delivery.peers import Carrier, Peers
from zmesh.core.delivery.sender import Exchange
from zmesh.core.delivery.streams import ACK_EVERY, CHUNK_OVERHEAD, WINDOW, FlowControlError
from zmesh.core.effects import Report
from zmesh.core.wire import FLAG_BLOCKED, Chunk

MAX_WIDENED = 256 * 1024 * 1024

Ready = tuple[Chunk, bytes, int]


class Receiver:
    """The inbound streams of a node."""

    def __init__(self, carrier: Carrier, peers: Peers) -> None:
        self._carrier = carrier
        self._peers = peers
        self._widened = 0

    def accept(self, exchange: Exchange, chunk: Chunk, body: bytes, hops: int) -> list[Ready] | None:
        """The chunks of the exchange's inbound stream that are next in order now; None: acknowledge at once."""
        exchange.lost_since = None
        inbound = exchange.inbound
        credit = len(body) + CHUNK_OVERHEAD
        limit = self._unkept(exchange, chunk.sequence, credit)
        if limit and chunk.sequence == inbound.expected and inbound.held:
            # What is held waits for this one, so that it must not keep it out.
            inbound.give_up_held(credit)
            exchange.charge()
            limit = self._unkept(exchange, chunk.sequence, credit)
        if limit:
            self._carrier.emit(Report("frame_dropped", wire.host_of(exchange.address), None, limit))
            return None
        try:
            ready = inbound.accept(chunk, body, hops)
        except FlowControlError:
            self._carrier.emit(Report("frame_dropped", wire.host_of(exchange.address), None, "past_window"))
            return None
        exchange.charge()
        if chunk.flags & FLAG_BLOCKED and inbound.keeps_up and self._widen(exchange):
            inbound.since_ack = ACK_EVERY
        return ready

    def owe(self, exchange: Exchange, ready: list[Ready] | None, now: float) -> None:
        """Acknowledge what was accepted, soon or at once."""
        inbound = exchange.inbound
        at_once = ready is None or inbound.since_ack >= ACK_EVERY
        self._peers.owe(exchange.peer, exchange.inward, inbound, now, at_once=at_once)

    def release_credit(self, exchange: Exchange, credit: int, now: float) -> None:
        """The reader has taken this much."""
        at_once = exchange.inbound.release(credit)
        exchange.charge()
        if at_once:
            self._peers.owe(exchange.peer, exchange.inward, exchange.inbound, now, at_once=True)

    def end(self, exchange: Exchange) -> None:
        """Nothing more comes."""
        if exchange.kept:
            exchange.peer.quota.add_bytes(-exchange.kept)
            exchange.kept = 0
        self._widened -= exchange.inbound.window - WINDOW

    def check(self, exchanges: list[Exchange]) -> None:
        """Raise AssertionError if the windows are not those that were given out."""
        if sum(exchange.inbound.window - WINDOW for exchange in exchanges) != self._widened:
            raise AssertionError("the count of what windows were widened by is not that of the streams")

    def _unkept(self, exchange: Exchange, sequence: int, credit: int) -> str:
        """The limit for which this chunk can't be kept, or nothing. What a reply brings in its turn always can."""
        inbound = exchange.inbound
        if exchange.stream.request and sequence == inbound.expected:
            return ""
        return exchange.peer.quota.byte_limit(credit) if inbound.lacks(sequence) else ""

    def _widen(self, exchange: Exchange) -> bool:
        inbound = exchange.inbound
        more = min(inbound.window, MAX_WINDOW - inbound.window)
        if not more or self._widened + more > MAX_WIDENED:
            return False
        self._widened += more
        inbound.window += more
        return True
