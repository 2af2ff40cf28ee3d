"""Counts of a node at one moment, and the state of its links."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zmesh.core.engine import Engine
    from zmesh.core.message import LinkId


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of a node at one moment.

    `requests`         requests of this node whose final reply has not come, or whose handler still runs.
    `serving`          requests of other nodes (and of this one) that are served here, payloads that arrive included.
    `replying`         requests to this node whose replies have not been acknowledged to the last one.
    `waiting_bytes`    bytes of payload of this node's requests that are unsent or unacknowledged.
    `waiting_streams`  requests and replies of which nothing has been sent yet.
    `is_handing_over`  whether a request of this node has not arrived whole at its recipient.
    `counters`         how often each event has happened since the start, such as `link_up` or `frame_dropped:no_route`.
    """

    requests: int
    serving: int
    replying: int
    waiting_bytes: int
    waiting_streams: int
    is_handing_over: bool
    counters: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """One link to a neighbour that is up.

    `where` is the URL that was dialled, or the address that it was accepted from; `dialled`: whether this end dialled.
    `rtt` is the smoothed round-trip time in seconds, None before the first sample. `cost` is the cost for routes.
    `ephemeral`: the neighbour is a leaf, such as a command.
    """

    node: str
    link: int
    where: str
    dialled: bool
    rtt: float | None
    cost: int
    ephemeral: bool


def stats_of(engine: Engine, requests: int, serving: int, counters: Mapping[str, int]) -> Stats:
    """The counts of a node with that engine."""
    return Stats(
        requests=requests,
        serving=serving,
        replying=engine.stats()["requests_received"],
        waiting_bytes=engine.waiting_bytes,
        waiting_streams=engine.waiting_streams,
        is_handing_over=engine.is_handing_over,
        counters=dict(counters),
    )


def links_of(engine: Engine, where: Callable[[LinkId], str]) -> list[LinkStatus]:
    """The links that are up, sorted by neighbour; `where` gives the address of a link's other end."""
    links = (
        LinkStatus(link.node, link.id, where(link.id), link.dialled, link.rtt, link.cost, link.leaf)
        for link in engine.links()
    )
    return sorted(links, key=lambda link: (link.node, link.link))
