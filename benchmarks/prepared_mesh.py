"""A mesh of any size that exists as answers alone, for what shows meshes: nodes that answer, leave and come back.

Links, costs and tags follow from the size; round-trip times and counters move with each answer. It has one slow link.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence

from benchmarks.shapes import edges_of
from zmesh import GraphLink, GraphNode, LinkReport, Member, MemberList, MeshGraph, NodeEvent, NodeStatus, Unreachable
from zmesh.jobs import JobStatus
from zmesh.operate import LoopStatus, ProcessStatus, RequestsTaken, RouteExplanation, TraceStep, WorkStatus

QUICK, SLOW = 0.004, 0.4
VERSION = "0.1.0"
RATE = 20.0
"""Requests that each node serves in a second."""


class PreparedMesh:
    """A source for `zmesh.dashboard.Dashboard`: `n0000` is where it has joined."""

    def __init__(self, nodes: int) -> None:
        self._rng = random.Random(nodes)
        self._began = time.monotonic()
        self.ids = [f"n{number:04}" for number in range(nodes)]
        self.edges = [(self.ids[a], self.ids[b]) for a, b in edges_of("random", nodes, self._rng)]
        self.slow = next(edge for edge in self.edges if self.ids[0] in edge)
        self._beside: dict[str, list[str]] = {node: [] for node in self.ids}
        for a, b in self.edges:
            self._beside[a].append(b)
            self._beside[b].append(a)
        self._hops = self._counted()
        self.gone: dict[str, float] = {}
        self._news: asyncio.Queue[NodeEvent] = asyncio.Queue()
        self._numbers = 0

    @property
    def host(self) -> str:
        """The node whose view is shown."""
        return self.ids[0]

    def end(self, node: str) -> None:
        """A node is gone."""
        self.gone[node] = time.time()
        self._note("node_left", node, f"{node} left the mesh")

    def begin(self, node: str) -> None:
        """A node is there again."""
        del self.gone[node]
        self._note("node_joined", node, f"{node} joined the mesh")

    # -- answers ---------------------------------------------------------------------------------------------------

    async def members(self, at: str | None = None, *, timeout: float | None = None) -> MemberList:
        """As `Controller.members`."""
        return MemberList(at or self.host, tuple(self._member(node) for node in self.ids))

    async def graph(self, at: str | None = None, *, timeout: float | None = None) -> MeshGraph:
        """As `Controller.graph`."""
        nodes = tuple(
            GraphNode(node, self._hops[node], VERSION, self._tags(node)) for node in self.ids if node not in self.gone
        )
        links = tuple(GraphLink(a, b, 100, 100) for a, b in self.edges if not {a, b} & self.gone.keys())
        return MeshGraph(self.host, nodes, links)

    async def status(
        self, node: str | None = None, *, timeout: float | None = None, route_timeout: float | None = None
    ) -> NodeStatus:
        """As `Controller.status`."""
        node = node or self.host
        if node in self.gone:
            raise Unreachable(f"no route to {node!r}")
        uptime = time.monotonic() - self._began + 60.0
        served = round(uptime * RATE)
        requests = (RequestsTaken(self.host, "echo:echo", served, 0),) if self.ids.index(node) % 10 == 0 else ()
        return NodeStatus(
            node=node, version=VERSION, incarnation="1", time=time.time(), uptime=uptime, listening=(), own_tags=(),
            nodes=len(self.ids), leaves=0, links=tuple(self._link(node, other) for other in self._beside[node]),
            bytes_in=served * 1000, bytes_out=served * 1000,
            work=WorkStatus(1, 256, {}, served, 0, 0, requests=requests),
            process=ProcessStatus(1, "host", "3.14", 40_000_000, None, 20, 1024, 4, 0.01 * uptime),
            loop=LoopStatus(0.0, self._rng.random() / 500, 0), counters={},
        )  # fmt: skip

    async def why(self, node: str, at: str | None = None, *, timeout: float | None = None) -> RouteExplanation:
        """As `Controller.why`; it can't be explained here."""
        raise Unreachable(f"no route to {node!r}")

    async def trace(
        self, node: str, at: str | None = None, *, timeout: float | None = None
    ) -> AsyncGenerator[TraceStep, None]:
        """As `Controller.trace`; no hop answers here."""
        for step in list[TraceStep]():
            yield step

    async def events_of(
        self, node: str | None = None, *, since: float | None = None, last: int | None = None, follow: bool = False
    ) -> AsyncGenerator[NodeEvent, None]:
        """As `Controller.events_of`: what happens from now on."""
        while follow:
            yield await self._news.get()

    async def jobs(
        self,
        node: str,
        *,
        owner: str | None = None,
        states: Sequence[str] = (),
        limit: int | None = None,
        timeout: float | None = None,
        route_timeout: float | None = None,
    ) -> list[JobStatus]:
        """As `Controller.jobs`: none."""
        return []

    # -- what they are made of -------------------------------------------------------------------------------------

    def _counted(self) -> dict[str, int]:
        found, waiting = {self.host: 0}, deque([self.host])
        while waiting:
            node = waiting.popleft()
            for other in self._beside[node]:
                if other not in found:
                    found[other] = found[node] + 1
                    waiting.append(other)
        return found

    def _note(self, kind: str, node: str, text: str) -> None:
        self._numbers += 1
        self._news.put_nowait(NodeEvent(self._numbers, time.time(), kind, node, "", text))

    def _tags(self, node: str) -> tuple[str, ...]:
        return ("gpu",) if self.ids.index(node) % 50 == 0 else ()

    def _rtt(self, typical: float) -> float:
        return typical * (0.8 + 0.4 * self._rng.random())

    def _member(self, node: str) -> Member:
        if node in self.gone:
            return Member(node, False, VERSION, left=time.time() - self.gone[node], heard_by=(self._beside[node][0],))
        hops = self._hops[node]
        return Member(
            node, True, VERSION, self._tags(node), (), node, hops, 100 * hops, self._rtt(QUICK * hops) or None, 1.0
        )  # fmt: skip

    def _link(self, node: str, other: str) -> LinkReport:
        moved = round((time.monotonic() - self._began) * RATE * 1000)
        state, slow = "down" if other in self.gone else "up", {node, other} == set(self.slow)
        rtt = None if state == "down" else self._rtt(SLOW if slow else QUICK)
        return LinkReport(other, "tcp://host:1", True, state, 60.0, cost=100, rtt=rtt, bytes_in=moved, bytes_out=moved)
