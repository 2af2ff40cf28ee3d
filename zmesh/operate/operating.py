"""The mesh as an operator sees it, for a program: what a Controller inherits."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from zmesh.arguments import check_node
from zmesh.errors import ExchangeError
from zmesh.operate.directives import GRAPH, HOP, LOAD, MEMBERS, STATUS, WHY
from zmesh.requests import Requester

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Container, Iterable, Mapping

    from zmesh.operate.bounded import Bounded
    from zmesh.operate.members import MemberList, MeshGraph, PingResult
    from zmesh.operate.paths import RouteExplanation, TraceStep
    from zmesh.operate.status import NodeLoad, NodeStatus
    from zmesh.requests import Pong

T = TypeVar("T")

TIMEOUT = 10.0
"""Seconds to wait for the answer of a node, unless a time-out is given."""
HOP_TIMEOUT = 5.0
"""The same for each of many nodes."""
PINGS = 16
"""Pings that are under way at a time: few, so that they do not wait for each other."""
LOADS = 16
EVERYONE = "*"


class Operating(Requester):
    """The part of a Controller that shows the state of nodes and of the mesh.

    Each method takes the id of the node that is to answer; None is this one or, at an ephemeral node, the one that it
    is attached to. A time-out is in seconds. All raise NotAllowed, Unreachable, TimedOut, UnknownDirective of a node
    that is too old, RemoteError for an answer that makes no sense, and as `Controller.request` does.
    """

    @abstractmethod
    def _node_with_tables(self) -> str:
        """The id of this node or, if it is ephemeral, of the one that it is attached to."""

    @abstractmethod
    async def ping_once(self, node: str, timeout: float | None = None, *, route_timeout: float | None = None) -> Pong:
        """As `Controller.ping_once`."""

    async def status(
        self, node: str | None = None, *, timeout: float | None = TIMEOUT, route_timeout: float | None = None
    ) -> NodeStatus:
        """The state of a node: identity, links, work, resources, and what needs attention."""
        from dataclasses import replace

        from zmesh.operate.json_form import Seconds
        from zmesh.operate.status import NodeStatus

        began = time.time()
        status = await self._shown(NodeStatus, STATUS, node, None, timeout, route_timeout)
        return replace(status, skew=Seconds(status.time - (began + time.time()) / 2))

    async def members(self, at: str | None = None, *, timeout: float | None = TIMEOUT) -> MemberList:
        """The members of the mesh as the node `at` knows them, those that have left lately among them."""
        from zmesh.operate.members import MemberList

        return await self._shown(MemberList, MEMBERS, at, None, timeout)

    async def graph(self, at: str | None = None, *, timeout: float | None = TIMEOUT) -> MeshGraph:
        """The nodes and links of the mesh as the node `at` knows them."""
        from zmesh.operate.members import MeshGraph

        return await self._shown(MeshGraph, GRAPH, at, None, timeout)

    async def why(self, node: str, at: str | None = None, *, timeout: float | None = TIMEOUT) -> RouteExplanation:
        """The explanation of the route of the node `at` to `node`: the offers of neighbours, and the state of each.

        Of a node that can't be reached: its last route, when that was lost, and by which node and why, for which that
        one is asked as well.
        """
        from dataclasses import replace

        from zmesh.operate.paths import RouteExplanation

        check_node(node)
        asked = {"destination": node}
        found = await self._shown(RouteExplanation, WHY, at, asked, timeout)
        lost = found.lost
        if lost is None or lost.heard_by in (None, found.node):
            return found
        try:
            there = await self._shown(RouteExplanation, WHY, lost.heard_by, asked, timeout, timeout)
        except ExchangeError:
            return found  # it has left as well, or does not say
        reason = there.falls[0].reason if there.falls else ""
        return replace(found, lost=replace(lost, reason=reason), dialling=found.dialling or there.dialling)

    async def trace(
        self, node: str, at: str | None = None, *, timeout: float | None = HOP_TIMEOUT
    ) -> AsyncGenerator[TraceStep, None]:
        """The hops from the node `at` to `node`, each as soon as it has answered, and then the path back if it differs.

        `timeout` in seconds is for each hop. How a trace fails is in its last step; nothing is raised for that.
        """
        from zmesh.operate.paths import Hop
        from zmesh.operate.trace import trace

        check_node(node)

        async def ask(hop: str, destination: str, origin: str) -> Hop:
            asked = {"destination": destination, "origin": origin}
            return await self._shown(Hop, HOP, hop, asked, timeout, timeout)

        async for step in trace(ask, at if at is not None else self._node_with_tables(), node):
            yield step

    async def ping_many(
        self, target: str = EVERYONE, at: str | None = None, *, timeout: float | None = HOP_TIMEOUT
    ) -> Bounded[PingResult]:
        """Ping all nodes of a target, such as `*` or `tag:gpu`; iterate over the result for a PingResult of each.

        The nodes are those that the node `at` knows. It ends when all have answered or failed. `timeout` in seconds is
        for each. Raises ConfigError for a malformed target.
        """
        from zmesh.operate.bounded import Bounded
        from zmesh.operate.pings import ping

        members = {member.node: member for member in (await self.members(at, timeout=timeout)).members}
        nodes = self._nodes_of(target, {name: (*each.tags, *each.own_tags) for name, each in members.items()})
        return Bounded(nodes, PINGS, lambda node: ping(self, node, members.get(node), at, timeout))

    def loads(
        self, nodes: Iterable[str], *, timeout: float | None = HOP_TIMEOUT
    ) -> Bounded[tuple[str, NodeLoad | None]]:
        """The loads of nodes: for each its id and a NodeLoad, None where it has not answered; in order of arrival.

        `timeout` in seconds is for each.
        """
        from zmesh.operate.bounded import Bounded
        from zmesh.operate.status import NodeLoad

        async def load(node: str) -> tuple[str, NodeLoad | None]:
            try:
                return node, await self._shown(NodeLoad, LOAD, node, None, timeout, timeout)
            except ExchangeError:
                return node, None

        return Bounded(nodes, LOADS, load)

    @staticmethod
    @abstractmethod
    def _nodes_of(target: str, known: Mapping[str, Container[str]]) -> list[str]:
        """The nodes that a target stands for. Raises ConfigError."""

    async def _shown(
        self,
        kind: type[T],
        directive: str,
        node: str | None,
        payload: Any,
        timeout: float | None,
        route_timeout: float | None = None,
    ) -> T:
        """The answer of a node to a directive that shows something. Nothing is sent before this is awaited."""
        from zmesh.operate.json_form import read_answer

        where = node if node is not None else self._node_with_tables()
        request = self.stream(where, directive, payload, timeout=timeout, route_timeout=route_timeout)
        request.send()
        return read_answer(kind, await request.only_payload(), where, directive)
