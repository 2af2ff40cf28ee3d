"""The mesh as an operator sees it, for programs without asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.operate import EVERYONE, HOP_TIMEOUT, TIMEOUT
from zmesh.sync.blocking_node import BlockingNode
from zmesh.sync.iteration import Iteration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zmesh.operate import MemberList, MeshGraph, NodeLoad, NodeStatus, PingResult, RouteExplanation, TraceStep


class Operating(BlockingNode):
    """The part of a Controller that shows the state of nodes and of the mesh.

    Each method, with its errors, is that of `zmesh.Controller`. A `timeout` is in seconds.
    """

    def status(
        self, node: str | None = None, *, timeout: float | None = TIMEOUT, route_timeout: float | None = None
    ) -> NodeStatus:
        """The state of a node: identity, links, work, resources, and what needs attention."""
        return self._do(lambda: self._mesh.status(node, timeout=timeout, route_timeout=route_timeout))

    def members(self, at: str | None = None, *, timeout: float | None = TIMEOUT) -> MemberList:
        """The members of the mesh as the node `at` knows them, those that have left lately among them."""
        return self._do(lambda: self._mesh.members(at, timeout=timeout))

    def graph(self, at: str | None = None, *, timeout: float | None = TIMEOUT) -> MeshGraph:
        """The nodes and links of the mesh as the node `at` knows them."""
        return self._do(lambda: self._mesh.graph(at, timeout=timeout))

    def why(self, node: str, at: str | None = None, *, timeout: float | None = TIMEOUT) -> RouteExplanation:
        """The explanation of the route of the node `at` to `node`; as `zmesh.Controller.why`."""
        return self._do(lambda: self._mesh.why(node, at, timeout=timeout))

    def trace(self, node: str, at: str | None = None, *, timeout: float | None = HOP_TIMEOUT) -> Iteration[TraceStep]:
        """The hops from the node `at` to `node`, as they come; as `zmesh.Controller.trace`."""
        steps = self._mesh.trace(node, at, timeout=timeout)
        return self._iterating(Iteration(self._opened(), steps, steps.aclose))

    def ping_many(
        self, target: str = EVERYONE, at: str | None = None, *, timeout: float | None = HOP_TIMEOUT
    ) -> Iteration[PingResult]:
        """Ping all nodes of a target; iterate over a PingResult of each, as they come."""
        results = self._do(lambda: self._mesh.ping_many(target, at, timeout=timeout))
        return self._iterating(Iteration(self._opened(), results, results.aclose))

    def loads(
        self, nodes: Iterable[str], *, timeout: float | None = HOP_TIMEOUT
    ) -> Iteration[tuple[str, NodeLoad | None]]:
        """The loads of nodes: for each its id and a NodeLoad, None where it has not answered; in order of arrival."""
        loads = self._mesh.loads(nodes, timeout=timeout)
        return self._iterating(Iteration(self._opened(), loads, loads.aclose))
