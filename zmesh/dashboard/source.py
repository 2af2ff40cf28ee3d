"""The source of the dashboard: the methods of a Controller that show nodes and the mesh."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from zmesh.jobs import JobStatus
    from zmesh.operate import MemberList, MeshGraph, NodeEvent, NodeStatus, RouteExplanation, TraceStep


class Source(Protocol):
    """Shows nodes and the mesh, as `zmesh.Controller` does; each method is that of the Controller, times in seconds."""

    def members(self, at: str | None = None, *, timeout: float | None = None) -> Awaitable[MemberList]:
        """The members of the mesh, as the node `at` knows them."""

    def graph(self, at: str | None = None, *, timeout: float | None = None) -> Awaitable[MeshGraph]:
        """The links of the mesh, as the node `at` knows them."""

    def status(
        self, node: str | None = None, *, timeout: float | None = None, route_timeout: float | None = None
    ) -> Awaitable[NodeStatus]:
        """The state of a node."""

    def why(self, node: str, at: str | None = None, *, timeout: float | None = None) -> Awaitable[RouteExplanation]:
        """The explanation of the route of the node `at` to `node`."""

    def trace(
        self, node: str, at: str | None = None, *, timeout: float | None = None
    ) -> AsyncGenerator[TraceStep, None]:
        """The hops from the node `at` to `node`."""

    def events_of(
        self, node: str | None = None, *, since: float | None = None, last: int | None = None, follow: bool = False
    ) -> AsyncGenerator[NodeEvent, None]:
        """The last events of a node, and with `follow` all that come."""

    def jobs(
        self,
        node: str,
        *,
        owner: str | None = None,
        states: Sequence[str] = (),
        limit: int | None = None,
        timeout: float | None = None,
        route_timeout: float | None = None,
    ) -> Awaitable[list[JobStatus]]:
        """The jobs that a node keeps."""
