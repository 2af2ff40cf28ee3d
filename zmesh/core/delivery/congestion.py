"""Congestion control of the path to one peer: how much all streams to it may have in flight.

Flow control bounds what the receiver has room for; the congestion window bounds what the path has room for, which is
its bandwidth-delay product: the highest recent delivery rate times the minimum recent round-trip time (as in BBR,
draft-ietf-ccwg-bbr, section 4.1). What is in flight beyond that waits in queues on the path and delays all other
traffic. The window is WINDOW_GAIN times that product; since a path that is not full delivers twice as much when twice
as much is in flight, the window doubles with each round trip until the path is full.

PROCESSING_TIME is the part of a round trip that programs take to read, forward and acknowledge; it is no room on the
path and is subtracted. Programs work best in batches, so the window is INITIAL_WINDOW at least, and on a fast path what
it carries in BATCH_TIME, unless the path is so slow that this would wait for longer than MAX_QUEUE_DELAY: then it is
what the path carries in that time.

A delivery rate that was measured while there was too little to send to fill the window (it is limited by the
application) says how much the path carries at least, so it raises the estimate and never lowers it
(draft-cheng-iccrg-delivery-rate-estimation, section 3.4). Where chunks wait for longer than MAX_QUEUE_DELAY, it is the
path that limits the rate.

A round trip that was measured through a queue of the sender's own making is too long. Every MIN_RTT_LIFETIME seconds
the window falls to half of the bandwidth-delay product, until there is a sample of a chunk that was sent since then
(BBR's ProbeRTT).

A full queue on the path reports it (UNREACHABLE, `full`), and a timeout may mean the same: the window is then halved,
once for all that was sent before, and grows again by WINDOW_GROWTH for each window that is acknowledged.

Chunks of up to SMALL bytes do not wait behind large ones: while those fill the window, a quarter of it is kept for
small chunks beside it.

A message costs programs and ZeroMQ much more than its bytes do, so chunks grow with the rate of the path: to what its
slowest link carries in CHUNK_TIME, up to MAX_BODY. On a slow path they shrink to MIN_CHUNK, so that what follows one
does not wait long behind it. Sizes are powers of two, as those of buffers that sources are read into are, and no more
than a part of the window, so that several are under way and all links of the path have work.
"""

from __future__ import annotations

import math

from zmesh.core.wire import MAX_BODY

INITIAL_WINDOW = 1600 * 1024
MAX_QUEUE_DELAY = 0.1
BATCH_TIME = 0.003
MAX_WINDOW = 16 * 1024 * 1024
MIN_WINDOW = 160 * 1024
WINDOW_GAIN = 2.0
PROCESSING_TIME = 0.003
WINDOW_GROWTH = 64 * 1024
MIN_RTT_LIFETIME = 10.0
RATE_LIFETIME = 1.0
RATE_ROUNDS = 10
SMALL = 16 * 1024
"""Credit of a chunk up to which it counts as small, as in the queues of links."""

SMALL_SHARE = 4
"""The part of the window that is kept for small chunks: a quarter."""

CHUNK = 64 * 1024
"""Bytes in the body of a chunk while the rate of its path is not known."""

MIN_CHUNK = 16 * 1024
"""The same on the slowest paths; with its head it is not small."""

CHUNK_TIME = 0.002
"""Seconds that a chunk may take on the slowest link of its path, if it has more than MIN_CHUNK."""

CHUNKS = 4
"""How many chunks the window has room for, at least."""


class Transmission:
    """The state of the path when a chunk was sent (draft-cheng-iccrg-delivery-rate-estimation, section 3.2).

    `delivered` is the credit that was acknowledged on its path by then, `delivered_at` the time of the last
    acknowledgement.
    """

    __slots__ = ("credit", "delivered", "delivered_at", "sent_at")

    def __init__(self, credit: int) -> None:
        self.credit = credit
        self.sent_at = 0.0
        self.delivered = 0
        self.delivered_at = 0.0


