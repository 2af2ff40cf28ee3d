"""The rate at which failures of directives are logged: members cause them, as often as they like."""

from __future__ import annotations

import time
from collections.abc import Callable

from zmesh.core.limits import Rate, TokenBucket

FAILURES = Rate(1, 50)
"""Failures of directives that are logged, with their tracebacks; the number of those left out is added to the next."""


class FailureLog:
    """Says of each failure whether it is logged."""

    __slots__ = ("_bucket", "_clock", "_left_out")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bucket = TokenBucket(FAILURES, clock())
        self._left_out = 0

    def next(self) -> str | None:
        """What the line of one more failure ends with, which may be nothing; None if there is to be no line."""
        now = self._clock()
        if not self._bucket.has(now):
            self._left_out += 1
            return None
        self._bucket.spend(1)
        left_out, self._left_out = self._left_out, 0
        return f", and {left_out} more failures before it" if left_out else ""
