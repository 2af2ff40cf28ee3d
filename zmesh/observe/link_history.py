"""The history of links: for each neighbour the reasons of the last falls, the links that are down, and refusals.

The reports of the engine go in; a command such as `zmesh status` shows what is kept. All tables are bounded, and drop
what is oldest.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from zmesh.core.effects import Report
from zmesh.core.message import LinkId

MAX_NEIGHBOURS = 512
"""Neighbours whose falls are kept."""
MAX_FALLS = 4
"""Falls that are kept of each."""
MAX_REFUSALS = 16
"""Refused links and connections that are kept."""
LEFT = "they left: "
"""How the reason begins where the other end has said goodbye."""


class Fall(NamedTuple):
    """A link fell `at` that time (monotonic), for that reason."""

    at: float
    reason: str


class Refusal(NamedTuple):
    """A link was refused `at` that time (monotonic): the other node, if it is known, its address, and the reason."""

    at: float
    node: str
    where: str
    reason: str


class LostLink(NamedTuple):
    """The last link with a neighbour that has none any more; `dialled` is whether this node had dialled it."""

    node: str
    where: str
    dialled: bool
    fall: Fall


class _Open(NamedTuple):
    node: str
    where: str
    dialled: bool
    since: float


class LinkHistory:
    """The history of the links of one node; leaves, such as commands, have none."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[LinkId, _Open] = {}
        self._falls: dict[str, deque[Fall]] = {}
        self._lost: dict[str, LostLink] = {}
        self._peers: dict[str, str] = {}
        self._refusals: deque[Refusal] = deque(maxlen=MAX_REFUSALS)

    def note(self, report: Report, where: Callable[[LinkId], tuple[str, bool]]) -> None:
        """Take a report in; `where` gives the address of a link's other end, and whether this node dialled it."""
        link = report.link
        match report.event:
            case "link_up" if link is not None and report.detail != "leaf":
                url, dialled = where(link)
                node = str(report.node)
                self._open[link] = _Open(node, url, dialled, self._clock())
                self._lost.pop(node, None)
                if dialled:
                    self._peers[url] = node
            case "link_lost" if link is not None:
                self._on_lost(link, report.detail)
            case "link_refused":
                url = where(link)[0] if link is not None else ""
                self._refusals.append(Refusal(self._clock(), str(report.node or ""), url, report.detail))
            case "stranger_refused":
                code, _, text = report.detail.partition(": ")
                self._refusals.append(Refusal(self._clock(), "", text.partition(": ")[0], text or code))

    def since(self, link: LinkId) -> float | None:
        """When a link came up (monotonic); None if it is not up."""
        known = self._open.get(link)
        return known.since if known is not None else None

    def falls(self, node: str) -> tuple[Fall, ...]:
        """The last falls of links with a neighbour, the latest first."""
        return tuple(reversed(self._falls.get(node, ())))

    def lost(self) -> list[LostLink]:
        """The neighbours that there is no link with any more and that have not said goodbye, the latest first."""
        lost = [each for each in self._lost.values() if not each.fall.reason.startswith(LEFT)]
        return sorted(lost, key=lambda each: -each.fall.at)

    def peer(self, url: str) -> str:
        """The node that was last linked to at a URL; "" if none was."""
        return self._peers.get(url, "")

    def refusals(self) -> tuple[Refusal, ...]:
        """The last links and connections that were refused, the latest first."""
        return tuple(reversed(self._refusals))

    def _on_lost(self, link: LinkId, reason: str) -> None:
        known = self._open.pop(link, None)
        if known is None:
            return
        fall = Fall(self._clock(), reason)
        falls = self._falls.pop(known.node, None) or deque(maxlen=MAX_FALLS)
        self._falls[known.node] = falls
        falls.append(fall)
        if all(other.node != known.node for other in self._open.values()):
            self._lost[known.node] = LostLink(known.node, known.where, known.dialled, fall)
        for table in (self._falls, self._lost):
            if len(table) > MAX_NEIGHBOURS:
                del table[next(iter(table))]
