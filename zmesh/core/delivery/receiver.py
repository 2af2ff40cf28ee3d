"""The receiving half of all exchanges: quotas, acknowledgements, and the growth of flow-control windows.

A sender that is blocked by flow control says so (FLAG_BLOCKED). If the reader keeps up, its window is doubled then, up
to MAX_WINDOW for each stream; the windows of a node grow by MAX_WINDOW_GROWTH in all.
"""

from __future__ import annotations

from zmesh.core import wire
from zmesh.core.delivery.congestion import MAX_WINDOW
from zmesh.core.delivery.exchange import Exchange
from zmesh.core.delivery.flow_control import ACK_EVERY, WINDOW, FlowControlError, credit_of
from zmesh.core.delivery.inbound import Received
from zmesh.core.delivery.peers import Peers
from zmesh.core.effects import Report
from zmesh.core.forwarding import Forwarding
from zmesh.core.wire import FLAG_BLOCKED, Chunk

MAX_WINDOW_GROWTH = 256 * 1024 * 1024


class Receiver:
    """The inbound streams of a node."""

    def __init__(self, forwarding: Forwarding, peers: Peers) -> None:
        self._forwarding = forwarding
        self._peers = peers
        self._window_growth = 0

    def accept(self, exchange: Exchange, chunk: Chunk, body: bytes, hops: int) -> list[Received] | None:
        """The chunks of the exchange's inbound stream that are next in order now; None: acknowledge at once."""
        if exchange.unreachable_since is not None:
            exchange.find_route()
        inbound = exchange.inbound
        credit = credit_of(chunk.flags, len(body))
        is_client = exchange.is_client
        # The server has checked the limits for the very first chunk that comes.
        checked = not inbound.buffered and (is_client or not inbound.received) and chunk.sequence == inbound.expected
        limit = "" if checked else self._exceeded_limit(exchange, chunk.sequence, credit)
        if limit and chunk.sequence == inbound.expected and inbound.buffered:
            # The early chunks wait for this one, so they must not keep it out.
            inbound.drop_buffered(credit)
            exchange.update_quota()
            limit = self._exceeded_limit(exchange, chunk.sequence, credit)
        if limit:
            self._forwarding.emit(Report("frame_dropped", wire.host_of(exchange.address), None, limit))
            return None
        try:
            ready = inbound.accept(chunk, body, hops)
        except FlowControlError:
            self._forwarding.emit(Report("frame_dropped", wire.host_of(exchange.address), None, "past_window"))
            return None
        if not is_client or inbound.buffered or exchange.charged_bytes:
            exchange.update_quota()
        if chunk.flags & FLAG_BLOCKED and inbound.reader_keeps_up and self._grow_window(exchange):
            inbound.unacked_credit = ACK_EVERY
        return ready

    def schedule_ack(self, exchange: Exchange, ready: list[Received] | None, now: float) -> None:
        """Acknowledge what was accepted, soon or at once."""
        inbound = exchange.inbound
        at_once = ready is None or inbound.unacked_credit >= ACK_EVERY
        self._peers.schedule_ack(exchange.peer, exchange.inbound_id, inbound, now, at_once=at_once)

    def release_credit(self, exchange: Exchange, credit: int, now: float) -> None:
        """The reader has read this much."""
        at_once = exchange.inbound.release(credit)
        exchange.update_quota()
        if at_once:
            self._peers.schedule_ack(exchange.peer, exchange.inbound_id, exchange.inbound, now, at_once=True)

    def close(self, exchange: Exchange) -> None:
        """The exchange is over: free its share of the quota and of the windows."""
        if exchange.charged_bytes:
            exchange.peer.quota.add_bytes(-exchange.charged_bytes)
            exchange.charged_bytes = 0
        self._window_growth -= exchange.inbound.window - WINDOW

    def check(self, exchanges: list[Exchange]) -> None:
        """Raise AssertionError if the growth of windows is not the sum over all streams."""
        if sum(exchange.inbound.window - WINDOW for exchange in exchanges) != self._window_growth:
            raise AssertionError("the count of what windows grew by is not that of the streams")

    def _exceeded_limit(self, exchange: Exchange, sequence: int, credit: int) -> str:
        """The limit that keeping this chunk would exceed, or an empty text; chunks of replies in order have none."""
        inbound = exchange.inbound
        if exchange.is_client and sequence == inbound.expected:
            return ""
        return exchange.peer.quota.byte_limit(credit) if inbound.is_missing(sequence) else ""

    def _grow_window(self, exchange: Exchange) -> bool:
        inbound = exchange.inbound
        more = min(inbound.window, MAX_WINDOW - inbound.window)
        if not more or self._window_growth + more > MAX_WINDOW_GROWTH:
            return False
        self._window_growth += more
        inbound.window += more
        return True
