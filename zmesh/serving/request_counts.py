"""The requests that a node was sent: counts for each client and directive since the start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from zmesh.errors import Cancelled

MAX_PAIRS = 64
"""Pairs of a client and a directive that are counted; one more replaces that with the fewest requests."""


class RequestCount(NamedTuple):
    """The requests of one client for one directive: how many were taken up, and how many ended in an error."""

    client: str
    directive: str
    taken: int
    failed: int


class RequestCounts:
    """The counts of one node. The requests of pairs that were replaced are counted in `others`."""

    def __init__(self) -> None:
        self.others = 0
        self._counts: dict[tuple[str, str], list[int]] = {}

    def __iter__(self) -> Iterator[RequestCount]:
        return (RequestCount(*pair, *counts) for pair, counts in self._counts.items())

    def taken_up(self, sender: str, directive: str) -> None:
        """A request was taken up."""
        pair = (client_of(sender) if "@" in sender else sender, directive)
        counts = self._counts.get(pair)
        if counts is None:
            if len(self._counts) >= MAX_PAIRS:
                fewest = min(self._counts, key=lambda each: self._counts[each][0])
                self.others += self._counts.pop(fewest)[0]
            counts = self._counts[pair] = [0, 0]
        counts[0] += 1

    def failed(self, sender: str, directive: str, reason: str) -> None:
        """A request ended in an error, with that code; one that its client cancels does not fail."""
        counts = self._counts.get((client_of(sender), directive))
        if counts is not None and reason != Cancelled.code:
            counts[1] += 1


def client_of(sender: str) -> str:
    """A sender without the random part of a leaf's id: `cli-4f2a@hub` is `cli@hub`, `ada.4f2a@hub` is `ada@hub`."""
    leaf, at, host = sender.partition("@")
    if not at:
        return sender
    return f"{'cli' if leaf.startswith('cli-') else leaf.rpartition('.')[0] or leaf}@{host}"
