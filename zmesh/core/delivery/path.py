"""The path to one peer, which all streams to it share: what is in flight, and which streams wait for their turn.

As QUIC has it (RFC 9002, section 6), a path has one congestion controller, one round-trip estimate and one
retransmission timer. A stream with chunks in flight is in a FIFO by the time at which its timer was started (RFC 6298,
section 5); the first one is due first, and no deadline has to be kept for each. A timeout doubles the time that those
wait which are started from then on.

Streams that the congestion window holds back wait in two queues, those whose next chunk is small and the others, and
send a chunk each in turn. While large chunks wait, small ones have the quarter of the window that is kept for them; so
neither kind keeps the other from being sent.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING

from zmesh.core.delivery.congestion import SMALL, SMALL_SHARE, CongestionControl
from zmesh.core.rtt import RttEstimator

if TYPE_CHECKING:
    from zmesh.core.delivery.exchange import Exchange


class Path:
    """The sending state of one peer. `retries` counts the timeouts since the last progress of any stream."""

    __slots__ = ("_backed_off_at", "_large", "_small", "_started", "congestion", "retries", "rtt")

    def __init__(self) -> None:
        self.rtt = RttEstimator()
        self.congestion = CongestionControl()
        self.retries = 0
        self._backed_off_at = -math.inf
        self._started: dict[Exchange, float] = {}
        self._small: OrderedDict[Exchange, None] = OrderedDict()
        self._large: OrderedDict[Exchange, None] = OrderedDict()

    def renew(self) -> None:
        """The peer has restarted: its path is measured anew."""
        self.rtt = RttEstimator()
        self.retries = 0
        self.congestion.on_path_change()

    def remove(self, exchange: Exchange) -> None:
        """A stream is over: it has no timer and no turn."""
        self._started.pop(exchange, None)
        if self._small or self._large:
            self._small.pop(exchange, None)
            self._large.pop(exchange, None)

    # -- the retransmission timer --------------------------------------------------------------------------------

    def is_timed(self, exchange: Exchange) -> bool:
        """Whether the timer of a stream runs."""
        return exchange in self._started

    def restart_timer(self, exchange: Exchange, now: float) -> None:
        """Start the timer of a stream, anew if it runs."""
        self._started.pop(exchange, None)
        self._started[exchange] = now

    def stop_timer(self, exchange: Exchange) -> None:
        """Stop the timer of a stream, if it runs."""
        self._started.pop(exchange, None)

    def deadline(self) -> float | None:
        """When the first timer expires, or None."""
        for started in self._started.values():
            return self._due(started)
        return None

    def expire(self, now: float, most: int) -> list[Exchange]:
        """Stop the timers that have expired, the first `most`, and return their streams."""
        expired: list[Exchange] = []
        latest = -math.inf
        for exchange, started in self._started.items():
            if len(expired) == most or self._due(started) > now:
                break
            expired.append(exchange)
            latest = started
        for exchange in expired:
            del self._started[exchange]
        if expired and latest >= self._backed_off_at:
            self.retries += 1
            self._backed_off_at = now
        return expired

    def _due(self, started: float) -> float:
        """When a timer expires; one that was started before the last timeout waits as long as that one did."""
        retries = self.retries
        if retries and started < self._backed_off_at:
            retries -= 1
        return started + self.rtt.timeout(retries)

    # -- turns ---------------------------------------------------------------------------------------------------

    @property
    def is_awaited(self) -> bool:
        """Whether streams wait for the window."""
        return bool(self._small or self._large)

    def is_waiting(self, exchange: Exchange) -> bool:
        """Whether a stream waits for its turn."""
        return exchange in self._small or exchange in self._large

    def is_behind(self, credit: int) -> bool:
        """Whether a stream with a chunk of that credit has to wait, behind others or for the window."""
        if credit > SMALL:
            return bool(self._large) or not self.congestion.fits(credit)
        return bool(self._small) or not self._admits(credit)

    def wait(self, exchange: Exchange, credit: int) -> None:
        """Queue a stream until it is its turn; `credit` is that of its next chunk."""
        (self._small if credit <= SMALL else self._large).setdefault(exchange)

    def next_turn(self) -> Exchange | None:
        """Take out the stream whose turn it is, if the window has room for its next chunk."""
        while self._small:
            exchange = next(iter(self._small))
            credit = exchange.outbound.next_credit()
            if credit > SMALL:  # more was appended to the chunk while it waited
                del self._small[exchange]
                self._large[exchange] = None
                continue
            if not self._admits(credit):
                break
            del self._small[exchange]
            return exchange
        for exchange in self._large:
            if not self._admits(exchange.outbound.next_credit()):
                break
            del self._large[exchange]
            return exchange
        return None

    def _admits(self, credit: int) -> bool:
        """Whether the window has room; while large chunks wait, small ones have no more than their share of it."""
        congestion = self.congestion
        if credit > SMALL or not self._large:
            return congestion.fits(credit)
        return congestion.small_in_flight + credit <= congestion.window // SMALL_SHARE or not congestion.in_flight
