"""Round-trip time estimation and the retransmission timeout (RFC 6298), for links and for peers alike."""

from __future__ import annotations

INITIAL_TIMEOUT = 1.0
GRANULARITY = 0.25
MAX_TIMEOUT = 8.0


class RttEstimator:
    """The smoothed round-trip time of one path, its variation, and the timeout that follows from both; in seconds.

    `smoothed` is None before the first sample. The timeout exceeds it by GRANULARITY at least, however steady the path
    is, since the programs at both ends have other work, too.
    """

    __slots__ = ("_timeout", "smoothed", "variation")

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self.variation = 0.0
        self._timeout = INITIAL_TIMEOUT

    def update(self, sample: float) -> float:
        """Take in one round trip of a frame that was sent once (Karn's rule); returns the new smoothed time."""
        smoothed = self.smoothed
        if smoothed is None:
            smoothed, self.variation = sample, sample / 2
        else:
            self.variation += (abs(smoothed - sample) - self.variation) / 4
            smoothed += (sample - smoothed) / 8
        self.smoothed = smoothed
        self._timeout = min(MAX_TIMEOUT, smoothed + max(GRANULARITY, 4 * self.variation))
        return smoothed

    def timeout(self, retries: int) -> float:
        """Seconds to wait for an acknowledgement after so many retransmissions; each doubles it, up to MAX_TIMEOUT."""
        return min(MAX_TIMEOUT, self._timeout * 2.0 ** min(retries, 8)) if retries else self._timeout
