"""Damping of cost changes: the first is advertised at once, and while more follow, they are at intervals that double.

Each change of a cost is advertised to all neighbours, in an UPDATE and a RECORD, so a hub on whose busy machine
hundreds of round-trip times swing would do little else. Link-state routers delay their computations in the same way
while the network is unstable (RFC 8405). Only changes of costs wait here: links that come up or go down, and what
neighbours advertise, are passed on at once.
"""

from __future__ import annotations

import math

from zmesh.core.message import LinkId
from zmesh.core.timers import Alarm

DELAY_INITIAL = 0.25
DELAY_MAX = 4.0


class CostDamping:
    """The links whose cost has changed and has not been advertised."""

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm
        self._links: dict[LinkId, None] = {}
        self._pause = DELAY_INITIAL
        self._next = -math.inf

    def __len__(self) -> int:
        return len(self._links)

    def add(self, link: LinkId) -> None:
        """The cost of this link has changed."""
        self._links[link] = None
        self._alarm.at(self._next)

    def take(self, now: float) -> list[LinkId]:
        """Take out the links to advertise; none before the delay is over. The next delay is twice as long, or the
        initial one if no change came for as long as the last.
        """
        if not self._links or now < self._next:
            return []
        self._pause = DELAY_INITIAL if now >= self._next + self._pause else min(DELAY_MAX, 2 * self._pause)
        self._next = now + self._pause
        links, self._links = self._links, {}
        return list(links)

    def next_deadline(self) -> float | None:
        """When `take` returns links."""
        return self._next if self._links else None
