"""When the mesh hears of a cost that has moved: at once after a calm, and less and less often while more follow.

Each move is told to all neighbours, in an UPDATE and a RECORD, so a hub on whose busy machine hundreds of round trips
swing would do little else. Routers put off in the same way what they compute while their network is restless (RFC
8405). Nothing but the moves of costs waits here: links that come or go, and what neighbours tell, are told on at once.
"""

from __future__ import annotations

import math

from zmesh.core.message import LinkId
from zmesh.core.timers import Alarm

DELAY_INITIAL = 0.25
DELAY_MAX = 4.0


class CostDamping:
    """The links whose cost has moved and that nobody has heard of."""

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm
        self._links: dict[LinkId, None] = {}
        self._pause = DELAY_INITIAL
        self._next = -math.inf

    def __len__(self) -> int:
        return len(self._links)

    def add(self, link: LinkId) -> None:
        """The cost of this link has moved."""
        self._links[link] = None
        self._alarm.at(self._next)

    def take(self, now: float) -> list[LinkId]:
        """The links to tell of; empty before their time. The next pause is twice as long, unless there was a calm."""
        if not self._links or now < self._next:
            return []
        self._pause = DELAY_INITIAL if now >= self._next + self._pause else min(DELAY_MAX, 2 * self._pause)
        self._next = now + self._pause
        links, self._links = self._links, {}
        return list(links)

    def next_deadline(self) -> float | None:
        """When `take` has something to give."""
        return self._next if self._links else None
