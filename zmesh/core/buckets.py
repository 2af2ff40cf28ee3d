"""How much of a node's time one neighbour may take up: a token bucket for each kind of what it says.

What a neighbour says in a frame of sixty bytes may cost a table of megabytes. So each kind has a rate that no honest
neighbour comes near, and what is beyond is dropped unread, and reported. Nothing is lost by that for good: greetings,
probes and questions are repeated, and the next probe shows that routes or records are missing.
"""

from __future__ import annotations

from zmesh.core.limits import Limits, Rate
from zmesh.core.wire import Kind

MIN_RESENT = 64


class OverBudget(Exception):
    """A neighbour has said more than it may; the frame is dropped, and counts for nothing else."""


class TokenBucket:
    """So many a second, and so many at once after a pause. It may be overdrawn by what is spent last, and then has
    nothing until that has been made up for.
    """

    __slots__ = ("_at", "_at_once", "_per_second", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._per_second, self._at_once = rate
        self._tokens = self._at_once
        self._at = now

    def has(self, now: float) -> bool:
        """True if something may be spent."""
        if now > self._at:
            self._tokens = min(self._at_once, self._tokens + (now - self._at) * self._per_second)
            self._at = now
        return self._tokens > 0

    def spend(self, amount: float) -> None:
        """Take out that much."""
        self._tokens -= amount


class Budget:
    """What one neighbour may still say. Its buckets are made when they are first needed."""

    __slots__ = ("_buckets", "_limits")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buckets: dict[str, TokenBucket] = {}

    def has(self, name: str, now: float) -> bool:
        """True if the limit of that name is not used up."""
        bucket = self._buckets.get(name)
        if bucket is None:
            rate: Rate = getattr(self._limits, name)
            bucket = self._buckets[name] = TokenBucket(rate, now)
        return bucket.has(now)

    def take(self, kind: int, now: float, *, is_up: bool) -> None:
        """Let the neighbour say something of that kind, or raise OverBudget. Where it depends on what is said how much
        that is, the caller will `spend` it.
        """
        limit = LIMIT_OF.get(kind) if is_up else "greetings"
        if limit is None:
            return
        if not self.has(limit, now):
            raise OverBudget(f"{limit}, {Kind(kind).name}")
        if limit in ("greetings", "probes"):
            self.spend(limit, 1)

    def spend(self, name: str, amount: float) -> None:
        """Count so much against the limit of that name, for which `has` was true."""
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
}
"""Which limit a frame from a neighbour counts against; REFUSE and GOODBYE end the link, and need none."""
