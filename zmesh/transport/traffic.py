"""Counters of what the links of a node carry: bytes and messages, each way."""

from __future__ import annotations

from collections.abc import Collection

from zmesh.core.message import LinkId

SPARE = 64
"""Links that are gone whose counters are kept before they are added up."""


class LinkTraffic:
    """The traffic of one link: `bytes_in`, `bytes_out`, `messages_in`, `messages_out`, without ZeroMQ's own."""

    __slots__ = ("bytes_in", "bytes_out", "messages_in", "messages_out")

    def __init__(self) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.messages_in = 0
        self.messages_out = 0

    def add(self, other: LinkTraffic) -> None:
        """Add the counters of another link."""
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.messages_in += other.messages_in
        self.messages_out += other.messages_out


class TrafficTable:
    """The counters of all links; those of links that are gone are kept as a sum."""

    __slots__ = ("_gone", "by_link")

    def __init__(self) -> None:
        self.by_link: dict[LinkId, LinkTraffic] = {}
        self._gone = LinkTraffic()

    def open(self, link: LinkId, live: Collection[LinkId]) -> None:
        """Count what a new link carries; `live` are the links that are there."""
        if len(self.by_link) > 2 * len(live) + SPARE:
            for gone in [known for known in self.by_link if known not in live]:
                self._gone.add(self.by_link.pop(gone))
        self.by_link[link] = LinkTraffic()

    def total(self) -> LinkTraffic:
        """The traffic of all links since the start, also of those that are gone."""
        total = LinkTraffic()
        total.add(self._gone)
        for each in self.by_link.values():
            total.add(each)
        return total
