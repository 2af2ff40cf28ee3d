"""A source for a dashboard whose answers a test sets: the mesh is a star."""

import asyncio

from zmesh import GraphLink, GraphNode, LinkReport, Member, MemberList, MeshGraph, NodeEvent, NodeStatus
from zmesh.errors import Unreachable
from zmesh.operate import LoopStatus, ProcessStatus, WorkStatus


def member(node, left=None, **more):
    """A member that is up, or has left so many seconds ago."""
    return Member(node, left is None, left=left, **({"hops": 1, "next_hop": node} if left is None else {}), **more)


def status(node, uptime=10.0, served=0, links=(), requests=(), counters=None, incarnation="1", cpu=0.0, warnings=()):
    """The state of a node."""
    return NodeStatus(
        node=node, version="0.1.0", incarnation=incarnation, time=0.0, uptime=uptime, listening=(), own_tags=(),
        nodes=3, leaves=0, links=tuple(links), bytes_in=100 * served, bytes_out=50 * served,
        work=WorkStatus(0, 10, {}, served, 0, 0, requests=tuple(requests)),
        process=ProcessStatus(1, "host", "3.11", 1000, None, 10, None, 2, cpu), loop=LoopStatus(0.0, 0.001, 0),
        counters=counters or {}, warnings=tuple(warnings),
    )  # fmt: skip


def link(node, state="up", rtt=0.002, moved=0, **more):
    """A link with a node."""
    return LinkReport(node, "tcp://host:1", True, state, 5.0, rtt=rtt, bytes_in=moved, **more)


class FixedMesh:
    """Nodes around the first of them. `down` ones have left, `silent` ones never answer, `errors` are raised."""

    def __init__(self, host, *others):
        self.host = host
        self.others = list(others)
        self.down = {}
        self.errors = {}
        self.silent = set()
        self.asked = []
        self.new_events = asyncio.Queue()

    async def members(self, at=None, *, timeout=None):
        await self._ask("members", at or self.host)
        up = [member(node) for node in (self.host, *self.others) if node not in self.down]
        return MemberList(
            at or self.host, (*up, *(member(node, left, heard_by=("hub",)) for node, left in self.down.items()))
        )

    async def graph(self, at=None, *, timeout=None):
        up = [node for node in self.others if node not in self.down]
        links = tuple(GraphLink(*sorted((self.host, node)), 100, 100) for node in up)
        return MeshGraph(self.host, tuple(GraphNode(node, 1, "", ()) for node in (self.host, *up)), links)

    async def status(self, node=None, *, timeout=None, route_timeout=None):
        await self._ask("status", node)
        return status(node)

    async def why(self, node, at=None, *, timeout=None):
        raise Unreachable(f"no route to {node}")

    async def trace(self, node, at=None, *, timeout=None):
        await self._ask("trace", at)
        for step in ():
            yield step

    async def events_of(self, node=None, *, since=None, last=None, follow=False):
        await self._ask("events", node)
        yield NodeEvent(1, 0.0, "node_started", node, "", f"{node} has started")
        while follow and node == self.host:
            yield await self.new_events.get()

    async def jobs(self, node, *, owner=None, states=(), limit=None, timeout=None, route_timeout=None):
        await self._ask("jobs", node)
        return []

    async def _ask(self, what, node):
        self.asked.append((what, node))
        if node in self.silent:
            await asyncio.Event().wait()
        if error := self.errors.get((what, node)):
            raise error
