"""Rate limits on what one neighbour may send: a token bucket for each kind of frame.

A frame of sixty bytes from a neighbour may cost a table of megabytes. So each kind has a rate far above that of any
honest neighbour; frames beyond it are dropped unread, and reported. Nothing is lost for good: HELLOs, PROBEs and
requests are repeated, and the next PROBE shows that routes or records are missing.

What is costly counts for the neighbour, not for the link: a new link does not give it another burst.
"""

from __future__ import annotations

from zmesh.core.limits import Limits, Rate, TokenBucket
from zmesh.core.wire import Kind

MIN_RESENT = 64
PER_LINK = frozenset(("greetings", "probes"))
"""The limits that each link has for itself: each is greeted and probed, and each such frame costs one token."""


class RateExceeded(Exception):
    """A neighbour has sent more than a rate allows; the frame is dropped, and counts for nothing else."""


Buckets = dict[str, TokenBucket]
"""Token buckets by the name of their limit."""


class RateLimiter:
    """The token buckets of one link, each made when it is first needed."""

    __slots__ = ("_buckets", "_limits", "_shared")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buckets: Buckets = {}
        self._shared = self._buckets

    def share(self, buckets: Buckets) -> None:
        """Use these for all limits but those PER_LINK: those are the neighbour's, for all its links."""
        self._shared = buckets

    def has(self, name: str, now: float) -> bool:
        """True if the bucket of the limit `name` is not empty."""
        buckets = self._buckets if name in PER_LINK else self._shared
        bucket = buckets.get(name)
        if bucket is None:
            rate: Rate = getattr(self._limits, name)
            bucket = buckets[name] = TokenBucket(rate, now)
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
        if limit in PER_LINK:
            self.spend(limit, 1)

    def spend(self, name: str, amount: float) -> None:
        """Take that many tokens from the bucket of the limit `name`, for which `has` was true."""
        (self._buckets if name in PER_LINK else self._shared)[name].spend(amount)


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