class CongestionControl:
    """The congestion window of a path, in bytes of credit; times in seconds.

    `in_flight` is the credit of all chunks that are neither acknowledged nor taken for lost, `small_in_flight` that of
    the small ones among them. `chunk_bytes` is how long the bodies of chunks should be, at the most.
    """

    __slots__ = (
        "_app_limited",
        "_ceiling",
        "_delivered",
        "_delivered_at",
        "_epoch_ends",
        "_halved_at",
        "_measured",
        "_measuring_since",
        "_min_rtt",
        "_min_rtt_before",
        "_min_rtt_until",
        "_rate",
        "_rate_before",
        "_sampled",
        "chunk_bytes",
        "in_flight",
        "small_in_flight",
        "window",
    )

    def __init__(self) -> None:
        self.window = INITIAL_WINDOW
        self.chunk_bytes = CHUNK
        self.in_flight = 0
        self.small_in_flight = 0
        self._ceiling = float(MAX_WINDOW)
        self._delivered = 0
        self._delivered_at = 0.0
        self._sampled = 0
        self._measured = 0
        self._app_limited = 0
        self._rate = 0.0
        self._rate_before = 0.0
        self._epoch_ends = -math.inf
        self._min_rtt = self._min_rtt_before = self._min_rtt_until = math.inf
        self._measuring_since = -math.inf
        self._halved_at = -math.inf

    @property
    def rate(self) -> float:
        """The highest recent delivery rate in bytes a second, that of the slowest link of the path; 0 if unknown."""
        return max(self._rate, self._rate_before)

    def fits(self, credit: int) -> bool:
        """Whether the window allows so much more in flight. It always allows one chunk."""
        if self.in_flight + credit <= self.window or not self.in_flight:
            return True
        return credit <= SMALL and self.small_in_flight + credit <= self.window // SMALL_SHARE

    def on_sent(self, chunk: Transmission, now: float) -> None:
        """A chunk is sent."""
        if not self.in_flight:
            self._delivered_at = now
        credit = chunk.credit
        self.in_flight += credit
        if credit <= SMALL:
            self.small_in_flight += credit
        chunk.sent_at = now
        chunk.delivered = self._delivered
        chunk.delivered_at = self._delivered_at

    def on_idle(self) -> None:
        """There is nothing more to send now, although the window may allow it."""
        if self.in_flight < self.window:
            self._app_limited = self._delivered + self.in_flight

    def on_sent_only(self, chunk: Transmission, now: float) -> None:
        """A small chunk is sent, and nothing more: `on_sent` and `on_idle` in one call."""
        if not self.in_flight:
            self._delivered_at = now
        self.in_flight += chunk.credit
        self.small_in_flight += chunk.credit
        chunk.sent_at = now
        chunk.delivered = self._delivered
        chunk.delivered_at = self._delivered_at
        if self.in_flight < self.window:
            self._app_limited = self._delivered + self.in_flight

    def leave(self, credit: int) -> None:
        """A chunk is no longer in flight: it was acknowledged, is taken for lost, or its stream is over."""
        self.in_flight -= credit
        if credit <= SMALL:
            self.small_in_flight -= credit

    def on_delivered(self, credit: int, chunk: Transmission | None, now: float) -> None:
        """So much was acknowledged; `chunk` is the last of it, None if that was sent more than once."""
        self._delivered += credit
        self._delivered_at = now
        is_halved = self._ceiling < MAX_WINDOW
        if is_halved:
            self._ceiling = min(float(MAX_WINDOW), self._ceiling + WINDOW_GROWTH * credit / self.window)
        if chunk is not None and now > chunk.sent_at:
            self._measure(chunk, credit, now, is_halved=is_halved)
        elif is_halved:
            self._set_window()

    def on_congestion(self, sent_at: float, now: float) -> None:
        """A queue on the path refused a chunk that was sent at `sent_at`, or the chunk timed out.

        Chunks that were sent before the window was halved say nothing about the halved window.
        """
        if sent_at >= self._halved_at:
            self._halved_at = now
            self._ceiling = float(max(MIN_WINDOW, self.window // 2))
            self._set_window()

    def on_path_change(self) -> None:
        """The path has changed: all estimates start anew."""
        self._rate = self._rate_before = 0.0
        self._sampled = self._measured = 0
        self._min_rtt = self._min_rtt_before = self._min_rtt_until = math.inf
        self._ceiling = float(MAX_WINDOW)
        self._set_window()

    def _measure(self, chunk: Transmission, credit: int, now: float, *, is_halved: bool) -> None:
        """Take in the round trip of a chunk that was sent once; `is_halved`: the ceiling of the window has risen."""
        rtt = now - chunk.sent_at
        # Small requests change none of these; then the window, which costs as much as all the rest, stays as it is.
        changed = is_halved
        if rtt <= self._min_rtt and chunk.sent_at >= self._measuring_since:
            changed = changed or rtt < self._min_rtt
            self._min_rtt = rtt
            self._min_rtt_until = now + MIN_RTT_LIFETIME
        rate = (self._delivered - chunk.delivered) / (now - chunk.delivered_at)
        self._sampled += credit
        if self._sampled - credit <= INITIAL_WINDOW < self._sampled:
            changed = True
        if chunk.delivered >= self._app_limited or rtt > self._min_rtt + MAX_QUEUE_DELAY:
            self._measured += credit
            if self._measured - credit <= INITIAL_WINDOW < self._measured:
                changed = True
            if now >= self._epoch_ends:
                self._rate, self._rate_before = 0.0, self._rate
                self._epoch_ends = now + max(RATE_LIFETIME, RATE_ROUNDS * rtt)
                changed = True
        if rate > self._rate:
            self._rate = rate
            changed = True
        if now >= self._min_rtt_until:
            self._min_rtt_before = self._min_rtt
            self._min_rtt = self._min_rtt_until = math.inf
            self._measuring_since = now
            changed = True
        if changed:
            self._set_window()

    def _set_window(self) -> None:
        rate = max(self._rate, self._rate_before)
        window = float(INITIAL_WINDOW)
        is_measured = rate and self._measured > INITIAL_WINDOW  # before that, the rate is that of a stream that starts
        if is_measured:
            window = min(window, max(MIN_WINDOW, MAX_QUEUE_DELAY * rate))
        if self._sampled > INITIAL_WINDOW:
            window = max(window, BATCH_TIME * rate)
        if self._min_rtt < math.inf:
            window = max(window, WINDOW_GAIN * rate * max(0.0, self._min_rtt - PROCESSING_TIME))
        elif self._min_rtt_before < math.inf:
            window = min(window, max(MIN_WINDOW, rate * self._min_rtt_before / 2))
        self.window = int(min(window, self._ceiling))
        most = CHUNK
        if self._sampled > INITIAL_WINDOW:
            most = int(min(MAX_BODY, CHUNK_TIME * rate, self.window // CHUNKS))
        # A rate that is limited by the application is no reason to shrink.
        self.chunk_bytes = max(MIN_CHUNK if is_measured else CHUNK, 1 << most.bit_length() >> 1)
