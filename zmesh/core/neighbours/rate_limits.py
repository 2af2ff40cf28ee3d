"""Rate limits on what one neighbour may send: a token bucket for each kind of frame.

A frame of sixty bytes from a neighbour may cost a table of megabytes. So each kind has a rate far above that of any
honest neighbour; frames beyond it are dropped unread, and reported. Nothing is lost for good: HELLOs, PROBEs and
requests are repeated, and the next PROBE shows that routes or records are missing.
"""

from __future__ import annotations

from zmesh.core.limits import Limits, Rate, TokenBucket
from zmesh.core.wire import Kind

MIN_RESENT = 64


class RateExceeded(Exception):
    """A neighbour has sent more than a rate allows; the frame is dropped, and counts for nothing else."""


class RateLimiter:
    """The token buckets of one link, each made when it is first needed."""

    __slots__ = ("_buckets", "_limits")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buckets: dict[str, TokenBucket] = {}

    def has(self, name: str, now: float) -> bool:
        """True if the bucket of the limit `name` is not empty."""
        bucket = self._buckets.get(name)
        if bucket is None:
            rate: Rate = getattr(self._limits, name)
            bucket = self._buckets[name] = TokenBucket(rate, now)
        return bucket.has(now)

    def admit(self, kind: int, now: float, *, is_up: bool) -> None:
        """Admit a frame of that kind. Raises RateExceeded.

        Takes a token for HELLOs and PROBEs; for other kinds the cost depends on the content, and the caller spends it.
        """
        limit = LIMIT_OF.get(kind) if is_up else "greetings"
        if limit is None:
            return
        if not self.has(limit, now):
            raise RateExceeded(f"{limit}, {Kind(kind).name}")
        if limit in ("greetings", "probes"):
            self.spend(limit, 1)

    def spend(self, name: str, amount: float) -> None:
        """Take that many tokens from the bucket of the limit `name`, for which `has` was true."""
        self._buckets[name].spend(amount)


LIMIT_OF: dict[int, str] = {
    Kind.HELLO: "greetings",
    Kind.ASK: "greetings",
    Kind.PROBE: "probes",
    Kind.ECHO: "probes",
    Kind.UPDATE: "route_entries",
    Kind.RECORD: "record_updates",
    Kind.SEQNO_REQUEST: "seqno_requests",
    Kind.RESEND: "resent_rows",
    Kind.CERTIFICATE_REQUEST: "certificates",
    Kind.CERTIFICATE: "certificates",
    Kind.STATEMENT: "statements",
    Kind.GRANT: "key_exchanges",
}
"""The limit that each kind of frame counts against; REFUSE and GOODBYE end the link and need none."""
