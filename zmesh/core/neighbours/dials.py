"""The peers that are dialled in vain: why, and since when, for errors about nodes that can't be reached."""

from __future__ import annotations

from typing import NamedTuple

from zmesh.core.durations import span

MAX_PEERS_SHOWN = 3


class Trouble(NamedTuple):
    """The reason of the last failure, in words, and when the first one was."""

    reason: str
    since: float


class Dials:
    """The table of the dials that fail, by URL: as many at most as this node has peers."""

    def __init__(self) -> None:
        self._failing: dict[str, Trouble] = {}

    def __len__(self) -> int:
        return len(self._failing)

    def fail(self, url: str, reason: str, now: float) -> None:
        """A peer could not be dialled, or did not take this node in."""
        known = self._failing.get(url)
        self._failing[url] = Trouble(reason, known.since if known is not None else now)

    def succeed(self, url: str) -> None:
        """There is a link to the peer."""
        self._failing.pop(url, None)

    def describe(self, now: float) -> str:
        """What the dials are doing, for the end of an error's text; empty if each peer is linked."""
        shown = [
            f"; peer {url}: {trouble.reason} for {span(now - trouble.since)}"
            for url, trouble in list(self._failing.items())[:MAX_PEERS_SHOWN]
        ]
        more = len(self._failing) - len(shown)
        return "".join(shown) + (f"; and {more} more peers" if more else "")
