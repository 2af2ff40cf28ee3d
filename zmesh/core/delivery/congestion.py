"""Congestion control of one stream: how much may be in flight on its path.

Flow control bounds what the receiver has room for; the congestion window bounds what the path has room for, which is
its bandwidth-delay product: the highest recent delivery rate times the minimum recent round-trip time (as in BBR,
draft-ietf-ccwg-bbr, section 4.1). What is in flight beyond that waits in queues on the path and delays all other
traffic. The window is WINDOW_GAIN times that product; since a path that is not full delivers twice as much when twice
as much is in flight, the window doubles with each round trip until the path is full.

PROCESSING_TIME is the part of a round trip that programs take to read, forward and acknowledge; it is no room on the
path and is subtracted. Programs work best in batches, so the window is INITIAL_WINDOW at least, unless the path is so
slow that this would wait for longer than MAX_QUEUE_DELAY: then it is what the path carries in that time.

A round trip that was measured through a queue of the stream's own making is too long. Every MIN_RTT_LIFETIME seconds
the window falls to half of the bandwidth-delay product, until there is a sample of a chunk that was sent since then
(BBR's ProbeRTT).

A full queue on the path reports it (UNREACHABLE, `full`), and a timeout may mean the same: the window is then halved,
once for all that was sent before, and grows again by WINDOW_GROWTH for each window that is acknowledged.
"""

from __future__ import annotations

import math

INITIAL_WINDOW = 1600 * 1024
MAX_QUEUE_DELAY = 0.1
MAX_WINDOW = 16 * 1024 * 1024
MIN_WINDOW = 160 * 1024
WINDOW_GAIN = 2.0
PROCESSING_TIME = 0.003
WINDOW_GROWTH = 64 * 1024
MIN_RTT_LIFETIME = 10.0
RATE_LIFETIME = 1.0
RATE_ROUNDS = 10


class DeliverySnapshot:
    """The delivery state when a chunk was sent (draft-cheng-iccrg-delivery-rate-estimation, section 2.2).

    `delivered` is the credit that was acknowledged by then, `delivered_at` the time of its last acknowledgement.
    """

    __slots__ = ("delivered", "delivered_at", "sent_at")

    def __init__(self, delivered: int, delivered_at: float, sent_at: float) -> None:
        self.delivered = delivered
        self.delivered_at = delivered_at
        self.sent_at = sent_at


class CongestionControl:
    """The congestion window of one stream, in bytes of credit; times in seconds."""

    __slots__ = (
        "_ceiling",
        "_delivered",
        "_delivered_at",
        "_epoch_ends",
        "_halved_at",
        "_measuring_since",
        "_min_rtt",
        "_min_rtt_before",
        "_min_rtt_until",
        "_rate",
        "_rate_before",
        "window",
    )

    def __init__(self) -> None:
        self.window = INITIAL_WINDOW
        self._ceiling = float(MAX_WINDOW)
        self._delivered = 0
        self._delivered_at = 0.0
        self._rate = 0.0
        self._rate_before = 0.0
        self._epoch_ends = -math.inf
        self._min_rtt = self._min_rtt_before = self._min_rtt_until = math.inf
        self._measuring_since = -math.inf
        self._halved_at = -math.inf

    def on_sent(self, in_flight: int, now: float) -> DeliverySnapshot:
        """A chunk is sent while so much is in flight already."""
        if not in_flight:
            self._delivered_at = now
        return DeliverySnapshot(self._delivered, self._delivered_at, now)

    def on_delivered(self, credit: int, snapshot: DeliverySnapshot | None, now: float) -> None:
        """So much was acknowledged; `snapshot` is that of its last chunk, None if that was sent more than once."""
        self._delivered += credit
        self._delivered_at = now
        self._ceiling = min(float(MAX_WINDOW), self._ceiling + WINDOW_GROWTH * credit / self.window)
        if snapshot is not None and now > snapshot.sent_at:
            self._measure(snapshot, now)
        self._set_window()

    def on_congestion(self, in_flight: int, sent_at: float, now: float) -> None:
        """A queue on the path refused a chunk that was sent at `sent_at`, or the chunk timed out.

        Chunks that were sent before the window was halved say nothing about the halved window.
        """
        if sent_at >= self._halved_at:
            self._halved_at = now
            self._ceiling = float(max(MIN_WINDOW, min(self.window, in_flight) // 2))
            self._set_window()

    def on_path_change(self) -> None:
        """The path has changed: all estimates start anew."""
        self._rate = self._rate_before = 0.0
        self._min_rtt = self._min_rtt_before = self._min_rtt_until = math.inf
        self._ceiling = float(MAX_WINDOW)
        self._set_window()

    def _measure(self, snapshot: DeliverySnapshot, now: float) -> None:
        rtt = now - snapshot.sent_at
        if rtt <= self._min_rtt and snapshot.sent_at >= self._measuring_since:
            self._min_rtt = rtt
            self._min_rtt_until = now + MIN_RTT_LIFETIME
        rate = (self._delivered - snapshot.delivered) / (now - snapshot.delivered_at)
        if now >= self._epoch_ends:
            self._rate, self._rate_before = 0.0, self._rate
            self._epoch_ends = now + max(RATE_LIFETIME, RATE_ROUNDS * rtt)
        self._rate = max(self._rate, rate)
        if now >= self._min_rtt_until:
            self._min_rtt_before = self._min_rtt
            self._min_rtt = self._min_rtt_until = math.inf
            self._measuring_since = now

    def _set_window(self) -> None:
        rate = max(self._rate, self._rate_before)
        window = float(INITIAL_WINDOW)
        if rate and self._delivered > INITIAL_WINDOW:  # before that, the rate is that of a stream that starts
            window = min(window, max(MIN_WINDOW, MAX_QUEUE_DELAY * rate))
        if self._min_rtt < math.inf:
            window = max(window, WINDOW_GAIN * rate * max(0.0, self._min_rtt - PROCESSING_TIME))
        elif self._min_rtt_before < math.inf:
            window = min(window, max(MIN_WINDOW, rate * self._min_rtt_before / 2))
        self.window = int(min(window, self._ceiling))
