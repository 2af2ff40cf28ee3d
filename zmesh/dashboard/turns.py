"""The schedule of the dashboard's queries: so few that no node spends a hundredth of a core on them; pure.

The node that the dashboard joins at has most to do: it lists all members and links, and every other query passes it.
A list of 1,000 members and their links takes it 50 ms (`benchmarks.operate`), a query that passes it 0.3 ms. So
lists are asked for in proportion to their length, and STATUSES nodes a second for their state, however many there are.
"""

from __future__ import annotations

from zmesh.core.limits import Rate, TokenBucket

STATUSES = 6.0
"""Nodes that are asked for their state in a second, at most."""
LIST_ROWS = Rate(120, 1_200)
"""Rows of the list of members that are asked for in a second."""
LIST_EVERY = 2.0
"""Seconds between two lists while all goes well, at least."""
LIST_SOONEST = 0.5
"""The same after an event that says that something has changed."""
STATE_EVERY = 2.0
WATCHED_EVERY = 1.0
"""Seconds between two states of a node whose page is open."""
LINKS_A_SECOND = 100
"""A node with many links is asked seldom: so many of them are asked for in a second."""
REFUSED_AGAIN = 60.0
FAILED_AGAIN = 2.0
FAILED_LATEST = 60.0
UNWATCHED = 10.0
"""Factor by which all intervals grow while no page is open."""


class Lists:
    """When to ask the host for members and links."""

    def __init__(self, now: float) -> None:
        self._rows = TokenBucket(LIST_ROWS, now)
        self._asked = -LIST_EVERY
        self._length = 0

    def asked(self, length: int, now: float) -> None:
        """The list was asked for, and had so many members."""
        self._asked, self._length = now, length
        self._rows.spend(length)

    def due(self, now: float, *, hurry: bool, watched: bool) -> bool:
        """Whether it is time to ask. `hurry`: something has changed; not `watched`: no page is open."""
        if not self._rows.has(now):
            return False
        every = LIST_SOONEST if hurry else LIST_EVERY if watched else LIST_EVERY * UNWATCHED
        return now - self._asked >= max(every, 0.0 if hurry else self._length / LIST_ROWS.per_second)


class Turns:
    """Which node is asked next for its state. Nodes that fail are asked ever more seldom."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._due)

    def set_nodes(self, nodes: set[str], now: float) -> None:
        """The nodes that can be asked; new ones are asked at once."""
        for node in self._due.keys() - nodes:
            del self._due[node]
            self._failures.pop(node, None)
        for node in nodes - self._due.keys():
            self._due[node] = now

    def next(self, watched: set[str], asked: set[str], now: float) -> str | None:
        """The node whose turn it is, one that is `watched` before all others; not one that is `asked` already."""
        due = [(node not in watched, at, node) for node, at in self._due.items() if at <= now and node not in asked]
        return min(due)[2] if due else None

    def answered(self, node: str, links: int, now: float, *, watched: bool) -> None:
        """A node has answered, with so many links."""
        self._failures.pop(node, None)
        every = WATCHED_EVERY if watched else STATE_EVERY
        self._again(node, now + max(every, links / LINKS_A_SECOND))

    def watch(self, node: str, now: float) -> None:
        """Ask for a node soon, whose page was opened, unless it fails."""
        if node in self._due and node not in self._failures:
            self._due[node] = min(self._due[node], now + WATCHED_EVERY)

    def refused(self, node: str, now: float) -> None:
        """A node may not be asked."""
        self._failures[node] = 1
        self._again(node, now + REFUSED_AGAIN)

    def failed(self, node: str, now: float) -> None:
        """A node did not answer."""
        count = self._failures[node] = self._failures.get(node, 0) + 1
        self._again(node, now + min(FAILED_LATEST, FAILED_AGAIN * 2 ** min(count, 10)))

    def _again(self, node: str, at: float) -> None:
        if node in self._due:
            self._due[node] = at
