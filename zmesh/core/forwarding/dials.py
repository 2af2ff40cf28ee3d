"""The peers that can't be dialled: the reason, and since when; errors about unreachable nodes list them."""

from __future__ import annotations

from typing import NamedTuple

from zmesh.core.durations import span

MAX_PEERS_SHOWN = 3


class Failure(NamedTuple):
    """The reason of the last failure, in words, and the time of the first one."""

    reason: str
    since: float


class Dials:
    """The table of failing dials by URL: at most as many as this node has peers."""

    def __init__(self) -> None:
        self._failing: dict[str, Failure] = {}

    def __len__(self) -> int:
        return len(self._failing)

    def fail(self, url: str, reason: str, now: float) -> None:
        """A peer could not be dialled, or has refused the link."""
        known = self._failing.get(url)
        self._failing[url] = Failure(reason, known.since if known is not None else now)

    def succeed(self, url: str) -> None:
        """A link to the peer is there."""
        self._failing.pop(url, None)

    def describe(self, now: float) -> str:
        """The failing dials, for the end of an error's text; empty if none fails."""
        shown = [
            f"; peer {url}: {failure.reason} for {span(now - failure.since)}"
            for url, failure in list(self._failing.items())[:MAX_PEERS_SHOWN]
        ]
        more = len(self._failing) - len(shown)
        return "".join(shown) + (f"; and {more} more peers" if more else "")
