"""Detects that the machine's clock was set while a node runs, by comparing it with the monotonic clock.

Both follow the frequency corrections of NTP, so they part only where the clock is set, and where the machine was
suspended: the monotonic clock (CLOCK_MONOTONIC in clock_gettime(2)) stands still then.
"""

from __future__ import annotations

import time
from collections.abc import Callable

SET_BY = 1.0
"""Seconds by which the two have to part for the clock to have been set."""

_READ_WITHIN = 0.1
_UNITS = (("months", 30 * 86400), ("days", 86400), ("h", 3600), ("min", 60))


def read_epoch(wall_clock: Callable[[], float]) -> float | None:
    """The time of the clock (seconds since 1970) at 0 of the monotonic one; None if this thread was interrupted between
    reading both.
    """
    before = time.monotonic()
    wall = wall_clock()
    return wall - before if time.monotonic() - before < _READ_WITHIN else None


def describe_set(ahead: float) -> str:
    """A text that the clock was set ahead by so many seconds, or back where they are negative."""
    size = abs(ahead)
    span = next((f"{size // length:.0f} {unit}" for unit, length in _UNITS if size >= 2 * length), f"{size:.0f} s")
    if ahead < 0:
        return f"the clock of this machine was set back by {span}"
    return f"the clock of this machine was set ahead by {span}, or the machine was suspended for as long"
