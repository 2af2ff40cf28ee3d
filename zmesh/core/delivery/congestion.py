"""How much of a stream may be under way: as much as the path holds, and not much more.

What the receiver has room for is its limit; what the path has room for is what it carries in one round trip. More than
that only waits in queues on the way, where it is in the way of everybody. So a stream keeps GAIN times the
bandwidth-delay product under way: the highest rate at which chunks were acknowledged of late, times the shortest round
trip of late (as BBR does, draft-ietf-ccwg-bbr, section 4.1). Since a path that is not full delivers twice as much when
twice as much is under way, the window doubles with each round trip until the path is full.

Of a round trip, PROCESSING is what programs take to read, forward and acknowledge, and no room on the path. They work
best in batches, so the window is no smaller than the first one, unless a path is so slow that this would wait for
longer than QUEUE: then it is what the path carries in that time.

A round trip that was measured through a queue of one's own making is too long. Every SHORTEST_FOR seconds the window
falls to half of what the path holds, until a round trip of a chunk that was sent since then is known.

A full queue on the way says so (UNREACHABLE, `full`), and a time-out says so too, if only perhaps: the window is halved
then, once for all that was sent before, and rises again by GROWTH for each round trip's worth of acknowledgements.
"""

from __future__ import annotations

import math

FIRST_WINDOW = 1600 * 1024
QUEUE = 0.1
MAX_WINDOW = 16 * 1024 * 1024
MIN_WINDOW = 160 * 1024
GAIN = 2.0
PROCESSING = 0.003
GROWTH = 64 * 1024
SHORTEST_FOR = 10.0
RATE_FOR = 1.0
RATE_ROUNDS = 10


class DeliverySnapshot:
    """Where a stream stood when a chunk was sent: how much had been delivered, and since when that is known."""

    __slots__ = ("at", "delivered", "sent")

    def __init__(self, delivered: int, at: float, sent: float) -> None:
        self.delivered = delivered
        self.at = at
        self.sent = sent


class CongestionControl:
    """The window of one stream towards its path, in bytes of credit; times in seconds."""

    __slots__ = (
        "_ceiling",
        "_delivered",
        "_delivered_at",
        "_epoch_ends",
        "_halved_at",
        "_measuring_since",
        "_rate",
        "_rate_before",
        "_shortest",
        "_shortest_before",
        "_shortest_until",
        "window",
    )

    def __init__(self) -> None:
        self.window = FIRST_WINDOW
        self._ceiling = float(MAX_WINDOW)
        self._delivered = 0
        self._delivered_at = 0.0
        self._rate = 0.0
        self._rate_before = 0.0
        self._epoch_ends = -math.inf
        self._shortest = self._shortest_before = self._shortest_until = math.inf
        self._measuring_since = -math.inf
        self._halved_at = -math.inf

    def mark(self, in_flight: int, now: float) -> DeliverySnapshot:
        """A chunk is sent, while so much is under way already."""
        if not in_flight:
            self._delivered_at = now
        return DeliverySnapshot(self._delivered, self._delivered_at, now)

    def on_delivered(self, credit: int, mark: DeliverySnapshot | None, now: float) -> None:
        """So much was acknowledged; `mark` is that of its last chunk, None if that was sent more than once."""
        self._delivered += credit
        self._delivered_at = now
        self._ceiling = min(float(MAX_WINDOW), self._ceiling + GROWTH * credit / self.window)
        if mark is not None and now > mark.sent:
            self._measure(mark, now)
        self._set_window()

    def on_congestion(self, in_flight: int, sent: float, now: float) -> None:
        """A queue on the way had no room for a chunk that was sent at `sent`, or nothing was heard of it for too long.

        Chunks that were sent before the window was halved say nothing about how it is now.
        """
        if sent >= self._halved_at:
            self._halved_at = now
            self._ceiling = float(max(MIN_WINDOW, min(self.window, in_flight) // 2))
            self._set_window()

    def on_path(self) -> None:
        """The path is another one from now on, and nothing is known of it."""
        self._rate = self._rate_before = 0.0
        self._shortest = self._shortest_before = self._shortest_until = math.inf
        self._ceiling = float(MAX_WINDOW)
        self._set_window()

    def _measure(self, mark: DeliverySnapshot, now: float) -> None:
        trip = now - mark.sent
        if trip <= self._shortest and mark.sent >= self._measuring_since:
            self._shortest = trip
            self._shortest_until = now + SHORTEST_FOR
        rate = (self._delivered - mark.delivered) / (now - mark.at)
        if now >= self._epoch_ends:
            self._rate, self._rate_before = 0.0, self._rate
            self._epoch_ends = now + max(RATE_FOR, RATE_ROUNDS * trip)
        self._rate = max(self._rate, rate)
        if now >= self._shortest_until:
            self._shortest_before = self._shortest
            self._shortest = self._shortest_until = math.inf
            self._measuring_since = now

    def _set_window(self) -> None:
        rate = max(self._rate, self._rate_before)
        window = float(FIRST_WINDOW)
        if rate and self._delivered > FIRST_WINDOW:  # before, the rate is that of a beginning
            window = min(window, max(MIN_WINDOW, QUEUE * rate))
        if self._shortest < math.inf:
            window = max(window, GAIN * rate * max(0.0, self._shortest - PROCESSING))
        elif self._shortest_before < math.inf:
            window = min(window, max(MIN_WINDOW, rate * self._shortest_before / 2))
        self.window = int(min(window, self._ceiling))
