"""The forwarding information base (FIB): the link that leads to each node, for packets that this node only passes on.

Routing selects a next hop for every destination (the RIB, `routing.routes`). The engine enters each change of it here,
and the shell passes packets on by this table alone, without a stimulus of the engine, as routers separate the control
plane from the forwarding plane (RFC 3746). It decides nothing of its own: whatever is not the plain case (no route, the
ttl has ended, the packet is for or from this node or a leaf, something waits for the link, a neighbour that is suspect,
blocked or sends garbage) it leaves to the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from zmesh.core import wire
from zmesh.core.forwarding.queues import Queue
from zmesh.core.message import LinkId, NodeId
from zmesh.core.wire import Frames


class Ingress(Protocol):
    """The state of a link that packets come in on: when it was heard, bad frames in a row, and doubts about it."""

    heard: float
    strikes: int
    suspect: bool


class Fib:
    """The FIB of one node; empty at a leaf, which forwards nothing."""

    __slots__ = ("_egress", "_ingress", "_node", "_ports")

    def __init__(self, node: NodeId) -> None:
        self._node = node.encode()
        self._egress: dict[bytes, tuple[LinkId, Queue]] = {}
        self._ingress: dict[LinkId, Ingress] = {}
        self._ports: dict[LinkId, tuple[LinkId, Queue]] = {}
        """The entry of `_egress` for each link, one object for all destinations, so that it stays in the caches."""

    def admit(self, link: LinkId, ingress: Ingress) -> None:
        """Pass packets of this link on; not for the link of a leaf, whose packets the engine checks."""
        self._ingress[link] = ingress

    def close(self, link: LinkId) -> None:
        """A link is gone; the routes over it are entered anew before the stimulus ends."""
        self._ingress.pop(link, None)
        self._ports.pop(link, None)

    def enter(self, destination: NodeId, link: LinkId, queue: Queue) -> None:
        """Packets for that node leave on this link, if nothing waits in its queue."""
        port = self._ports.get(link)
        if port is None:
            port = self._ports[link] = (link, queue)
        self._egress[destination.encode()] = port

    def remove(self, destination: NodeId) -> None:
        """There is no route to that node any more."""
        self._egress.pop(destination.encode(), None)

    def pass_on(self, link: LinkId, frames: Frames | list[bytes], now: float) -> tuple[LinkId, Frames] | None:
        """The link that a packet which came on `link` leaves on, and the packet as it leaves; None: `Engine.receive`.

        Call `link_full` of the engine if the link does not take it.
        """
        found = wire.pass_on(frames, self._egress, self._node)
        if found is None:
            return None
        (egress, queue), onward = found
        ingress = self._ingress.get(link)
        if ingress is None or ingress.suspect or ingress.strikes or queue.full or queue.size_bytes:
            return None
        if queue.is_watched:
            return None
        ingress.heard = now
        return egress, onward

    def check(self, links: Mapping[NodeId, LinkId], queues: Mapping[LinkId, Queue]) -> None:
        """Raise AssertionError unless this is the table of `links` by destination, and all links are open."""
        if {destination.decode(): link for destination, (link, _) in self._egress.items()} != links:
            raise AssertionError("the FIB is not that of the selected routes")
        if any(queues.get(link) is not queue for link, queue in self._egress.values()):
            raise AssertionError("a destination in the FIB whose link is closed")
        if not self._ingress.keys() <= queues.keys():
            raise AssertionError("the FIB passes packets of a closed link on")
